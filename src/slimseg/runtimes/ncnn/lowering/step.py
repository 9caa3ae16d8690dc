"""The argument of every lowering, and layers that many of them need."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import fx, nn

from slimseg.errors import Unsupported
from slimseg.runtimes.ncnn.net import Array, Net, Param, Weight

Shape = tuple[int, ...]
MOST_DIMS = 4  # most dimensions of an ncnn Mat: (c, d, h, w)


@dataclass(frozen=True)
class Step:
    """One node to write: its layer, the blobs that it reads, the name and shape of its result.

    If an activation is fused, the writer renames the result to the activation's name; the layer keeps `name`.
    """

    node: fx.Node
    layer: nn.Module
    inputs: tuple[int, ...]
    name: str
    fused: Mapping[int, Param]  # the activation that the layer applies to its result, as parameters 9 and 10
    padding: tuple[int, int, int, int]  # (left, right, top, bottom) of a pad node before it
    pad_value: float
    input_shapes: tuple[Shape, ...]  # of the Mats, see `unbatched`; the first without that padding
    shape: Shape
    input_sizes: tuple[Shape, ...]  # torch's, with the batch
    size: Shape


Lowerings = dict[type[nn.Module], Callable[[Net, Step, Any], int]]


def unbatched(shape: Sequence[int]) -> Shape:
    """(1, C, H, W) to (C, H, W), the shape of an ncnn Mat, which has no batch.

    The windows of window attention are a batch of more than one: there it is the Mat's outermost dimension. A Mat has
    at most four dimensions, so a longer shape is only that of a value between two reshapes, see `permutation`.
    """
    return tuple(shape[1:] if len(shape) > 1 and shape[0] == 1 else shape)


def axis(step: Step, dim: int, source: int = 0) -> int:
    """The position in the Mat of a dimension of the node's input, counted from the outermost.

    Raises:
        Unsupported: the dimension is the batch.
    """
    rank = len(step.input_sizes[source])
    found = dim % rank - (rank - len(step.input_shapes[source]))
    if found < 0:
        raise Unsupported(f"{step.name}: it works along the batch, which ncnn does not have")
    return found


def _sides(shape: Shape) -> dict[int, Param]:
    """A shape as parameters of Reshape or MemoryData."""
    keys = {1: (0,), 2: (1, 0), 3: (2, 1, 0), 4: (2, 11, 1, 0)}[len(shape)]
    return dict(zip(keys, shape, strict=True))


def as_shape(net: Net, blob: int, shape: Shape, name: str) -> int:
    """Reshape a blob and return the result; no layer is added if the blob already has that shape."""
    if net.shape(blob) == shape:
        return blob
    return net.add("Reshape", name, (blob,), shape, _sides(shape))


def as_map(net: Net, step: Step, source: int = 0) -> int:
    """The input in the graph's shape: a flat result of global pooling, (C,), is reshaped to (C, 1, 1)."""
    return as_shape(net, step.inputs[source], step.input_shapes[source], f"{step.name}_map")


def around(net: Net, step: Step, dim: int) -> tuple[int, int]:
    """The input, and the position of a dimension in it; of more than four dimensions those on its sides are joined."""
    along, shape = axis(step, dim), step.input_shapes[0]
    if len(shape) <= MOST_DIMS:
        return as_map(net, step), along
    sides = volume(shape[:along]), shape[along], volume(shape[along + 1 :])
    return as_shape(net, step.inputs[0], sides, f"{step.name}_map"), 1


def unary(net: Net, step: Step, kind: str, params: Mapping[int, Param] | None = None) -> int:
    """Add a layer with one input that keeps its shape, and return the result."""
    return net.add(kind, step.name, step.inputs[:1], net.shape(step.inputs[0]), params)


def crop(net: Net, source: int, name: str, begin: Sequence[int], shape: Shape) -> int:
    """Add a Crop of a blob that starts at `begin` and has `shape`, and return the result.

    Only axes that are cropped become parameters; if there are none, no layer is added.
    """
    full = net.shape(source)
    axes = [i for i, length in enumerate(full) if length != shape[i]]
    if not axes:
        return source
    starts, ends = tuple(begin[i] for i in axes), tuple(begin[i] + shape[i] for i in axes)
    return net.add("Crop", name, (source,), shape, {9: starts, 10: ends, 11: tuple(axes)})


def constant(net: Net, name: str, values: Array) -> int:
    """Add a blob of constants, and return it; `values` has the shape of a Mat."""
    shape = tuple(int(length) for length in values.shape)
    return net.add("MemoryData", name, (), shape, _sides(shape), [Weight(values)])


def volume(shape: Sequence[int]) -> int:
    return math.prod(shape)

"""An ncnn network as layers and blobs, and the contents of its two files.

    .param   7767517                                  identifies the format
             layers blobs                             number of each
             Type name inputs outputs [blobs] key=value ...
    .bin     the layers' weights in the same order, each at a multiple of 4 bytes; one that may be stored in several
             types begins with a tag of 4 bytes, 0 for float32 and 0x01306B47 for float16

(ncnn, docs/developer-guide/param-and-model-file-structure.md.) A blob has only one reader in ncnn, so one that several
layers read goes through a Split, which does not copy it.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

Array = np.ndarray[Any, Any]
Storage = Literal["fp32", "fp16"]
Param = int | float | tuple[int, ...] | tuple[float, ...]

MAGIC = 7767517
HALF_TAG, FLOAT_TAG = 0x01306B47, 0
LARGEST_HALF = 65504.0
_ARRAY_KEY = -23300


@dataclass(frozen=True)
class Weight:
    """One array of a layer; a `tagged` one may be stored as float16, others are always float32."""

    values: Array
    tagged: bool = False

    def pack(self, storage: Storage) -> bytes:
        """The bytes in the `.bin`; an array with a value too large for float16 stays float32, with the tag for that."""
        values = np.ascontiguousarray(self.values, np.float32)
        if not self.tagged:
            return values.tobytes()
        if storage == "fp32" or not np.abs(values).max(initial=0) <= LARGEST_HALF:
            return struct.pack("<I", FLOAT_TAG) + values.tobytes()
        data = values.astype("<f2").tobytes()
        return struct.pack("<I", HALF_TAG) + data + bytes(-len(data) % 4)


@dataclass(frozen=True)
class Layer:
    """One line of the `.param`; inputs and outputs are blobs' indices."""

    kind: str
    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    params: Mapping[int, Param] = field(default_factory=dict)
    weights: tuple[Weight, ...] = ()


@dataclass(frozen=True)
class Blob:
    """A value of the network; `shape` is torch's without the batch: (c, h, w), (h, w) or (w,)."""

    name: str
    shape: tuple[int, ...]


class Net:
    """A network under construction; the name `output` is reserved for the output's blob."""

    def __init__(self, output: str) -> None:
        self.output = output
        self.layers: list[Layer] = []
        self.blobs: list[Blob] = []
        self._layer_names: set[str] = set()
        self._blob_names = {output}

    def shape(self, blob: int) -> tuple[int, ...]:
        return self.blobs[blob].shape

    def input(self, name: str, shape: Sequence[int]) -> int:
        """Add the network's input (c, h, w), and return its blob."""
        channels, height, width = shape
        return self.add("Input", name, (), shape, {0: width, 1: height, 2: channels})

    def add(
        self,
        kind: str,
        name: str,
        inputs: Sequence[int],
        shape: Sequence[int],
        params: Mapping[int, Param] | None = None,
        weights: Sequence[Weight] = (),
    ) -> int:
        """Add a layer with one output, named like the layer, and return its blob."""
        (result,) = self.add_many(kind, name, inputs, [(name, tuple(shape))], params, weights)
        return result

    def rename(self, blob: int, name: str) -> None:
        """Give a blob another name; the layer that computes it keeps its name."""
        self.blobs[blob] = replace(self.blobs[blob], name=_unique(name, self._blob_names))

    def add_many(
        self,
        kind: str,
        name: str,
        inputs: Sequence[int],
        outputs: Sequence[tuple[str, tuple[int, ...]]],
        params: Mapping[int, Param] | None = None,
        weights: Sequence[Weight] = (),
    ) -> tuple[int, ...]:
        """Add a layer with outputs of these names and shapes, and return its blobs; a name in use gets a number."""
        first = len(self.blobs)
        self.blobs += [Blob(_unique(blob_name, self._blob_names), shape) for blob_name, shape in outputs]
        numbers = tuple(range(first, len(self.blobs)))
        own = _unique(name, self._layer_names)
        self.layers.append(Layer(kind, own, tuple(inputs), numbers, params or {}, tuple(weights)))
        return numbers


def _unique(name: str, taken: set[str]) -> str:
    number, result = 1, name
    while result in taken:
        number, result = number + 1, f"{name}_{number}"
    taken.add(result)
    return result


def with_splits(net: Net, output: int) -> Net:
    """The same network with a Split after every blob of several readers; the app is another reader of `output`."""
    readers = Counter(blob for layer in net.layers for blob in layer.inputs)
    readers[output] += 1
    names = [blob.name for blob in net.blobs]
    result = Net(net.output)
    result.blobs = list(net.blobs)
    layer_names, blob_names = {layer.name for layer in net.layers}, {*names, net.output}
    waiting = {number: [number] for number in range(len(net.blobs))}  # by blob, the copies that its next readers take
    for layer in net.layers:
        inputs = tuple(waiting[blob].pop(0) for blob in layer.inputs)
        result.layers.append(replace(layer, inputs=inputs))
        for blob in layer.outputs:
            if readers[blob] > 1:
                copies = range(len(result.blobs), len(result.blobs) + readers[blob])
                shape = net.shape(blob)
                result.blobs += [Blob(_unique(f"{names[blob]}_copy", blob_names), shape) for _ in copies]
                split = _unique(f"{layer.name}_split", layer_names)
                result.layers.append(Layer("Split", split, (blob,), tuple(copies)))
                waiting[blob] = list(copies)
    (last,) = waiting[output]
    result.blobs[last] = Blob(net.output, net.shape(output))
    return result


def param_text(net: Net) -> str:
    """The `.param` of a network."""
    lines = [str(MAGIC), f"{len(net.layers)} {len(net.blobs)}"]
    for layer in net.layers:
        blobs = [net.blobs[number].name for number in (*layer.inputs, *layer.outputs)]
        settings = [_setting(key, value) for key, value in sorted(layer.params.items())]
        counts = f"{len(layer.inputs)} {len(layer.outputs)}"
        lines.append(" ".join((f"{layer.kind:<24}", f"{layer.name:<24}", counts, *blobs, *settings)))
    return "\n".join(lines) + "\n"


def _setting(key: int, value: Param) -> str:
    if isinstance(value, tuple):
        return f"{_ARRAY_KEY - key}={len(value)}," + ",".join(map(_number, value))
    return f"{key}={_number(value)}"


def _number(value: float) -> str:
    """A number as text; ncnn recognises a float by its point or exponent."""
    return str(value) if isinstance(value, int) else f"{value:.9e}"


def weight_bytes(net: Net, storage: Storage) -> bytes:
    """The `.bin` of a network."""
    return b"".join(weight.pack(storage) for layer in net.layers for weight in layer.weights)

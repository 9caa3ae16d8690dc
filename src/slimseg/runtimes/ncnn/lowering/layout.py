"""Layers that mainly move values: concatenation, padding, slicing, reshaping."""

from __future__ import annotations

from slimseg.errors import Unsupported
from slimseg.graph import ops
from slimseg.runtimes.lowering import weights
from slimseg.runtimes.ncnn.lowering.permutation import permute
from slimseg.runtimes.ncnn.lowering.pooling import AVERAGE, MAX, global_pool
from slimseg.runtimes.ncnn.lowering.resize import every
from slimseg.runtimes.ncnn.lowering.step import (
    MOST_DIMS,
    Lowerings,
    Shape,
    Step,
    around,
    as_map,
    as_shape,
    axis,
    constant,
    crop,
    volume,
)
from slimseg.runtimes.ncnn.net import Net, Param


def concat(net: Net, step: Step, layer: ops.Concat) -> int:
    sources = tuple(as_map(net, step, number) for number in range(len(step.inputs)))
    return net.add("Concat", step.name, sources, step.shape, {0: axis(step, layer.dim)})


def constant_(net: Net, step: Step, layer: ops.Constant) -> int:
    return constant(net, step.name, weights(layer.value.reshape(step.shape)))


def slice_(net: Net, step: Step, layer: ops.Slice) -> int:
    """Crop; for a step above 1 also pooling of single pixels, or a crop of a dimension that is split at the step."""
    source, along = around(net, step, layer.dim)
    full = net.shape(source)
    length = layer.stop - layer.start
    if layer.step == 1:
        return _part(net, source, step.name, along, layer.start, length)
    if len(full) != 3 or along == 0 or full != step.input_shapes[0]:
        return _every(net, source, step.name, along, range(layer.start, layer.stop, layer.step))
    source = _part(net, source, f"{step.name}_part", along, layer.start, length)
    return every(net, source, step.name, step.shape, (layer.step, 1) if along == 1 else (1, layer.step))


def _part(net: Net, source: int, name: str, along: int, start: int, length: int) -> int:
    full = net.shape(source)
    begin = tuple(start if dim == along else 0 for dim in range(len(full)))
    return crop(net, source, name, begin, tuple(length if dim == along else size for dim, size in enumerate(full)))


def _every(net: Net, source: int, name: str, along: int, taken: range) -> int:
    """Every `taken.step`-th index of a dimension, which is split there: (..., 6, ...) as (..., 3, 2, ...)."""
    full, count = net.shape(source), len(taken)
    if count == 1:
        return _part(net, source, name, along, taken[0], 1)
    whole = count * taken.step
    shape = (*full[:along], count, *full[along + 1 :])
    if whole > full[along]:  # the last step does not end within the dimension
        first = _every(net, source, f"{name}_first", along, taken[:-1])
        last = _part(net, source, f"{name}_last", along, taken[-1], 1)
        return net.add("Concat", name, (first, last), shape, {0: along})
    start = min(taken.start, full[along] - whole)
    part = _part(net, source, f"{name}_part", along, start, whole)
    steps = (volume(full[:along]) * count, taken.step, volume(full[along + 1 :]))
    rows = _part(net, as_shape(net, part, steps, f"{name}_steps"), f"{name}_rows", 1, taken.start - start, 1)
    return as_shape(net, rows, shape, name)


def pad(net: Net, step: Step, layer: ops.Pad) -> int:
    """Padding, Crop for negative amounts, or Padding followed by Crop."""
    left, right, top, bottom = layer.padding
    amounts = (layer.channels, (top, bottom), (left, right))
    added = [(max(before, 0), max(after, 0)) for before, after in amounts]
    source = as_map(net, step)
    if any(map(any, added)):
        shape = tuple(length + sum(pair) for length, pair in zip(net.shape(source), added, strict=True))
        (front, behind), (top, bottom), (left, right) = added
        params: dict[int, Param] = {0: top, 1: bottom, 2: left, 3: right, 4: 0, 5: float(layer.value)}
        if front or behind:
            params |= {7: front, 8: behind}
        name = step.name if shape == step.shape else f"{step.name}_padded"
        source = net.add("Padding", name, (source,), shape, params)
    return crop(net, source, step.name, [max(-before, 0) for before, _ in amounts], step.shape)


def reshape(net: Net, step: Step, layer: ops.Reshape) -> int:
    """Reshape, with maps turned to NHWC before and back after; longer shapes than a Mat's exist only by name."""
    source, old, new = step.inputs[0], step.input_sizes[0], step.size
    turns = layer.channels_last and not (_is_flat(old) and _is_flat(new))
    if turns and len(old) == 4:
        source = permute(net, source, f"{step.name}_rows", (0, 2, 3, 1), old)
    if turns and len(new) == 4:
        batch, channels, height, width = new
        source = permute(net, source, step.name, (0, 3, 1, 2), (batch, height, width, channels))
    return as_shape(net, source, step.shape, step.name) if len(step.shape) <= MOST_DIMS else source


def _is_flat(size: Shape) -> bool:
    """Whether the values are in the same order in NCHW and NHWC."""
    return len(size) != 4 or size[1] == 1 or volume(size[2:]) == 1


def transpose(net: Net, step: Step, layer: ops.Transpose) -> int:
    dims = tuple(dim % len(step.size) for dim in layer.dims)
    moved = permute(net, step.inputs[0], step.name, dims, step.input_sizes[0])
    return as_shape(net, moved, step.shape, f"{step.name}_map") if len(step.shape) <= MOST_DIMS else moved


def depth_to_space(net: Net, step: Step, layer: ops.DepthToSpace) -> int:
    return net.add("PixelShuffle", step.name, (as_map(net, step),), step.shape, {0: layer.block, 1: 1})


def space_to_depth(net: Net, step: Step, layer: ops.SpaceToDepth) -> int:
    return net.add("Reorg", step.name, (as_map(net, step),), step.shape, {0: layer.block, 1: 1})


def cast(net: Net, step: Step, layer: ops.Cast) -> int:
    if layer.dtype != "float32":
        raise Unsupported(f"{step.name}: ncnn's blobs hold floating-point numbers, not {layer.dtype}")
    return step.inputs[0]


_REDUCTIONS = {"sum": 0, "mean": 3, "max": 4, "min": 5}


def reduce(net: Net, step: Step, layer: ops.Reduce) -> int:
    axes = tuple(sorted(axis(step, dim) for dim in layer.dims))
    if len(step.input_shapes[0]) == 3 and axes == (1, 2) and layer.kind in ("mean", "max"):
        return global_pool(net, step, AVERAGE if layer.kind == "mean" else MAX)
    params: dict[int, Param] = {0: _REDUCTIONS[layer.kind], 1: 0, 3: axes, 4: int(layer.keepdim), 5: 1}
    if not step.shape:
        raise Unsupported(f"{step.name}: it reduces everything to one number")
    return net.add("Reduction", step.name, (as_map(net, step),), step.shape, params)


LOWERINGS: Lowerings = {
    ops.Concat: concat,
    ops.Constant: constant_,
    ops.Pad: pad,
    ops.Slice: slice_,
    ops.Reshape: reshape,
    ops.Transpose: transpose,
    ops.Reduce: reduce,
    ops.DepthToSpace: depth_to_space,
    ops.SpaceToDepth: space_to_depth,
    ops.Cast: cast,
}

"""Layers that mainly move values: concatenation, padding, slicing, reshaping."""

from __future__ import annotations

from itertools import permutations

from slimseg.errors import Unsupported
from slimseg.graph import ops
from slimseg.runtimes.lowering import weights
from slimseg.runtimes.ncnn.lowering.pooling import AVERAGE, MAX, global_pool
from slimseg.runtimes.ncnn.lowering.resize import every
from slimseg.runtimes.ncnn.lowering.step import Lowerings, Shape, Step, as_map, as_shape, axis, constant, crop, volume
from slimseg.runtimes.ncnn.net import Net, Param

# Permute's orders by index: the source's dimensions as the result has them, innermost first (w is torch's last).
_ORDERS = {
    2: ("wh", "hw"),
    3: ("whc", "hwc", "wch", "cwh", "hcw", "chw"),
    4: (
        *("whdc", "hwdc", "wdhc", "dwhc", "hdwc", "dhwc", "whcd", "hwcd", "wchd", "cwhd", "hcwd", "chwd"),
        *("wdch", "dwch", "wcdh", "cwdh", "dcwh", "cdwh", "hdcw", "dhcw", "hcdw", "chdw", "dchw", "cdhw"),
    ),
}
_NAMES = {2: "hw", 3: "chw", 4: "cdhw"}  # names of torch's dimensions, without batch
PERMUTATIONS: dict[tuple[int, ...], int] = {
    order: _ORDERS[rank].index("".join(_NAMES[rank][dim] for dim in reversed(order)))
    for rank in _NAMES
    for order in permutations(range(rank))
}


def concat(net: Net, step: Step, layer: ops.Concat) -> int:
    sources = tuple(as_map(net, step, number) for number in range(len(step.inputs)))
    return net.add("Concat", step.name, sources, step.shape, {0: axis(step, layer.dim)})


def constant_(net: Net, step: Step, layer: ops.Constant) -> int:
    return constant(net, step.name, weights(layer.value.reshape(step.shape)))


def slice_(net: Net, step: Step, layer: ops.Slice) -> int:
    """Crop; for a step above 1, also pooling of single pixels."""
    along, source = axis(step, layer.dim), as_map(net, step)
    full = net.shape(source)
    begin = tuple(layer.start if i == along else 0 for i in range(len(full)))
    length = layer.stop - layer.start
    part = tuple(length if i == along else size for i, size in enumerate(full))
    if layer.step == 1:
        return crop(net, source, step.name, begin, part)
    if len(full) != 3 or along == 0:
        raise Unsupported(f"{step.name}: ncnn slices with step {layer.step} along rows and columns only")
    source = crop(net, source, f"{step.name}_part", begin, part)
    return every(net, source, step.name, step.shape, (layer.step, 1) if along == 1 else (1, layer.step))


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
    source, old = step.inputs[0], step.input_shapes[0]
    if not layer.channels_last or (_is_flat(old) and _is_flat(step.shape)):
        return as_shape(net, source, step.shape, step.name)
    source = as_map(net, step)
    if len(old) == 3:
        source = permute(net, source, f"{step.name}_rows", (1, 2, 0))
    if len(step.shape) != 3:
        return as_shape(net, source, step.shape, step.name)
    channels, height, width = step.shape
    rows = as_shape(net, source, (height, width, channels), f"{step.name}_reshaped")
    return permute(net, rows, step.name, (2, 0, 1))


def _is_flat(shape: Shape) -> bool:
    """Whether the values are in the same order in CHW and HWC."""
    return len(shape) != 3 or shape[0] == 1 or volume(shape[1:]) == 1


def permute(net: Net, source: int, name: str, order: tuple[int, ...]) -> int:
    """Permute the dimensions (without batch); a Reshape suffices if only dimensions of length 1 move."""
    old = net.shape(source)
    shape = tuple(old[dim] for dim in order)
    moved = [dim for dim in order if old[dim] > 1]
    if moved == sorted(moved):
        return as_shape(net, source, shape, name)
    return net.add("Permute", name, (source,), shape, {0: PERMUTATIONS[order]})


def transpose(net: Net, step: Step, layer: ops.Transpose) -> int:
    rank = len(step.input_shapes[0]) + 1
    dims = [dim % rank for dim in layer.dims]
    if dims[0] != 0:
        raise Unsupported(f"{step.name}: it moves the batch, which ncnn does not have")
    return permute(net, as_map(net, step), step.name, tuple(dim - 1 for dim in dims[1:]))


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

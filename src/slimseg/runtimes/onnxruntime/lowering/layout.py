"""Layers that mainly move values: concatenation, padding, slicing, reshaping, reductions over dimensions."""

from __future__ import annotations

from collections.abc import Sequence

from onnx import TensorProto

from slimseg.graph import ops
from slimseg.graph.orders import TO_NCHW, TO_NHWC
from slimseg.runtimes.lowering import weights
from slimseg.runtimes.onnxruntime.lowering.step import INT64, Lowerings, Step

_NUMBERS = {"float32": TensorProto.FLOAT, "int32": TensorProto.INT32, "int64": TensorProto.INT64}
_REDUCTIONS = {"mean": "ReduceMean", "max": "ReduceMax", "min": "ReduceMin"}


def concat(step: Step, layer: ops.Concat) -> str:
    return step.add("Concat", axis=layer.dim)


def constant(step: Step, layer: ops.Constant) -> str:
    """Values that are in the file."""
    return step.builder.constant(step.name, weights(layer.value))


def pad(step: Step, layer: ops.Pad) -> str:
    """A padding; negative amounts crop, in ONNX, too."""
    left, right, top, bottom = layer.padding
    before, after = (0, layer.channels[0], top, left), (0, layer.channels[1], bottom, right)
    amounts = step.integers("amounts", (*before, *after))
    return step.add("Pad", (step.inputs[0], amounts, step.number("value", float(layer.value))), mode="constant")


def slice_(step: Step, layer: ops.Slice) -> str:
    settings = {"begin": layer.start, "end": layer.stop, "axis": layer.dim, "step": layer.step}
    tables = (step.integers(part, (value,)) for part, value in settings.items())
    return step.add("Slice", (step.inputs[0], *tables))


def reshape(step: Step, layer: ops.Reshape) -> str:
    """A reshape; with `channels_last` it treats maps before and after it as NHWC."""
    source, shape, wanted = step.inputs[0], step.input_shapes[0], step.shape
    turns = layer.channels_last and not (_one_order(shape) and _one_order(wanted))
    if turns and len(shape) == 4:
        flat = [shape[dim] for dim in TO_NHWC]
        source = step.inner("Transpose", "channels_last", (source,), flat, perm=TO_NHWC)
    if not turns or len(wanted) != 4:
        return step.add("Reshape", (source, step.integers("shape", wanted)))
    flat = [wanted[dim] for dim in TO_NHWC]
    made = step.inner("Reshape", "reshaped", (source, step.integers("shape", flat)), flat)
    return step.add("Transpose", (made,), perm=TO_NCHW)


def _one_order(shape: Sequence[int]) -> bool:
    """Whether the values are in the same order in NCHW and NHWC."""
    return len(shape) != 4 or shape[1] == 1 or shape[2] * shape[3] == 1


def transpose(step: Step, layer: ops.Transpose) -> str:
    return step.add("Transpose", perm=layer.dims)


def reduce(step: Step, layer: ops.Reduce) -> str:
    axes = [dim % len(step.input_shapes[0]) for dim in layer.dims]
    keep = int(layer.keepdim)
    if layer.kind == "sum":  # whose axes are an input since opset 13
        return step.add("ReduceSum", (step.inputs[0], step.integers("axes", axes)), keepdims=keep)
    return step.add(_REDUCTIONS[layer.kind], axes=axes, keepdims=keep)


def arg_max(step: Step, layer: ops.ArgMax) -> str:
    return step.add("ArgMax", axis=1, keepdims=0, kind=INT64)


def depth_to_space(step: Step, layer: ops.DepthToSpace) -> str:
    """Depth to space in the order of channels that ONNX calls DCR."""
    return step.add("DepthToSpace", blocksize=layer.block, mode="DCR")


def space_to_depth(step: Step, layer: ops.SpaceToDepth) -> str:
    return step.add("SpaceToDepth", blocksize=layer.block)


def cast(step: Step, layer: ops.Cast) -> str:
    return step.add("Cast", kind=_NUMBERS[layer.dtype], to=_NUMBERS[layer.dtype])


LOWERINGS: Lowerings = {
    ops.Concat: concat,
    ops.Constant: constant,
    ops.Pad: pad,
    ops.ArgMax: arg_max,
    ops.Slice: slice_,
    ops.Reshape: reshape,
    ops.Transpose: transpose,
    ops.Reduce: reduce,
    ops.DepthToSpace: depth_to_space,
    ops.SpaceToDepth: space_to_depth,
    ops.Cast: cast,
}

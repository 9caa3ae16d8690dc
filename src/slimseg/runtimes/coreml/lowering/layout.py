"""Layers that mainly move values: concatenation, padding, slicing, reshaping, reductions over dimensions."""

from __future__ import annotations

from collections.abc import Sequence

from slimseg.errors import Unsupported
from slimseg.graph import ops
from slimseg.graph.orders import TO_NCHW, TO_NHWC
from slimseg.runtimes.coreml.lowering.step import Lowerings, Step, Var, cut
from slimseg.runtimes.lowering import weights

_NUMBERS = {"float32": "fp32", "int32": "int32", "int64": "int32"}  # MIL has no wider integers
_REDUCTIONS = {"mean": "reduce_mean", "sum": "reduce_sum", "max": "reduce_max", "min": "reduce_min"}


def concat(step: Step, layer: ops.Concat) -> Var:
    return step.mb.concat(values=list(step.inputs), axis=layer.dim, name=step.name)


def constant(step: Step, layer: ops.Constant) -> Var:
    return step.mb.const(val=weights(layer.value), name=step.name)


def pad(step: Step, layer: ops.Pad) -> Var:
    """A padding, a slice for negative amounts (a crop), or a padding followed by a slice."""
    left, right, top, bottom = layer.padding
    amounts = (layer.channels, (top, bottom), (left, right))
    added = [max(amount, 0) for pair in amounts for amount in pair]
    removed = [max(-amount, 0) for pair in amounts for amount in pair]
    source = step.inputs[0]
    if any(added) or not any(removed):
        name = step.named("padded") if any(removed) else step.name
        source = step.mb.pad(x=source, pad=[0, 0, *added], mode="constant", constant_val=float(layer.value), name=name)
    if not any(removed):
        return source
    return cut(step, source, (0, *removed[::2]), (0, *(-amount for amount in removed[1::2])))


def slice_(step: Step, layer: ops.Slice) -> Var:
    rank, dim = len(step.input_shapes[0]), layer.dim
    begin, end, stride = [0] * rank, [0] * rank, [1] * rank
    begin[dim], end[dim], stride[dim] = layer.start, layer.stop, layer.step
    if step.flexible and rank == 4 and dim > 1:
        raise Unsupported(
            f"{step.node.name}: a slice of rows or columns does not fit flexible sizes: leave `sizes` out"
        )
    others = [other != dim for other in range(rank)]
    return step.mb.slice_by_index(
        x=step.inputs[0], begin=begin, end=end, stride=stride, begin_mask=others, end_mask=others, name=step.name
    )


def reshape(step: Step, layer: ops.Reshape) -> Var:
    """A reshape; with `channels_last` it treats maps before and after it as NHWC."""
    if step.flexible:
        raise Unsupported(f"{step.node.name}: a reshape does not fit flexible sizes: leave `sizes` out")
    source, shape, wanted = step.inputs[0], step.input_shapes[0], step.shape
    turns = layer.channels_last and not (_one_order(shape) and _one_order(wanted))
    if turns and len(shape) == 4:
        source = step.mb.transpose(x=source, perm=list(TO_NHWC), name=step.named("channels_last"))
    if not turns or len(wanted) != 4:
        return step.mb.reshape(x=source, shape=list(wanted), name=step.name)
    flat = [wanted[dim] for dim in TO_NHWC]
    made = step.mb.reshape(x=source, shape=flat, name=step.named("reshaped"))
    return step.mb.transpose(x=made, perm=list(TO_NCHW), name=step.name)


def _one_order(shape: Sequence[int]) -> bool:
    """Whether the values are in the same order in NCHW and NHWC."""
    return len(shape) != 4 or shape[1] == 1 or shape[2] * shape[3] == 1


def transpose(step: Step, layer: ops.Transpose) -> Var:
    return step.mb.transpose(x=step.inputs[0], perm=list(layer.dims), name=step.name)


def reduce(step: Step, layer: ops.Reduce) -> Var:
    axes = [dim % len(step.input_shapes[0]) for dim in layer.dims]
    operation = getattr(step.mb, _REDUCTIONS[layer.kind])
    return operation(x=step.inputs[0], axes=axes, keep_dims=layer.keepdim, name=step.name)


def arg_max(step: Step, layer: ops.ArgMax) -> Var:
    return step.mb.reduce_argmax(x=step.inputs[0], axis=1, keep_dims=False, name=step.name)


def depth_to_space(step: Step, layer: ops.DepthToSpace) -> Var:
    """Depth to space; MIL has TensorFlow's order of channels, like the vocabulary."""
    return step.mb.depth_to_space(x=step.inputs[0], block_size=layer.block, name=step.name)


def space_to_depth(step: Step, layer: ops.SpaceToDepth) -> Var:
    return step.mb.space_to_depth(x=step.inputs[0], block_size=layer.block, name=step.name)


def cast(step: Step, layer: ops.Cast) -> Var:
    return step.mb.cast(x=step.inputs[0], dtype=_NUMBERS[layer.dtype], name=step.name)


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

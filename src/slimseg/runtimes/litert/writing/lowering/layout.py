"""Layers that mainly move values: concatenation, padding, slicing, resizing, reshaping, reductions."""

from __future__ import annotations

import numpy as np
from ai_edge_litert import schema_py_generated as tflite

from slimseg.graph import ops
from slimseg.runtimes.litert.writing.dimensions import standard
from slimseg.runtimes.litert.writing.lowering.step import (
    Lowerings,
    Op,
    Options,
    Step,
    pad_operator,
    slice_operator,
    stored_dim,
    unary,
)
from slimseg.runtimes.lowering import weights
from slimseg.tflite.schema import ModelBuilder

_NUMBERS = {"float32": np.float32, "int32": np.int32, "int64": np.int64}


def concat(builder: ModelBuilder, step: Step, layer: ops.Concat) -> int:
    options = tflite.ConcatenationOptionsT()
    options.axis = stored_dim(step, layer.dim)
    return unary(builder, step, Op.CONCATENATION, options, Options.ConcatenationOptions)


def constant(builder: ModelBuilder, step: Step, layer: ops.Constant) -> int:
    """A tensor whose values are in the file."""
    return builder.constant(step.name, weights(layer.value, standard(layer.value.ndim)))


def slice_(builder: ModelBuilder, step: Step, layer: ops.Slice) -> int:
    """SLICE, or STRIDED_SLICE if the slice has a step above 1 or drops its axis."""
    axis, rank = stored_dim(step, layer.dim), len(step.input_shapes[0])
    begin = [0] * rank
    begin[axis] = layer.start
    drops = len(step.shape) < rank
    if layer.step == 1 and not drops:
        return slice_operator(builder, step.inputs[0], begin, step)
    end, strides = list(step.input_shapes[0]), [1] * rank
    end[axis], strides[axis] = layer.stop, layer.step
    tables = (
        builder.constant(f"{step.name}_{name}", np.asarray(value, np.int32))
        for name, value in (("begin", begin), ("end", end), ("strides", strides))
    )
    options = tflite.StridedSliceOptionsT()
    options.shrinkAxisMask = 1 << axis if drops else 0
    target = builder.tensor(step.name, step.shape, builder.dtype(step.inputs[0]))
    builder.operator(Op.STRIDED_SLICE, (step.inputs[0], *tables), target, options, Options.StridedSliceOptions)
    return target


def resize(builder: ModelBuilder, step: Step, layer: ops.Resize) -> int:
    size = builder.constant(f"{step.name}_size", np.asarray(layer.size, np.int32))
    target = builder.tensor(step.name, step.shape)
    corners = layer.coordinates == "align_corners"
    if layer.mode == "bilinear":
        options = tflite.ResizeBilinearOptionsT()
        options.alignCorners, options.halfPixelCenters = corners, layer.coordinates == "half_pixel"
        code, kind, version = Op.RESIZE_BILINEAR, Options.ResizeBilinearOptions, 3
    else:
        options = tflite.ResizeNearestNeighborOptionsT()
        options.alignCorners, options.halfPixelCenters = corners, layer.mode == "nearest-exact"
        code, kind, version = Op.RESIZE_NEAREST_NEIGHBOR, Options.ResizeNearestNeighborOptions, 3
    builder.operator(code, (step.inputs[0], size), target, options, kind, version)
    return target


def pad(builder: ModelBuilder, step: Step, layer: ops.Pad) -> int:
    """PAD, SLICE for negative amounts (a crop), or PAD followed by SLICE."""
    left, right, top, bottom = layer.padding
    amounts = ((top, bottom), (left, right), layer.channels)
    added = [(max(before, 0), max(after, 0)) for before, after in amounts]
    begin = (0, *(max(-before, 0) for before, _ in amounts))
    crops = any(min(pair) < 0 for pair in amounts)
    source = step.inputs[0]
    if any(map(any, added)):
        shape = (1, *(length + sum(pair) for length, pair in zip(step.input_shapes[0][1:], added, strict=True)))
        name = f"{step.name}_padded" if crops else step.name
        source = pad_operator(builder, source, name, shape, added, layer.value)
    return slice_operator(builder, source, begin, step) if crops or source == step.inputs[0] else source


def reshape(builder: ModelBuilder, step: Step, layer: ops.Reshape) -> int:
    """No operator: the writer adds a RESHAPE where another layer than a reshape reads the value."""
    return step.inputs[0]


def transpose(builder: ModelBuilder, step: Step, layer: ops.Transpose) -> int:
    """No operator: only the order changes in which the value is read, and the writer keeps that."""
    return step.inputs[0]


def depth_to_space(builder: ModelBuilder, step: Step, layer: ops.DepthToSpace) -> int:
    options = tflite.DepthToSpaceOptionsT()
    options.blockSize = layer.block
    return unary(builder, step, Op.DEPTH_TO_SPACE, options, Options.DepthToSpaceOptions)


def space_to_depth(builder: ModelBuilder, step: Step, layer: ops.SpaceToDepth) -> int:
    options = tflite.SpaceToDepthOptionsT()
    options.blockSize = layer.block
    return unary(builder, step, Op.SPACE_TO_DEPTH, options, Options.SpaceToDepthOptions)


def cast(builder: ModelBuilder, step: Step, layer: ops.Cast) -> int:
    target = builder.tensor(step.name, step.shape, _NUMBERS[layer.dtype])
    builder.operator(Op.CAST, step.inputs, target, tflite.CastOptionsT(), Options.CastOptions)
    return target


_REDUCTIONS = {"mean": Op.MEAN, "sum": Op.SUM, "max": Op.REDUCE_MAX, "min": Op.REDUCE_MIN}


def reduce(builder: ModelBuilder, step: Step, layer: ops.Reduce) -> int:
    dims = sorted(stored_dim(step, dim) for dim in layer.dims)
    axes = builder.constant(f"{step.name}_axes", np.asarray(dims, np.int32))
    options = tflite.ReducerOptionsT()
    options.keepDims = layer.keepdim
    target = builder.tensor(step.name, step.shape)
    inputs = (step.inputs[0], axes)
    builder.operator(_REDUCTIONS[layer.kind], inputs, target, options, Options.ReducerOptions)
    return target


def arg_max(builder: ModelBuilder, step: Step, layer: ops.ArgMax) -> int:
    axis = builder.constant(f"{step.name}_axis", np.asarray(3, np.int32))
    options = tflite.ArgMaxOptionsT()
    options.outputType = tflite.TensorType.INT32
    target = builder.tensor(step.name, step.shape, np.int32)
    builder.operator(Op.ARG_MAX, (step.inputs[0], axis), target, options, Options.ArgMaxOptions)
    return target


LOWERINGS: Lowerings = {
    ops.Concat: concat,
    ops.Constant: constant,
    ops.Pad: pad,
    ops.Resize: resize,
    ops.ArgMax: arg_max,
    ops.Slice: slice_,
    ops.Reshape: reshape,
    ops.Transpose: transpose,
    ops.Reduce: reduce,
    ops.DepthToSpace: depth_to_space,
    ops.SpaceToDepth: space_to_depth,
    ops.Cast: cast,
}

"""Normalisation by an image's own statistics, which TFLite spells in six operators."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from ai_edge_litert import schema_py_generated as tflite

from slimseg.graph import ops
from slimseg.runtimes.litert.writing.lowering.step import (
    Fused,
    Lowerings,
    Op,
    Options,
    Step,
    reshape_operator,
    stored_dim,
)
from slimseg.tflite.schema import ModelBuilder


def normalise(builder: ModelBuilder, step: Step, layer: ops.Normalise) -> int:
    """x − mean, its square, the variance, + ε, 1/√, and the product; groups become a dimension of their own."""
    dims = sorted(stored_dim(step, dim) for dim in layer.dims)
    if layer.groups == 1:
        return _normal(builder, step, layer, step.inputs[0], step.shape, dims, step.name)
    *outer, channels = step.shape
    last = len(step.shape) - 1
    inner = [dim for dim in dims if dim < last]
    if len(outer) > 2 and (not inner or {*range(1, last)} <= {*inner}):
        # (1, H * W, groups, C / groups): GPU delegates take four dimensions
        outer, inner = [outer[0], math.prod(outer[1:])], [1] if inner else []
    grouped = (*outer, layer.groups, channels // layer.groups)
    dims = [*inner, len(grouped) - 1]
    apart = reshape_operator(builder, step.inputs[0], f"{step.name}_groups", grouped)
    normal = _normal(builder, step, layer, apart, grouped, dims, f"{step.name}_grouped")
    return reshape_operator(builder, normal, step.name, step.shape)


def _normal(
    builder: ModelBuilder,
    step: Step,
    layer: ops.Normalise,
    source: int,
    shape: Sequence[int],
    dims: Sequence[int],
    name: str,
) -> int:
    few = tuple(1 if dim in dims else length for dim, length in enumerate(shape))
    axes = builder.constant(f"{step.name}_axes", np.asarray(dims, np.int32))

    def mean(of: int, called: str) -> int:
        options = tflite.ReducerOptionsT()
        options.keepDims = True
        target = builder.tensor(f"{step.name}_{called}", few)
        builder.operator(Op.MEAN, (of, axes), target, options, Options.ReducerOptions)
        return target

    def binary(
        code: int, first: int, second: int, called: str, options: object, kind: int, result: Sequence[int]
    ) -> int:
        options.fusedActivationFunction = Fused.NONE  # type: ignore[attr-defined]
        target = builder.tensor(called, tuple(result))
        builder.operator(code, (first, second), target, options, kind)
        return target

    centred = source
    if layer.centred:
        middle = mean(source, "mean")
        sub = tflite.SubOptionsT(), Options.SubOptions
        centred = binary(Op.SUB, source, middle, f"{step.name}_centred", *sub, shape)
    squared = binary(Op.MUL, centred, centred, f"{step.name}_squared", tflite.MulOptionsT(), Options.MulOptions, shape)
    variance = mean(squared, "variance")
    epsilon = builder.constant(f"{step.name}_epsilon", np.asarray([layer.epsilon], np.float32))
    add = tflite.AddOptionsT(), Options.AddOptions
    steady = binary(Op.ADD, variance, epsilon, f"{step.name}_steady", *add, few)
    inverse = builder.tensor(f"{step.name}_inverse", few)
    builder.operator(Op.RSQRT, (steady,), inverse)
    return binary(Op.MUL, centred, inverse, name, tflite.MulOptionsT(), Options.MulOptions, shape)


LOWERINGS: Lowerings = {ops.Normalise: normalise}

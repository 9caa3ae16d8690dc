"""Activations that are not fused with another operator."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as tflite
from torch import nn

from slimseg.errors import Unsupported
from slimseg.graph import ops
from slimseg.runtimes.litert.writing.lowering.step import (
    Fused,
    Lowerings,
    Op,
    Options,
    Step,
    unary,
)
from slimseg.runtimes.lowering import weights
from slimseg.tflite.schema import ModelBuilder


def softmax(builder: ModelBuilder, step: Step, layer: nn.Softmax) -> int:
    if layer.dim is None:
        raise Unsupported(f"{step.name}: its softmax does not say over which dimension it runs")
    options = tflite.SoftmaxOptionsT()
    options.beta = 1.0
    return unary(builder, step, Op.SOFTMAX, options, Options.SoftmaxOptions)


def hard_tanh(builder: ModelBuilder, step: Step, layer: nn.Hardtanh) -> int:
    if layer.min_val == 0 and layer.max_val == 1:
        return unary(builder, step, Op.RELU_0_TO_1)
    if layer.min_val == -1 and layer.max_val == 1:
        return unary(builder, step, Op.RELU_N1_TO_1)
    source, bounds = step.inputs[0], [("high", layer.max_val, Op.MINIMUM), ("low", layer.min_val, Op.MAXIMUM)]
    bounds = [bound for bound in bounds if math.isfinite(bound[1])]
    for side, value, code in bounds:
        name = step.name if side == bounds[-1][0] else f"{step.name}_{side}_bounded"
        limit = builder.constant(f"{step.name}_{side}", np.asarray(value, np.float32))
        target = builder.tensor(name, step.shape)
        builder.operator(code, (source, limit), target, tflite.MaximumMinimumOptionsT(), Options.MaximumMinimumOptions)
        source = target
    return source


def elu(builder: ModelBuilder, step: Step, layer: nn.ELU) -> int:
    if layer.alpha != 1:
        raise Unsupported(f"{step.name}: TFLite's ELU has alpha 1, not {layer.alpha:g}")
    return unary(builder, step, Op.ELU)


def leaky_relu(builder: ModelBuilder, step: Step, layer: nn.LeakyReLU) -> int:
    options = tflite.LeakyReluOptionsT()
    options.alpha = layer.negative_slope
    return unary(builder, step, Op.LEAKY_RELU, options, Options.LeakyReluOptions)


def prelu(builder: ModelBuilder, step: Step, layer: nn.PReLU) -> int:
    slope = weights(layer.weight.expand(step.shape[-1]).reshape(1, 1, -1))
    target = builder.tensor(step.name, step.shape)
    builder.operator(Op.PRELU, (step.inputs[0], builder.constant(f"{step.name}_slope", slope)), target)
    return target


def spatial_prelu(builder: ModelBuilder, step: Step, layer: ops.SpatialPReLU) -> int:
    slopes = builder.constant(f"{step.name}_slope", weights(layer.weight, (1, 2, 0)))
    target = builder.tensor(step.name, step.shape)
    builder.operator(Op.PRELU, (step.inputs[0], slopes), target)
    return target


def hard_sigmoid(builder: ModelBuilder, step: Step, layer: nn.Hardsigmoid) -> int:
    """min(max(x + 3, 0), 6) · 1/6, in operators that XNNPACK runs."""
    shifted = builder.tensor(f"{step.name}_shifted", step.shape)
    options = tflite.AddOptionsT()
    options.fusedActivationFunction = Fused.RELU6
    three = builder.constant(f"{step.name}_three", np.asarray([3.0], np.float32))
    builder.operator(Op.ADD, (step.inputs[0], three), shifted, options, Options.AddOptions)
    sixth = builder.constant(f"{step.name}_sixth", np.asarray([1 / 6], np.float32))
    target = builder.tensor(step.name, step.shape)
    builder.operator(Op.MUL, (shifted, sixth), target, tflite.MulOptionsT(), Options.MulOptions)
    return target


def silu(builder: ModelBuilder, step: Step, layer: nn.SiLU) -> int:
    gate = builder.tensor(f"{step.name}_gate", step.shape)
    builder.operator(Op.LOGISTIC, step.inputs, gate)
    target = builder.tensor(step.name, step.shape)
    builder.operator(Op.MUL, (step.inputs[0], gate), target, tflite.MulOptionsT(), Options.MulOptions)
    return target


def gelu(builder: ModelBuilder, step: Step, layer: nn.GELU) -> int:
    options = tflite.GeluOptionsT()
    options.approximate = layer.approximate == "tanh"
    return unary(builder, step, Op.GELU, options, Options.GeluOptions)


def plain(code: int) -> Callable[[ModelBuilder, Step, Any], int]:
    """A lowering to an operator without options on the node's inputs."""
    return lambda builder, step, layer: unary(builder, step, code)


LOWERINGS: Lowerings = {
    nn.Softmax: softmax,
    nn.ReLU: plain(Op.RELU),
    nn.ReLU6: plain(Op.RELU6),
    nn.Hardtanh: hard_tanh,
    nn.LeakyReLU: leaky_relu,
    nn.PReLU: prelu,
    ops.SpatialPReLU: spatial_prelu,
    nn.ELU: elu,
    nn.Hardswish: plain(Op.HARD_SWISH),
    nn.Hardsigmoid: hard_sigmoid,
    nn.SiLU: silu,
    nn.Sigmoid: plain(Op.LOGISTIC),
    nn.Tanh: plain(Op.TANH),
    nn.GELU: gelu,
}

"""Activations. SiLU and GELU, which opset 17 does not have, are written in parts that every reader joins again."""

from __future__ import annotations

import math

import numpy as np
from torch import nn

from slimseg.graph import ops
from slimseg.runtimes.lowering import weights
from slimseg.runtimes.onnxruntime.lowering.step import Lowerings, Step, plain

_CUBE = 0.044715  # GELU's tanh form: x/2 · (1 + tanh(√(2/π) · (x + 0.044715 · x³)))


def softmax(step: Step, layer: nn.Softmax) -> str:
    dim = 1 if layer.dim is None else layer.dim  # torch's former default for maps and flat tensors
    return step.add("Softmax", axis=dim % len(step.shape))


def hard_tanh(step: Step, layer: nn.Hardtanh) -> str:
    bounds = {"low": float(layer.min_val), "high": float(layer.max_val)}
    limits = [step.number(side, value) if math.isfinite(value) else "" for side, value in bounds.items()]
    return step.add("Clip", (step.inputs[0], *limits))


def leaky_relu(step: Step, layer: nn.LeakyReLU) -> str:
    return step.add("LeakyRelu", alpha=float(layer.negative_slope))


def elu(step: Step, layer: nn.ELU) -> str:
    return step.add("Elu", alpha=float(layer.alpha))


def prelu(step: Step, layer: nn.PReLU) -> str:
    slope = weights(layer.weight)
    slope = slope.reshape(-1, *(1 for _ in step.shape[2:])) if slope.size > 1 else slope
    return step.add("PRelu", (step.inputs[0], step.constant("slope", slope)))


def spatial_prelu(step: Step, layer: ops.SpatialPReLU) -> str:
    return step.add("PRelu", (step.inputs[0], step.constant("slope", weights(layer.weight))))


def hard_sigmoid(step: Step, layer: nn.Hardsigmoid) -> str:
    return step.add("HardSigmoid", alpha=1 / 6, beta=0.5)


def silu(step: Step, layer: nn.SiLU) -> str:
    gate = step.inner("Sigmoid", "gate", step.inputs)
    return step.add("Mul", (step.inputs[0], gate))


def gelu(step: Step, layer: nn.GELU) -> str:
    """x · (1 + erf(x / √2)) / 2, in the order in which torch's exporter writes it; or the form with tanh."""
    source = step.inputs[0]
    if layer.approximate == "tanh":
        curve = step.inner("Tanh", "tanh", (_bent(step),))
    else:
        scaled = step.inner("Div", "scaled", (source, step.number("root", math.sqrt(2))))
        curve = step.inner("Erf", "erf", (scaled,))
    raised = step.inner("Add", "raised", (curve, step.number("one", 1.0)))
    doubled = step.inner("Mul", "doubled", (source, raised))
    return step.add("Mul", (doubled, step.number("half", 0.5)))


def _bent(step: Step) -> str:
    source = step.inputs[0]
    squared = step.inner("Mul", "squared", (source, source))
    cubed = step.inner("Mul", "cubed", (squared, source))
    small = step.inner("Mul", "small", (cubed, step.number("cube", _CUBE)))
    inside = step.inner("Add", "inside", (source, small))
    return step.inner("Mul", "bent", (inside, step.number("root", float(np.sqrt(2 / np.pi)))))


LOWERINGS: Lowerings = {
    nn.Softmax: softmax,
    nn.ReLU: plain("Relu"),
    nn.ReLU6: hard_tanh,
    nn.Hardtanh: hard_tanh,
    nn.LeakyReLU: leaky_relu,
    nn.PReLU: prelu,
    ops.SpatialPReLU: spatial_prelu,
    nn.ELU: elu,
    nn.Hardswish: plain("HardSwish"),
    nn.Hardsigmoid: hard_sigmoid,
    nn.SiLU: silu,
    nn.Sigmoid: plain("Sigmoid"),
    nn.Tanh: plain("Tanh"),
    nn.GELU: gelu,
}

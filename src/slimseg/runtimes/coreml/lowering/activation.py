"""Activations."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from torch import nn

from slimseg.graph import ops
from slimseg.runtimes.coreml.lowering.step import Lowerings, Step, Var
from slimseg.runtimes.lowering import weights


def plain(operation: str) -> Callable[[Step, Any], Var]:
    """A lowering to an operation without parameters."""
    return lambda step, layer: getattr(step.mb, operation)(x=step.inputs[0], name=step.name)


def softmax(step: Step, layer: nn.Softmax) -> Var:
    dim = 1 if layer.dim is None else layer.dim  # torch's former default for maps and flat tensors
    return step.mb.softmax(x=step.inputs[0], axis=dim % len(step.shape), name=step.name)


def hard_tanh(step: Step, layer: nn.Hardtanh) -> Var:
    low, high = float(layer.min_val), float(layer.max_val)
    if math.isfinite(low) and math.isfinite(high):
        return step.mb.clip(x=step.inputs[0], alpha=low, beta=high, name=step.name)
    if math.isfinite(low):
        return step.mb.maximum(x=step.inputs[0], y=low, name=step.name)
    if math.isfinite(high):
        return step.mb.minimum(x=step.inputs[0], y=high, name=step.name)
    return step.mb.identity(x=step.inputs[0], name=step.name)


def leaky_relu(step: Step, layer: nn.LeakyReLU) -> Var:
    return step.mb.leaky_relu(x=step.inputs[0], alpha=float(layer.negative_slope), name=step.name)


def elu(step: Step, layer: nn.ELU) -> Var:
    return step.mb.elu(x=step.inputs[0], alpha=float(layer.alpha), name=step.name)


def prelu(step: Step, layer: nn.PReLU) -> Var:
    slope = weights(layer.weight.expand(step.shape[1]))
    if len(step.shape) >= 3:
        return step.mb.prelu(x=step.inputs[0], alpha=slope, name=step.name)
    return _sloped(step, slope.reshape(1, -1))


def spatial_prelu(step: Step, layer: ops.SpatialPReLU) -> Var:
    return _sloped(step, weights(layer.weight)[None])


def _sloped(step: Step, slope: Any) -> Var:
    """max(x, 0) + slope · min(x, 0)."""
    positive = step.mb.relu(x=step.inputs[0], name=step.named("positive"))
    negative = step.mb.minimum(x=step.inputs[0], y=0.0, name=step.named("negative"))
    scaled = step.mb.mul(x=negative, y=slope, name=step.named("scaled"))
    return step.mb.add(x=positive, y=scaled, name=step.name)


def hard_sigmoid(step: Step, layer: nn.Hardsigmoid) -> Var:
    return step.mb.sigmoid_hard(x=step.inputs[0], alpha=1 / 6, beta=0.5, name=step.name)


def hard_swish(step: Step, layer: nn.Hardswish) -> Var:
    gate = step.mb.sigmoid_hard(x=step.inputs[0], alpha=1 / 6, beta=0.5, name=step.named("gate"))
    return step.mb.mul(x=step.inputs[0], y=gate, name=step.name)


def gelu(step: Step, layer: nn.GELU) -> Var:
    mode = "TANH_APPROXIMATION" if layer.approximate == "tanh" else "EXACT"
    return step.mb.gelu(x=step.inputs[0], mode=mode, name=step.name)


LOWERINGS: Lowerings = {
    nn.Softmax: softmax,
    nn.ReLU: plain("relu"),
    nn.ReLU6: plain("relu6"),
    nn.Hardtanh: hard_tanh,
    nn.LeakyReLU: leaky_relu,
    nn.PReLU: prelu,
    ops.SpatialPReLU: spatial_prelu,
    nn.ELU: elu,
    nn.Hardswish: hard_swish,
    nn.Hardsigmoid: hard_sigmoid,
    nn.SiLU: plain("silu"),
    nn.Sigmoid: plain("sigmoid"),
    nn.Tanh: plain("tanh"),
    nn.GELU: gelu,
}

"""Activations: fused with the layer before them if ncnn can do that, else separate layers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from slimseg.graph import ops
from slimseg.runtimes.lowering import weights
from slimseg.runtimes.ncnn.lowering.arithmetic import BINARY
from slimseg.runtimes.ncnn.lowering.step import Lowerings, Step, around, as_map, constant, unary
from slimseg.runtimes.ncnn.net import Net, Param, Weight

LARGEST = 3.4028234e38
_SIXTH, _HALF = 1 / 6, 0.5  # torch's hard sigmoid is x/6 + 1/2 between 0 and 1; ncnn's default slope differs


def fused(layer: nn.Module | None) -> Mapping[int, Param]:
    """The activation as a convolution's parameters 9 (its kind) and 10 (its numbers); empty if it cannot be fused."""
    if isinstance(layer, nn.ReLU):
        return {9: 1}
    if isinstance(layer, nn.LeakyReLU):
        return {9: 2, 10: (float(layer.negative_slope),)}
    if isinstance(layer, nn.PReLU) and layer.num_parameters == 1:
        return {9: 2, 10: (float(layer.weight),)}
    if isinstance(layer, nn.Hardtanh):  # includes ReLU6
        return {9: 3, 10: (_finite(layer.min_val), _finite(layer.max_val))}
    if isinstance(layer, nn.Sigmoid):
        return {9: 4}
    if isinstance(layer, nn.Hardswish):
        return {9: 6, 10: (_SIXTH, _HALF)}
    return {}


def _finite(value: float) -> float:
    return max(-LARGEST, min(LARGEST, float(value)))


def softmax(net: Net, step: Step, layer: nn.Softmax) -> int:
    dim = 1 if layer.dim is None else layer.dim
    source, along = around(net, step, dim)
    return net.add("Softmax", step.name, (source,), net.shape(source), {0: along, 1: 1})


def hard_tanh(net: Net, step: Step, layer: nn.Hardtanh) -> int:
    return unary(net, step, "Clip", {0: _finite(layer.min_val), 1: _finite(layer.max_val)})


def leaky_relu(net: Net, step: Step, layer: nn.LeakyReLU) -> int:
    return unary(net, step, "ReLU", {0: float(layer.negative_slope)})


def elu(net: Net, step: Step, layer: nn.ELU) -> int:
    return unary(net, step, "ELU", {0: float(layer.alpha)})


def prelu(net: Net, step: Step, layer: nn.PReLU) -> int:
    slopes = Weight(weights(layer.weight))
    shape = net.shape(step.inputs[0])
    return net.add("PReLU", step.name, step.inputs, shape, {0: layer.num_parameters}, [slopes])


def spatial_prelu(net: Net, step: Step, layer: ops.SpatialPReLU) -> int:
    """max(x, 0) + slope · min(x, 0), since ncnn's PReLU has only one slope per channel."""
    source = as_map(net, step)
    values = weights(layer.weight.expand(step.shape))
    slopes = constant(net, f"{step.name}_slope", values)
    positive = net.add("ReLU", f"{step.name}_positive", (source,), step.shape)
    negative = net.add("Clip", f"{step.name}_negative", (source,), step.shape, {0: -LARGEST, 1: 0.0})
    multiplied = net.add("BinaryOp", f"{step.name}_sloped", (negative, slopes), step.shape, {0: BINARY[ops.Multiply]})
    return net.add("BinaryOp", step.name, (positive, multiplied), step.shape, {0: BINARY[ops.Add]})


def hard_sigmoid(net: Net, step: Step, layer: nn.Hardsigmoid) -> int:
    return unary(net, step, "HardSigmoid", {0: _SIXTH, 1: _HALF})


def hard_swish(net: Net, step: Step, layer: nn.Hardswish) -> int:
    return unary(net, step, "HardSwish", {0: _SIXTH, 1: _HALF})


def gelu(net: Net, step: Step, layer: nn.GELU) -> int:
    return unary(net, step, "GELU", {0: int(layer.approximate == "tanh")})


def plain(kind: str) -> Callable[[Net, Step, Any], int]:
    """A lowering to a layer without parameters."""
    return lambda net, step, layer: unary(net, step, kind)


LOWERINGS: Lowerings = {
    nn.Softmax: softmax,
    nn.ReLU: plain("ReLU"),
    nn.ReLU6: hard_tanh,
    nn.Hardtanh: hard_tanh,
    nn.LeakyReLU: leaky_relu,
    nn.PReLU: prelu,
    ops.SpatialPReLU: spatial_prelu,
    nn.ELU: elu,
    nn.Hardswish: hard_swish,
    nn.Hardsigmoid: hard_sigmoid,
    nn.SiLU: plain("Swish"),
    nn.Sigmoid: plain("Sigmoid"),
    nn.Tanh: plain("TanH"),
    nn.GELU: gelu,
}

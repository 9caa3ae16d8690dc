"""Layers with weights or windows, and activations."""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import Tensor, fx, nn

from slimseg.frontends.aten.call import Call, Chain, Layer, pair
from slimseg.graph import ops


def _parameter(tensor: Tensor) -> nn.Parameter:
    """The model's own parameter, so that layers that share one keep sharing it."""
    return tensor if isinstance(tensor, nn.Parameter) else nn.Parameter(tensor)


def _fill(layer: nn.Module, call: Call) -> nn.Module:
    """Give a new layer the call's own weight and bias."""
    for name in ("weight", "bias"):
        tensor = call.tensor(name)
        if tensor is not None:
            setattr(layer, name, _parameter(tensor))
    return layer


def convolution(call: Call) -> Layer | Chain | None:
    weight = call.tensor("weight")
    if weight is None or call.computes("bias"):
        return None
    padding, more = _padding(call, weight)

    def build() -> nn.Module:
        layer = nn.Conv2d(
            weight.shape[1] * call["groups"], weight.shape[0], pair(weight.shape[2:]), pair(call["stride"]),
            padding, pair(call["dilation"]), call["groups"], call.tensor("bias") is not None,
        )  # fmt: skip
        return _fill(layer, call)

    owner, key = call.owner("weight"), call.key()
    if not any(more):
        return Layer(build, (call["input"],), "conv", owner, key)
    pad = Layer(lambda: ops.Pad((0, more[1], 0, more[0])), (call["input"],), "pad")
    return Chain((pad, Layer(build, (0,), "conv", owner, key)))


def _padding(call: Call, weight: Tensor) -> tuple[tuple[int, int], tuple[int, int]]:
    """Pixels on both sides (height, width), and the pixel that "same" adds below and on the right for even kernels."""
    padding = call["padding"]
    if padding == "valid":
        return (0, 0), (0, 0)
    if padding != "same":
        return pair(padding), (0, 0)
    height, width = ((size - 1) * spread for size, spread in zip(weight.shape[2:], pair(call["dilation"]), strict=True))
    return (height // 2, width // 2), (height % 2, width % 2)


def transposed_convolution(call: Call) -> Layer | None:
    weight = call.tensor("weight")
    if weight is None or call.computes("bias"):
        return None

    def build() -> nn.Module:
        layer = nn.ConvTranspose2d(
            weight.shape[0], weight.shape[1] * call["groups"], pair(weight.shape[2:]), pair(call["stride"]),
            pair(call["padding"]), pair(call["output_padding"]), call["groups"], call.tensor("bias") is not None,
            pair(call["dilation"]),
        )  # fmt: skip
        return _fill(layer, call)

    return Layer(build, (call["input"],), "conv_transpose", call.owner("weight"), call.key())


def batch_norm(call: Call) -> Layer | None:
    mean, variance = call.tensor("running_mean"), call.tensor("running_var")
    if (
        call["training"]
        or mean is None
        or variance is None
        or len(call.output_shape) != 4
        or call.computes("weight", "bias")
    ):
        return None

    def build() -> nn.Module:
        layer = nn.BatchNorm2d(len(mean), call["eps"], call["momentum"], affine=True)
        layer.running_mean, layer.running_var = mean.detach(), variance.detach()
        return _fill(layer, call)

    return Layer(build, (call["input"],), "bn", call.owner("running_mean"), call.key())


def linear(call: Call) -> Layer | None:
    weight = call.tensor("weight")
    if weight is None or weight.ndim != 2 or call.computes("bias"):
        return None

    def build() -> nn.Module:
        return _fill(nn.Linear(weight.shape[1], weight.shape[0], call.tensor("bias") is not None), call)

    return Layer(build, (call["input"],), "linear", call.owner("weight"), call.key())


def simple(suffix: str, build: Callable[[], nn.Module], argument: str = "self") -> Callable[[Call], Layer]:
    """A handler for a layer without settings."""
    return lambda call: Layer(build, (call[argument],), suffix)


def hard_tanh(call: Call) -> Layer:
    low, high = float(call["min_val"]), float(call["max_val"])
    if (low, high) == (0.0, 6.0):
        return Layer(nn.ReLU6, (call["self"],), "relu6")
    return Layer(lambda: nn.Hardtanh(low, high), (call["self"],), "clip")


def clamp(call: Call) -> Layer | None:
    """Both bounds, or one of them."""
    low, high = call.arguments.get("min"), call.arguments.get("max")
    if isinstance(low, fx.Node) or isinstance(high, fx.Node) or low == high:
        return None
    if low == 0 and high is None:
        return Layer(nn.ReLU, (call["self"],), "relu")
    call.arguments.update(min_val=-math.inf if low is None else low, max_val=math.inf if high is None else high)
    return hard_tanh(call)


def elu(call: Call) -> Layer | None:
    plain = call["alpha"] == call["scale"] == call["input_scale"] == 1
    return Layer(nn.ELU, (call["self"],), "elu") if plain else None


def leaky_relu(call: Call) -> Layer:
    slope = float(call["negative_slope"])
    return Layer(lambda: nn.LeakyReLU(slope), (call["self"],), "leaky_relu")


def random_relu(call: Call) -> Layer | None:
    """At inference the slope is the middle of the range from which training draws it."""
    slope = (float(call["lower"]) + float(call["upper"])) / 2
    return None if call["training"] else Layer(lambda: nn.LeakyReLU(slope), (call["self"],), "leaky_relu")


def prelu(call: Call) -> Layer | None:
    weight = call.tensor("weight")
    if weight is None:
        return None

    return Layer(
        lambda: _fill(nn.PReLU(weight.numel()), call), (call["self"],), "prelu", call.owner("weight"), call.key()
    )


def gelu(call: Call) -> Layer:
    return Layer(lambda: nn.GELU(call["approximate"]), (call["self"],), "gelu")


def max_pool(call: Call) -> Layer | None:
    kernel = pair(call["kernel_size"])
    stride = pair(call["stride"]) if call["stride"] else kernel
    padding, dilation, ceil = pair(call["padding"]), pair(call["dilation"]), bool(call["ceil_mode"])
    if dilation != (1, 1) and not ceil:
        return None  # decomposed, since runtimes have no dilated windows
    return Layer(lambda: nn.MaxPool2d(kernel, stride, padding, dilation, ceil_mode=ceil), (call["self"],), "max_pool")


def average_pool(call: Call) -> Layer | None:
    if call["divisor_override"] is not None:
        return None
    kernel = pair(call["kernel_size"])
    stride = pair(call["stride"]) if call["stride"] else kernel
    padding, ceil, count = pair(call["padding"]), bool(call["ceil_mode"]), bool(call["count_include_pad"])
    return Layer(lambda: nn.AvgPool2d(kernel, stride, padding, ceil, count), (call["self"],), "avg_pool")


def adaptive_average_pool(call: Call) -> Layer | None:
    size = pair(call["output_size"])
    return (
        Layer(lambda: nn.AdaptiveAvgPool2d(size), (call["self"],), "avg_pool") if len(call.output_shape) == 4 else None
    )


def softmax(call: Call) -> Layer:
    dim = int(call["dim"]) % len(call.output_shape)
    return Layer(lambda: nn.Softmax(dim), (call["self"],), "softmax")

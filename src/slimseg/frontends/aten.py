"""The table from ATen calls, as torch.export writes them, to modules of the vocabulary."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, fx, nn

from slimseg.graph import ops


@dataclass(frozen=True)
class Parameter:
    name: str
    tensor: Tensor


@dataclass(frozen=True)
class Layer:
    """A canonical node to be: which module, on which values."""

    module: Callable[[], nn.Module]
    inputs: tuple[fx.Node, ...]
    suffix: str  # what the node is called where it has no parameters to be named after
    name: str = ""
    key: tuple[Any, ...] = ()  # equal keys share one module (shared weights)


@dataclass(frozen=True)
class Alias:
    """A call that changes nothing at inference."""

    source: fx.Node


class Call:
    """One ATen call with its arguments by name, defaults filled in."""

    def __init__(self, node: fx.Node, parameters: Mapping[fx.Node, Parameter]) -> None:
        self.node = node
        self.parameters = parameters
        schema = node.target._schema.arguments  # type: ignore[union-attr]
        self.arguments: dict[str, Any] = {argument.name: argument.default_value for argument in schema}
        self.arguments.update(zip(self.arguments, node.args, strict=False))
        self.arguments.update(node.kwargs)

    def __getitem__(self, name: str) -> Any:
        return self.arguments[name]

    def tensor(self, name: str) -> Tensor | None:
        """The parameter an argument refers to; None where it is absent or computed."""
        value = self.arguments.get(name)
        parameter = self.parameters.get(value) if isinstance(value, fx.Node) else None
        return parameter.tensor if parameter else None

    def owner(self, name: str) -> str:
        """The module path that a parameter belongs to: `encoder.conv` of `encoder.conv.weight`."""
        parameter = self.parameters[self.arguments[name]]
        return parameter.name.removeprefix("model.").rpartition(".")[0] or parameter.name

    def is_value(self, name: str) -> bool:
        """Whether an argument is an activation (not a parameter, not a number)."""
        value = self.arguments.get(name)
        return isinstance(value, fx.Node) and value not in self.parameters

    def computes(self, *names: str) -> bool:
        """Whether an argument that should be a parameter (or absent) is computed instead."""
        return any(self.is_value(name) for name in names)

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self.arguments[name].meta["val"].shape)

    @property
    def output_shape(self) -> tuple[int, ...]:
        return tuple(self.node.meta["val"].shape)

    def key(self, *names: str) -> tuple[Any, ...]:
        """Identity of the parameters and settings, so that a module called twice stays one module."""
        settings = tuple(str(value) for value in self.arguments.values() if not isinstance(value, fx.Node))
        return (*(str(self.arguments[name]) for name in names), *settings)


def pair(values: Sequence[int] | int) -> tuple[int, int]:
    if isinstance(values, int):
        return values, values
    items = [int(value) for value in values]
    return (items[0], items[0]) if len(items) == 1 else (items[0], items[1])


def _parameter(tensor: Tensor | None) -> nn.Parameter | None:
    return None if tensor is None else nn.Parameter(tensor)


def convolution(call: Call) -> Layer | None:
    weight = call.tensor("weight")
    if weight is None or call.computes("bias") or weight.ndim != 4 or isinstance(call["padding"], str):
        return None

    def build() -> nn.Module:
        bias = call.tensor("bias")
        layer = nn.Conv2d(
            weight.shape[1] * call["groups"], weight.shape[0], pair(weight.shape[2:]), pair(call["stride"]),
            pair(call["padding"]), pair(call["dilation"]), call["groups"], bias is not None,
        )  # fmt: skip
        layer.weight, layer.bias = nn.Parameter(weight), _parameter(bias)
        return layer

    return Layer(build, (call["input"],), "conv", call.owner("weight"), call.key("weight"))


def transposed_convolution(call: Call) -> Layer | None:
    weight = call.tensor("weight")
    if weight is None or call.computes("bias"):
        return None

    def build() -> nn.Module:
        bias = call.tensor("bias")
        layer = nn.ConvTranspose2d(
            weight.shape[0], weight.shape[1] * call["groups"], pair(weight.shape[2:]), pair(call["stride"]),
            pair(call["padding"]), pair(call["output_padding"]), call["groups"], bias is not None,
            pair(call["dilation"]),
        )  # fmt: skip
        layer.weight, layer.bias = nn.Parameter(weight), _parameter(bias)
        return layer

    return Layer(build, (call["input"],), "conv_transpose", call.owner("weight"), call.key("weight"))


def batch_norm(call: Call) -> Layer | None:
    mean, variance = call.tensor("running_mean"), call.tensor("running_var")
    if mean is None or variance is None or len(call.output_shape) != 4 or call.computes("weight", "bias"):
        return None

    def build() -> nn.Module:
        weight, bias = call.tensor("weight"), call.tensor("bias")
        layer = nn.BatchNorm2d(len(mean), call["eps"], call["momentum"], affine=True)
        layer.running_mean, layer.running_var = mean, variance
        if weight is not None:
            layer.weight = nn.Parameter(weight)
        if bias is not None:
            layer.bias = nn.Parameter(bias)
        return layer

    return Layer(build, (call["input"],), "bn", call.owner("running_mean"), call.key("running_mean"))


def linear(call: Call) -> Layer | None:
    weight = call.tensor("weight")
    if weight is None or call.computes("bias"):
        return None

    def build() -> nn.Module:
        bias = call.tensor("bias")
        layer = nn.Linear(weight.shape[1], weight.shape[0], bias is not None)
        layer.weight = nn.Parameter(weight)
        if bias is not None:
            layer.bias = nn.Parameter(bias)
        return layer

    return Layer(build, (call["input"],), "linear", call.owner("weight"), call.key("weight"))


def simple(suffix: str, build: Callable[[], nn.Module], argument: str = "self") -> Callable[[Call], Layer]:
    """A layer without settings."""
    return lambda call: Layer(build, (call[argument],), suffix)


def hard_tanh(call: Call) -> Layer:
    low, high = float(call["min_val"]), float(call["max_val"])
    if (low, high) == (0.0, 6.0):
        return Layer(nn.ReLU6, (call["self"],), "relu6")
    return Layer(lambda: nn.Hardtanh(low, high), (call["self"],), "clip")


def clamp(call: Call) -> Layer | None:
    low, high = call["min"], call["max"]
    if low is None or isinstance(low, fx.Node) or isinstance(high, fx.Node):
        return None
    if high is None:
        return Layer(nn.ReLU, (call["self"],), "relu") if float(low) == 0 else None
    call.arguments.update(min_val=low, max_val=high)
    return hard_tanh(call)


def leaky_relu(call: Call) -> Layer:
    slope = float(call["negative_slope"])
    return Layer(lambda: nn.LeakyReLU(slope), (call["self"],), "leaky_relu")


def prelu(call: Call) -> Layer | None:
    weight = call.tensor("weight")
    if weight is None:
        return None

    def build() -> nn.Module:
        layer = nn.PReLU(weight.numel())
        layer.weight = nn.Parameter(weight)
        return layer

    return Layer(build, (call["self"],), "prelu", call.owner("weight"), call.key("weight"))


def gelu(call: Call) -> Layer:
    return Layer(lambda: nn.GELU(call["approximate"]), (call["self"],), "gelu")


def max_pool(call: Call) -> Layer:
    kernel = pair(call["kernel_size"])
    stride = pair(call["stride"]) if call["stride"] else kernel
    padding, dilation, ceil = pair(call["padding"]), pair(call["dilation"]), bool(call["ceil_mode"])
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


def spatial_mean(call: Call) -> Layer | None:
    """`x.mean((2, 3), keepdim=True)` is global average pooling."""
    if len(call.shape("self")) != 4 or not call["keepdim"] or sorted(d % 4 for d in call["dim"] or ()) != [2, 3]:
        return None
    return Layer(lambda: nn.AdaptiveAvgPool2d((1, 1)), (call["self"],), "avg_pool")


def bilinear(call: Call) -> Layer:
    size, align = pair(call.output_shape[2:]), bool(call["align_corners"])
    return Layer(
        lambda: ops.Resize(size, "bilinear", align), (call["input" if "input" in call.arguments else "self"],), "resize"
    )


def nearest(mode: ops.ResizeMode) -> Callable[[Call], Layer]:
    def handler(call: Call) -> Layer:
        size = pair(call.output_shape[2:])
        return Layer(
            lambda: ops.Resize(size, mode), (call["input" if "input" in call.arguments else "self"],), "resize"
        )

    return handler


def pad(call: Call) -> Layer | None:
    amounts = [int(amount) for amount in call["pad"]]
    if call.arguments.get("mode", "constant") != "constant" or len(call.output_shape) != 4 or len(amounts) > 4:
        return None
    left, right, top, bottom = (*amounts, 0, 0)[:4]
    value = float(call["value"] or 0.0)
    return Layer(lambda: ops.Pad((left, right, top, bottom), value), (call["self"],), "pad")


def binary(suffix: str, build: Callable[[], nn.Module]) -> Callable[[Call], Layer | None]:
    def handler(call: Call) -> Layer | None:
        if not (call.is_value("self") and call.is_value("other")) or call.arguments.get("alpha", 1) != 1:
            return None
        return Layer(build, (call["self"], call["other"]), suffix)

    return handler


def concat(call: Call) -> Layer | None:
    tensors = tuple(call["tensors"])
    if any(tensor in call.parameters for tensor in tensors) or len(call.output_shape) != 4:
        return None
    dim = int(call["dim"]) % len(call.output_shape)
    return Layer(lambda: ops.Concat(dim), tensors, "concat")


def softmax(call: Call) -> Layer:
    dim = int(call["dim"]) % len(call.output_shape)
    return Layer(lambda: nn.Softmax(dim), (call["self"],), "softmax")


def arg_max(call: Call) -> Layer | None:
    if len(call.shape("self")) != 4 or call["dim"] not in (1, -3) or call["keepdim"]:
        return None
    return Layer(ops.ArgMax, (call["self"],), "argmax")


def channel_slice(call: Call) -> Layer | None:
    length = call.shape("self")[call["dim"]]
    start = 0 if call["start"] is None else int(call["start"])
    stop = length if call["end"] is None else min(int(call["end"]), length)
    if call["step"] != 1 or len(call.output_shape) != 4:
        return None
    start, stop = start + length * (start < 0), stop + length * (stop < 0)
    dim = int(call["dim"]) % len(call.output_shape)
    return Layer(lambda: ops.Slice(dim, start, stop), (call["self"],), "slice")


def alias(argument: str) -> Callable[[Call], Alias]:
    return lambda call: Alias(call[argument])


def dropout(call: Call) -> Alias:
    return Alias(call["input"])


HANDLERS: Mapping[str, Callable[[Call], Layer | Alias | None]] = {
    "conv2d.default": convolution,
    "conv_transpose2d.input": transposed_convolution,
    "batch_norm.default": batch_norm,
    "linear.default": linear,
    "relu.default": simple("relu", nn.ReLU),
    "relu_.default": simple("relu", nn.ReLU),
    "relu6.default": simple("relu6", nn.ReLU6),
    "relu6_.default": simple("relu6", nn.ReLU6),
    "hardtanh.default": hard_tanh,
    "hardtanh_.default": hard_tanh,
    "clamp.default": clamp,
    "clamp_.default": clamp,
    "clamp_min.default": lambda call: simple("relu", nn.ReLU)(call) if call["min"] == 0 else None,
    "leaky_relu.default": leaky_relu,
    "leaky_relu_.default": leaky_relu,
    "prelu.default": prelu,
    "hardswish.default": simple("hardswish", nn.Hardswish),
    "hardswish_.default": simple("hardswish", nn.Hardswish),
    "hardsigmoid.default": simple("hardsigmoid", nn.Hardsigmoid),
    "hardsigmoid_.default": simple("hardsigmoid", nn.Hardsigmoid),
    "silu.default": simple("silu", nn.SiLU),
    "silu_.default": simple("silu", nn.SiLU),
    "sigmoid.default": simple("sigmoid", nn.Sigmoid),
    "sigmoid_.default": simple("sigmoid", nn.Sigmoid),
    "tanh.default": simple("tanh", nn.Tanh),
    "gelu.default": gelu,
    "max_pool2d.default": max_pool,
    "avg_pool2d.default": average_pool,
    "adaptive_avg_pool2d.default": adaptive_average_pool,
    "mean.dim": spatial_mean,
    "upsample_bilinear2d.vec": bilinear,
    "upsample_bilinear2d.default": bilinear,
    "upsample_nearest2d.vec": nearest("nearest"),
    "upsample_nearest2d.default": nearest("nearest"),
    "_upsample_nearest_exact2d.vec": nearest("nearest-exact"),
    "_upsample_nearest_exact2d.default": nearest("nearest-exact"),
    "pad.default": pad,
    "constant_pad_nd.default": pad,
    "add.Tensor": binary("add", ops.Add),
    "add_.Tensor": binary("add", ops.Add),
    "mul.Tensor": binary("mul", ops.Multiply),
    "mul_.Tensor": binary("mul", ops.Multiply),
    "cat.default": concat,
    "softmax.int": softmax,
    "argmax.default": arg_max,
    "slice.Tensor": channel_slice,
    "dropout.default": dropout,
    "dropout_.default": dropout,
    "feature_dropout.default": dropout,
    "contiguous.default": alias("self"),
    "alias.default": alias("self"),
    "detach.default": alias("self"),
    "detach_.default": alias("self"),
    "clone.default": alias("self"),
}

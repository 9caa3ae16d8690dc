"""The table from ATen calls, as torch.export writes them, to modules of the vocabulary."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
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
    copies: bool = False  # the result has memory of its own, which matters to in-place calls


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

    def key(self) -> tuple[Any, ...]:
        """Identity of operator, parameters and settings, so that a module called twice stays one module."""
        fixed = (value for value in self.arguments.values() if value not in self.values())
        return (str(self.node.target), *(str(value) for value in fixed))

    def values(self) -> list[fx.Node]:
        """The arguments that are activations."""
        return [self.arguments[name] for name in self.arguments if self.is_value(name)]


def pair(values: Sequence[int] | int) -> tuple[int, int]:
    if isinstance(values, int):
        return values, values
    items = [int(value) for value in values]
    return (items[0], items[0]) if len(items) == 1 else (items[0], items[1])


def _parameter(tensor: Tensor) -> nn.Parameter:
    """The model's own parameter, so that layers which share one go on sharing it."""
    return tensor if isinstance(tensor, nn.Parameter) else nn.Parameter(tensor)


def _fill(layer: nn.Module, call: Call) -> nn.Module:
    """Give a new layer the call's own weight and bias."""
    for name in ("weight", "bias"):
        tensor = call.tensor(name)
        if tensor is not None:
            setattr(layer, name, _parameter(tensor))
    return layer


def convolution(call: Call) -> Layer | None:
    weight = call.tensor("weight")
    padding = _padding(call, weight)
    if weight is None or padding is None or call.computes("bias"):
        return None

    def build() -> nn.Module:
        layer = nn.Conv2d(
            weight.shape[1] * call["groups"], weight.shape[0], pair(weight.shape[2:]), pair(call["stride"]),
            padding, pair(call["dilation"]), call["groups"], call.tensor("bias") is not None,
        )  # fmt: skip
        return _fill(layer, call)

    return Layer(build, (call["input"],), "conv", call.owner("weight"), call.key())


def _padding(call: Call, weight: Tensor | None) -> tuple[int, int] | None:
    """Padding in pixels; None where "same" would pad one side more than the other."""
    padding = call["padding"]
    if weight is None or padding == "valid":
        return 0, 0
    if padding != "same":
        return pair(padding)
    extent = [(size - 1) * spread for size, spread in zip(weight.shape[2:], pair(call["dilation"]), strict=True)]
    return None if any(total % 2 for total in extent) else (extent[0] // 2, extent[1] // 2)


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
    if mean is None or variance is None or len(call.output_shape) != 4 or call.computes("weight", "bias"):
        return None

    def build() -> nn.Module:
        layer = nn.BatchNorm2d(len(mean), call["eps"], call["momentum"], affine=True)
        layer.running_mean, layer.running_var = mean.detach(), variance.detach()
        return _fill(layer, call)

    return Layer(build, (call["input"],), "bn", call.owner("running_mean"), call.key())


def linear(call: Call) -> Layer | None:
    weight = call.tensor("weight")
    if weight is None or call.computes("bias"):
        return None

    def build() -> nn.Module:
        return _fill(nn.Linear(weight.shape[1], weight.shape[0], call.tensor("bias") is not None), call)

    return Layer(build, (call["input"],), "linear", call.owner("weight"), call.key())


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

    return Layer(
        lambda: _fill(nn.PReLU(weight.numel()), call), (call["self"],), "prelu", call.owner("weight"), call.key()
    )


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
    size = pair(call.output_shape[2:])
    coordinates: ops.Coordinates = "align_corners" if call["align_corners"] else "half_pixel"
    return Layer(
        lambda: ops.Resize(size, "bilinear", coordinates),
        (call["input" if "input" in call.arguments else "self"],),
        "resize",
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


def add(call: Call) -> Layer | None:
    if call["alpha"] != 1:
        return None
    if call.is_value("self") and call.is_value("other"):
        return Layer(ops.Add, (call["self"], call["other"]), "add")
    return _affine(call, "add", lambda value: ops.Affine(shift=value))


def subtract(call: Call) -> Layer | None:
    if call["alpha"] != 1 or not call.is_value("self") or call.is_value("other"):
        return None
    return _affine(call, "sub", lambda value: ops.Affine(shift=-value.detach()))


def reverse_subtract(call: Call) -> Layer | None:
    """`1 - x`."""
    if call["alpha"] != 1 or call.is_value("other"):
        return None
    return _affine(call, "rsub", lambda value: ops.Affine(torch.tensor(-1.0), value))


def multiply(call: Call) -> Layer | None:
    if call.is_value("self") and call.is_value("other"):
        return Layer(ops.Multiply, (call["self"], call["other"]), "mul")
    return _affine(call, "mul", ops.Affine)


def divide(call: Call) -> Layer | None:
    if not call.is_value("self") or call.is_value("other"):
        return None
    return _affine(call, "div", lambda value: ops.Affine(1 / value.detach()))


def _affine(call: Call, suffix: str, build: Callable[[Tensor], nn.Module]) -> Layer | None:
    """A value with a constant: a number, or a tensor of one per channel."""
    source, constant = ("self", "other") if call.is_value("self") else ("other", "self")
    if len(call.output_shape) != 4 or call.output_shape != call.shape(source):
        return None
    value = _constant(call, constant)
    return None if value is None else Layer(lambda: build(value), (call[source],), suffix)


def _constant(call: Call, name: str) -> Tensor | None:
    if isinstance(call[name], int | float):
        return torch.tensor(float(call[name]))
    tensor = call.tensor(name)
    if tensor is None or not tensor.is_floating_point():
        return None
    if tensor.numel() == 1:
        return tensor if tensor.ndim == 0 else tensor.detach().reshape(())
    per_channel = (tensor.numel(), 1, 1)
    if tensor.shape == per_channel:
        return tensor
    return tensor.detach().reshape(per_channel) if tensor.shape == (1, *per_channel) else None


def expand(call: Call) -> Layer | Alias | None:
    """One pixel spread over a map is the nearest resize of it."""
    before, after = call.shape("self"), call.output_shape
    if before == after:
        return Alias(call["self"])
    if len(after) != 4 or before != (*after[:2], 1, 1):
        return None
    return Layer(lambda: ops.Resize(pair(after[2:]), "nearest"), (call["self"],), "expand")


def reshape(call: Call) -> Alias | None:
    return Alias(call["self"]) if call.shape("self") == call.output_shape else None


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
    "conv2d.padding": convolution,
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
    "add.Tensor": add,
    "add_.Tensor": add,
    "sub.Tensor": subtract,
    "sub_.Tensor": subtract,
    "rsub.Scalar": reverse_subtract,
    "mul.Tensor": multiply,
    "mul_.Tensor": multiply,
    "div.Tensor": divide,
    "div_.Tensor": divide,
    "expand.default": expand,
    "view.default": reshape,
    "reshape.default": reshape,
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
    "clone.default": lambda call: Alias(call["self"], copies=True),
}

# Calls without an input that always give the same.
FACTORIES = frozenset(
    ("ones.default", "zeros.default", "full.default", "arange.default", "arange.start", "arange.start_step")
)

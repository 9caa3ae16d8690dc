"""Convolutions: converts kernels from Keras's (height, width, in, out) to torch's order, "same" padding to pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from slimseg.errors import ModelError
from slimseg.frontends.keras import activations, layout
from slimseg.frontends.keras.builder import Value, parameter
from slimseg.frontends.keras.said import Said, pair
from slimseg.frontends.keras.stored import Array
from slimseg.graph import ops, shapes

Amounts = tuple[tuple[int, int], tuple[int, int]]  # (before, after) in height and width


def same_padding(
    x: Value, kernel: tuple[int, int], stride: tuple[int, int], dilation: tuple[int, int] = (1, 1)
) -> Amounts:
    """TensorFlow's "same": the result has ⌈length / stride⌉ pixels, and an odd pixel of padding goes after."""
    sides = []
    for length, size, step, spread in zip(x.shape[2:], kernel, stride, dilation, strict=True):
        if not step or not size:
            raise ModelError("a kernel or stride has 0 pixels")
        sides.append(shapes.same_padding(length, size, step, spread))
    return sides[0], sides[1]


def module(
    kernel: Array,
    bias: Sequence[Array],
    groups: int,
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
) -> nn.Conv2d:
    """A convolution with a Keras kernel (height, width, in per group, out)."""
    if kernel.ndim != 4 or groups < 1 or kernel.shape[3] % groups or 0 in (*kernel.shape, *stride, *dilation):
        raise ModelError(f"a kernel of {kernel.shape} in {groups} groups is not a valid convolution")
    height, width, inputs, outputs = kernel.shape
    layer = nn.Conv2d(
        inputs * groups, outputs, (height, width), stride, padding, dilation, groups, bool(bias), device="meta"
    )
    layer.weight = parameter(kernel, (3, 2, 0, 1))
    set_bias(layer, bias, outputs)
    return layer


def set_bias(layer: nn.Module, bias: Sequence[Array], outputs: int) -> None:
    if bias and bias[0].shape != (outputs,):
        raise ModelError(f"a bias of {bias[0].shape} does not fit {outputs} channels")
    layer.register_parameter("bias", parameter(bias[0]) if bias else None)


def convolution(said: Said) -> Value:
    kernel, *bias = said.weights("kernel", *_bias(said))
    result = _emit(said, said.x, kernel, bias, int(said.config.get("groups", 1)))
    return _activated(said, result)


def depthwise(said: Said) -> Value:
    kernel, *bias = said.weights("depthwise_kernel", *_bias(said))
    return _activated(said, _emit(said, said.x, *_depthwise_kernel(kernel, bias)))


def separable(said: Said) -> Value:
    first, second, *bias = said.weights("depthwise_kernel", "pointwise_kernel", *_bias(said))
    spread = _emit(said, said.x, *_depthwise_kernel(first, []), suffix="depthwise")
    result = said.emit(module(second, bias, 1, (1, 1), (0, 0), (1, 1)), spread)
    return _activated(said, result)


def _depthwise_kernel(kernel: Array, bias: list[Array]) -> tuple[Array, list[Array], int]:
    """A kernel (height, width, channels, multiplier) as one with one group per channel; bias; number of groups."""
    if kernel.ndim != 4:
        raise ModelError(f"a kernel of {kernel.shape} is not a valid depthwise convolution")
    height, width, channels, multiplier = kernel.shape
    return kernel.reshape(height, width, 1, channels * multiplier), bias, channels


def _bias(said: Said) -> tuple[str, ...]:
    return ("bias",) if said.config.get("use_bias", True) else ()


def _emit(said: Said, x: Value, kernel: Array, bias: list[Array], groups: int, suffix: str = "") -> Value:
    config = said.config
    stride, dilation = pair(config.get("strides", 1)), pair(config.get("dilation_rate", 1))
    padding = str(config.get("padding", "valid")).lower()
    if padding not in ("valid", "same") or len(x.shape) != 4 or kernel.ndim != 4:
        raise ModelError(
            f"a {padding} padding of {x.keras_shape} for a kernel of {kernel.shape} is not a valid convolution"
        )
    amounts: Amounts = ((0, 0), (0, 0))
    if padding == "same":
        amounts = same_padding(x, kernel.shape[:2], stride, dilation)
    (top, bottom), (left, right) = amounts
    if (top, left) != (bottom, right):
        x = layout.pad(said.builder, x, amounts, suffix=f"{suffix}_pad".strip("_"))
        top = left = 0
    return said.emit(module(kernel, bias, groups, stride, (top, left), dilation), x, suffix=suffix)


def _activated(said: Said, x: Value) -> Value:
    return activations.apply(said.builder, x, said.config.get("activation"), suffix="activation")


def transposed(said: Said) -> Value:
    """Kernel (height, width, out, in); TensorFlow's "same" gives length · stride pixels and cuts an odd one after."""
    config, x = said.config, said.x
    kernel, *bias = said.weights("kernel", *_bias(said))
    stride, dilation = pair(config.get("strides", 1)), pair(config.get("dilation_rate", 1))
    if kernel.ndim != 4 or len(x.shape) != 4 or 0 in (*kernel.shape, *stride, *dilation):
        raise ModelError(f"a kernel of {kernel.shape} is not a valid transposed convolution of {x.keras_shape}")
    extra = config.get("output_padding")
    extras = (None, None) if extra is None else pair(extra)
    sizes = [spread * (size - 1) + 1 for size, spread in zip(kernel.shape[:2], dilation, strict=True)]
    sides = [
        _cut(size, step, str(config.get("padding", "valid")).lower(), more)
        for size, step, more in zip(sizes, stride, extras, strict=True)
    ]
    settings: dict[str, Any] = {"stride": stride, "dilation": dilation, "bias": bool(bias), "device": "meta"}
    outputs, inputs = kernel.shape[2:]
    paddings = tuple(before for before, _ in sides)
    behind = tuple(max(0, before - after) for before, after in sides)  # output_padding: less is cut after than before
    crop = tuple(max(0, after - before) for before, after in sides)
    if any(more >= max(step, spread) for more, step, spread in zip(behind, stride, dilation, strict=True)):
        raise ModelError(f"an output padding of {extra} has no counterpart in slimseg: give the .tflite instead")
    settings = {"padding": paddings, "output_padding": behind, **settings}
    if any(crop):
        settings["crop"] = (0, crop[1], 0, crop[0])
    kind = ops.CroppedConvTranspose2d if any(crop) else nn.ConvTranspose2d
    layer = kind(inputs, outputs, kernel.shape[:2], **settings)
    layer.weight = parameter(kernel, (3, 2, 0, 1))
    set_bias(layer, bias, outputs)
    return _activated(said, said.emit(layer, x))


def _cut(size: int, step: int, padding: str, extra: int | None) -> tuple[int, int]:
    """Pixels to cut before and after from the full (length − 1)·step + size; negative after: pixels to add."""
    if padding == "valid":
        return 0, -(max(step - size, 0) if extra is None else extra)
    if padding != "same":
        raise ModelError(f"a {padding} padding has no counterpart in slimseg: give the .tflite instead")
    total = size - step if extra is None else size - size % 2 - extra
    before = max(total, 0) // 2
    return before, total - before

"""Convolutions, transposed convolutions and linear layers."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from ai_edge_litert import schema_py_generated as tflite
from torch import nn

from slimseg.graph import ops
from slimseg.graph.orders import TO_NHWC
from slimseg.graph.shapes import pair, same_padding
from slimseg.runtimes.litert.writing.lowering.step import (
    Fused,
    Lowerings,
    Op,
    Options,
    Step,
    pad_operator,
    slice_operator,
)
from slimseg.runtimes.lowering import weights
from slimseg.tflite.schema import ModelBuilder


def convolution(builder: ModelBuilder, step: Step, layer: nn.Conv2d) -> int:
    source, padding = _spatial_padding(
        builder, step, layer.kernel_size, layer.stride, layer.dilation, layer.padding
    )  # fmt: skip
    depthwise = ops.is_depthwise(layer)
    order = (1, 2, 3, 0) if depthwise else TO_NHWC
    inputs = (
        source,
        builder.constant(f"{step.name}_weight", weights(layer.weight, order)),
        builder.constant(f"{step.name}_bias", _bias(layer)),
    )
    options = tflite.DepthwiseConv2DOptionsT() if depthwise else tflite.Conv2DOptionsT()
    options.padding, options.fusedActivationFunction = padding, step.fused
    options.strideH, options.strideW = pair(layer.stride)
    options.dilationHFactor, options.dilationWFactor = pair(layer.dilation)
    target = builder.tensor(step.name, step.shape)
    if depthwise:
        options.depthMultiplier = layer.out_channels // layer.in_channels
        builder.operator(Op.DEPTHWISE_CONV_2D, inputs, target, options, Options.DepthwiseConv2DOptions, 2)
    else:
        builder.operator(Op.CONV_2D, inputs, target, options, Options.Conv2DOptions, 6 if layer.groups > 1 else 1)
    return target


def _spatial_padding(
    builder: ModelBuilder, step: Step, kernel: Any, stride: Any, dilation: Any, own: Any
) -> tuple[int, int]:
    """The input tensor and SAME or VALID; a PAD operator is added only if neither mode gives the same padding."""
    (kernel_h, kernel_w), (stride_h, stride_w), (dilation_h, dilation_w) = pair(kernel), pair(stride), pair(dilation)
    own_h, own_w = pair(own)
    left, right, top, bottom = step.padding
    wanted = ((top + own_h, bottom + own_h), (left + own_w, right + own_w))
    _, height, width, channels = step.input_shapes[0]
    if wanted == ((0, 0), (0, 0)):
        return step.inputs[0], tflite.Padding.VALID
    if wanted == (
        same_padding(height, kernel_h, stride_h, dilation_h),
        same_padding(width, kernel_w, stride_w, dilation_w),
    ):
        return step.inputs[0], tflite.Padding.SAME
    padded = (1, height + sum(wanted[0]), width + sum(wanted[1]), channels)
    source = pad_operator(builder, step.inputs[0], f"{step.name}_padded", padded, wanted, 0.0)
    return source, tflite.Padding.VALID


def _bias(layer: nn.Conv2d | nn.ConvTranspose2d | nn.Linear) -> np.ndarray[Any, Any]:
    outputs = layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels
    return weights(layer.bias) if layer.bias is not None else np.zeros(outputs, np.float32)


def transposed_convolution(builder: ModelBuilder, step: Step, layer: nn.ConvTranspose2d) -> int:
    if layer.groups > 1 or pair(layer.dilation) != (1, 1):
        layer = _dense(layer)
    full, padding, crop = _transposed_extent(step, layer)
    options = tflite.TransposeConvOptionsT()
    options.strideH, options.strideW = pair(layer.stride)
    options.padding = padding
    target = builder.tensor(f"{step.name}_uncropped" if crop else step.name, full)
    inputs = (
        builder.constant(f"{step.name}_shape", np.asarray(full, np.int32)),
        builder.constant(f"{step.name}_weight", weights(layer.weight, (1, 2, 3, 0))),
        step.inputs[0],
        builder.constant(f"{step.name}_bias", _bias(layer)),
    )
    # Version 4 has a fused activation, and GPU delegates take up to version 3. XNNPACK fuses an activation behind it.
    builder.operator(Op.TRANSPOSE_CONV, inputs, target, options, Options.TransposeConvOptions, 3)
    if not crop:
        return target
    if step.fused:
        source, target = target, builder.tensor(f"{step.name}_activated", full)
        builder.operator(Op.RELU6 if step.fused == Fused.RELU6 else Op.RELU, (source,), target)
    return slice_operator(builder, target, (0, *crop, 0), step)


def is_cropped(layer: nn.ConvTranspose2d, source: Sequence[int], shape: Sequence[int]) -> bool:
    """Whether a transposed convolution is written with a slice behind it: then the activation comes before the slice.

    Args:
        source: (height, width) of its input.
        shape: (height, width) of its result.
    """
    if layer.groups > 1 or pair(layer.dilation) != (1, 1):
        layer = _dense(layer)
    return _extent(layer, source, shape)[2] is not None


def _dense(layer: nn.ConvTranspose2d) -> nn.ConvTranspose2d:
    """The same layer without groups and dilation, which TFLite does not have here: with zeros among its weights."""
    result = copy.deepcopy(layer)
    inputs, per_group, *kernel = layer.weight.shape
    (down, across), outputs = pair(layer.dilation), per_group * layer.groups
    size = [(side - 1) * spread + 1 for side, spread in zip(kernel, (down, across), strict=True)]
    weight = torch.zeros(inputs, outputs, *size)
    for group in range(layer.groups):
        rows = slice(group * inputs // layer.groups, (group + 1) * inputs // layer.groups)
        columns = slice(group * per_group, (group + 1) * per_group)
        weight[rows, columns, ::down, ::across] = layer.weight.detach()[rows]
    result.weight = nn.Parameter(weight)
    result.kernel_size, result.dilation, result.groups = (size[0], size[1]), (1, 1), 1
    return result


def _origin(layer: nn.ConvTranspose2d) -> tuple[int, int]:
    """(top, left): pixels that padding and crop remove above and to the left of the result."""
    left, _, top, _ = getattr(layer, "crop", (0, 0, 0, 0))
    return pair(layer.padding)[0] + top, pair(layer.padding)[1] + left


def _transposed_extent(step: Step, layer: nn.ConvTranspose2d) -> tuple[tuple[int, ...], int, tuple[int, int] | None]:
    """The operator's output shape and padding, and (top, left) to crop if neither SAME nor VALID gives the result."""
    (height, width), padding, crop = _extent(layer, step.input_shapes[0][1:3], step.shape[1:3])
    return (1, height, width, step.shape[3]), padding, crop


def _extent(
    layer: nn.ConvTranspose2d, source_size: Sequence[int], size: Sequence[int]
) -> tuple[tuple[int, int], int, tuple[int, int] | None]:
    """(height, width) of the operator's output, its padding, and (top, left) to crop.

    SAME is for outputs of input times stride only: LiteRT's GPU delegate computes others wrongly. And it is for inputs
    that the stride divides only: for others, LiteRT's plugin for Qualcomm's NPUs pads as a convolution would.
    """
    sides = list(
        zip(size, pair(layer.kernel_size), pair(layer.stride), _origin(layer), source_size, strict=True),
    )
    if all(
        before == 0 and (source - 1) * stride + kernel == length for length, kernel, stride, before, source in sides
    ):
        return (size[0], size[1]), tflite.Padding.VALID, None
    if all(
        same_padding(length, kernel, stride, 1)[0] == before and length == source * stride and source % stride == 0
        for length, kernel, stride, before, source in sides
    ):
        return (size[0], size[1]), tflite.Padding.SAME, None
    height, width = (
        max((source - 1) * stride + kernel, length + before) for length, kernel, stride, before, source in sides
    )
    return (height, width), tflite.Padding.VALID, _origin(layer)


def linear(builder: ModelBuilder, step: Step, layer: nn.Linear) -> int:
    options = tflite.FullyConnectedOptionsT()
    options.fusedActivationFunction = step.fused
    options.keepNumDims = len(step.shape) > 2
    inputs = (
        step.inputs[0],
        builder.constant(f"{step.name}_weight", weights(layer.weight)),
        builder.constant(f"{step.name}_bias", _bias(layer)),
    )
    target = builder.tensor(step.name, step.shape)
    version = 5 if options.keepNumDims else 1
    builder.operator(Op.FULLY_CONNECTED, inputs, target, options, Options.FullyConnectedOptions, version)
    return target


LOWERINGS: Lowerings = {
    nn.Conv2d: convolution,
    nn.ConvTranspose2d: transposed_convolution,
    ops.CroppedConvTranspose2d: transposed_convolution,
    nn.Linear: linear,
}
FUSES: tuple[type[nn.Module], ...] = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)

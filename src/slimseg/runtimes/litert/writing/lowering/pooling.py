"""Pooling with TFLite's SAME or VALID padding, or with an explicit pad before it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from ai_edge_litert import schema_py_generated as tflite
from torch import nn
from torch.nn import functional as F

from slimseg.errors import Unsupported
from slimseg.graph.orders import TO_NHWC
from slimseg.graph.shapes import pair, same_padding
from slimseg.graph.vocabulary.pooling import reached_padding, window_means
from slimseg.runtimes.litert.writing.lowering.step import (
    Fused,
    Lowerings,
    Op,
    Options,
    Step,
    pad_operator,
    transpose_operator,
)
from slimseg.runtimes.lowering import weights
from slimseg.tflite.schema import ModelBuilder

LOWEST = float(np.finfo(np.float32).min)


def max_pool(builder: ModelBuilder, step: Step, layer: nn.MaxPool2d) -> int:
    if pair(layer.dilation) != (1, 1):
        raise Unsupported(f"{step.name}: TFLite has no dilated max pooling")
    source, padding = step.inputs[0], tflite.Padding.VALID
    wanted = reached_padding(layer, step.input_shapes[0][1:3], step.shape[1:3])
    if _is_same(step, layer):
        padding = tflite.Padding.SAME
    elif any(map(any, wanted)):
        # After a ReLU, zero padding does not change the maximum; XNNPACK fuses it, and int8 can represent it.
        source = _padded(builder, step, wanted, 0.0 if _follows_relu(step) else LOWEST)
    return _pool_operator(builder, step, Op.MAX_POOL_2D, source, *_window(layer), padding)


def _follows_relu(step: Step) -> bool:
    source = step.node.all_input_nodes[0]
    owner = source.graph.owning_module
    return (
        source.op == "call_module"
        and owner is not None
        and isinstance(owner.get_submodule(str(source.target)), nn.ReLU | nn.ReLU6)
    )


def average_pool(builder: ModelBuilder, step: Step, layer: nn.AvgPool2d) -> int:
    counted = bool(layer.count_include_pad)
    padded = pair(layer.padding) != (0, 0)
    if _is_same(step, layer) and not counted:
        return _pool_operator(builder, step, Op.AVERAGE_POOL_2D, step.inputs[0], *_window(layer), tflite.Padding.SAME)
    if layer.ceil_mode or (padded and not counted):
        return _counted(builder, step, layer)
    return _with_zeros(builder, step, layer)


def _with_zeros(builder: ModelBuilder, step: Step, layer: nn.AvgPool2d) -> int:
    """Means of windows that count the zeros around the map.

    With zeros, this is a depthwise convolution with equal weights: LiteRT's GPU delegate merges a PAD into the pooling
    behind it, and then does not count the zeros.
    """
    kernel, stride = _window(layer)
    wanted = reached_padding(layer, step.input_shapes[0][1:3], step.shape[1:3])
    if not any(map(any, wanted)):
        return _pool_operator(builder, step, Op.AVERAGE_POOL_2D, step.inputs[0], kernel, stride)
    source, padding = step.inputs[0], tflite.Padding.SAME
    if not _is_same(step, layer):
        source, padding = _padded(builder, step, wanted, 0.0), tflite.Padding.VALID
    channels = step.shape[3]
    equal = np.full((1, *kernel, channels), 1 / (kernel[0] * kernel[1]), np.float32)
    options = tflite.DepthwiseConv2DOptionsT()
    options.padding, options.fusedActivationFunction, options.depthMultiplier = padding, step.fused, 1
    options.strideH, options.strideW = stride
    options.dilationHFactor = options.dilationWFactor = 1
    target = builder.tensor(step.name, step.shape)
    inputs = (
        source,
        builder.constant(f"{step.name}_weight", equal),
        builder.constant(f"{step.name}_bias", np.zeros(channels, np.float32)),
    )
    builder.operator(Op.DEPTHWISE_CONV_2D, inputs, target, options, Options.DepthwiseConv2DOptions, 2)
    return target


def _window(layer: nn.MaxPool2d | nn.AvgPool2d) -> tuple[tuple[int, int], tuple[int, int]]:
    """Kernel and stride as (height, width)."""
    return pair(layer.kernel_size), pair(layer.stride)


def _padded(builder: ModelBuilder, step: Step, amounts: Sequence[tuple[int, int]], value: float) -> int:
    """The input with a border of `value`; `amounts` are (before, after) of height and width."""
    _, height, width, channels = step.input_shapes[0]
    shape = (1, height + sum(amounts[0]), width + sum(amounts[1]), channels)
    return pad_operator(builder, step.inputs[0], f"{step.name}_padded", shape, amounts, value)


def _counted(builder: ModelBuilder, step: Step, layer: nn.AvgPool2d) -> int:
    """Windows that reach beyond what they count: their means with zeros, times a factor for each window.

    The factor is the ratio of both means of a map of ones.
    """
    means = _with_zeros(builder, replace(step, name=f"{step.name}_with_zeros", fused=Fused.NONE), layer)
    height, width = step.input_shapes[0][1:3]
    (top, bottom), (left, right) = reached_padding(layer, (height, width), step.shape[1:3])
    ones = torch.ones(1, 1, height, width)
    with_zeros = F.avg_pool2d(F.pad(ones, (left, right, top, bottom)), layer.kernel_size, layer.stride)
    factors = builder.constant(f"{step.name}_factors", weights(layer(ones) / with_zeros, TO_NHWC))
    options = tflite.MulOptionsT()
    options.fusedActivationFunction = step.fused
    target = builder.tensor(step.name, step.shape)
    builder.operator(Op.MUL, (means, factors), target, options, Options.MulOptions)
    return target


def _is_same(step: Step, layer: nn.MaxPool2d | nn.AvgPool2d) -> bool:
    """Whether the windows are at the positions of TFLite's SAME padding."""
    lengths = zip(step.input_shapes[0][1:3], step.shape[1:3], strict=True)
    settings = zip(lengths, *map(pair, (layer.kernel_size, layer.stride, layer.padding)), strict=True)
    return all(
        windows == -(-length // stride) and same_padding(length, kernel, stride, 1)[0] == before
        for (length, windows), kernel, stride, before in settings
    )


def _pool_operator(
    builder: ModelBuilder,
    step: Step,
    code: int,
    source: int,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: int = tflite.Padding.VALID,
) -> int:
    options = tflite.Pool2DOptionsT()
    options.padding, options.fusedActivationFunction = padding, step.fused
    options.filterHeight, options.filterWidth = kernel
    options.strideH, options.strideW = stride
    target = builder.tensor(step.name, step.shape)
    builder.operator(code, (source,), target, options, Options.Pool2DOptions)
    return target


def adaptive_average_pool(builder: ModelBuilder, step: Step, layer: nn.AdaptiveAvgPool2d) -> int:
    _, height, width, _ = step.input_shapes[0]
    _, out_height, out_width, _ = step.shape
    if (out_height, out_width) == (1, 1):
        axes = builder.constant(f"{step.name}_axes", np.asarray([1, 2], np.int32))
        options = tflite.ReducerOptionsT()
        options.keepDims = True
        target = builder.tensor(step.name, step.shape)
        builder.operator(Op.MEAN, (step.inputs[0], axes), target, options, Options.ReducerOptions)
        return target
    if height % out_height or width % out_width:
        return _uneven_windows(builder, step)
    window = (height // out_height, width // out_width)
    return _pool_operator(builder, step, Op.AVERAGE_POOL_2D, step.inputs[0], window, window)


def _uneven_windows(builder: ModelBuilder, step: Step) -> int:
    """Means over windows of several sizes: products with a matrix along the columns, then along the rows."""
    _, height, width, channels = step.input_shapes[0]
    _, rows, columns, _ = step.shape

    def means(source: int, name: str, length: int, windows: int, shape: tuple[int, ...]) -> int:
        options = tflite.FullyConnectedOptionsT()
        options.fusedActivationFunction, options.keepNumDims = Fused.NONE, True
        weights = builder.constant(f"{step.name}_{name}_weight", window_means(length, windows))
        bias = builder.constant(f"{step.name}_{name}_bias", np.zeros(windows, np.float32))
        target = builder.tensor(f"{step.name}_{name}", shape)
        builder.operator(Op.FULLY_CONNECTED, (source, weights, bias), target, options, Options.FullyConnectedOptions, 5)
        return target

    def turned(source: int, name: str, shape: tuple[int, ...], dims: tuple[int, ...]) -> int:
        return transpose_operator(builder, source, name, shape, dims)

    across = turned(step.inputs[0], f"{step.name}_across", (1, height, channels, width), (0, 1, 3, 2))
    across = means(across, "columns", width, columns, (1, height, channels, columns))
    down = turned(across, f"{step.name}_down", (1, columns, channels, height), (0, 3, 2, 1))
    down = means(down, "rows", height, rows, (1, columns, channels, rows))
    return turned(down, step.name, step.shape, (0, 3, 1, 2))


LOWERINGS: Lowerings = {
    nn.MaxPool2d: max_pool,
    nn.AvgPool2d: average_pool,
    nn.AdaptiveAvgPool2d: adaptive_average_pool,
}
FUSES: tuple[type[nn.Module], ...] = (nn.AvgPool2d, nn.MaxPool2d)

"""How each layer of the vocabulary is said in TFLite: one function per layer class, NCHW in, NHWC out.

A lowering either emits operators whose last output is the node's tensor, or raises Unsupported with the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from ai_edge_litert import schema_py_generated as tflite
from torch import fx, nn

from slimseg.errors import Unsupported
from slimseg.graph import ops
from slimseg.graph.graph import Graph
from slimseg.runtimes.litert.schema import ModelBuilder

Op = tflite.BuiltinOperator
Options = tflite.BuiltinOptions
Fused = tflite.ActivationFunctionType
LOWEST = float(np.finfo(np.float32).min)


@dataclass(frozen=True)
class Step:
    """One node to write: its layer, the tensors it reads, the name and NHWC shape of the one it makes."""

    node: fx.Node
    layer: nn.Module
    inputs: tuple[int, ...]
    name: str
    fused: int  # activation that the operator applies to its result
    padding: tuple[int, int, int, int]  # zero padding (left, right, top, bottom) of a pad node before it
    input_shapes: tuple[tuple[int, ...], ...]  # NHWC; the first before that padding
    shape: tuple[int, ...]  # NHWC


def nhwc(shape: Sequence[int]) -> tuple[int, ...]:
    """(N, C, H, W) to (N, H, W, C); other ranks stay."""
    return (shape[0], shape[2], shape[3], shape[1]) if len(shape) == 4 else tuple(shape)


def weights(tensor: torch.Tensor, order: Sequence[int] | None = None) -> np.ndarray[Any, Any]:
    value = tensor.detach().cpu().float()
    return np.ascontiguousarray((value.permute(*order) if order else value).numpy(), np.float32)


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (int(value[0]), int(value[1]))


def same_padding(length: int, kernel: int, stride: int, dilation: int) -> tuple[int, int]:
    """(before, after) of TFLite's SAME padding along one dimension of `length` pixels."""
    total = max((-(-length // stride) - 1) * stride + (kernel - 1) * dilation + 1 - length, 0)
    return total // 2, total - total // 2


def _spatial_padding(
    builder: ModelBuilder, step: Step, kernel: Any, stride: Any, dilation: Any, own: Any, value: float | None = 0.0
) -> tuple[int, int]:
    """(input tensor, SAME or VALID), with a PAD operator only where neither mode says the same."""
    (kernel_h, kernel_w), (stride_h, stride_w), (dilation_h, dilation_w) = _pair(kernel), _pair(stride), _pair(dilation)
    own_h, own_w = _pair(own)
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
    return _pad(builder, step.inputs[0], f"{step.name}_padded", padded, wanted, value or 0.0), tflite.Padding.VALID


def _pad(
    builder: ModelBuilder,
    source: int,
    name: str,
    shape: Sequence[int],
    amounts: Any,
    value: float,
    output: int | None = None,
) -> int:
    target = builder.tensor(name, shape) if output is None else output
    table = builder.constant(f"{name}_amounts", np.asarray([(0, 0), *amounts, (0, 0)], np.int32))
    if value == 0.0:
        builder.operator(Op.PAD, (source, table), target, tflite.PadOptionsT(), Options.PadOptions)
    else:
        fill = builder.constant(f"{name}_value", np.asarray([value], np.float32))
        builder.operator(Op.PADV2, (source, table, fill), target, tflite.PadV2OptionsT(), Options.PadV2Options, 2)
    return target


def convolution(builder: ModelBuilder, step: Step, layer: nn.Conv2d) -> int:
    source, padding = _spatial_padding(
        builder, step, layer.kernel_size, layer.stride, layer.dilation, layer.padding
    )  # fmt: skip
    depthwise = layer.groups == layer.in_channels and layer.groups > 1
    order = (1, 2, 3, 0) if depthwise else (0, 2, 3, 1)
    inputs = (
        source,
        builder.constant(f"{step.name}_weight", weights(layer.weight, order)),
        builder.constant(f"{step.name}_bias", _bias(layer)),
    )
    options = tflite.DepthwiseConv2DOptionsT() if depthwise else tflite.Conv2DOptionsT()
    options.padding, options.fusedActivationFunction = padding, step.fused
    options.strideH, options.strideW = _pair(layer.stride)
    options.dilationHFactor, options.dilationWFactor = _pair(layer.dilation)
    target = builder.tensor(step.name, step.shape)
    if depthwise:
        options.depthMultiplier = layer.out_channels // layer.in_channels
        builder.operator(Op.DEPTHWISE_CONV_2D, inputs, target, options, Options.DepthwiseConv2DOptions, 2)
    else:
        builder.operator(Op.CONV_2D, inputs, target, options, Options.Conv2DOptions, 6 if layer.groups > 1 else 1)
    return target


def _bias(layer: nn.Conv2d | nn.ConvTranspose2d) -> np.ndarray[Any, Any]:
    return weights(layer.bias) if layer.bias is not None else np.zeros(layer.out_channels, np.float32)


def transposed_convolution(builder: ModelBuilder, step: Step, layer: nn.ConvTranspose2d) -> int:
    if layer.groups > 1 or _pair(layer.dilation) != (1, 1):
        raise Unsupported(f"{step.name}: TFLite has no grouped or dilated transposed convolution")
    full, crop = _transposed_extent(step, layer)
    options = tflite.TransposeConvOptionsT()
    options.strideH, options.strideW = _pair(layer.stride)
    options.fusedActivationFunction = step.fused
    options.padding = tflite.Padding.VALID if crop else _transposed_padding(step, layer)
    target = builder.tensor(f"{step.name}_uncropped" if crop else step.name, full)
    inputs = (
        builder.constant(f"{step.name}_shape", np.asarray(full, np.int32)),
        builder.constant(f"{step.name}_weight", weights(layer.weight, (1, 2, 3, 0))),
        step.inputs[0],
        builder.constant(f"{step.name}_bias", _bias(layer)),
    )
    builder.operator(Op.TRANSPOSE_CONV, inputs, target, options, Options.TransposeConvOptions, 4 if step.fused else 3)
    return _crop(builder, target, step, crop) if crop else target


def _transposed_padding(step: Step, layer: nn.ConvTranspose2d) -> int:
    padding: int = tflite.Padding.VALID if _pair(layer.padding) == (0, 0) else tflite.Padding.SAME
    return padding


def _transposed_extent(step: Step, layer: nn.ConvTranspose2d) -> tuple[tuple[int, ...], tuple[int, int] | None]:
    """Output shape of the operator, and (top, left) to crop from it where SAME does not say the same."""
    _, height, width, channels = step.shape
    kernel, stride, padding = _pair(layer.kernel_size), _pair(layer.stride), _pair(layer.padding)
    sizes = zip((height, width), kernel, stride, padding, step.input_shapes[0][1:3], strict=True)
    agree = all(
        before == pad and -(-length // step_) == source
        for length, k, step_, pad, source in sizes
        for before, _ in [same_padding(length, k, step_, 1)]
    )
    valid = padding == (0, 0) and _pair(layer.output_padding) == (0, 0)
    if agree or valid:
        return step.shape, None
    full = [
        max((source - 1) * s + k, length + pad)
        for source, s, k, length, pad in zip(
            step.input_shapes[0][1:3], stride, kernel, (height, width), padding, strict=True
        )
    ]
    return (1, full[0], full[1], channels), padding


def _crop(builder: ModelBuilder, source: int, step: Step, origin: tuple[int, int]) -> int:
    begin = builder.constant(f"{step.name}_begin", np.asarray([0, *origin, 0], np.int32))
    return _slice(builder, source, begin, step)


def _slice(builder: ModelBuilder, source: int, begin: int, step: Step) -> int:
    size = builder.constant(f"{step.name}_size", np.asarray(step.shape, np.int32))
    target = builder.tensor(step.name, step.shape)
    builder.operator(Op.SLICE, (source, begin, size), target, tflite.SliceOptionsT(), Options.SliceOptions)
    return target


def channel_slice(builder: ModelBuilder, step: Step, layer: ops.Slice) -> int:
    begin = [0] * len(step.shape)
    begin[_nhwc_dim(step, layer.dim)] = layer.start
    return _slice(builder, step.inputs[0], builder.constant(f"{step.name}_begin", np.asarray(begin, np.int32)), step)


def _nhwc_dim(step: Step, dim: int) -> int:
    return {0: 0, 1: 3, 2: 1, 3: 2}[dim] if len(step.input_shapes[0]) == 4 else dim


def max_pool(builder: ModelBuilder, step: Step, layer: nn.MaxPool2d) -> int:
    if _pair(layer.dilation) != (1, 1):
        raise Unsupported(f"{step.name}: TFLite has no dilated max pooling")
    # After a ReLU zeros never win, and a zero pad is one that XNNPACK folds and int8 can hold.
    return _pool(builder, step, Op.MAX_POOL_2D, layer, 0.0 if _follows_relu(step) else LOWEST, same=True)


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
    padded = _pair(layer.padding) != (0, 0)
    if layer.ceil_mode or (padded and not counted and not _is_same(step, layer)):
        raise Unsupported(f"{step.name}: TFLite has no average pooling with ceil_mode or uncounted padding")
    return _pool(builder, step, Op.AVERAGE_POOL_2D, layer, 0.0, same=not counted)


def _pool(
    builder: ModelBuilder, step: Step, code: int, layer: nn.MaxPool2d | nn.AvgPool2d, value: float, same: bool
) -> int:
    """`same`: TFLite's SAME padding, which takes no part in the result, is meant where it is as wide."""
    kernel, stride = _pair(layer.kernel_size), _pair(layer.stride)
    wanted = _pool_padding(step, layer)
    source, padding = step.inputs[0], tflite.Padding.VALID
    if same and _is_same(step, layer):
        padding = tflite.Padding.SAME
    elif wanted != ((0, 0), (0, 0)):
        _, height, width, channels = step.input_shapes[0]
        shape = (1, height + sum(wanted[0]), width + sum(wanted[1]), channels)
        source = _pad(builder, source, f"{step.name}_padded", shape, wanted, value)
    return _pool_operator(builder, step, code, source, kernel, stride, padding)


def _pool_padding(step: Step, layer: nn.MaxPool2d | nn.AvgPool2d) -> tuple[tuple[int, int], tuple[int, int]]:
    """(before, after) in height and width: what the windows reach of the layer's padding, or beyond it (ceil_mode)."""
    amounts = []
    lengths = zip(step.input_shapes[0][1:3], step.shape[1:3], strict=True)
    settings = zip(lengths, *map(_pair, (layer.kernel_size, layer.stride, layer.padding)), strict=True)
    for (length, windows), kernel, stride, before in settings:
        amounts.append((before, max(0, (windows - 1) * stride + kernel - length - before)))
    return amounts[0], amounts[1]


def _is_same(step: Step, layer: nn.MaxPool2d | nn.AvgPool2d) -> bool:
    """Whether the windows lie where TFLite's SAME padding puts them."""
    lengths = zip(step.input_shapes[0][1:3], step.shape[1:3], strict=True)
    settings = zip(lengths, *map(_pair, (layer.kernel_size, layer.stride, layer.padding)), strict=True)
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
        raise Unsupported(f"{step.name}: {height}x{width} does not divide into {out_height}x{out_width} equal windows")
    window = (height // out_height, width // out_width)
    return _pool_operator(builder, step, Op.AVERAGE_POOL_2D, step.inputs[0], window, window)


def resize(builder: ModelBuilder, step: Step, layer: ops.Resize) -> int:
    size = builder.constant(f"{step.name}_size", np.asarray(layer.size, np.int32))
    target = builder.tensor(step.name, step.shape)
    if layer.mode == "bilinear":
        options = tflite.ResizeBilinearOptionsT()
        options.alignCorners, options.halfPixelCenters = layer.align_corners, not layer.align_corners
        code, kind, version = Op.RESIZE_BILINEAR, Options.ResizeBilinearOptions, 3
    else:
        options = tflite.ResizeNearestNeighborOptionsT()
        options.alignCorners, options.halfPixelCenters = False, layer.mode == "nearest-exact"
        code, kind, version = Op.RESIZE_NEAREST_NEIGHBOR, Options.ResizeNearestNeighborOptions, 3
    builder.operator(code, (step.inputs[0], size), target, options, kind, version)
    return target


def pad(builder: ModelBuilder, step: Step, layer: ops.Pad) -> int:
    left, right, top, bottom = layer.padding
    if max(layer.padding) <= 0:
        begin = builder.constant(f"{step.name}_begin", np.asarray([0, -top, -left, 0], np.int32))
        return _slice(builder, step.inputs[0], begin, step)
    if min(layer.padding) < 0:
        raise Unsupported(f"{step.name}: pads some sides and crops others")
    target = builder.tensor(step.name, step.shape)
    return _pad(builder, step.inputs[0], step.name, step.shape, ((top, bottom), (left, right)), layer.value, target)


def add(builder: ModelBuilder, step: Step, layer: ops.Add) -> int:
    options = tflite.AddOptionsT()
    options.fusedActivationFunction = step.fused
    return _unary(builder, step, Op.ADD, options, Options.AddOptions)


def multiply(builder: ModelBuilder, step: Step, layer: ops.Multiply) -> int:
    options = tflite.MulOptionsT()
    options.fusedActivationFunction = step.fused
    return _unary(builder, step, Op.MUL, options, Options.MulOptions)


def affine(builder: ModelBuilder, step: Step, layer: ops.Affine) -> int:
    """MUL, ADD, or one after the other."""
    source, last = step.inputs[0], [name for name in ("scale", "shift") if getattr(layer, name) is not None][-1]
    for name, code, options, kind in (
        ("scale", Op.MUL, tflite.MulOptionsT(), Options.MulOptions),
        ("shift", Op.ADD, tflite.AddOptionsT(), Options.AddOptions),
    ):
        value = getattr(layer, name)
        if value is not None:
            constant = builder.constant(f"{step.name}_{name}", weights(value).reshape(-1))
            options.fusedActivationFunction = step.fused if name == last else Fused.NONE
            target = builder.tensor(step.name if name == last else f"{step.name}_scaled", step.shape)
            builder.operator(code, (source, constant), target, options, kind)
            source = target
    return source


def concat(builder: ModelBuilder, step: Step, layer: ops.Concat) -> int:
    options = tflite.ConcatenationOptionsT()
    options.axis = _nhwc_dim(step, layer.dim)
    return _unary(builder, step, Op.CONCATENATION, options, Options.ConcatenationOptions)


def _unary(builder: ModelBuilder, step: Step, code: int, options: Any = None, kind: int = 0, version: int = 1) -> int:
    """An operator that reads the node's inputs as they are."""
    target = builder.tensor(step.name, step.shape)
    builder.operator(code, step.inputs, target, options, kind, version)
    return target


def softmax(builder: ModelBuilder, step: Step, layer: nn.Softmax) -> int:
    if layer.dim is None or _nhwc_dim(step, layer.dim % len(step.shape)) != len(step.shape) - 1:
        raise Unsupported(f"{step.name}: TFLite's softmax runs over channels only")
    options = tflite.SoftmaxOptionsT()
    options.beta = 1.0
    return _unary(builder, step, Op.SOFTMAX, options, Options.SoftmaxOptions)


def arg_max(builder: ModelBuilder, step: Step, layer: ops.ArgMax) -> int:
    axis = builder.constant(f"{step.name}_axis", np.asarray(3, np.int32))
    options = tflite.ArgMaxOptionsT()
    options.outputType = tflite.TensorType.INT32
    target = builder.tensor(step.name, step.shape, np.int32)
    builder.operator(Op.ARG_MAX, (step.inputs[0], axis), target, options, Options.ArgMaxOptions)
    return target


def hard_tanh(builder: ModelBuilder, step: Step, layer: nn.Hardtanh) -> int:
    if layer.min_val == 0 and layer.max_val == 1:
        return _unary(builder, step, Op.RELU_0_TO_1)
    if layer.min_val == -1 and layer.max_val == 1:
        return _unary(builder, step, Op.RELU_N1_TO_1)
    low = builder.constant(f"{step.name}_low", np.asarray(layer.min_val, np.float32))
    high = builder.constant(f"{step.name}_high", np.asarray(layer.max_val, np.float32))
    capped = builder.tensor(f"{step.name}_capped", step.shape)
    options = tflite.MaximumMinimumOptionsT()
    builder.operator(Op.MINIMUM, (step.inputs[0], high), capped, options, Options.MaximumMinimumOptions)
    target = builder.tensor(step.name, step.shape)
    builder.operator(Op.MAXIMUM, (capped, low), target, options, Options.MaximumMinimumOptions)
    return target


def leaky_relu(builder: ModelBuilder, step: Step, layer: nn.LeakyReLU) -> int:
    options = tflite.LeakyReluOptionsT()
    options.alpha = layer.negative_slope
    return _unary(builder, step, Op.LEAKY_RELU, options, Options.LeakyReluOptions)


def prelu(builder: ModelBuilder, step: Step, layer: nn.PReLU) -> int:
    slope = weights(layer.weight.expand(step.shape[-1]).reshape(1, 1, -1))
    target = builder.tensor(step.name, step.shape)
    builder.operator(Op.PRELU, (step.inputs[0], builder.constant(f"{step.name}_slope", slope)), target)
    return target


def hard_sigmoid(builder: ModelBuilder, step: Step, layer: nn.Hardsigmoid) -> int:
    """min(max(x + 3, 0), 6) · 1/6, the spelling that XNNPACK takes."""
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
    return _unary(builder, step, Op.GELU, options, Options.GeluOptions)


def plain(code: int) -> Callable[[ModelBuilder, Step, Any], int]:
    """An operator without options on the node's inputs."""
    return lambda builder, step, layer: _unary(builder, step, code)


LOWERINGS: dict[type[nn.Module], Callable[[ModelBuilder, Step, Any], int]] = {
    nn.Conv2d: convolution,
    nn.ConvTranspose2d: transposed_convolution,
    nn.MaxPool2d: max_pool,
    nn.AvgPool2d: average_pool,
    nn.AdaptiveAvgPool2d: adaptive_average_pool,
    nn.Softmax: softmax,
    nn.ReLU: plain(Op.RELU),
    nn.ReLU6: plain(Op.RELU6),
    nn.Hardtanh: hard_tanh,
    nn.LeakyReLU: leaky_relu,
    nn.PReLU: prelu,
    nn.Hardswish: plain(Op.HARD_SWISH),
    nn.Hardsigmoid: hard_sigmoid,
    nn.SiLU: silu,
    nn.Sigmoid: plain(Op.LOGISTIC),
    nn.Tanh: plain(Op.TANH),
    nn.GELU: gelu,
    ops.Add: add,
    ops.Multiply: multiply,
    ops.Affine: affine,
    ops.Concat: concat,
    ops.Pad: pad,
    ops.Resize: resize,
    ops.ArgMax: arg_max,
    ops.Slice: channel_slice,
}

FUSABLE: dict[type[nn.Module], int] = {nn.ReLU: Fused.RELU, nn.ReLU6: Fused.RELU6}
FUSE_INTO: tuple[type[nn.Module], ...] = (
    nn.Conv2d,
    nn.ConvTranspose2d,
    nn.AvgPool2d,
    nn.MaxPool2d,
    ops.Add,
    ops.Multiply,
    ops.Affine,
)


def writable(graph: Graph, node: fx.Node) -> bool:
    """Whether there is a lowering for the node's kind of layer."""
    return node.op == "call_module" and type(graph.layer(node)) in (*LOWERINGS, nn.BatchNorm2d)

"""Convolutions, transposed convolutions, fully connected layers, and dilation by SPACE_TO_BATCH."""

from __future__ import annotations

import math
import struct
from dataclasses import replace

from torch import nn

from slimseg.frontends.tflite.value import Array, Call, Space, Value, filled, pad
from slimseg.graph import ops
from slimseg.graph.orders import TO_NCHW
from slimseg.graph.shapes import same_padding

_SAME = 0


def convolution(call: Call) -> Value:
    weight = call.constant(1)
    channels = call.raw_map().node_shape[1]
    groups = channels // weight.shape[3] if weight.ndim == 4 and weight.shape[3] else 0
    if groups < 1 or groups * weight.shape[3] != channels or weight.shape[0] % groups:
        raise call.damaged(f"has weights of {weight.shape}, which do not fit {channels} channels")
    return _convolved(call, weight.transpose(TO_NCHW), groups)


def depthwise(call: Call) -> Value:
    weight = call.constant(1)
    channels = call.raw_map().node_shape[1]
    if weight.ndim != 4 or weight.shape[0] != 1 or weight.shape[3] % channels:
        raise call.damaged(f"has weights of {weight.shape}, which do not fit {channels} channels")
    return _convolved(call, weight.transpose(3, 0, 1, 2), channels)


def _convolved(call: Call, weight: Array, groups: int) -> Value:
    """A convolution with weights (out, in per group, height, width)."""
    source = call.raw_map()
    kernel = weight.shape[2:]
    stride = (call.option("strideH"), call.option("strideW"))
    own = (call.option("dilationHFactor", 1) or 1, call.option("dilationWFactor", 1) or 1)
    block = source.space.block if source.space else (1, 1)
    amounts = source.space.pending if source.space else (0, 0, 0, 0)
    dilation = (own[0] * block[0], own[1] * block[1])
    if source.space and stride != (1, 1):
        raise call.unknown("has a stride between SPACE_TO_BATCH and BATCH_TO_SPACE")
    if call.option("padding") == _SAME:
        # Between SPACE_TO_BATCH and BATCH_TO_SPACE, each of the small pictures is padded.
        lengths = [-(-length // size) for length, size in zip(source.node_shape[2:], block, strict=True)]
        top, bottom = same_padding(lengths[0], kernel[0], stride[0], own[0])
        left, right = same_padding(lengths[1], kernel[1], stride[1], own[1])
        more = (left * block[1], right * block[1], top * block[0], bottom * block[0])
        amounts = (amounts[0] + more[0], amounts[1] + more[1], amounts[2] + more[2], amounts[3] + more[3])
    bias = call.optional_constant(2)

    def convolved(name: str) -> Value:
        left, right, top, bottom = amounts
        symmetric = left == right >= 0 and top == bottom >= 0
        whole = replace(source, space=source.space and Space(source.space.block))
        padded = whole if symmetric else pad(call, whole, amounts)
        padding = (top, left) if symmetric else (0, 0)
        layer = nn.Conv2d(
            weight.shape[1] * groups, weight.shape[0], kernel, stride, padding, dilation, groups, bias is not None
        )
        return call.result(filled(layer, weight, bias), padded, name=name)

    return call.activated(convolved)


def transposed(call: Call) -> Value:
    """TRANSPOSE_CONV with inputs (output shape, weights, input, bias)."""
    same = call.option("padding") == _SAME
    stride = (call.option("strideH"), call.option("strideW"))
    return _transposed(call, call.value(2), call.constant(1), call.optional_constant(3), stride, same)


def media_pipe_transposed(call: Call) -> Value:
    """MediaPipe's Convolution2DTransposeBias of (input, weights, bias); options: padding, stride width and height."""
    if len(call.custom) < 12:
        raise call.damaged("lacks its options")
    padding, stride_width, stride_height = struct.unpack_from("<3i", call.custom)
    if not 1 <= stride_width <= 64 or not 1 <= stride_height <= 64:
        raise call.damaged(f"has strides of {stride_height} and {stride_width}")
    stride = (stride_height, stride_width)
    return _transposed(call, call.value(0), call.constant(1), call.optional_constant(2), stride, same=padding == 1)


def _transposed(
    call: Call, source: Value, weight: Array, bias: Array | None, stride: tuple[int, int], same: bool
) -> Value:
    if weight.ndim != 4 or weight.shape[3] != source.node_shape[1]:
        raise call.damaged(f"has weights of {weight.shape}, which do not fit {source.node_shape[1]} channels")
    height, width = (
        _cut(length, out, kernel, step, same)
        for length, out, kernel, step in zip(
            source.node_shape[2:], call.output_shape[1:3], weight.shape[1:3], stride, strict=True
        )
    )
    settings = (weight.shape[3], weight.shape[0], weight.shape[1:3], stride, (height[0], width[0]))
    extra, crop = (height[1], width[1]), (0, width[2], 0, height[2])

    def convolved(name: str) -> Value:
        if any(crop):
            layer: nn.Module = ops.CroppedConvTranspose2d(*settings, extra, bias=bias is not None, crop=crop)
        else:
            layer = nn.ConvTranspose2d(*settings, extra, bias=bias is not None)
        return call.result(filled(layer, weight.transpose(3, 0, 1, 2), bias), source, name=name)

    return call.activated(convolved)


def _cut(length: int, out: int, kernel: int, stride: int, same: bool) -> tuple[int, int, int]:
    """(padding, output padding, further pixels cut at the end) for one side."""
    full = (length - 1) * stride + kernel
    before = max(full - out, 0) // 2 if same else 0
    after = full - out - before
    return before, max(before - after, 0), max(after - before, 0)


def fully_connected(call: Call) -> Value:
    weight, bias, source = call.constant(1), call.optional_constant(2), call.value()
    if weight.ndim != 2:
        raise call.damaged(f"has weights of {weight.shape}")
    keeps = source.rank == 4 and len(call.output_shape) == 4

    def connected(name: str) -> Value:
        if keeps:  # over the channels of a map, it is a 1x1 convolution
            layer: nn.Module = nn.Conv2d(weight.shape[1], weight.shape[0], 1, bias=bias is not None)
            return call.result(filled(layer, weight[:, :, None, None], bias), source, name=name)
        layer = nn.Linear(weight.shape[1], weight.shape[0], bias is not None)
        return call.result(filled(layer, weight, bias), _rows(call, source, weight.shape[1]), name=name)

    return call.activated(connected)


def _rows(call: Call, source: Value, features: int) -> Value:
    """The input as the operator reads it: a matrix with rows of `features`, or a tensor that already ends in them."""
    if source.rank != 4 and source.node_shape[-1] == features and len(call.output_shape) == source.rank:
        return source
    count = math.prod(source.node_shape) // max(features, 1)
    return call.result(ops.Reshape((count, features)), source, name=f"{call.name}_rows")


def space_to_batch(call: Call) -> Value:
    """The whole picture; pending is SPACE_TO_BATCH's padding less the crop of the BATCH_TO_SPACE after it."""
    source = call.value()
    block, pads, crops = call.integers(1), call.integers(2), call.crops
    if source.rank != 4 or len(block) != 2 or len(pads) != 4 or min(block) < 1:
        raise call.unknown("is not a split of a map into smaller maps")
    if crops is None or len(crops) != 4:
        raise call.unknown("is not undone by a BATCH_TO_SPACE")
    top, bottom, left, right = (pad - crop for pad, crop in zip(pads, crops, strict=True))
    return Value(source.node, source.order, Space((block[0], block[1]), (left, right, top, bottom)))


def batch_to_space(call: Call) -> Value:
    source = call.value(spaced=True)
    if source.space is None or list(source.space.block) != call.integers(1):
        raise call.unknown("does not undo the SPACE_TO_BATCH before it")
    return Value(source.node, source.order)

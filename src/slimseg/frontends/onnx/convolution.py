"""Convolutions, transposed convolutions and fully connected layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import fx, nn

from slimseg.frontends.onnx.builder import NHWC, Call, Value, parameter, plain
from slimseg.frontends.onnx.tensors import Array
from slimseg.graph import ops


@dataclass(frozen=True)
class Window:
    """How a kernel moves over height and width; pads are pixels (before, after) in each."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    pads: tuple[tuple[int, int], tuple[int, int]]

    @property
    def is_symmetric(self) -> bool:
        return all(before == after for before, after in self.pads)

    @property
    def padding(self) -> tuple[int, int]:
        return self.pads[0][0], self.pads[1][0]


def window(call: Call, kernel: Sequence[int], size: Sequence[int]) -> Window:
    """Kernel, stride, dilation and pads for an input of `size` (height, width), with auto_pad resolved to pixels.

    Raises:
        UnknownOperator: the window is not two-dimensional.
    """
    stride = call.attribute("strides", (1, 1))
    dilation = call.attribute("dilations", (1, 1))
    pads = call.attribute("pads", (0, 0, 0, 0))
    mode = call.attribute("auto_pad", "NOTSET")
    if not len(kernel) == len(stride) == len(dilation) == len(size) == 2 or len(pads) != 4:
        raise call.unknown("it is not two-dimensional")
    if min(*kernel, *stride, *dilation) < 1 or min(pads) < 0:
        raise call.unknown("its kernel, strides, dilations and pads must be positive")
    top, left, bottom, right = (int(pad) for pad in pads)
    both = ((top, bottom), (left, right))
    if mode in ("SAME_UPPER", "SAME_LOWER"):
        totals = [
            max(0, (-(-length // step) - 1) * step + (taps - 1) * spread + 1 - length)
            for length, step, taps, spread in zip(size, stride, kernel, dilation, strict=True)
        ]
        both = (halves(totals[0], mode), halves(totals[1], mode))
    elif mode == "VALID":
        both = ((0, 0), (0, 0))
    return Window(_two(kernel), _two(stride), _two(dilation), both)


def halves(total: int, mode: str) -> tuple[int, int]:
    """Pixels before and after: SAME_UPPER puts the odd pixel after, SAME_LOWER before."""
    small, large = total // 2, total - total // 2
    return (large, small) if mode == "SAME_LOWER" else (small, large)


def _two(values: Sequence[int]) -> tuple[int, int]:
    return int(values[0]), int(values[1])


def convolution(call: Call) -> Value:
    value, weight, bias = call.plain(), _weight(call), call.constant(2)
    groups = int(call.attribute("group", 1))
    if value.rank != 4 or weight.ndim != 4 or groups < 1 or weight.shape[0] % groups:
        raise call.unknown("it is not a two-dimensional convolution")
    moves = window(call, weight.shape[2:], value.shape[2:])
    source, padding = value.node, moves.padding
    if not moves.is_symmetric:
        (top, bottom), (left, right) = moves.pads
        source, padding = call.emit(ops.Pad((left, right, top, bottom)), source, suffix="pad"), (0, 0)
    layer = nn.Conv2d(
        weight.shape[1] * groups, weight.shape[0], moves.kernel, moves.stride, padding, moves.dilation, groups,
        bias is not None, device="meta",
    )  # fmt: skip
    fill(layer, weight, bias)
    return plain(call.emit(layer, source, key=call.key(padding)))


def transposed_convolution(call: Call) -> Value:
    value, weight, bias = call.plain(), _weight(call), call.constant(2)
    groups = int(call.attribute("group", 1))
    if value.rank != 4 or weight.ndim != 4 or groups < 1 or weight.shape[0] % groups:
        raise call.unknown("it is not a two-dimensional transposed convolution")
    moves = window(call, weight.shape[2:], value.shape[2:])
    cuts = _transposed_cuts(call, moves, value.shape[2:])
    sides = [_split_cut(*cut) for cut in cuts]
    (pad_h, extra_h, top, bottom), (pad_w, extra_w, left, right) = sides
    if any(extra >= max(a, b) for extra, a, b in zip((extra_h, extra_w), moves.stride, moves.dilation, strict=True)):
        raise call.unknown("its output padding is as wide as its stride")
    arguments = (
        weight.shape[0], weight.shape[1] * groups, moves.kernel, moves.stride, (pad_h, pad_w), (extra_h, extra_w),
        groups, bias is not None, moves.dilation,
    )  # fmt: skip
    crop = (left, right, top, bottom)
    layer = (
        ops.CroppedConvTranspose2d(*arguments, device="meta", crop=crop)
        if any(crop)
        else nn.ConvTranspose2d(*arguments, device="meta")
    )
    fill(layer, weight, bias)
    return plain(call.emit(layer, value.node, key=call.key(crop, pad_h, pad_w, extra_h, extra_w)))


def _transposed_cuts(call: Call, moves: Window, size: Sequence[int]) -> list[tuple[int, int]]:
    """Pixels (before, after) to cut from the full result; a negative number after is output padding."""
    extra = call.attribute("output_padding", (0, 0))
    wanted = call.attribute("output_shape")
    mode = call.attribute("auto_pad", "NOTSET")
    if wanted is None and mode not in ("SAME_UPPER", "SAME_LOWER"):
        return [(before, after - int(add)) for (before, after), add in zip(moves.pads, extra, strict=True)]
    lengths = [int(length) for length in wanted][-2:] if wanted else []
    cuts = []
    for axis, length in enumerate(size):
        step, add = moves.stride[axis], int(extra[axis])
        full = (length - 1) * step + add + (moves.kernel[axis] - 1) * moves.dilation[axis] + 1
        total = full - (lengths[axis] if lengths else length * step)
        small, large = total // 2, total - total // 2
        before, after = (small, large) if mode == "SAME_UPPER" else (large, small)
        cuts.append((max(before, 0), after - add + min(before, 0)))
    return cuts


def _split_cut(before: int, after: int) -> tuple[int, int, int, int]:
    """torch's padding and output_padding, and the further pixels to crop (before, after)."""
    if after >= before:
        return before, 0, 0, after - before
    # One pixel less after than before: the usual padding with output padding (k3 s2 p1 op1).
    return before, before - after, 0, 0


def fully_connected(call: Call) -> Value:
    """Gemm: alpha·A·B + beta·C with constants B and C."""
    value, weight, bias = call.plain(0), _weight(call), call.constant(2)
    if value.rank != 2 or weight.ndim != 2 or call.attribute("transA", 0):
        raise call.unknown("it does not multiply a vector by a constant matrix")
    matrix = weight if call.attribute("transB", 0) else weight.T
    matrix = matrix * np.float32(call.attribute("alpha", 1.0))
    if bias is not None:
        bias = np.broadcast_to(bias * np.float32(call.attribute("beta", 1.0)), (1, matrix.shape[0]))
    return plain(_linear(call, value, matrix, bias))


def matrix_product(call: Call) -> Value:
    """MatMul by a constant matrix; over the channels of NHWC it is a 1x1 convolution. Or a product of two values."""
    if isinstance(call.inputs[0], Value) and len(call.inputs) > 1 and isinstance(call.inputs[1], Value):
        return _product(call)
    value, weight = call.value(), _weight(call)
    if weight.ndim != 2:
        raise call.unknown("it does not multiply by a constant matrix")
    if value.order == NHWC:
        layer = nn.Conv2d(weight.shape[0], weight.shape[1], 1, bias=False, device="meta")
        fill(layer, weight.T[:, :, None, None], None)
        return Value(call.emit(layer, value.node, key=call.key(NHWC)), NHWC)
    value = call.plain()
    return plain(_linear(call, value, weight.T, None))


def _product(call: Call) -> Value:
    """A transpose of the second value's last two dimensions becomes part of the product."""
    first, second = call.plain(0), call.value(1)
    *leading, before, last = range(second.rank)
    if first.rank < 3 or first.shape[:-2] != second.shape[:-2]:
        raise call.unknown("it multiplies vectors, or matrices that are broadcast")
    transposed = second.order == (*leading, last, before)
    node = second.node if transposed else call.plain(1).node
    return plain(call.emit(ops.MatMul(transposed), first.node, node))


def _linear(call: Call, value: Value, matrix: Array, bias: Array | None) -> fx.Node:
    layer = nn.Linear(matrix.shape[1], matrix.shape[0], bias is not None, device="meta")
    fill(layer, matrix, bias)
    return call.emit(layer, value.node, key=call.key())


def _weight(call: Call) -> Array:
    weight = call.constant(1)
    if weight is None or weight.dtype.kind != "f" or not weight.size:
        raise call.unknown("its weights are not constant numbers")
    return weight


def fill(layer: nn.Conv2d | nn.ConvTranspose2d | nn.Linear, weight: Array, bias: Array | None) -> None:
    """Set the weights of a layer that was built without memory.

    Raises:
        ValueError: the weights do not fit the layer.
    """
    layer.weight = parameter(weight)
    if bias is not None:
        layer.bias = parameter(bias.reshape(-1))

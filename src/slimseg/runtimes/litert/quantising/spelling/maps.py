"""Average pooling, resizing to the nearest pixel, slicing and constants in 8-bit operators of XNNPACK.

    Given   y = average pool(x), without padding that is left out of the mean
    Result  y = depthwise convolution(x), all weights 1/(height · width) of the window, which 8 bits hold exactly. Large
            windows are one convolution down the columns and one along the rows
    Given   y = x with every pixel repeated n times in both directions
    Result  every row (W, C) of n copies side by side (W, n·C), which is (n·W, C); then n copies of whole rows
    Given   y = x[:, 1], a strided slice that may drop dimensions
    Result  y = a slice of x, which is reshaped
    Given   y = [c; x], c a constant, as a class token; the quantiser refuses it
    Result  y = [1·c; x]

AVERAGE_POOL_2D gives y the range of x, of which means of many values use only a small part: in PIDNet, means of 17 x 17
pixels had a signal-to-noise ratio of 2 dB instead of 15. A convolution gives y a range of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from slimseg.runtimes.litert.quantising.spelling.editor import Editor, Fused, Op, Options

Pair = tuple[int, int]
_LARGEST_WINDOW = 25  # pixels: XNNPACK's depthwise kernels have up to 25 weights per channel
_MOST_COPIES = 4  # XNNPACK concatenates up to five values


def average_pool(editor: Editor, operator: Any) -> list[Any] | None:
    pool, source, target = operator.builtinOptions, int(operator.inputs[0]), int(operator.outputs[0])
    stages = _stages((pool.filterHeight, pool.filterWidth), (pool.strideH, pool.strideW))
    if stages is None or _leaves_out(editor, operator) or editor.name(source) not in editor.ranges:
        return None
    ends, spelled = editor.range(source), []
    for number, (window, stride) in enumerate(stages):
        last = number == len(stages) - 1
        batch, *sides, channels = editor.shape(source)
        sides = [(length - wide) // step + 1 for length, wide, step in zip(sides, window, stride, strict=True)]
        # Means lie within the range of what they are means of.
        made = target if last else editor.activation(target, f"stage_{number}", ends, (batch, *sides, channels))
        spelled.append(
            _means(editor, source, window, stride, made, pool.fusedActivationFunction if last else Fused.NONE)
        )
        source = made
    return spelled


def _stages(window: Pair, stride: Pair) -> list[tuple[Pair, Pair]] | None:
    """Windows and strides of poolings, one after the other, with the same result; None if one would be too large."""
    if window[0] * window[1] <= _LARGEST_WINDOW:
        return [(window, stride)]
    down, along = (_stages_of_side(*side) for side in zip(window, stride, strict=True))
    if down is None or along is None:
        return None
    return [((wide, 1), (step, 1)) for wide, step in down] + [((1, wide), (1, step)) for wide, step in along]


def _stages_of_side(wide: int, step: int) -> list[Pair] | None:
    """The same for one side: adjacent windows can be means of means."""
    if wide <= _LARGEST_WINDOW:
        return [(wide, step)]
    parts = [part for part in range(2, _LARGEST_WINDOW + 1) if wide % part == 0 and wide // part <= _LARGEST_WINDOW]
    return [(parts[0], parts[0]), (wide // parts[0], wide // parts[0])] if parts and wide == step else None


def _means(editor: Editor, source: int, window: Pair, stride: Pair, target: int, fused: int) -> Any:
    channels = editor.shape(source)[3]
    weights = np.full((1, *window, channels), 1 / (window[0] * window[1]), np.float32)
    inputs = (
        source,
        editor.constant(weights, f"mean_{window[0]}x{window[1]}_of_{channels}"),
        editor.constant(np.zeros(channels, np.float32), f"zeros_{channels}"),
    )
    options = schema.DepthwiseConv2DOptionsT()
    options.padding, options.depthMultiplier = schema.Padding.VALID, 1
    options.strideH, options.strideW = stride
    options.dilationHFactor = options.dilationWFactor = 1
    return editor.operator(Op.DEPTHWISE_CONV_2D, inputs, target, options, Options.DepthwiseConv2DOptions, fused)


def _leaves_out(editor: Editor, operator: Any) -> bool:
    """Whether windows reach beyond the map, so that their means are of fewer pixels."""
    pool, shape = operator.builtinOptions, editor.shape(int(operator.inputs[0]))
    if pool.padding == schema.Padding.VALID:
        return False
    sides = zip(shape[1:3], (pool.filterHeight, pool.filterWidth), (pool.strideH, pool.strideW), strict=True)
    return any((-(-length // stride) - 1) * stride + window > length for length, window, stride in sides)


def nearest(editor: Editor, operator: Any) -> list[Any] | None:
    source, target = int(operator.inputs[0]), int(operator.outputs[0])
    (batch, height, width, channels), (_, rows, columns, _) = editor.shape(source), editor.shape(target)
    if operator.builtinOptions.alignCorners or rows % height or columns % width:
        return None
    down, right = rows // height, columns // width
    if max(down, right) > _MOST_COPIES or batch != 1:
        return None
    spelled, made = [], source
    if right > 1:
        beside = editor.activation(target, "beside", None, (1, height, width, right * channels))
        spelled.append(_copies(editor, source, right, beside))
        made = beside
    if down > 1:
        length = columns * channels
        lines = editor.activation(target, "lines", None, (1, 1, height, length))
        copied = editor.activation(target, "copied", None, (1, 1, height, down * length))
        spelled += [_reshape(editor, made, lines), _copies(editor, lines, down, copied)]
        made = copied
    return [*spelled, _reshape(editor, made, target)] if spelled else None


def strided_slice(editor: Editor, operator: Any) -> list[Any] | None:
    taken, source, target = operator.builtinOptions, int(operator.inputs[0]), int(operator.outputs[0])
    begin, end, strides = (editor.integers(int(index)) for index in operator.inputs[1:4])
    masks = taken.beginMask, taken.endMask, taken.ellipsisMask, taken.newAxisMask
    if begin is None or end is None or strides is None or any(masks) or min(begin) < 0 or set(strides) != {1}:
        return None
    dropped = [bool(taken.shrinkAxisMask >> dim & 1) for dim in range(len(begin))]
    shape = editor.shape(source)
    sizes = [
        1 if drops else min(last, length) - first
        for first, last, length, drops in zip(begin, end, shape, dropped, strict=True)
    ]
    if min(end) < 0 or min(sizes) < 1:
        return None
    made = editor.activation(target, "sliced", None, sizes) if any(dropped) else target
    inputs = source, editor.constant(np.asarray(begin, np.int32)), editor.constant(np.asarray(sizes, np.int32))
    spelled = [editor.operator(Op.SLICE, inputs, made, schema.SliceOptionsT(), Options.SliceOptions)]
    return [*spelled, _reshape(editor, made, target)] if any(dropped) else spelled


def concatenation(editor: Editor, operator: Any) -> list[Any] | None:
    inputs = [int(index) for index in operator.inputs]
    known = {index: values for index in inputs if (values := editor.values(index)) is not None}
    if not known:
        return None
    target, spelled, made = int(operator.outputs[0]), [], {}
    for number, (index, values) in enumerate(known.items()):
        ends = float(min(values.min(), 0.0)), float(max(values.max(), 0.0))
        made[index] = editor.activation(target, f"constant{number}", ends, values.shape)
        spelled.append(editor.multiply((index, editor.constant(1.0)), made[index]))
    operator.inputs = np.asarray([made.get(index, index) for index in inputs], np.int32)
    return [*spelled, operator]


def _copies(editor: Editor, source: int, count: int, target: int) -> Any:
    """Copies of a value side by side along its last dimension."""
    options = schema.ConcatenationOptionsT()
    options.axis = 3
    return editor.operator(Op.CONCATENATION, (source,) * count, target, options, Options.ConcatenationOptions)


def _reshape(editor: Editor, source: int, target: int) -> Any:
    options = schema.ReshapeOptionsT()
    options.newShape = np.asarray(editor.shape(target), np.int32)
    return editor.operator(
        Op.RESHAPE, (source, editor.constant(options.newShape)), target, options, Options.ReshapeOptions
    )


SPELLERS: Mapping[int, Callable[[Editor, Any], list[Any] | None]] = {
    Op.AVERAGE_POOL_2D: average_pool,
    Op.RESIZE_NEAREST_NEIGHBOR: nearest,
    Op.STRIDED_SLICE: strided_slice,
    Op.CONCATENATION: concatenation,
}

"""Activations in 8-bit operators of XNNPACK.

    Given   y = ReLU(x) that cannot be fused, since x has another reader, too (pre-activation residual networks)
    Result  y = ReLU(1 · x): a multiplication by one with the activation fused, with bit-identical results
    Given   y = min(max(x, 0), 1)
    Result  y = 1 · x with the range (0, 1): values outside are rounded to its ends
    Given   y = hard-swish(x)
    Result  y = x · (ReLU6(x + 3) · ⅙), with known inner ranges; XNNPACK turns all three into one table look-up
    Given   y = max(x, 0) + a · min(x, 0), a slope for each channel
    Result  y = ReLU(1 · x) − ReLU(−a · x); at most one of the two is not zero. With equal slopes: a leaky ReLU

The first rewriting makes prisma-net's int8 file three times faster, hard-swish a MobileNetV3 decoder's 1.7 times.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from slimseg.runtimes.litert.quantising.spelling.editor import Array, Editor, Fused, Op, Options

_SHORT = 64  # channels


def _ends(operator: Any) -> tuple[int, int]:
    return int(operator.inputs[0]), int(operator.outputs[0])


def fused(activation: int) -> Callable[[Editor, Any], list[Any]]:
    """A multiplication by one with the activation fused."""

    def spell(editor: Editor, operator: Any) -> list[Any]:
        source, target = _ends(operator)
        return [editor.multiply((source, editor.constant(1.0)), target, activation)]

    return spell


def unit_clamp(editor: Editor, operator: Any) -> list[Any]:
    source, target = _ends(operator)
    editor.found[editor.name(target)] = 0.0, 1.0
    return [editor.multiply((source, editor.constant(1.0)), target)]


def hard_swish(editor: Editor, operator: Any) -> list[Any]:
    source, target = _ends(operator)
    shifted = editor.activation(target, "shifted", (0.0, 6.0))
    gate = editor.activation(target, "gate", (0.0, 1.0))
    return [
        editor.add((source, editor.constant(3.0)), shifted, Fused.RELU6),
        editor.multiply((shifted, editor.constant(1 / 6)), gate),
        editor.multiply((source, gate), target),
    ]


def prelu(editor: Editor, operator: Any) -> list[Any] | None:
    source, target = _ends(operator)
    slopes = editor.values(int(operator.inputs[1]))
    if slopes is None:
        return None
    if (slopes == slopes.flat[0]).all():
        options = schema.LeakyReluOptionsT()
        options.alpha = float(slopes.flat[0])
        return [editor.operator(Op.LEAKY_RELU, (source,), target, options, Options.LeakyReluOptions)]
    low, high = editor.range(source)
    positive = editor.activation(target, "positive", (0.0, max(high, 0.0)))
    spelled = [editor.multiply((source, editor.constant(1.0)), positive, Fused.RELU)]
    slopes = _along_rows(slopes, editor.shape(source))
    name = f"{editor.name(target)}_negative_slope"
    if (slopes >= 0).all():
        negative = editor.activation(target, "negative", (0.0, max(-low, 0.0) * float(slopes.max())))
        spelled.append(editor.multiply((source, editor.constant(-slopes, name)), negative, Fused.RELU))
    else:  # −a · x is positive for positive x, too: min(x, 0) has to be computed first
        below = editor.activation(target, "below", (0.0, max(-low, 0.0)))
        ends = sorted((max(-low, 0.0) * float(slopes.min()), max(-low, 0.0) * float(slopes.max())))
        negative = editor.activation(target, "negative", (min(ends[0], 0.0), max(ends[1], 0.0)))
        spelled.append(editor.multiply((source, editor.constant(-1.0)), below, Fused.RELU))
        spelled.append(editor.multiply((below, editor.constant(slopes, name)), negative))
    return [*spelled, editor.subtract((positive, negative), target)]


def _along_rows(slopes: Array, shape: tuple[int, ...]) -> Array:
    """Slopes of few channels repeated for a whole row: XNNPACK multiplies short vectors slowly."""
    *_, width, channels = shape
    if slopes.size != channels or channels >= _SHORT:
        return slopes
    return np.tile(slopes.reshape(1, 1, channels), (1, width, 1))


SPELLERS: Mapping[int, Callable[[Editor, Any], list[Any] | None]] = {
    Op.RELU: fused(Fused.RELU),
    Op.RELU6: fused(Fused.RELU6),
    Op.RELU_N1_TO_1: fused(Fused.RELU_N1_TO_1),
    Op.RELU_0_TO_1: unit_clamp,
    Op.HARD_SWISH: hard_swish,
    Op.PRELU: prelu,
}

"""Transposed convolutions and the activation behind them, as one operator with one range.

Given     transposed convolution → t → ReLU → y      GPU delegates take none with a fused activation
Quantise  transposed convolution with a fused ReLU → y, so that t needs no range, half of which would be lost
Result    transposed convolution → y without it: the least value of y, int8, is 0, so that y saturates there
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from slimseg.runtimes.litert.quantising.spelling.editor import Editor, Fused, Op
from slimseg.tflite import costs, operator_codes, operator_names, saturation
from slimseg.tflite.file import Operator

_ACTIVATIONS = {Op.RELU: Fused.RELU, Op.RELU6: Fused.RELU6}
_NAMES = ("RELU", "RELU6")
_PLAIN_VERSION = 3  # newest version of the operator without an activation


def fuse(editor: Editor, operator: Any) -> list[Any] | None:
    """No operator instead of an activation behind a transposed convolution that nothing else reads."""
    read = int(operator.inputs[0])
    maker = next((each for each in editor.graph.operators if read in map(int, each.outputs)), None)
    readers = sum(read in map(int, each.inputs) for each in editor.graph.operators)
    if maker is None or editor.code(maker) != Op.TRANSPOSE_CONV or readers > 1:
        return None
    options = maker.builtinOptions
    if editor.name(read) in editor.leave or read in map(int, editor.graph.outputs) or options.fusedActivationFunction:
        return None
    options.fusedActivationFunction = _ACTIVATIONS[editor.code(operator)]
    result = int(operator.outputs[0])
    maker.outputs = np.asarray([result], np.int32)
    operator_names.join(editor.model, editor.graph.tensors[read].name, editor.graph.tensors[result].name)
    return []


def kept_together(operators: Sequence[Operator], kept: Collection[str]) -> set[str]:
    """Results of transposed convolutions and of the activations behind them, of which one is in `kept`.

    In int8 both are one operator, so they stay in float together: else the value between them would be rounded.
    """
    made = {each.outputs[0]: each.result for each in operators if each.op == "TRANSPOSE_CONV"}
    behind = (each for each in operators if each.op in _NAMES and each.inputs and each.inputs[0] in made)
    read = ((made[each.inputs[0]], each.result) for each in behind)
    return {name for pair in read if set(pair) & set(kept) for name in pair}


def separate(model: Any) -> None:
    """Take away activations that the range of an int8 result makes superfluous, in place."""
    for operator in model.subgraphs[0].operators or []:
        if costs.op_code(model.operatorCodes[operator.opcodeIndex]) != Op.TRANSPOSE_CONV:
            continue
        options, result = operator.builtinOptions, model.subgraphs[0].tensors[int(operator.outputs[0])]
        if saturation.changes_nothing(options.fusedActivationFunction, result):
            options.fusedActivationFunction = Fused.NONE
        if not options.fusedActivationFunction:
            operator.opcodeIndex = operator_codes.index(model, Op.TRANSPOSE_CONV, _PLAIN_VERSION)


SPELLERS = dict.fromkeys(_ACTIVATIONS, fuse)

"""Rewrites operators for which XNNPACK has no 8-bit kernel as equivalent operators for which it has one.

An operator without a kernel splits the delegated part of the file in two, and the quantiser leaves some of them in
float32 between two conversions.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from slimseg.runtimes.litert.quantising.spelling import activations, maps, transposed
from slimseg.runtimes.litert.quantising.spelling.editor import Editor, Ranges
from slimseg.tflite import operator_names

Speller = Callable[[Editor, Any], list[Any] | None]  # the operators instead of one, or None if it stays as it is
_SPELLERS: Mapping[int, Speller] = {**activations.SPELLERS, **maps.SPELLERS}


def for_int8(model: Any, leave: Collection[str] = (), ranges: Ranges | None = None) -> dict[str, tuple[float, float]]:
    """Rewrite such operators of a float `ModelT`, in place, for quantisation to int8.

    Args:
        leave: names of tensors whose operators are not rewritten, because they stay in float32.
        ranges: (min, max) of activations by tensor name.

    Returns:
        (min, max) of the tensors that this adds, and of those that the new operators need in a certain range, by name.
    """
    editor = Editor(model, ranges or {}, leave)
    for operator in list(editor.graph.operators or []):
        if editor.name(int(operator.outputs[0])) in leave or not editor.is_float(operator):
            continue
        spellers = (each.get(editor.code(operator)) for each in (transposed.SPELLERS, _SPELLERS))
        spelled = next((found for spell in spellers if spell and (found := spell(editor, operator)) is not None), None)
        if spelled is not None:
            place = editor.graph.operators.index(operator)
            editor.graph.operators[place : place + 1] = spelled
    operator_names.add(model, editor.parts)
    return editor.found

"""Names of the operators of a `.tflite`: from the metadata in files of slimseg, else the names of their results.

A quantiser adds operators that convert between types and are not in the metadata. Such an operator belongs to the layer
whose value it converts; one that converts a stored constant to float belongs to the layer that reads the constant.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from slimseg.graph.layer_names import OperatorName, of_text, to_text
from slimseg.tflite import costs, metadata

METADATA_NAME = b"slimseg_layers"
_CONVERSIONS = ("QUANTIZE", "DEQUANTIZE")


def of_operators(model: Any) -> list[OperatorName]:
    """Names of all operators of the main graph of a `ModelT`, in the file's order."""
    tensors, operators = costs.Tensors(model), model.subgraphs[0].operators or []
    noted = read(model)
    made: dict[int, OperatorName] = {}  # by tensor index, the operator that computes it
    read_by: dict[int, OperatorName] = {}
    found = []
    for operator in operators:
        result = text(tensors.tensor(int(operator.outputs[0])).name)
        name = noted.get(result, OperatorName(result))
        if result not in noted and tensors.op_name(operator) in _CONVERSIONS:
            name = _part_of(made.get(int(operator.inputs[0])), result)
        made.update(dict.fromkeys((int(index) for index in operator.outputs), name))
        for index in tensors.inputs(operator):
            read_by.setdefault(index, name)
        found.append(name)
    return [
        _part_of(read_by.get(int(operator.outputs[0])), name.name)
        if tensors.op_name(operator) == "DEQUANTIZE" and tensors.is_constant(int(operator.inputs[0]))
        else name
        for operator, name in zip(operators, found, strict=True)
    ]


def read(model: Any) -> dict[str, OperatorName]:
    """The names in the metadata of a `ModelT`, by name of the operator's first result."""
    return of_text(metadata.read(model, METADATA_NAME) or b"")


def add(model: Any, parts: Mapping[str, str]) -> None:
    """Store in a `ModelT`'s metadata that operators compute part of another operator's layer.

    Args:
        parts: by name of the operator's result, the name of the other operator's result.
    """
    if not parts:
        return
    names = read(model)
    names |= {result: _part_of(names.get(of, OperatorName(of)), result) for result, of in parts.items()}
    metadata.write(model, METADATA_NAME, to_text(names))


def move(model: Any, before: bytes, after: bytes) -> None:
    """Store in a `ModelT`'s metadata that an operator now gives `after` instead of `before`.

    A new operator, which belongs to the same layer, computes `before` from `after`.
    """
    names, result = read(model), text(before)
    own = names.get(result, OperatorName(result))
    names |= {text(after): own, result: OperatorName(f"{result}_fitted", (own.layer,))}
    metadata.write(model, METADATA_NAME, to_text(names))


def join(model: Any, first: bytes, last: bytes) -> None:
    """Store in a `ModelT`'s metadata that the operator of `first` now computes `last` as well, and gives that."""
    names, before, after = read(model), text(first), text(last)
    own, other = (names.pop(each, OperatorName(each, (each,))) for each in (before, after))
    names[after] = OperatorName(own.name, tuple(dict.fromkeys((*own.covers, *other.covers))))
    metadata.write(model, METADATA_NAME, to_text(names))


def _part_of(whole: OperatorName | None, result: str) -> OperatorName:
    return OperatorName(result, (whole.layer,) if whole else ())


def text(name: bytes) -> str:
    return name.decode(errors="replace")

"""What slimseg writes into the metadata of an `.onnx` file: the description, and the names of the operators."""

from __future__ import annotations

from collections.abc import Mapping

from onnx import ModelProto, helper

from slimseg.graph.description import Description
from slimseg.graph.layer_names import OperatorName, of_text, to_text

_DESCRIPTION, _NAMES = "slimseg", "slimseg_layers"


def write(model: ModelProto, description: Description, names: Mapping[str, OperatorName]) -> None:
    """Add both to a model; `names` are by the operators' results."""
    helper.set_model_props(model, {_DESCRIPTION: description.to_json(), _NAMES: to_text(names).decode()})


def description(model: ModelProto) -> Description | None:
    """The description; None in a file that slimseg did not write. Raises: ModelError if it is damaged."""
    text = _entry(model, _DESCRIPTION)
    return None if text is None else Description.from_json(text)


def names(model: ModelProto) -> dict[str, OperatorName]:
    """The names of the operators whose name differs from that of their result, by result."""
    return of_text((_entry(model, _NAMES) or "").encode())


def _entry(model: ModelProto, key: str) -> str | None:
    return next((each.value for each in model.metadata_props if each.key == key), None)

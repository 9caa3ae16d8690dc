"""The metadata of a package: texts for readers, class names and colours for Xcode's preview, slimseg's description."""

from __future__ import annotations

import colorsys
import json
from collections.abc import Sequence
from typing import Any

from slimseg.graph.description import Description
from slimseg.graph.graph import Graph, producer
from slimseg.graph.output import class_count, final_argmax, map_node

PREVIEW_TYPE = "com.apple.coreml.model.preview.type"
PREVIEW_PARAMETERS = "com.apple.coreml.model.preview.params"
DESCRIPTION = "slimseg.description"
NO_LICENCE = "Not stated: conversion does not change the rights in the weights and in their training data."
_GOLDEN_ANGLE = 0.381966  # fraction of a turn between consecutive hues, which keeps any number of them distinct
_OUTPUTS = {
    "mask": "Index of the class of every pixel",
    "probabilities": "Probability of every class for every pixel, class by class",
    "logits": "Score of every class for every pixel before softmax, class by class: the largest is the class",
}
_ONE_CHANNEL = {
    "probabilities": "Probability of {0} for every pixel: above 0.5 it is {0}",
    "logits": "Score of {0} for every pixel before the sigmoid: above 0 it is {0}",
}


def describe(model: Any, graph: Graph, names: tuple[str, str], palette: Sequence[str], licence: str) -> None:
    """Fill in the texts and the preview of a coremltools model.

    Args:
        model: a `coremltools.models.MLModel`.
        graph: the source of the model.
        names: names of its input and its output.
        palette: colour of every class, "#rrggbb"; missing colours are chosen by the golden angle.
        licence: licence of the weights, in a sentence.
    """
    labels = class_labels(graph)
    height, width = graph.input_size
    order = graph.description.preprocessing.channel_order.upper()
    model.short_description = f"Semantic segmentation, {graph.name}: {', '.join(labels) or 'classes without names'}."
    model.license = licence or NO_LICENCE
    model.input_description[names[0]] = f"{order} image, {width} wide and {height} high; the model normalises it."
    model.output_description[names[1]] = f"{_output(graph, labels)}."
    model.user_defined_metadata[DESCRIPTION] = graph.description.to_json()
    if len(labels) > 1 and _is_map(graph) and not _one_channel(graph):
        colours = [*palette[: len(labels)], *(_colour(number) for number in range(len(palette), len(labels)))]
        model.user_defined_metadata[PREVIEW_TYPE] = "imageSegmenter"
        model.user_defined_metadata[PREVIEW_PARAMETERS] = json.dumps({"labels": labels, "colors": colours})


def class_labels(graph: Graph) -> list[str]:
    """The names of the classes; if the network has more classes than names, the others are named by their numbers."""
    names = graph.description.classes
    argmax = final_argmax(graph)
    count = class_count(graph) if argmax is None else graph.shape(producer(argmax))[1]
    return [names[i] if i < len(names) else f"class {i}" for i in range(max(count, len(names)))]


def preview_labels(user_defined: dict[str, str]) -> list[str]:
    """The names of the classes in the metadata for Xcode's preview; empty if that is missing or damaged."""
    try:
        found = json.loads(user_defined.get(PREVIEW_PARAMETERS, "{}"))
    except ValueError:
        return []
    labels = found.get("labels", []) if isinstance(found, dict) else []
    return [str(label) for label in labels] if isinstance(labels, list) else []


def read_description(user_defined: dict[str, str]) -> Description | None:
    """The description that `describe` embedded, or None in a package that slimseg did not write.

    Raises:
        ModelError: the description is damaged.
    """
    text = user_defined.get(DESCRIPTION)
    return None if text is None else Description.from_json(text)


def _one_channel(graph: Graph) -> bool:
    shape = graph.shape(map_node(graph))
    return graph.description.output_kind != "mask" and len(shape) == 4 and shape[1] == 1


def _is_map(graph: Graph) -> bool:
    """Whether the output is a map, the only kind of output that Xcode's preview supports."""
    return len(graph.shape(graph.output)) >= 3


def _output(graph: Graph, labels: Sequence[str]) -> str:
    kind = graph.description.output_kind
    return _ONE_CHANNEL[kind].format(labels[1]) if _one_channel(graph) else _OUTPUTS[kind]


def _colour(number: int) -> str:
    red, green, blue = colorsys.hsv_to_rgb(number * _GOLDEN_ANGLE % 1, 0.65, 0.95)
    return f"#{round(255 * red):02x}{round(255 * green):02x}{round(255 * blue):02x}"

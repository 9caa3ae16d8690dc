"""Code that runs one exported file in an app, with its names, sizes and types filled in.

The templates are in `snippets/` of each runtime's folder, one file per language. A template that uses a name without
a value raises an error, so no placeholder can remain.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from pathlib import PurePath
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined

from slimseg.results import Artefact, ModelCard, Port
from slimseg.runtimes import registry

_LANGUAGES = {"kt": "kotlin", "java": "java", "swift": "swift", "cpp": "cpp"}


@dataclass(frozen=True)
class Snippet:
    """Code for one file."""

    title: str  # e.g. "MediaPipe Tasks, Kotlin: `model.tflite`"
    language: str  # the name in Markdown's code fences
    code: str


@dataclass(frozen=True)
class _Channel:
    name: str  # "red", "green" or "blue"
    mean: float
    std: float


def snippets(card: ModelCard) -> tuple[Snippet, ...]:
    """Code for every exported file of the card."""
    made = [each for each in card.artefacts if each.files]
    return tuple(_snippet(card, each, name) for each in made for name in _names(each))


def _names(artefact: Artefact) -> tuple[str, ...]:
    if artefact.placement is not None:
        return ()  # the code is for the CPU
    names = tuple(registry.EXPORTERS[artefact.target].snippets)
    return names if artefact.for_mediapipe else tuple(name for name in names if not name.startswith("mediapipe"))


def _snippet(card: ModelCard, artefact: Artefact, name: str) -> Snippet:
    exporter = registry.EXPORTERS[artefact.target]
    language = _LANGUAGES[name.rpartition(".")[2]]
    shown = {"cpp": "C++"}.get(language, language.capitalize())
    code = _environment(exporter.package).get_template(name).render(_values(card, artefact))
    return Snippet(f"{exporter.snippets[name]}, {shown}: `{artefact.files[0]}`", language, code)


def _environment(package: str) -> Environment:
    environment = Environment(
        loader=PackageLoader(package, "snippets"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    filters: dict[str, Callable[..., Any]] = {
        "quoted": _quoted,
        "kotlin": _kotlin,
        "comment": _comment,
        "shape": _shape,
        "bytes": _bytes,
    }
    environment.filters.update(filters)
    return environment


def _values(card: ModelCard, artefact: Artefact) -> dict[str, Any]:
    """The values that a template may use."""
    assert artefact.input is not None
    assert artefact.output is not None
    height, width, channels = layout(artefact, artefact.output, card.input_size)
    limits = np.iinfo(artefact.input.dtype) if np.dtype(artefact.input.dtype).kind in "iu" else np.iinfo(np.uint8)
    return {
        "file": artefact.files[0],
        "weights": artefact.files[-1],
        "stem": PurePath(artefact.files[0]).stem,
        "input": artefact.input,
        "output": artefact.output,
        "height": card.input_size[0],
        "width": card.input_size[1],
        "out_height": height,
        "out_width": width,
        "classes": channels,
        "kind": artefact.output_kind,
        "threshold": 0.5 if artefact.output_kind == "probabilities" else 0.0,
        "category": _category(card, channels),
        "channels": _channels(card),
        "pixel_format": card.pixel_format,
        "takes_pixels": artefact.takes_pixels,
        "raw_bytes": artefact.takes_pixels and artefact.input.dtype == "uint8",
        "lowest": int(limits.min),
        "highest": int(limits.max),
    }


def layout(artefact: Artefact, port: Port, input_size: tuple[int, int]) -> tuple[int, int, int]:
    """(height, width, channels) of an output; a flat one has the input's height and width. A mask has one channel."""
    layout = registry.EXPORTERS[artefact.target].layout
    sides = port.shape[1:] if layout.startswith("N") and len(port.shape) > 2 else port.shape
    if artefact.output_kind == "mask" and len(sides) >= 2:
        flat = [side for side in sides if side != 1]
        return flat[-2], flat[-1], 1
    if len(sides) == 3:
        return (sides[0], sides[1], sides[2]) if layout.endswith("C") else (sides[1], sides[2], sides[0])
    pixels = prod(input_size)
    if prod(port.shape) % pixels == 0:
        return *input_size, prod(port.shape) // pixels
    return sides[0], sides[1], 1


def _category(card: ModelCard, channels: int) -> str:
    if channels > 1:
        return "the index of its class"
    return f"0 for {card.classes[-1]}, 255 elsewhere"


def _channels(card: ModelCard) -> tuple[_Channel, ...]:
    """The channels in the order in which the network takes them."""
    names = {"R": "red", "G": "green", "B": "blue"}
    return tuple(
        _Channel(names[letter], mean, std)
        for letter, mean, std in zip(card.pixel_format, card.mean, card.std, strict=True)
    )


def _quoted(text: str) -> str:
    """A string literal for Java, Swift and C++; names in a model file may contain any characters."""
    return json.dumps(text, ensure_ascii=False)


def _kotlin(text: str) -> str:
    return _quoted(text).replace("$", "\\$")


def _comment(text: str) -> str:
    """Text that cannot end the comment around it, nor (in Java) contain an escape for a character that would."""
    printable = "".join(letter if letter.isprintable() else " " for letter in text)
    return " ".join(printable.replace("*", "").replace("\\", "/").replace("`", "'").split())


def _shape(sides: tuple[int, ...]) -> str:
    return f"({', '.join(map(str, sides))})"


def _bytes(port: Port) -> int:
    return prod(port.shape) * np.dtype(port.dtype).itemsize

"""The model card: `model_card.md` for people and `model_card.json` for machines, beside the exported files.

It states what an app must do before and after the network, what was measured for each file, and what was verified.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from slimseg.graph.description import Description
from slimseg.report import palette, units, wording
from slimseg.report.code_snippets import layout, snippets
from slimseg.report.files import harmless_text, write_json, write_text
from slimseg.results import UNKNOWN, Artefact, Disturbance, ModelCard, ModelSummary, Provenance
from slimseg.runtimes import registry

NO_LICENCE = "Not stated: exporting does not change the rights in the weights and in their training data."


FILES = ("model_card.md", "model_card.json")


def model_card(
    artefacts: Sequence[Artefact],
    description: Description,
    *,
    model: str,
    input_size: tuple[int, int],
    licence: str = NO_LICENCE,
    images: int = 0,
    recommendation: str = "",
    heads: Sequence[str] = (),
    host: str = "",
    provenance: Provenance = UNKNOWN,
    disturbed: Disturbance | None = None,
) -> ModelCard:
    """The model card of exported files.

    Args:
        artefacts: the exported files, and those that could not be exported.
        description: the source's preprocessing and class names.
        model: the model's name.
        input_size: (height, width) that the network takes, in pixels.
        licence: the licence of the weights, in a sentence.
        images: the number of images on which masks were compared.
        recommendation: which file to use where, and why, in a sentence.
        heads: the cheapest form of the output on each runtime, a sentence each.
        host: the machine on which times were measured.
        provenance: the network's source, and the run of `slim` if there was one.
        disturbed: how other work on that machine disturbed the measurements.
    """
    names = palette.class_names(description.classes, _class_count(artefacts, input_size))
    wanted = description.preprocessing
    return ModelCard(
        model=model,
        input_size=input_size,
        pixel_format=wanted.channel_order.upper(),
        mean=wanted.mean,
        std=wanted.std,
        classes=names,
        palette=tuple(palette.css(colour) for colour in palette.colours(names)),
        licence=licence,
        images=images,
        artefacts=tuple(artefacts),
        recommendation=recommendation,
        heads=tuple(heads),
        host=host,
        provenance=provenance,
        disturbed=disturbed,
    )


def write_card(card: ModelCard, folder: str | os.PathLike[str]) -> list[Path]:
    """Write `model_card.md` and `model_card.json` into `folder`, each completely or not at all.

    Raises:
        OutputError: `folder` cannot be written to.
    """
    markdown, json = paths = [Path(folder) / name for name in FILES]
    write_json(card, json)
    write_text(render_card(card), markdown)
    return paths


def render_card(card: ModelCard) -> str:
    """The card as Markdown."""
    environment = Environment(
        loader=PackageLoader("slimseg.report"),
        finalize=harmless_text,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["cell"] = _cell
    return environment.get_template("model_card.md.j2").render(
        card=card,
        origin=card.provenance,
        u=units,
        w=wording,
        made=[each for each in card.artefacts if each.files],
        failed=[each for each in card.artefacts if not each.files],
        versions=_versions(card.provenance),
        has_miou=any(each.miou is not None for each in card.artefacts),
        targets={name: each.brand for name, each in registry.EXPORTERS.items()},
        normalisation=_normalisation(card),
        output=lambda artefact: _output(card, artefact),
        input=lambda artefact: _input(card, artefact),
        compiled=wording.compiled,
        snippets=snippets(card),
    )


def _versions(provenance: Provenance) -> list[tuple[str, ModelSummary]]:
    """The network before and after a run of `slim`; empty without a run."""
    both = (("original", provenance.original), ("slimmed", provenance.slimmed))
    return [(name, summary) for name, summary in both if summary is not None]


def _class_count(artefacts: Sequence[Artefact], input_size: tuple[int, int]) -> int:
    """The number of classes: at least two, as one channel of scores has two; masks do not count. 0 if unknown."""
    counts = [
        max(2, layout(each, each.output, input_size)[2])
        for each in artefacts
        if each.output is not None and each.output_kind != "mask"
    ]
    return max(counts, default=0)


def _normalisation(card: ModelCard) -> str:
    """The formula for the network's input, from one byte per channel."""
    mean, std = ([f"{value:g}" for value in values] for values in (card.mean, card.std))
    if len(set(mean)) == len(set(std)) == 1:
        return f"byte / {std[0]}" if mean[0] == "0" else f"(byte - {mean[0]}) / {std[0]}"
    return f"(byte - ({', '.join(mean)})) / ({', '.join(std)}) per channel, in {card.pixel_format}"


def _input(card: ModelCard, artefact: Artefact) -> str:
    """What an app passes to one file."""
    assert artefact.input is not None
    if artefact.takes_pixels:
        return f"the image's bytes, {card.pixel_format}; the file normalises them"
    value = _normalisation(card)
    if artefact.input.scale:
        value = f"round(({value}) / {artefact.input.scale:g}) + {artefact.input.zero_point}"
    return f"{value}, {card.pixel_format}"


def _output(card: ModelCard, artefact: Artefact) -> str:
    """The meaning of one file's numbers."""
    assert artefact.output is not None
    height, width, channels = layout(artefact, artefact.output, card.input_size)
    if artefact.output_kind == "mask":
        return f"the class of every pixel, {height}x{width}"
    what = "logit" if artefact.output_kind == "logits" else "probability"
    if channels == 1:
        above = "0.5" if what == "probability" else "0"
        return f"{what} of {_cell(card.classes[1])} for every pixel, {height}x{width}: above {above} it is that class"
    real = ""
    if artefact.output.scale:
        real = f"; real = (stored - {artefact.output.zero_point}) * {artefact.output.scale:g}"
    return f"{what} of each of {channels} classes for every pixel, {height}x{width}: the largest is the class{real}"


def _cell(text: str) -> str:
    """Text that stays in one table cell and on one line, whatever characters a class name contains."""
    return " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|").replace("`", "'").replace("<", "&lt;")

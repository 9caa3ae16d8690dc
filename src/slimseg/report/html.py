"""The report: one HTML file that needs no network access and shows the proof to a person."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from slimseg import ratios
from slimseg.report import charts, images, palette, units, wording
from slimseg.report.files import harmless_text, write_text
from slimseg.report.images import Example
from slimseg.results import ModelSummary, Profile, SlimResult

__all__ = ["Example", "render_report", "write_report"]


@dataclass(frozen=True)
class _Panel:
    """One picture of an example: a layer of colour over the photograph."""

    caption: str
    fact: str
    layer: str  # data URL, or "" for the bare photograph
    grey: bool = False


@dataclass(frozen=True)
class _Row:
    name: str
    photograph: str
    width: int
    height: int
    panels: tuple[_Panel, ...]


def write_report(
    result: SlimResult,
    path: str | os.PathLike[str],
    before: Profile,
    after: Profile,
    examples: Sequence[Example] = (),
    classes: Sequence[str] = (),
) -> None:
    """Write the report as one HTML file, completely or not at all.

    Args:
        result: the result of `slim`.
        path: the file to write.
        before: profile of the original in float32.
        after: profile of the deployed file.
        examples: images with masks to show; without any, the section is left out.
        classes: names by class index; missing ones are numbered.

    Raises:
        OutputError: `path` cannot be written; an existing file stays unchanged.
    """
    write_text(render_report(result, before, after, examples, classes), path)


def render_report(
    result: SlimResult,
    before: Profile,
    after: Profile,
    examples: Sequence[Example] = (),
    classes: Sequence[str] = (),
) -> str:
    """The report as HTML text; every name in it is escaped."""
    environment = Environment(
        loader=PackageLoader("slimseg.report"),
        autoescape=True,
        finalize=harmless_text,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    totals = charts.operator_totals(before, after)
    slots = {total.op: total.slot for total in totals}
    steps = charts.waterfall(result)
    names = palette.class_names(classes, _class_count(examples))
    colours = palette.colours(names)
    context: dict[str, Any] = {
        "result": result,
        "before": before,
        "after": after,
        "u": units,
        "w": wording,
        "headline": wording.headline(result),
        "files": _files(result),
        "gains": _gains(result),
        "totals": totals,
        "times": (
            charts.time_chart("Before", before, slots),
            charts.time_chart("After", after, slots),
        ),
        "steps": steps,
        "steps_max": max(max(step.start_ms, step.end_ms, 1e-9) for step in steps),
        "rows": [_row(example, colours) for example in examples],
        "legend": [(name, palette.css(colour)) for name, colour in zip(names, colours, strict=True)],
        "difference_legend": _difference_legend(examples),
        "refusals": wording.group_refusals(result.refusals),
    }
    return environment.get_template("report.html.j2").render(context)


def _files(result: SlimResult) -> list[tuple[str, ModelSummary]]:
    int8 = [] if result.plain_int8 is None else [("Only quantised to int8", result.plain_int8)]
    return [("Original", result.before), *int8, ("Slimmed", result.after)]


def _gains(result: SlimResult) -> list[tuple[str, ModelSummary, float, float]]:
    """(comparison, numbers of the other file, speed-up of the network, speed-up from image to mask)."""
    gains = [("Slimmed against original", result.before, result.speedup, result.end_to_end_speedup)]
    if result.plain_int8 is not None and result.speedup_over_int8 is not None:
        over = ratios.speedup(result.plain_int8.end_to_end_ms, result.after.end_to_end_ms)
        gains.append(("Slimmed against int8", result.plain_int8, result.speedup_over_int8, over))
    return gains


def _class_count(examples: Sequence[Example]) -> int:
    """One more than the largest class in any mask."""
    masks = [mask for e in examples for mask in (e.truth, e.before, e.after) if mask is not None]
    largest = (int(mask[mask != palette.IGNORED].max(initial=0)) for mask in masks)
    return max(largest, default=-1) + 1


def _row(example: Example, colours: palette.Colours) -> _Row:
    panels = [_Panel("Image", "", "")]
    accuracy = ["", ""]
    if example.truth is not None:
        panels.append(_Panel("Truth", "", images.coloured(example.truth, colours)))
        accuracy = [
            f"{units.percent(images.agreement(mask, example.truth))}% right" for mask in (example.before, example.after)
        ]
    changed = 100 - images.agreement(example.after, example.before)
    difference = images.coloured(images.difference(example), images.DIFFERENCE_COLOURS)
    panels += [
        _Panel("Before", accuracy[0], images.coloured(example.before, colours)),
        _Panel("After", accuracy[1], images.coloured(example.after, colours)),
        _Panel("Difference", f"{units.percent(changed)}% of pixels", difference, grey=True),
    ]
    height, width = example.before.shape
    return _Row(example.name, images.photograph(example.image), width, height, tuple(panels))


def _difference_legend(examples: Sequence[Example]) -> list[tuple[str, str]]:
    words = []
    if any(example.truth is not None for example in examples):
        words += [(images.GAINED, "only after is right"), (images.LOST, "only before was right")]
        words += [(images.BOTH_WRONG, "both wrong, differently")]
    if any(example.truth is None for example in examples):
        words.append((images.DIFFERS, "before and after differ"))
    return [(text, palette.css(images.DIFFERENCE_COLOURS[code])) for code, text in words]

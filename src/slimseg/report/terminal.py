"""Results as tables that are easy to read at a glance: on 80 columns, without colour, and in a pipe."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from slimseg import ratios
from slimseg.console import as_options
from slimseg.report import palette, placement, tables, units, wording
from slimseg.report.diagnosis import parts as findings_of
from slimseg.report.profile import parts as profile_parts
from slimseg.results import (
    AppliedEdit,
    Diagnosis,
    Evaluation,
    ModelSummary,
    Profile,
    Refusal,
    SlimResult,
)
from slimseg.runtimes import registry

_NAME = 24
_BESIDE = {
    "model_float.tflite": "the same network in float32",
    "model.pt2": "the network for PyTorch, for further training",
    "result.json": "all numbers, for programs",
    "report.html": "the report, for a browser",
}


def show_profile(profile: Profile, *, top: int = 15, statistics: bool = False, console: Console | None = None) -> None:
    """Print where the time goes: the `top` slowest layers; with `statistics`, every layer with all its times."""
    parts = profile_parts(profile, top=top, statistics=statistics, width=(console or Console()).width)
    tables.show(console, _title(profile.model, units.milliseconds(profile.latency_ms)), *parts)


def show_diagnosis(diagnosis: Diagnosis, *, verbose: bool = False, console: Console | None = None) -> None:
    """Print the largest savings, the techniques by their needs, the profile's findings, and refused layers.

    With `verbose`, print every site, variant and refused layer.
    """
    total = f"{units.milliseconds(diagnosis.latency_ms)} in {diagnosis.precision}"
    parts = [_title(diagnosis.model, total), *findings_of(diagnosis, verbose)]
    tables.show(console, *parts, *_refusals(diagnosis.refusals, verbose))


def show_evaluation(evaluation: Evaluation, *, console: Console | None = None) -> None:
    """Print mIoU, pixel accuracy and a bar per class."""
    rows = tables.table("Class", "IoU", "")
    rows.columns[2].justify = "left"
    colours = palette.colours(tuple(evaluation.class_iou))
    for (name, iou), colour in zip(evaluation.class_iou.items(), colours, strict=True):
        if iou is None:
            rows.add_row(tables.shortened(name, _NAME), "–", Text("not in this split", style="dim"))
        else:
            rows.add_row(
                tables.shortened(name, _NAME), units.percent(iou), tables.bar(iou / 100, 40, palette.css(colour))
            )
    rows.add_section()
    rows.add_row("mIoU", units.percent(evaluation.miou), tables.bar(evaluation.miou / 100, 40), style="bold")
    facts = Text(
        f"pixel accuracy {units.percent(evaluation.pixel_accuracy)}% · "
        f"{_plural(evaluation.images, 'image')} of {evaluation.data} ({evaluation.split})"
    )
    title = _title(evaluation.model, f"mIoU {units.percent(evaluation.miou)}")
    tables.show(console, title, "", rows, "", facts, *_beside_cpu(evaluation))


def _beside_cpu(evaluation: Evaluation) -> list[RenderableType]:
    """How the masks of another processor differ from the CPU's."""
    beside = evaluation.beside_cpu
    if beside is None:
        return []
    changed, worst = units.percent(beside.changed_percent), units.percent(beside.worst_changed_percent)
    differ = f"{changed}% of pixels differ from the CPU's, at most {worst}% of an image"
    lines = [f"{evaluation.processor}: {differ}; mIoU on the CPU {units.percent(beside.cpu_miou)}"]
    if beside.departure is not None:
        lines.append(f"The first layer that differs is {beside.departure.layer}, after {beside.departure.before}.")
    if beside.beyond_half:
        names = ", ".join(beside.beyond_half[:4]) + (" and more" if len(beside.beyond_half) > 4 else "")
        lines.append(f"Phones compute in float16 there, which cannot hold the values of {names} on these images.")
    return [Text(as_options(line)) for line in lines]


def show_slim(result: SlimResult, *, verbose: bool = False, console: Console | None = None) -> None:
    """Print the headline, the three files side by side, the budget, the edits, and the paths of the files."""
    style = "green" if result.budget_met else "yellow"
    parts: list[RenderableType] = [
        Panel.fit(Text(wording.headline(result), style="bold"), border_style=style, padding=(0, 2)),
        "",
        _comparison(result),
        "",
    ]
    parts += [tables.note(note) for note in result.notes]
    if result.budget:
        parts += [_budget(result), ""]
    parts += _forms(result)
    parts.append(_edits(result.edits))
    parts += tables.disturbance(result.disturbed)
    parts += placement.before_and_after(result.placed_before, result.placed_after)
    parts += _refusals(result.refusals, verbose)
    parts.append(_files(result))
    took = f"took {units.duration(result.seconds)} on {result.host}"
    parts.append(Text(f"{wording.weights_change(result)} · {took}", style="dim"))
    parts += tables.source_check(result.source_check)
    tables.show(console, *parts)


def _title(model: str, fact: str) -> Text:
    return Text.assemble((model, "bold"), "  ", (fact, "bold cyan"))


def _plural(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _refusals(refusals: tuple[Refusal, ...], verbose: bool) -> list[RenderableType]:
    """The most frequent reason of each technique; with `verbose`, every reason with its layers."""
    if not refusals:
        return []
    parts: list[RenderableType] = [Text(f"\nLeft alone ({_plural(len(refusals), 'site')})", style="bold")]
    groups = wording.group_refusals(refusals)
    if verbose:
        for group in groups:
            parts += [_refused(group, len(group.layers)), _indented(", ".join(group.layers))]
        return parts
    for technique in dict.fromkeys(group.technique for group in groups):
        first, *others = (group for group in groups if group.technique == technique)
        more = f"; {_plural(len(others), 'other reason')}" if others else ""
        parts.append(_refused(first, sum(len(group.layers) for group in (first, *others)), more))
    return [*parts, _indented("--verbose shows every layer and reason")]


def _refused(group: wording.RefusalGroup, count: int, more: str = "") -> Text:
    return Text.assemble(
        (f"{count:>3}× ", "cyan"),
        f"{wording.technique_name(group.technique)}: ",
        (as_options(group.reason) + more, "dim"),
    )


def _indented(text: str) -> RenderableType:
    return Padding(Text(text, style="dim"), (0, 0, 0, 5))


def _comparison(result: SlimResult) -> Table:
    labelled = result.before.miou is not None
    accuracy = "mIoU" if labelled else "Agreed"
    rows = tables.table("", "Input", "Size", "Latency", "End to\nend", accuracy, "MACs", "Params")
    rows.add_row("original", *_summary(result.before, labelled))
    if result.plain_int8 is not None:
        rows.add_row("plain int8", *_summary(result.plain_int8, labelled))
    rows.add_row("slimmed", *_summary(result.after, labelled), style="bold green")
    rows.add_section()
    rows.add_row("against original", *_gain(result.before, result.after, result.speedup, result.end_to_end_speedup))
    if result.plain_int8 is not None and result.speedup_over_int8 is not None:
        over_int8 = ratios.speedup(result.plain_int8.end_to_end_ms, result.after.end_to_end_ms)
        rows.add_row("against int8", *_gain(result.plain_int8, result.after, result.speedup_over_int8, over_int8))
    return rows


def _summary(model: ModelSummary, labelled: bool) -> tuple[str, ...]:
    return (
        units.shape(model.input_size),
        units.size(model.size_bytes),
        units.milliseconds(model.latency_ms),
        units.milliseconds(model.end_to_end_ms),
        units.percent(model.miou if labelled else model.agreement),
        units.count(model.macs),
        units.count(model.params),
    )


def _gain(before: ModelSummary, after: ModelSummary, speedup: float, end_to_end: float) -> tuple[str, ...]:
    change = units.points(after.miou - before.miou) if before.miou is not None and after.miou is not None else ""
    return (
        "",
        wording.size_gain(before, after),
        units.times(speedup),
        units.times(end_to_end),
        change,
        units.times(units.quotient(before.macs, after.macs)),
        units.times(units.quotient(before.params, after.params)),
    )


def _budget(result: SlimResult) -> Group:
    verdict = "Budget met" if result.budget_met else "Budget not met: export needs --anyway for this result"
    lines = [Text(verdict, style="bold green" if result.budget_met else "bold yellow")]
    for check in result.budget:
        mark = ("✓ ", "green") if check.met else ("✗ ", "bold red")
        lines.append(Text.assemble("  ", mark, wording.budget_sentence(check)))
    return Group(*lines)


def _forms(result: SlimResult) -> list[RenderableType]:
    """All forms that were compared in their deployed precision, with the chosen one marked."""
    if not result.forms:
        return []
    labelled = result.before.miou is not None
    rows = tables.table("Compared", "Input", "Size", "Speed", "mIoU" if labelled else "Agreed", "Budget")
    for form in result.forms:
        rows.add_row(
            tables.shortened(f"{form.form}{' ✓' if form.chosen else ''}", 30),
            units.shape(form.input_size),
            units.size(form.size_bytes),
            units.times(form.speedup),
            units.percent(form.miou if labelled else form.agreement),
            "met" if form.budget_met else "missed",
            style="bold" if form.chosen else None,
        )
    return [rows, ""]


def _edits(edits: tuple[AppliedEdit, ...]) -> RenderableType:
    if not edits:
        return Text("No edit was made: no allowed edit made the file faster.")
    rows = tables.table("Edit", "Layers", "Predicted", "Realised", numbers_from=2)
    for edit in edits:
        worse = edit.realised_saving_ms < 0 and edit.is_measurable
        rows.add_row(
            tables.shortened(wording.technique_name(edit.technique), 24),
            tables.shortened(wording.few(edit.layers), 20),
            units.saved(edit.predicted_saving_ms),
            Text(_realised(edit), style="red" if worse else "cyan"),
        )
    return rows


def _realised(edit: AppliedEdit) -> str:
    if edit.is_measurable or edit.realised_error_ms is None:
        return units.with_error(edit.realised_saving_ms, edit.realised_error_ms)
    return f"within {units.noise(edit.realised_error_ms)}"


def _files(result: SlimResult) -> RenderableType:
    lines = Table.grid(padding=(0, 2))
    deployed, *weights = registry.of(result.after.file).files(Path(result.after.file))
    files = {deployed.name: "the file to deploy", **{each.name: "its weights" for each in weights}, **_BESIDE}
    for name, purpose in files.items():
        path = Path(result.run) / name
        if path.is_file():
            lines.add_row(Text(f"  {name}"), Text(units.size(path.stat().st_size)), Text(purpose, style="dim"))
    return Group(Text(f"\nIn {result.run}", style="bold"), lines)

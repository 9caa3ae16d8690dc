"""Results as tables that a person enjoys at a glance; readable on 80 columns, without colour, and in a pipe."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from slimseg.report import palette, tables, units, wording
from slimseg.results import (
    AppliedEdit,
    Diagnosis,
    Evaluation,
    Finding,
    LayerProfile,
    ModelSummary,
    Profile,
    Refusal,
    SlimResult,
)

_BAR = 9  # characters
_NAME = 24
_FILES = {
    "model.tflite": "the file to deploy",
    "model_float.tflite": "the same network in float32",
    "model.pt2": "the network for PyTorch, to train on",
    "result.json": "all numbers, for machines",
    "report.html": "the report, for people",
}


def show_profile(profile: Profile, *, top: int = 15, console: Console | None = None) -> None:
    """Print where the time goes: the `top` slowest layers, the rest in one row, the unattributed, the total."""
    ranked = sorted(profile.layers, key=lambda layer: -layer.latency_ms)
    shown, rest = ranked[:top], ranked[top:]
    rows = tables.table("Layer", "Operator", "Time", "Share", "", "MACs", "Memory", numbers_from=2)
    rows.columns[4].justify = "left"
    # Names get whatever the numbers leave on 80 columns, and all of a wider terminal's extra room.
    name_width = 18 + max(0, (console or Console()).width - 80)
    largest = max((layer.share for layer in shown), default=0.0)
    for layer in shown:
        rows.add_row(
            tables.shortened(layer.name, name_width),
            tables.shortened(layer.op.removesuffix("_2D"), 15),
            units.milliseconds(layer.latency_ms),
            units.share(layer.share),
            tables.bar(units.quotient(layer.share, largest) if largest else 0, _BAR),
            units.count(layer.macs),
            units.size(layer.memory_bytes),
        )
    if rest:
        rows.add_row(*_rest_row(rest), style="dim")
    unattributed = profile.unattributed_ms / profile.latency_ms if profile.latency_ms else 0.0
    rows.add_row("not attributed", "", units.milliseconds(profile.unattributed_ms), units.share(unattributed))
    rows.add_section()
    rows.add_row(
        "end to end",
        "",
        units.milliseconds(profile.latency_ms),
        "",
        "",
        units.count(profile.macs),
        units.size(sum(layer.memory_bytes for layer in profile.layers)),
        style="bold",
    )
    spread = f"{units.milliseconds(profile.latency_p10_ms)} to {units.milliseconds(profile.latency_p90_ms)}"
    facts = Text.assemble(
        f"{units.size(profile.size_bytes)} · {units.count(profile.params)} parameters · ",
        f"{spread} (10th to 90th percentile)\n",
        (f"{profile.runtime}, {_plural(profile.threads, 'thread')}, {_plural(profile.runs, 'run')}", "dim"),
    )
    tables.show(console, _title(profile.model, units.milliseconds(profile.latency_ms)), "", rows, "", facts)


def show_diagnosis(diagnosis: Diagnosis, *, verbose: bool = False, console: Console | None = None) -> None:
    """Print the findings by what they need, then why other sites were left alone (all of them if `verbose`)."""
    total = f"{units.milliseconds(diagnosis.latency_ms)} in {diagnosis.precision}"
    parts: list[RenderableType] = [_title(diagnosis.model, total)]
    for needs, findings in groupby(diagnosis.findings, key=lambda finding: finding.needs):
        heading = wording.NEEDS_WORDS[needs]
        parts.append(Text(f"\n{heading[0].upper()}{heading[1:]}", style="bold green"))
        parts += [_finding(finding) for finding in findings]
    if not diagnosis.findings:
        parts.append(Text("\nNothing found that would make this network faster."))
    parts += _refusals(diagnosis.refusals, verbose)
    tables.show(console, *parts)


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
    tables.show(console, _title(evaluation.model, f"mIoU {units.percent(evaluation.miou)}"), "", rows, "", facts)


def show_slim(result: SlimResult, *, verbose: bool = False, console: Console | None = None) -> None:
    """Print the headline, the three files side by side, the budget, the edits, and where the files are."""
    style = "green" if result.budget_met else "yellow"
    parts: list[RenderableType] = [
        Panel.fit(Text(wording.headline(result), style="bold"), border_style=style, padding=(0, 2)),
        "",
        _comparison(result),
        "",
    ]
    if result.budget:
        parts += [_budget(result), ""]
    parts.append(_edits(result.edits))
    parts += _refusals(result.refusals, verbose)
    parts.append(_files(result))
    parts.append(Text(f"took {units.duration(result.seconds)} on {result.host}", style="dim"))
    tables.show(console, *parts)


def _title(model: str, fact: str) -> Text:
    return Text.assemble((model, "bold"), "  ", (fact, "bold cyan"))


def _plural(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _rest_row(rest: list[LayerProfile]) -> tuple[str, ...]:
    return (
        _plural(len(rest), "other layer"),
        "",
        units.milliseconds(sum(layer.latency_ms for layer in rest)),
        units.share(sum(layer.share for layer in rest)),
        "",
        units.count(sum(layer.macs for layer in rest)),
        units.size(sum(layer.memory_bytes for layer in rest)),
    )


def _finding(finding: Finding) -> RenderableType:
    before, after = units.milliseconds(finding.before_ms), units.milliseconds(finding.after_ms)
    line = Table.grid(padding=(0, 2))
    line.add_column(width=11, justify="right")
    line.add_column(width=7, justify="right")
    line.add_column()
    line.add_row(
        Text(units.saved(finding.saving_ms), style="bold cyan" if finding.saving_ms > 0 else "bold red"),
        units.share(finding.share),
        Text.assemble(
            (wording.technique_name(finding.technique), "bold"),
            f"  {before} → {after}\n{wording.few(finding.layers, 2)}\n",
            (finding.reason, "dim"),
        ),
    )
    return line


def _refusals(refusals: tuple[Refusal, ...], verbose: bool) -> list[RenderableType]:
    if not refusals:
        return []
    parts: list[RenderableType] = [Text(f"\nLeft alone ({_plural(len(refusals), 'site')})", style="bold")]
    for group in wording.group_refusals(refusals):
        line = Text.assemble(
            (f"{len(group.layers):>3}× ", "cyan"), f"{wording.technique_name(group.technique)}: ", (group.reason, "dim")
        )
        parts.append(line)
        if verbose:
            parts.append(Padding(Text(", ".join(group.layers), style="dim"), (0, 0, 0, 5)))
    if not verbose:
        parts.append(Text("     --verbose names the layers", style="dim"))
    return parts


def _comparison(result: SlimResult) -> Table:
    labelled = result.baseline.miou is not None
    accuracy = "mIoU" if labelled else "Agreed"
    rows = tables.table("", "Input", "Size", "Latency", "End to\nend", accuracy, "MACs", "Params")
    rows.add_row("original", *_summary(result.baseline, labelled))
    if result.plain_int8 is not None:
        rows.add_row("merely int8", *_summary(result.plain_int8, labelled))
    rows.add_row("slimmed", *_summary(result.result, labelled), style="bold green")
    rows.add_section()
    rows.add_row("against original", *_gain(result.baseline, result.result, result.speedup, result.end_to_end_speedup))
    if result.plain_int8 is not None and result.speedup_over_int8 is not None:
        over_int8 = units.quotient(result.plain_int8.end_to_end_ms, result.result.end_to_end_ms)
        rows.add_row("against int8", *_gain(result.plain_int8, result.result, result.speedup_over_int8, over_int8))
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
        units.times(units.quotient(before.size_bytes, after.size_bytes)),
        units.times(speedup),
        units.times(end_to_end),
        change,
        units.times(units.quotient(before.macs, after.macs)),
        units.times(units.quotient(before.params, after.params)),
    )


def _budget(result: SlimResult) -> Group:
    verdict = "Budget met" if result.budget_met else "Budget not met; this is the best that was found"
    lines = [Text(verdict, style="bold green" if result.budget_met else "bold yellow")]
    for check in result.budget:
        mark = ("✓ ", "green") if check.met else ("✗ ", "bold red")
        lines.append(Text.assemble("  ", mark, wording.budget_sentence(check)))
    return Group(*lines)


def _edits(edits: tuple[AppliedEdit, ...]) -> RenderableType:
    if not edits:
        return Text("No edit was made: none of those allowed made the file faster.")
    rows = tables.table("Edit", "Layers", "Predicted", "Realised", numbers_from=2)
    for edit in edits:
        worse = edit.realised_saving_ms < 0
        rows.add_row(
            tables.shortened(wording.technique_name(edit.technique), 26),
            tables.shortened(wording.few(edit.layers), 26),
            units.saved(edit.predicted_saving_ms),
            Text(units.saved(edit.realised_saving_ms), style="red" if worse else "cyan"),
        )
    return rows


def _files(result: SlimResult) -> RenderableType:
    lines = Table.grid(padding=(0, 2))
    for name, purpose in _FILES.items():
        path = Path(result.run) / name
        if path.is_file():
            lines.add_row(Text(f"  {name}"), Text(units.size(path.stat().st_size)), Text(purpose, style="dim"))
    return Group(Text(f"\nIn {result.run}", style="bold"), lines)

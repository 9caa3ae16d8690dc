"""The files that `slimseg quantize` tried, for the terminal: a row per scheme, the choice, the fallbacks."""

from __future__ import annotations

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from slimseg.console import as_options
from slimseg.report import tables, units, wording
from slimseg.results import Fallback, Island, LayerSensitivity, QuantisationResult, QuantisedFile

_LEVEL = 0.03  # share of the original's speed; smaller differences are noise, shown neither green nor red
_WORST = 10  # layers that are shown


def show_quantisation(result: QuantisationResult, *, verbose: bool = False, console: Console | None = None) -> None:
    """Print the table, the verdict, the budget, the chosen file's conversions and fallbacks, and its path.

    The worst of the layers' sensitivities are shown; with `verbose`, all of them.
    """
    parts: list[RenderableType] = [Text(result.model, style="bold"), "", _table(result)]
    parts += _reasons(result.candidates)
    slower = result.chosen.speedup < 1 - _LEVEL
    parts += ["", Text(f"Kept: {result.verdict}.", style="yellow" if slower else "green")]
    for check in result.budget:
        mark = ("✓ ", "green") if check.met else ("✗ ", "bold red")
        parts.append(Text.assemble("  ", mark, wording.budget_sentence(check)))
    if not result.budget_met:
        parts.append(Text("Budget not met; this file loses the least accuracy", style="bold yellow"))
    parts += _kept_in_float(result.chosen)
    parts += _sensitivities(result.sensitivities, result.chosen, verbose)
    parts += _off_the_delegate(result.fallbacks, result.islands)
    parts += [tables.note(note) for note in result.notes]
    parts += tables.disturbance(result.disturbed)
    parts += ["", Text.assemble((result.file, "bold"), f"  {units.size(result.chosen.size_bytes)}"), _facts(result)]
    tables.show(console, *parts)


def _table(result: QuantisationResult) -> Table:
    labelled = result.baseline.miou is not None
    corrected = any(row.corrected for row in result.candidates)
    words = ("Scheme", "Ranges", "Corrected") if corrected else ("Scheme", "Ranges")
    accuracy_column = "mIoU" if labelled else "Agreed"
    rows = tables.table(*words, "Latency", "Speed", "Size", accuracy_column, numbers_from=len(words))
    for row in (result.baseline, *result.candidates):
        accuracy = row.miou if labelled else row.agreement
        kept = row is not result.baseline and row == result.chosen
        rows.add_row(
            f"{_scheme(row)}{' ✓' if kept else ''}",
            *((row.ranges, row.corrected) if corrected else (row.ranges,)),
            units.milliseconds(row.latency_ms) if row.was_made else "–",
            _speed(row) if row is not result.baseline else "",
            units.size(row.size_bytes) if row.was_made else "–",
            units.percent(accuracy, 2),
            style="bold" if kept else None,
        )
    return rows


def _scheme(row: QuantisedFile) -> str:
    return f"{row.scheme}, {len(row.kept_float)} float" if row.kept_float else row.scheme


def _speed(row: QuantisedFile) -> Text:
    if not row.was_made:
        return Text("–")
    style = "green" if row.speedup > 1 + _LEVEL else "red" if row.speedup < 1 - _LEVEL else ""
    return Text(units.times(row.speedup), style=style)


def _reasons(candidates: tuple[QuantisedFile, ...]) -> list[RenderableType]:
    """The reasons of failed files, once per scheme and reason."""
    said = dict.fromkeys((_scheme(row), row.reason) for row in candidates if row.reason)
    return [Text(f"  {scheme}: {as_options(reason)}", style="dim") for scheme, reason in said]


def _kept_in_float(chosen: QuantisedFile) -> list[RenderableType]:
    if not chosen.kept_float:
        return []
    cost = "" if chosen.kept_cost_ms is None else f", {chosen.kept_cost_ms:+.2f} ms compared with int8 for all layers"
    return [Text(f"In float32{cost}: {', '.join(chosen.kept_float)}")]


def _sensitivities(found: tuple[LayerSensitivity, ...], chosen: QuantisedFile, verbose: bool) -> list[RenderableType]:
    """A row per layer, the worst first."""
    if not found:
        return []
    rows = tables.table("Layer, alone in int8", "Pixels changed", "")
    for each in found if verbose else found[:_WORST]:
        kept = "in float32" if each.layer in chosen.kept_float else ""
        rows.add_row(tables.shortened(each.layer, 40), units.percent(each.changed_percent, 2), kept)
    hidden = len(found) - _WORST
    more = (
        [Text(f"  and {hidden} less sensitive layers: --verbose shows them", style="dim")]
        if hidden > 0 and not verbose
        else []
    )
    return ["", rows, *more]


def _off_the_delegate(fallbacks: tuple[Fallback, ...], islands: tuple[Island, ...]) -> list[RenderableType]:
    """One table of the operators that the delegate left to built-in kernels, and of conversions between precisions."""
    if not fallbacks and not islands:
        return [Text("All operators run on XNNPACK, in one precision.", style="dim")]
    rows = tables.table("Off XNNPACK, or in float", "Layers", "Kernels", "Convert", "Share", numbers_from=2)
    for fallback in fallbacks:
        rows.add_row(
            tables.shortened(fallback.op, 24),
            tables.shortened(wording.few(fallback.layers), 20),
            units.milliseconds(fallback.kernel_ms),
            units.milliseconds(fallback.conversion_ms),
            units.share(fallback.share),
        )
    for ops in dict.fromkeys(island.ops for island in islands):
        alike = [island for island in islands if island.ops == ops]
        rows.add_row(
            tables.shortened(f"{len(alike)}× float {', '.join(ops)}", 24),
            tables.shortened(wording.few(tuple(layer for island in alike for layer in island.layers)), 20),
            units.milliseconds(sum(island.inside_ms for island in alike)),
            units.milliseconds(sum(island.conversion_ms for island in alike)),
            units.share(sum(island.share for island in alike)),
        )
    return ["", rows]


def _facts(result: QuantisationResult) -> Text:
    images = [
        f"ranges from {result.calibration_images} images" if result.calibration_images else "",
        f"accuracy on {result.validation_images} images" if result.validation_images else "accuracy not measured",
        f"took {units.duration(result.seconds)}",
        result.host,
    ]
    return Text(" · ".join(each for each in images if each), style="dim")

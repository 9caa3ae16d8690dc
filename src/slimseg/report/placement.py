"""Where a network's layers run, on the terminal: a table of what a processor leaves to the CPU, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from slimseg.report import tables, units
from slimseg.results import Compilation, LayerPlacement, Placement, Placements, ProcessorStates

_NAME = 28


def show_placements(result: Placements, *, verbose: bool = False, console: Console | None = None) -> None:
    """Print for every processor what it takes; with `verbose`, a row for every layer of the file."""
    parts: list[RenderableType] = [Text(result.model, style="bold")]
    for placement in result.placements:
        parts += _placement(placement)
    if verbose:
        parts += ["", _every_layer(result)]
    tables.show(console, *parts)


def before_and_after(before: Sequence[Placement], after: Sequence[Placement]) -> list[RenderableType]:
    """What each processor takes of the original and of the slimmed file; empty without processors."""
    if not after:
        return []
    rows = tables.table("Processor", "Original", "Slimmed", "Parts", "Copies", "Main memory", numbers_from=1)
    for old, new in zip(before, after, strict=True):
        moved = [each.compilation.ddr_bytes if each.compilation else None for each in (old, new)]
        rows.add_row(
            new.processor,
            *(f"{each.taken} of {len(each.layers)}" for each in (old, new)),
            _change(old.partitions, new.partitions),
            _change(old.copies, new.copies),
            "" if None in moved else _change(*(units.size(each or 0) for each in moved)),
        )
    left: list[RenderableType] = []
    for each in after:
        if not each.is_whole:
            left += [Text(f"{each.processor} leaves to the CPU:"), _refused(each)]
    return ["", Text("Layers that each processor takes", style="bold"), rows, *left]


def _change(before: object, after: object) -> str:
    return f"{after}" if before == after else f"{before} to {after}"


def show_processors(result: ProcessorStates, *, console: Console | None = None) -> None:
    """Print what can be asked on this machine, and what to install for the rest."""
    rows = tables.table("Processor", "Runtime", "On this machine", "Computes", "Timed", numbers_from=5)
    rows.columns[2].no_wrap = False
    below: list[Text] = []
    alike = groupby(result.processors, key=lambda one: replace(one, name="", title=""))
    for each, group in ((key, list(group)) for key, group in alike):
        answers = each.answers or "no: see below" if each.install else each.answers or "from a list"
        name = group[0].name if len(group) == 1 else f"{group[0].name} and {len(group) - 1} more"
        rows.add_row(name, each.runtime, answers, *("yes" if flag else "no" for flag in (each.computes, each.timed)))
        if each.install:
            below.append(Text(f"{name} ({each.runtime}): {each.install}"))
        if len(group) > 1:
            below.append(Text(f"{name}: {', '.join(one.name for one in group)}", style="dim"))
    tables.show(console, rows, *([""] if below else []), *below)


def _placement(placement: Placement) -> list[RenderableType]:
    whole = placement.is_whole
    verdict = "takes all of it" if whole else f"takes {placement.taken} of {len(placement.layers)} layers"
    parts: list[RenderableType] = [
        "",
        Text.assemble((placement.processor, "bold"), " ", (verdict, "green" if whole else "yellow")),
        Text(f"{_counts(placement)} · {placement.judge}", style="dim"),
    ]
    if placement.compilation is not None:
        parts.append(Text(_compiled(placement.compilation)))
    return parts if whole else [*parts, _refused(placement)]


def _counts(placement: Placement) -> str:
    pieces = "1 partition" if placement.partitions == 1 else f"{placement.partitions} partitions"
    copied = "1 copy" if placement.copies == 1 else f"{placement.copies} copies"
    return f"{pieces}, {copied} between processors"


def _refused(placement: Placement) -> Table:
    """The layers that are left to the CPU, in the order of the file; those in a row for one reason share a line."""
    rows = tables.table("Layer", "Operator", "Why not", numbers_from=3)
    rows.columns[2].no_wrap = False
    for reason, group in groupby(placement.refused, key=lambda layer: layer.reason):
        layers = list(group)
        operators = list(dict.fromkeys(layer.op for layer in layers))
        more = f" and {len(operators) - 1} more" if len(operators) > 1 else ""
        rows.add_row(_named(layers), tables.shortened(operators[0], 18).plain + more, reason)
    return rows


def _named(layers: list[LayerPlacement]) -> str:
    first, last = (tables.shortened(layer.name, _NAME).plain for layer in (layers[0], layers[-1]))
    return first if len(layers) == 1 else f"{first}\nto {last} ({len(layers)})"


def _every_layer(result: Placements) -> Table:
    names = [placement.processor for placement in result.placements]
    rows = tables.table("Layer", "Operator", *names, numbers_from=2 + len(names))
    for layers in zip(*(placement.layers for placement in result.placements), strict=True):
        rows.add_row(tables.shortened(layers[0].name, _NAME), layers[0].op, *(layer.processor for layer in layers))
    return rows


def _compiled(found: Compilation) -> str:
    sizes = {
        "context": found.context_bytes,
        "read": found.ddr_read_bytes,
        "written": found.ddr_write_bytes,
        "spilled": found.spill_bytes,
        "filled": found.fill_bytes,
    }
    known = [f"{name} {units.size(size)}" for name, size in sizes.items() if size is not None]
    said = [f"compiled in {found.compile_s:.1f} s", *known]
    if found.operators is not None:
        said.append(f"{found.operators} operations")
    if found.estimated_ms is not None:
        ends = (found.estimated_fastest_ms or found.estimated_ms, found.estimated_slowest_ms or found.estimated_ms)
        low, high = map(units.milliseconds, ends)
        said.append(f"its compiler estimates {units.milliseconds(found.estimated_ms)} ({low} to {high}), not measured")
    return " · ".join(said)

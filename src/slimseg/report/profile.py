"""A profile on the terminal: slowest layers, kernels by type, operators outside XNNPACK, the machine's roof."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from slimseg import ratios
from slimseg.report import tables, units
from slimseg.results import LayerProfile, Profile

_MODULES = re.compile(r"(?:[A-Za-z_]\w*\.)+(?=[A-Za-z_])")  # "torch.nn.modules.conv." before "Conv2d"
_TYPES = 8  # types of kernels shown
_FALLBACKS = 6
_LEAST_ROOM = 10  # characters of other names that are worth showing
_FIXED = 63  # characters of a line that are not for names


def parts(profile: Profile, *, top: int, statistics: bool, width: int) -> list[RenderableType]:
    """The tables for `width` columns; with `statistics`, also every layer with all its times."""
    made: list[RenderableType] = ["", _layers(profile, top, max(17, width - _FIXED)), "", _facts(profile)]
    made += tables.disturbance(profile.disturbed)
    if profile.node_types:
        made += ["", _heading("By kind of kernel"), _node_types(profile, _TYPES if not statistics else None)]
    made += _off_xnnpack(profile)
    made += _islands(profile)
    if statistics:
        made += ["", _heading("Every layer, in milliseconds"), _statistics(profile, max(17, width - _FIXED))]
    return made


def _layers(profile: Profile, top: int, name_width: int) -> Table:
    """The `top` slowest layers, one row for the others, the unattributed time, and the total."""
    ranked = _ranked(profile)
    shown, others = ranked[:top], [layer for _, layer in ranked[top:]]
    rows = tables.table("Layer", "Operator", "Time", "Share", "GMAC/s", "GB/s", "Speed", numbers_from=2)
    rows.columns[6].justify = "left"
    for name, layer in shown:
        rows.add_row(
            _named(name, layer, name_width),
            tables.shortened(layer.op.removesuffix("_2D"), 14),
            units.milliseconds(layer.latency_ms),
            units.share(layer.share),
            _rate(layer.gmac_per_s),
            _rate(layer.gb_per_s),
            _speed(layer),
        )
    if others:
        spent = sum(layer.latency_ms for layer in others), sum(layer.share for layer in others)
        noun = f"{len(others)} other layer" + ("s" if len(others) > 1 else "")
        rows.add_row(noun, "", units.milliseconds(spent[0]), units.share(spent[1]), style="dim")
    unattributed = ratios.share(profile.unattributed_ms, profile.latency_ms)
    rows.add_row("not attributed", "", units.milliseconds(profile.unattributed_ms), units.share(unattributed))
    rows.add_section()
    moved = sum(layer.memory_bytes for layer in profile.layers)
    rates = [_rate(ratios.share(each, profile.latency_ms) / 1e6) for each in (profile.macs, moved)]
    rows.add_row("end to end", "", units.milliseconds(profile.latency_ms), "", *rates, style="bold")
    return rows


def _speed(layer: LayerProfile) -> Text:
    style = {"badly served": "yellow", "compute-bound": "cyan", "memory-bound": "cyan"}.get(layer.bound, "dim")
    return Text(layer.bound if layer.delegate != "built-in" else "off XNNPACK", style=style)


def _facts(profile: Profile) -> Text:
    spread = f"{units.milliseconds(profile.latency_p10_ms)} to {units.milliseconds(profile.latency_p90_ms)}"
    lines = [
        f"{units.size(profile.size_bytes)} · {units.count(profile.params)} parameters · "
        f"{units.count(profile.macs)} MACs · {spread} (80% of runs)"
    ]
    if profile.prepare_ms:
        inputs = "input " + ", ".join(units.shape(shape) for shape in profile.input_shapes) + " · "
        memory = f" · {units.size(profile.peak_memory_bytes)} of memory" if profile.peak_memory_bytes else ""
        lines.append(
            f"{inputs if profile.input_shapes else ''}ready after {units.milliseconds(profile.initialisation_ms)} · "
            f"first run {units.milliseconds(profile.first_run_ms)}{memory}"
        )
    for roof in profile.roofs:
        rates = [rate for _, rate in roof.bandwidth]
        lines.append(
            f"{roof.precision} at best: {_rate(roof.gmac_per_s)} GMAC/s ({roof.convolution}), "
            f"{min(rates):.0f} to {max(rates):.0f} GB/s"
        )
    threads = f"{profile.threads} thread" + ("s" if profile.threads > 1 else "")
    runs = f"{profile.runs} run" + ("s" if profile.runs > 1 else "")
    legend = "badly served: less than a third of the speed that these rates allow\n" if profile.roofs else ""
    return Text.assemble("\n".join(lines) + "\n", (f"{legend}{profile.runtime}, {threads}, {runs}", "dim"))


def _node_types(profile: Profile, top: int | None) -> Table:
    rows = tables.table("Kernel", "Count", "Time", "Share", "Sum")
    for kind in profile.node_types[:top]:
        name = kind.kernel if kind.delegate == "XNNPACK" else f"{kind.kernel} ({kind.delegate})"
        rows.add_row(
            tables.shortened(name, 46),
            str(kind.count),
            units.milliseconds(kind.total_ms),
            units.share(kind.share),
            units.share(kind.cumulative),
        )
    others = profile.node_types[top:] if top is not None else ()
    if others:
        spent = units.milliseconds(sum(kind.total_ms for kind in others)), units.share(sum(k.share for k in others))
        rows.add_row(f"{len(others)} more", str(sum(kind.count for kind in others)), *spent, "", style="dim")
    rows.add_section()
    count, total_ms = sum(kind.count for kind in profile.node_types), sum(kind.total_ms for kind in profile.node_types)
    rows.add_row("all kernels", str(count), units.milliseconds(total_ms), "", "", style="bold")
    return rows


def _off_xnnpack(profile: Profile) -> list[RenderableType]:
    """Operators in built-in kernels and the conversions around them, by type."""
    if not profile.kernels:
        return []
    if not profile.fallbacks:
        return [Text("\nEverything ran on XNNPACK.", style="dim")]
    spent_ms = sum(each.kernel_ms + each.conversion_ms for each in profile.fallbacks)
    pieces = "one piece" if profile.delegate_parts == 1 else f"{profile.delegate_parts} pieces"
    share = units.share(sum(each.share for each in profile.fallbacks))
    rows = tables.table("Operator", "Count", "Kernels", "Conversions", "Share")
    for each in profile.fallbacks[:_FALLBACKS]:
        times = units.milliseconds(each.kernel_ms), units.milliseconds(each.conversion_ms)
        rows.add_row(tables.shortened(each.op, 28), str(len(each.layers)), *times, units.share(each.share))
    if profile.fallbacks[_FALLBACKS:]:
        rows.add_row(f"{len(profile.fallbacks) - _FALLBACKS} more", style="dim")
    title = f"Off XNNPACK: {units.milliseconds(spent_ms)}, {share}"
    return ["", Text.assemble((title, "bold"), (f" (XNNPACK runs the network in {pieces})", "dim")), rows]


def _islands(profile: Profile) -> list[RenderableType]:
    """Float islands between quantised neighbours, grouped by the operators in them."""
    kinds = Counter(", ".join(island.ops) for island in profile.islands)
    lines: list[RenderableType] = []
    for ops, count in kinds.most_common(3):
        own = [island for island in profile.islands if ", ".join(island.ops) == ops]
        spent = units.milliseconds(sum(island.conversion_ms for island in own))
        share = units.share(sum(island.share for island in own))
        noun = "Float island" if count == 1 else f"{count} float islands"
        shown = tables.shortened(ops, 32).plain
        lines.append(Text(f"{noun} of {shown} between integers: {spent} for conversions ({share})"))
    return ["", *lines] if lines else []


def _statistics(profile: Profile, name_width: int) -> Table:
    rows = tables.table("Layer", "First", "Mean", "Min", "Max", "Std", "Share", "Sum", "Calls")
    for name, layer in _ranked(profile):
        own = layer.statistics
        times = _milliseconds((own.first_ms, own.average_ms, own.min_ms, own.max_ms, own.std_ms))
        shares = units.share(layer.share), units.share(layer.cumulative)
        rows.add_row(_named(name, layer, name_width), *times, *shares, str(own.times_called))
    whole = profile.statistics
    rows.add_section()
    times = _milliseconds((whole.first_ms, whole.average_ms, whole.min_ms, whole.max_ms, whole.std_ms))
    rows.add_row("profiled run", *times, "", "", str(whole.times_called), style="bold")
    return rows


def _ranked(profile: Profile) -> list[tuple[str, LayerProfile]]:
    """The layers, the slowest first, each with its place in the file and a short name.

    The names omit the Python modules of classes and the prefix that all names share.
    """
    paths = [_MODULES.sub("", layer.name).split("/") for layer in profile.layers]
    beginnings = list(zip(*(path[:-1] for path in paths), strict=False)) if len(paths) > 1 else []
    common = next((i for i, parts in enumerate(beginnings) if len(set(parts)) > 1), len(beginnings))
    digits = len(str(len(paths)))
    named = [f"{index:{digits}} {'/'.join(path[common:])}" for index, path in enumerate(paths)]
    return sorted(zip(named, profile.layers, strict=True), key=lambda pair: -pair[1].latency_ms)


def _named(name: str, layer: LayerProfile, width: int) -> Text:
    """The layer's name, and behind it what else its operator computes, as far as there is room."""
    text = tables.shortened(name, width)
    others = ", ".join(other.rpartition("/")[2] for other in layer.also_computes)
    room = width - len(text) - 3
    if others and room >= min(len(others), _LEAST_ROOM):
        text.append(f" + {tables.shortened(others, room)}", style="dim")
    return text


def _milliseconds(values: Sequence[float]) -> list[str]:
    return [f"{value:.3f}" if value < 100 else f"{value:.1f}" for value in values]


def _rate(value: float) -> str:
    """A rate per second: "112", "8.1", "0.25"; a dash for zero."""
    if not value:
        return "–"
    return f"{value:.0f}" if value >= 99.95 else f"{value:.1f}" if value >= 0.995 else f"{value:.2f}"


def _heading(text: str) -> Text:
    return Text(text, style="bold")

"""Forms of the output on every runtime, for the terminal: the time of each, and the recommended one."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console, RenderableType
from rich.text import Text

from slimseg.report import head_choice, tables, units
from slimseg.report.head_choice import AS_IS
from slimseg.results import HeadTrial


def show_heads(trials: Sequence[HeadTrial], *, console: Console | None = None) -> None:
    """Print a row per form, with the recommended one in green, a sentence per runtime, and why forms are missing."""
    rows = tables.table("Runtime", "Output", "Network", "To mask", "Bytes", "Changed", numbers_from=2)
    chosen = head_choice.best(trials)
    shown = ""
    for trial in trials:
        if trial.reason:
            continue
        first = trial.runtime != shown
        rows.add_row(
            trial.runtime if first else "",
            Text(_short(trial.form), style="green" if trial == chosen[trial.runtime] else ""),
            units.milliseconds(trial.latency_ms),
            units.milliseconds(trial.end_to_end_ms),
            units.size(trial.output_bytes),
            AS_IS if first else f"{units.percent(trial.changed_percent, 2)}%",
        )
        shown = trial.runtime
    parts: list[RenderableType] = [rows, ""]
    parts += [Text(f"{runtime}: {sentence}.") for runtime, sentence in head_choice.recommend(trials).items()]
    parts += [Text(f"{each.runtime}, no {each.form}: {each.reason}.", style="dim") for each in trials if each.reason]
    tables.show(console, *parts)


def _short(form: str) -> str:
    """The form's name without "as it is", which another column shows."""
    return form.removeprefix(f"{AS_IS} (").removesuffix(")") if form.startswith(AS_IS) else form

"""The terminal: text of files is shown as it is written, and never obeyed; parameters of functions are options."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

# The library's messages name parameters of its functions, between backticks. Most options have the same name.
_SAME = (
    "anyway", "channel_order", "correct", "foreground", "head", "input_size", "io", "keep_float", "max_drop", "mean",
    "min_speedup", "needs", "output", "output_kind", "precision", "ranges", "runtime", "scheme", "sensitivity", "std",
    "to", "weights",
)  # fmt: skip
OPTIONS = {name: f"--{name.replace('_', '-')}" for name in _SAME} | {
    "images": "--data",
    "max_size_bytes": "--max-size",
    "time_limit_s": "--time-limit",
    "train_s": "--train",
}
_PARAMETER = re.compile(r"`([a-z_]+)`")


def as_options(text: str) -> str:
    """A message of the library in the words of the command line: `--max-size` for a `max_size_bytes` in backticks."""
    return _PARAMETER.sub(lambda found: OPTIONS.get(found[1], found[0]), text)


class PlainConsole(Console):
    """rich's console for text that others wrote: names in a model file, names of files, messages of a runtime.

    Square brackets and colons are not read as markup or emoji. Characters that a terminal would obey (escape sequences,
    returns to the start of the line, marks that turn the direction of writing) are left out or shown as "?", wherever
    in a table, a progress bar or a message they stand.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """The parts of what is printed, each of them harmless."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(_shown(segment.text), segment.style)


def _shown(text: str) -> str:
    """As wide as before, so that columns stay in line: rich counts no cell for most of what cannot be shown."""
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() or letter == "\n" else "?" * cell_len(letter) for letter in text)

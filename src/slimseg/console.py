"""Output to the terminal: text from files is shown without being interpreted as markup or control characters.

In messages, the names of function parameters are replaced by the command line's options.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

# The library's messages name parameters of its functions, between backticks. These options have the same name.
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
    """A library message with options in place of parameters: `--max-size` for `max_size_bytes` in backticks."""
    return _PARAMETER.sub(lambda found: OPTIONS.get(found[1], found[0]), text)


class PlainConsole(Console):
    """rich's console for untrusted text: names in a model file, names of files, messages of a runtime.

    Square brackets and colons are not read as markup or emoji. Control characters (escape sequences, carriage returns,
    marks that reverse the direction of writing) are removed or shown as "?" in tables, progress bars and messages.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """The segments to print, without control characters in their text."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(_shown(segment.text), segment.style)


def _shown(text: str) -> str:
    """`text` without unprintable characters, at its old width so that columns stay aligned.

    Each unprintable character becomes as many "?" as rich counts cells for it, which is mostly none.
    """
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() or letter == "\n" else "?" * cell_len(letter) for letter in text)

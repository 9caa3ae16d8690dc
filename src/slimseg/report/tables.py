"""The small parts that the terminal's tables are made of."""

from __future__ import annotations

from rich import box
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from slimseg.console import PlainConsole, as_options
from slimseg.results import Disturbance

_EIGHTHS = " ▏▎▍▌▋▊▉"
# Replacements on a terminal without Unicode; any other character becomes "?".
_ASCII = str.maketrans(
    {"×": "x", "→": ">", "–": "-", "−": "-", "±": "+", "✓": "v", "✗": "x", "…": "~", "·": "-", "•": "-", "█": "#"}
    | dict.fromkeys(_EIGHTHS[4:], "#")
    | dict.fromkeys(_EIGHTHS[:4], " ")
)


def bar(fraction: float, width: int, style: str = "cyan") -> Text:
    """A horizontal bar in steps of an eighth of a character; its length is `fraction` (0-1) of `width`."""
    eighths = round(8 * width * min(max(fraction, 0.0), 1.0))
    if fraction > 0 and not eighths:
        eighths = 1  # a value above zero is always visible
    full, part = divmod(eighths, 8)
    return Text(("█" * full + (_EIGHTHS[part] if part else "")).ljust(width), style=style)


def note(text: str) -> Text:
    """A remark about a result, on a line of its own."""
    return Text(f"note: {as_options(text)}", style="yellow")


def table(*columns: str, numbers_from: int = 1) -> Table:
    """A table with wide spacing: columns from `numbers_from` on are right-aligned numbers, those before are text."""
    made = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    for index, name in enumerate(columns):
        number = index >= numbers_from
        made.add_column(
            name,
            justify="right" if number else "left",
            no_wrap=True,
            overflow="ellipsis",
            vertical="top",
            header_style="bold dim",
        )
    return made


def shortened(name: str, width: int) -> Text:
    """A name shortened in the middle, as both ends of a layer's name show where the layer is."""
    if len(name) <= width:
        return Text(name)
    tail = (width - 1) // 2
    return Text(f"{name[: width - 1 - tail]}…{name[-tail:] if tail else ''}")


def disturbance(found: Disturbance | None) -> list[RenderableType]:
    """A note, if other work on the machine disturbed the times."""
    return [] if found is None else [Text(f"note: {found.said}", style="yellow")]


def source_check(sentence: str) -> list[RenderableType]:
    """How the network as opened compares with its source's own runtime."""
    return [Text(f"Check after opening: {sentence}", style="dim")] if sentence else []


def show(console: Console | None, *parts: RenderableType) -> None:
    """Print the parts; if the output cannot show Unicode, in the nearest ASCII."""
    out = console or PlainConsole()
    if not out.options.ascii_only:
        for part in parts:
            out.print(part)
        return
    with out.capture() as captured:
        for part in parts:
            out.print(part)
    out.file.write(captured.get().translate(_ASCII).encode("ascii", "replace").decode("ascii"))

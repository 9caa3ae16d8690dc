"""From results to the terminal: tables or JSON on standard output, everything else on standard error."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import typer
from rich.text import Text

from slimseg.console import PlainConsole, as_options

if TYPE_CHECKING:
    from slimseg.progress import Terminal
    from slimseg.results import Result

BUDGET_MISSED = 3  # exit code: the command did its work, and the result is outside the budget


def show(result: Result, json: bool, render: Callable[[], None]) -> None:
    """The result as JSON, or as `render` prints it."""
    if json:
        print_json(result)
    else:
        render()


def print_json(result: Result) -> None:
    from slimseg.report.files import to_json

    print(to_json(result))


def note(text: str) -> None:
    PlainConsole(stderr=True).print(Text.assemble(("note: ", "bold yellow"), as_options(text)), soft_wrap=True)


def progress() -> Terminal:
    from slimseg.progress import Terminal

    return Terminal(PlainConsole(stderr=True))


def exit_by_budget(is_met: bool) -> None:
    """Raises: typer.Exit where the result is outside its budget."""
    if not is_met:
        raise typer.Exit(BUDGET_MISSED)

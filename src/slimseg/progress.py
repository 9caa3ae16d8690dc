"""Progress of every job that takes over a second: bars in a terminal, no output from the Python functions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Protocol, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.text import Text

from slimseg.console import as_options
from slimseg.errors import printable

Item = TypeVar("Item")


class Progress(Protocol):
    """Receives the progress of a long job."""

    def track(self, items: Iterable[Item], what: str) -> Iterable[Item]:
        """Yield the items one by one, and show a bar labelled `what` that advances with each."""

    def say(self, message: str) -> None:
        """Show a one-line message about what happens now."""

    def bar(self, what: str, total: float) -> Bar:
        """A bar labelled `what`, which the caller advances up to `total`."""


class Bar(Protocol):
    def update(self, done: float, note: str = "") -> None:
        """Move the bar to `done`, and show a short note beside it, for example a loss."""

    def close(self) -> None: ...


class Silent:
    """No output at all: the default of the Python functions."""

    def track(self, items: Iterable[Item], what: str) -> Iterable[Item]:
        return items

    def say(self, message: str) -> None:
        pass

    def bar(self, what: str, total: float) -> Bar:
        return _NoBar()


class _NoBar:
    def update(self, done: float, note: str = "") -> None:
        pass

    def close(self) -> None:
        pass


class Terminal:
    """Bars on a console, which is standard error, so that standard output contains nothing but `--json`."""

    def __init__(self, console: Console) -> None:
        self.console = console

    @contextmanager
    def _bars(self) -> Iterator[Bars]:
        columns = (
            TextColumn("  {task.description}", markup=False),
            BarColumn(bar_width=28),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[note]}", markup=False),
        )
        # Show bars only in a terminal: in a log, they would leave empty lines.
        with Bars(*columns, console=self.console, transient=True, disable=not self.console.is_terminal) as bars:
            yield bars

    def track(self, items: Iterable[Item], what: str) -> Iterable[Item]:
        items = list(items)
        with self._bars() as bars:
            task = bars.add_task(what, total=len(items), note="")
            for item in items:
                yield item
                bars.advance(task)

    def say(self, message: str) -> None:
        self.console.print(Text(as_options(printable(message))), soft_wrap=True)  # Text: names are not markup

    def bar(self, what: str, total: float) -> Bar:
        return _TerminalBar(self, what, total)


class _TerminalBar:
    def __init__(self, terminal: Terminal, what: str, total: float) -> None:
        self.context = terminal._bars()
        self.bars = self.context.__enter__()
        self.task = self.bars.add_task(what, total=int(total), note="")

    def update(self, done: float, note: str = "") -> None:
        self.bars.update(self.task, completed=int(done), note=note)

    def close(self) -> None:
        self.context.__exit__(None, None, None)

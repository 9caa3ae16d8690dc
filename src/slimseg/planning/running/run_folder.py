"""The folder of a run: a new one, that of an unfinished run, which goes on, or that of the same run, finished."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slimseg.disk import atomic, claim
from slimseg.disk.claim import Claim, State
from slimseg.errors import OutputError
from slimseg.graph.graph import Graph
from slimseg.planning.running.journal import Journal
from slimseg.report.files import read_json
from slimseg.results import SlimResult

WORK = "work"  # within it, what only the run needs
RESULT = "result.json"
COMMAND = "slim"
_OLD_JOURNAL = "journal.json"  # of slimseg before it noted its version


@dataclass(frozen=True)
class RunFolder:
    """A folder for this process alone."""

    folder: Path
    journal: Journal
    claim: Claim

    @property
    def work(self) -> Path:
        return self.folder / WORK

    @property
    def result(self) -> SlimResult | None:
        """What the run came to, where it is finished."""
        state = self.claim.state
        return read_json(SlimResult, self.folder / RESULT) if state is not None and state.finished else None

    def finish(self) -> None:
        """Note that all files are there, and remove what only the run needed."""
        for path in self.folder.iterdir():
            atomic.settle(path)
        self.claim.finish()
        shutil.rmtree(self.work, ignore_errors=True)


@contextmanager
def opened(out: Path, graph: Graph, asked: dict[str, Any]) -> Iterator[RunFolder]:
    """The folder for a run on a network, kept from other processes until the end of the block.

    A run that was stopped before anything was worth keeping starts over, with whatever is asked for now.

    Args:
        asked: all that the run is asked for, as JSON values. The same again is the same run.

    Raises:
        OutputError: something else is in the folder, a run that was asked for something else, or one of another version
            of slimseg; another process works in it; it has no room, or cannot be made.
    """
    _check(out, asked)
    _check_room(out, graph)
    with claim.claimed(out) as own:
        _check(out, asked)  # again, as another process may have ended in between
        work = out / WORK
        finished = _is_finished(own.state, out)
        if finished:
            shutil.rmtree(work, ignore_errors=True)
        journal = Journal(work, asked)
        if not finished:
            own.begin(COMMAND, asked)
            work.mkdir(exist_ok=True)
        try:
            yield RunFolder(out, journal, own)
        finally:
            _leave(own, work)


def _check(out: Path, asked: dict[str, Any]) -> None:
    """Raises: OutputError where a run that is asked for this has no business in the folder."""
    state = claim.state_of(out)
    if not claim.is_new(out) and not claim.is_ours(out):
        raise OutputError(f"{out} {_what_is_in(out)}: give another folder for the run")
    if state is None:
        return
    if state.command != COMMAND:
        raise OutputError(f"{out} is the folder of slimseg {state.command}: give another folder for the run")
    if _is_finished(state, out) and not state.is_of(asked):
        raise OutputError(
            f"{out} holds a finished run that was asked for something else, so it is not empty: "
            "give another folder for the run"
        )


def _is_finished(state: State | None, out: Path) -> bool:
    """A folder whose files were all removed is new again."""
    return state is not None and state.finished and not claim.is_new(out)


def _what_is_in(out: Path) -> str:
    if (out / WORK / _OLD_JOURNAL).is_file():
        return "is not empty: it holds an unfinished run of an earlier slimseg, which can go on with that version alone"
    return "exists already and is not empty"


def _check_room(out: Path, graph: Graph) -> None:
    needed = 8 * sum(p.numel() * 4 for p in graph.module.parameters()) + 50_000_000
    try:
        free = shutil.disk_usage(next(each for each in (out, *out.absolute().parents) if each.exists())).free
    except OSError as error:
        raise OutputError(f"{out} cannot be made: {error.strerror or error}") from error
    if free < needed:
        room = f"{free / 1e6:.0f} MB of free space, a run needs {needed / 1e6:.0f} MB"
        raise OutputError(f"{out} has {room}: make room")


def _leave(own: Claim, work: Path) -> None:
    if work.is_dir() and not any(work.iterdir()):
        work.rmdir()
    if claim.is_new(own.folder):  # nothing was kept
        own.give_up()

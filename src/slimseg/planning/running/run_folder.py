"""The folder of a run. It is new, or holds an unfinished run to resume, or the same run, finished."""

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

WORK = "work"  # subfolder for files that only the unfinished run needs
RESULT = "result.json"
COMMAND = "slim"
_OLD_JOURNAL = "journal.json"  # journal of early versions of slimseg, which did not record their version


@dataclass(frozen=True)
class RunFolder:
    """A run's folder, locked for this process."""

    folder: Path
    journal: Journal
    claim: Claim

    @property
    def work(self) -> Path:
        return self.folder / WORK

    @property
    def result(self) -> SlimResult | None:
        """The run's result; None if the run is not finished."""
        state = self.claim.state
        return read_json(SlimResult, self.folder / RESULT) if state is not None and state.finished else None

    def finish(self) -> None:
        """Mark the run as finished, and remove the files that only the unfinished run needed."""
        for path in self.folder.iterdir():
            atomic.settle(path)
        self.claim.finish()
        shutil.rmtree(self.work, ignore_errors=True)


@contextmanager
def opened(out: Path, graph: Graph, asked: dict[str, Any]) -> Iterator[RunFolder]:
    """Open the folder for a run on a network, locked against other processes until the end of the block.

    A run that was stopped before its first journal entry starts over, with the options given now.

    Args:
        asked: all options of the run, as JSON values. A run with the same options is the same run.

    Raises:
        OutputError: the folder holds other files, a run with other options, or a run of another version of slimseg;
            another process uses it; its disk has too little space; or it cannot be created.
    """
    _check(out, asked)
    _check_room(out, graph)
    with claim.claimed(out) as own:
        _check(out, asked)  # again: another process may have changed the folder before the lock was taken
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
    """Check that a run with these options may use the folder.

    Raises:
        OutputError: the folder holds other files, another command's output, or a finished run with other options.
    """
    state = claim.state_of(out)
    if not claim.is_new(out) and not claim.is_ours(out):
        raise OutputError(f"{out} {_what_is_in(out)}: give another folder for the run")
    if state is None:
        return
    if state.command != COMMAND:
        raise OutputError(f"{out} is the folder of slimseg {state.command}: give another folder for the run")
    if _is_finished(state, out) and not state.is_of(asked):
        raise OutputError(
            f"{out} is not empty: it holds a finished run with other settings; give another folder for the run"
        )


def _is_finished(state: State | None, out: Path) -> bool:
    """Whether the folder holds a finished run; a folder whose files were all removed counts as new."""
    return state is not None and state.finished and not claim.is_new(out)


def _what_is_in(out: Path) -> str:
    if (out / WORK / _OLD_JOURNAL).is_file():
        return "is not empty: it holds an unfinished run of an earlier slimseg, which only that version can continue"
    return "exists already and is not empty"


def _check_room(out: Path, graph: Graph) -> None:
    needed = 8 * sum(p.numel() * 4 for p in graph.module.parameters()) + 50_000_000
    try:
        free = shutil.disk_usage(next(each for each in (out, *out.absolute().parents) if each.exists())).free
    except OSError as error:
        raise OutputError(f"{out} cannot be made: {error.strerror or error}") from error
    if free < needed:
        room = f"{free / 1e6:.0f} MB of free space, and a run needs {needed / 1e6:.0f} MB"
        raise OutputError(f"{out} has {room}: free some space or give another folder")


def _leave(own: Claim, work: Path) -> None:
    if work.is_dir() and not any(work.iterdir()):
        work.rmdir()
    if claim.is_new(own.folder):  # the run left no files
        own.give_up()

"""The folder of a run: a new one, or that of an unfinished run, which is gone on with."""

from __future__ import annotations

import shutil
from pathlib import Path

from slimseg.errors import OutputError
from slimseg.graph.graph import Graph
from slimseg.planning import journal

WORK = "work"  # within it, what only the run needs


def opened(out: Path, graph: Graph) -> Path:
    """An unfinished run's folder as it is, else a new one, with a folder for the run's own work.

    Raises:
        OutputError: see `new`.
    """
    if not (out / WORK / journal.FILE).is_file():
        new(out, graph)
    (out / WORK).mkdir(exist_ok=True)
    return out


def new(out: Path, graph: Graph) -> Path:
    """An empty folder with room for a run on this network.

    Raises:
        OutputError: there is something in it already, no room, or it cannot be made.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise OutputError(f"{out} exists already and is not empty: give another folder for the run")
    needed = 8 * sum(p.numel() * 4 for p in graph.module.parameters()) + 50_000_000
    try:
        free = shutil.disk_usage(next(each for each in (out, *out.absolute().parents) if each.exists())).free
        if free < needed:
            room = f"{free / 1e6:.0f} MB of free space, a run needs {needed / 1e6:.0f} MB"
            raise OutputError(f"{out} has {room}: make room")
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{out} cannot be made: {error.strerror or error}") from error
    return out

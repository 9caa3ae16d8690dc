"""`slimseg profile --processor`: where each layer of a network would run on a phone's processors, without times."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from slimseg.deployment import DEFAULT_RUNTIME
from slimseg.disk import scratch
from slimseg.errors import UserError
from slimseg.results import Placement, Placements
from slimseg.runtimes import registry
from slimseg.runtimes.processor import Processor

if TYPE_CHECKING:  # placing a file needs no torch, which takes seconds to import
    from slimseg.graph.graph import Graph


def place(model: Graph | str | Path, processors: Sequence[Processor], *, runtime: str | None = None) -> Placements:
    """Which layers of a Graph or of a runtime's file each processor takes, and why not the others.

    A Graph is first written to a float file, in which layers have the names of the graph's nodes.

    Raises:
        ModelError: the file is damaged.
        UserError: a processor cannot be asked on this machine.
        RuntimeFailure: a driver or compiler crashed or ran out of time.
    """
    if not processors:
        raise UserError("the CPU takes every layer: name another processor, such as gpu")
    if isinstance(model, str | Path):
        path = Path(model)
        return Placements(path.name, tuple(each.place(path) for each in processors))
    chosen = registry.named(runtime or DEFAULT_RUNTIME)
    with scratch.folder() as folder:
        path = folder / f"model{chosen.suffix}"
        chosen.write(model, path)
        found: tuple[Placement, ...] = tuple(replace(each.place(path), model=model.name) for each in processors)
    return Placements(model.name, found)

"""What a writer is given, and what it hands back: one interface for all runtimes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from slimseg.exporting.source import Source
from slimseg.exporting.targets import Target
from slimseg.graph.graph import Graph
from slimseg.results import Artefact
from slimseg.training.data import Pixels


@dataclass(frozen=True)
class Request:
    """One file to write."""

    target: Target
    source: Source
    folder: Path  # of the exporter's own: nothing in it is anybody's
    images: Sequence[Pixels]  # RGB (height, width, 3), the user's; empty where none were given
    probes: Sequence[Pixels]  # to look at values with: some of `images`, else drawn ones
    palette: Sequence[str] = ()  # "#rrggbb" of every class
    licence: str = ""  # of the weights, in a sentence
    sizes: Sequence[tuple[int, int]] = ()  # further (height, width), for Core ML

    @property
    def drawn(self) -> bool:
        """Whether the probes are nobody's photographs."""
        return not self.images


@dataclass(frozen=True)
class Written:
    """One file that was written, before it has been compared with anything."""

    artefact: Artefact
    path: Path  # the file or package that stands for it
    said: Graph  # what it computes: the source, or without what the runtime leaves to the app
    is_float: bool  # computes in floats, so that its masks must be the source's
    others: Sequence[Path] = field(default=())  # files that belong to it
    same_as: str = ""  # name of the source's own file, where this one computes the very same and only says more

    @property
    def paths(self) -> tuple[Path, ...]:
        return (self.path, *self.others)

"""What slimseg asks of something that files for apps are written for: a runtime here, or one of another system."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from slimseg.results import Artefact
from slimseg.runtimes.host import Pixels

if TYPE_CHECKING:  # the child process, which needs no torch, starts sooner without
    from slimseg.graph.graph import Graph

Layout = Literal["NHWC", "NCHW", "CHW"]  # of the maps that an app gets from a file


@dataclass(frozen=True)
class Request:
    """One file to write."""

    graph: Graph  # with the output that was asked for
    form: str  # one of `Exporter.forms`; empty: its usual one
    stem: str  # of the files to write
    folder: Path  # of the exporter's own, empty
    images: Sequence[Pixels]  # RGB (height, width, 3), the user's; empty where none were given
    probes: Sequence[Pixels]  # to look at values with: some of `images`, else drawn ones
    palette: Sequence[str] = ()  # "#rrggbb" of every class
    licence: str = ""  # of the weights, in a sentence
    sizes: Sequence[tuple[int, int]] = ()  # further (height, width) that the file is to take, where it can
    files: Mapping[str, Path] = field(default_factory=dict)  # that say the same network already, by precision
    precision: str = "float32"  # of the file that is exported where no form is asked for

    @property
    def drawn(self) -> bool:
        """Whether the probes are drawn, for want of the user's images."""
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


class Exporter(ABC):
    """Writes one kind of file. Instances hold no state."""

    target: ClassVar[str]  # as users give it: `export --to`
    brand: ClassVar[str]  # for people: "LiteRT"
    system: ClassVar[str]  # that its apps run on: "Android" or "iOS"
    suffix: ClassVar[str]  # of the file that stands for a network
    forms: ClassVar[tuple[str, ...]]  # in the order of the text for the user; its `exporter.py` says what each means
    layout: ClassVar[Layout]
    snippets: ClassVar[Mapping[str, str]] = {}  # code for apps: titles by template in the folder `snippets` beside it
    unrun: ClassVar[str] = ""  # why its files do not run on this machine; empty where they do
    on_outputs: ClassVar[str] = ""  # what is known of forms of the output, where nothing can be timed
    reason: ClassVar[str] = ""  # to take it on its system, for the recommendation

    @abstractmethod
    def export(self, request: Request) -> Written:
        """Raises: Unsupported, OutputError, and UserError where something is missing or not installed."""

    @property
    def package(self) -> str:
        """Where its `snippets` lie."""
        return type(self).__module__.rpartition(".")[0]

"""The interface of an export target: a runtime that runs on this machine, or one of another system."""

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

Layout = Literal["NHWC", "NCHW", "CHW"]  # order of the dimensions of the output that an app gets from a file


@dataclass(frozen=True)
class Request:
    """One file to write."""

    graph: Graph  # the network, with the requested form of output
    form: str  # one of `Exporter.forms`; empty: the exporter's default
    stem: str  # file name without suffix
    folder: Path  # an empty folder for the exporter alone
    images: Sequence[Pixels]  # the user's images, RGB (height, width, 3); empty if none were given
    probes: Sequence[Pixels]  # images to compare values on: some of `images`, else synthetic ones
    palette: Sequence[str] = ()  # colour of every class, "#rrggbb"
    licence: str = ""  # licence of the weights, in a sentence
    sizes: Sequence[tuple[int, int]] = ()  # further input sizes (height, width) that the file should accept, if it can
    files: Mapping[str, Path] = field(default_factory=dict)  # existing files of the same network, by precision
    precision: str = "float32"  # precision of the exported file if no form is requested

    @property
    def drawn(self) -> bool:
        """Whether the probes are synthetic, because the user gave no images."""
        return not self.images


@dataclass(frozen=True)
class Written:
    """One file that was written and is not yet compared with its source."""

    artefact: Artefact
    path: Path  # the main file, or the package
    said: Graph  # the network that the file computes: the source, without layers that the runtime leaves to the app
    is_float: bool  # whether it computes in floating point, so that its masks must equal those of the source
    others: Sequence[Path] = field(default=())  # further files that belong to it
    same_as: str = ""  # name of the source's own file, if this one is that file with added metadata

    @property
    def paths(self) -> tuple[Path, ...]:
        return (self.path, *self.others)


class Exporter(ABC):
    """Writes one kind of file. Instances hold no state."""

    target: ClassVar[str]  # name on the command line: `export --to`
    brand: ClassVar[str]  # name in messages
    system: ClassVar[str]  # operating system of the apps: "Android" or "iOS"
    suffix: ClassVar[str]  # suffix of the main file of a network
    forms: ClassVar[tuple[str, ...]]  # in the order of messages to the user; explained in the exporter's `exporter.py`
    layout: ClassVar[Layout]
    snippets: ClassVar[Mapping[str, str]] = {}  # code for apps: templates in its folder `snippets`, with their titles
    unrun: ClassVar[str] = ""  # why its files do not run on this machine; empty if they do
    unrounded: ClassVar[str] = ""  # the form whose weights are stored in full
    on_outputs: ClassVar[str] = ""  # what is known about the forms of output, for files that cannot be timed
    reason: ClassVar[str] = ""  # why the recommendation names it for its system
    other_forms: ClassVar[str] = ""  # forms beside `forms`, in words; empty if there are none

    def has_form(self, form: str) -> bool:
        """Whether it can write files of a form."""
        return form in self.forms

    @abstractmethod
    def export(self, request: Request) -> Written:
        """Write one file.

        Raises:
            Unsupported: the network cannot be written for this target.
            OutputError: the folder cannot be written.
            UserError: a package or an argument is missing.
        """

    @property
    def package(self) -> str:
        """The Python package that contains its folder `snippets`."""
        return type(self).__module__.rpartition(".")[0]

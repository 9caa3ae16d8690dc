"""What a technique is: it finds sites in a graph and applies itself to one of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from torch import fx

from slimseg.errors import Unsupported
from slimseg.graph.graph import Graph
from slimseg.results import Needs, Refusal

ARTICLE = "Accelerating mobile Semantic Segmentation models (Deep Learning on Medium)"
Kind = TypeVar("Kind", bound="Settings")


@dataclass(frozen=True)
class Settings:
    """What an edit needs to know beside its layers: which of the technique's forms, how many channels, ...

    A technique whose sites have variants has a subclass, with one field for each setting: text, numbers, None or tuples
    of these, so that a journal can hold them. `words` is made from the fields; nothing is read out of it.
    """

    @property
    def words(self) -> str:
        """The variant as findings quote it: "rank 2", "192x256"; empty where there is only one."""
        return ""


@dataclass(frozen=True)
class Site:
    """One place where a technique can act, and the settings of one variant; variants of one layer exclude each other.

    The edit replaces `layers`; the part of the network from the value of `source` to that of `target` is what
    changes and what a what-if times. `target` keeps its name and shape in the edited graph, unless `whole`.
    """

    technique: str
    layers: tuple[str, ...]
    source: str
    target: str
    needs: Needs
    reason: str = field(compare=False)  # words; what the edit is follows from the other fields
    settings: Settings = Settings()
    whole: bool = False  # changes the whole network (its input or output), not a part

    @property
    def variant(self) -> str:
        """The settings in words, for people."""
        return self.settings.words

    def settings_as(self, kind: type[Kind]) -> Kind:
        """The settings, where they are of this kind.

        Raises:
            Unsupported: they are of another technique.
        """
        if not isinstance(self.settings, kind):
            raise Unsupported(f"{self.layers[0]}: {self.settings} are no settings of {self.technique}")
        return self.settings

    def refused(self, reason: str) -> Refusal:
        """This site, left alone after all; its variant is told with the reason."""
        return Refusal(self.technique, self.layers[0], f"{self.variant}: {reason}" if self.variant else reason)


@dataclass(frozen=True)
class Found:
    """What looking over a graph gave: where to act, and where not and why."""

    sites: tuple[Site, ...] = ()
    refusals: tuple[Refusal, ...] = field(default=())


class Technique(Protocol):
    """One technique; implementations hold no state."""

    name: str
    needs: Needs
    paper: str  # where to read on; a finding tells it

    @property
    def settings(self) -> type[Settings]:
        """The kind of settings that its sites have."""

    def find(self, graph: Graph) -> Found:
        """Every site, in every variant worth timing."""

    def apply(self, graph: Graph, site: Site) -> Graph:
        """A new graph with the edit; weights start from the best approximation of those replaced.

        Raises:
            Unsupported: the site does not exist in this graph (any more).
        """


def dimensions(graph: Graph, node: fx.Node) -> str:
    """A layer's output shape as reasons quote it: "32x64x64" of (1, 32, 64, 64)."""
    return "x".join(str(length) for length in graph.shape(node)[1:])

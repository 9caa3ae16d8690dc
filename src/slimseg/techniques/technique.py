"""The interface of a technique: it finds sites in a graph and applies its edit to one of them."""

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
    """The parameters of an edit in addition to its layers: which of the technique's forms, how many channels, ...

    A technique whose sites have variants defines a subclass with one field for each setting: text, numbers, None or
    tuples of these, so that a journal can store them. `words` is only for people: no code parses it.
    """

    @property
    def words(self) -> str:
        """The variant as findings quote it: "rank 2", "192x256"; empty for a technique without variants."""
        return ""


@dataclass(frozen=True)
class Site:
    """One place where a technique can act, with the settings of one variant; variants of one layer exclude each other.

    The edit replaces `layers`. It changes the part of the network from the value of `source` to that of `target`, which
    is the part that a what-if times. `target` keeps its name and shape in the edited graph, unless `whole`.
    """

    technique: str
    layers: tuple[str, ...]
    source: str
    target: str
    needs: Needs
    reason: str = field(compare=False)  # for people; the other fields define the edit
    settings: Settings = Settings()
    whole: bool = False  # changes the whole network (its input or output), not a part

    @property
    def variant(self) -> str:
        """The settings in words, for people."""
        return self.settings.words

    def settings_as(self, kind: type[Kind]) -> Kind:
        """The settings, checked to be an instance of `kind`.

        Raises:
            Unsupported: they belong to another technique.
        """
        if not isinstance(self.settings, kind):
            raise Unsupported(f"{self.layers[0]}: {self.settings} are not settings of {self.technique}")
        return self.settings

    def refused(self, reason: str) -> Refusal:
        """A refusal of this site, whose reason names the variant."""
        return Refusal(self.technique, self.layers[0], f"{self.variant}: {reason}" if self.variant else reason)


@dataclass(frozen=True)
class Found:
    """The sites found in a graph, and the refusals: places where the technique cannot act, and why."""

    sites: tuple[Site, ...] = ()
    refusals: tuple[Refusal, ...] = field(default=())


class Technique(Protocol):
    """One technique; implementations hold no state."""

    name: str
    needs: Needs
    paper: str  # further reading, which findings quote

    @property
    def settings(self) -> type[Settings]:
        """The class of its sites' settings."""

    def find(self, graph: Graph) -> Found:
        """Every site, in every variant worth timing."""

    def apply(self, graph: Graph, site: Site) -> Graph:
        """A new graph with the edit; new weights are the best approximation of those that they replace.

        Raises:
            Unsupported: the site does not exist in this graph, or no longer.
        """


def dimensions(graph: Graph, node: fx.Node) -> str:
    """A layer's output shape without the batch, as reasons quote it: "32x64x64" for (1, 32, 64, 64)."""
    return "x".join(str(length) for length in graph.shape(node)[1:])

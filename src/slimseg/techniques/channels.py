"""Fewer channels: those that matter least to the result are removed (article, section 3.4 (2)).

    Given   y = Q(g(P(x))),     P: I to C channels, Q: C to O (each one layer or several), g does not mix channels
    Result  y ≈ Q'(g'(P'(x))),  C' < C channels: P' without the filters, Q' without the inputs of the removed channels

MACs of P and Q fall by C'/C, those of layers between two pruned groups by its square. The channels removed are those of
least importance as measured on the user's images, s_c = Σ_batches (Σ w·∂L/∂w)² over the filters of channel c (Molchanov
et al., "Importance Estimation for Neural Network Pruning", 2019, eq. 8), or without images those of smallest norm (Li
et al., "Pruning Filters for Efficient ConvNets", 2017, section 3.1). The dependency graph of Fang et al., "DepGraph:
Towards Any Structural Pruning", 2023, gives the channels that have to be removed together. C' is a multiple of 8 (see
alignment.py).
"""

from __future__ import annotations

from dataclasses import dataclass

from slimseg.errors import Unsupported
from slimseg.graph.channel_groups import ChannelGroup, channel_groups, group_importance, without
from slimseg.graph.graph import Graph
from slimseg.graph.region import region
from slimseg.results import Needs, Refusal
from slimseg.techniques.technique import Found, Settings, Site, dimensions

STEP = 8
LEAST = 16  # channels; smaller groups are not cut


@dataclass(frozen=True)
class Width(Settings):
    before: int  # channels
    after: int

    @property
    def words(self) -> str:
        return f"{self.before} to {self.after}"


class Channels:
    """Removes channels, in groups of coupled ones."""

    name = "channels left out"
    needs: Needs = "images"
    paper = "Molchanov et al., Importance Estimation for Neural Network Pruning, 2019, eq. 8"
    settings = Width

    def find(self, graph: Graph) -> Found:
        sites: list[Site] = []
        refusals: list[Refusal] = []
        for group in channel_groups(graph):
            if group.channels < LEAST:
                continue
            if group.fixed is not None:
                refusals.append(Refusal(self.name, group.root, group.fixed))
            else:
                # Half of the channels, to measure what they cost here; a plan makes sites for the numbers it needs.
                sites.append(site_of(graph, group, max(STEP, group.channels // 2 // STEP * STEP)))
        return Found(tuple(sites), tuple(refusals))

    def apply(self, graph: Graph, site: Site) -> Graph:
        width = site.settings_as(Width)
        group = next((each for each in channel_groups(graph) if each.root == site.layers[0]), None)
        if group is None or group.channels != width.before or group.fixed is not None:
            raise Unsupported(f"{site.layers[0]} does not have {width.before} channels that can become {width.after}")
        leaving = max(0, group.channels - width.after)
        return without(graph, group, group_importance(graph, group).argsort(stable=True)[:leaving].tolist())


def site_of(graph: Graph, group: ChannelGroup, kept: int) -> Site:
    """The site that keeps `kept` channels of a group."""
    source, target = region(graph, [*group.outputs, *group.inputs])
    readers = f"{len(group.inputs)} layers read" if len(group.inputs) > 1 else f"{next(iter(group.inputs))} reads"
    reason = f"{kept} of the {group.channels} channels of {group.root} ({dimensions(graph, graph.node(group.root))})"
    return Site(
        Channels.name,
        (group.root, *(name for name in group.outputs if name != group.root)),
        source,
        target,
        Channels.needs,
        f"{reason}, which {readers}",
        Width(group.channels, kept),
    )

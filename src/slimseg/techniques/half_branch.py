"""A residual branch at half the resolution: what it adds is coarser, and the map that it adds to is not.

    Given   y = x + f(x),          f layers that keep the size (attention, feed-forward layers, convolutions)
    Result  y ≈ x + U(f(P(x)))     P the mean of 2×2 pixels, U the bilinear resize back

A transformer's tokens are pixels, so its feed-forward layers cost a quarter, and the scores of its attention a
sixteenth. The shortcut keeps the details. The weights are unchanged; a kernel of more than one pixel sees twice as far,
which recovery has to make up for (algebra/low_resolution.py).
Chen et al., "Drop an Octave: Reducing Spatial Redundancy in Convolutional Neural Networks with Octave Convolution",
2019, section 3; Pan et al., "Fast Vision Transformers with HiLo Attention", 2022, section 3.
"""

from __future__ import annotations

from torch import fx

from slimseg.errors import Unsupported
from slimseg.graph import costs, ops
from slimseg.graph.edit import replace, shared_with
from slimseg.graph.graph import Graph, only_consumer
from slimseg.results import Needs, Refusal
from slimseg.techniques.algebra.low_resolution import at_fraction, fits
from slimseg.techniques.shortcut import sides_of
from slimseg.techniques.technique import Found, Settings, Site, dimensions

LEAST_SIDE = 8  # pixels; on smaller maps there is little to gain


class HalfBranch:
    """Moves residual branches down to half their resolution."""

    name = "residual branch at half resolution"
    needs: Needs = "images"
    paper = (
        "Chen et al., Drop an Octave, 2019, section 3; Pan et al., Fast Vision Transformers with HiLo Attention, 2022"
    )
    settings = Settings

    def find(self, graph: Graph) -> Found:
        sites: list[Site] = []
        refusals: list[Refusal] = []
        for node in graph.layers():
            sides = _sides(graph, node)
            if sides is None:
                continue
            shortcut, branch = sides
            if min(graph.shape(shortcut)[2:]) < LEAST_SIDE:
                continue
            if reason := _refusal(graph, shortcut, branch):
                refusals.append(Refusal(self.name, branch[-1].name, reason))
            else:
                sites.append(self._site(graph, shortcut, branch))
        return Found(tuple(sites), tuple(refusals))

    def _site(self, graph: Graph, shortcut: fx.Node, branch: list[fx.Node]) -> Site:
        macs = sum(costs.cost(graph, node).macs for node in branch)
        reason = (
            f"{macs / 1e6:.3g} million MACs are added to the {dimensions(graph, shortcut)} values of {shortcut.name}, "
            "which keep the details: the layers that compute them can work on a quarter of the pixels"
        )
        names = tuple(node.name for node in branch)
        return Site(self.name, names, shortcut.name, names[-1], self.needs, reason)

    def apply(self, graph: Graph, site: Site) -> Graph:
        site.settings_as(Settings)
        total = only_consumer(graph.node(site.target))
        sides = _sides(graph, total) if total is not None and total.op == "call_module" else None
        if sides is None or tuple(node.name for node in sides[1]) != site.layers or _refusal(graph, *sides):
            raise Unsupported(f"{site.target} does not end a residual branch that can work at half the resolution")
        shortcut, branch = sides
        return replace(graph, [shortcut.name], site.target, at_fraction(graph, shortcut, branch, 2))


def _sides(graph: Graph, node: fx.Node) -> tuple[fx.Node, list[fx.Node]] | None:
    """The shortcut of a residual sum of maps and the layers of its branch; None for any other node."""
    if graph.layer_as(node, ops.Add) is None or len(graph.shape(node)) != 4:
        return None
    sides = sides_of(graph, node)
    return None if sides is None else (sides[0], sides[1][:-1])


def _refusal(graph: Graph, shortcut: fx.Node, branch: list[fx.Node]) -> str | None:
    for node in branch:
        if other := shared_with(graph, node):
            return f"the weights of {node.name} are shared with {other}"
        if not fits(graph, node, shortcut):
            return f"{node.name} cannot work at any resolution"
        if any(reader not in branch for reader in node.users) and node is not branch[-1]:
            return f"{node.name} of its branch is also read elsewhere"
    if only_consumer(branch[-1]) is None:
        return f"{branch[-1].name}, its end, is also read elsewhere"
    return None if any(costs.cost(graph, node).macs for node in branch) else "no layer of its branch has weights"

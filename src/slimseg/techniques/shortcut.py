"""A residual block whose branch adds little -> its shortcut alone (article, section 3.4 (2): less of everything).

    Given   y = x + f(x),   x and f(x) of the same shape, f's layers without other readers
    Result  y ≈ x           f and the sum are gone

Trained residual networks lose little accuracy when single blocks are removed, since each block only refines its input
(Veit et al., "Residual Networks Behave Like Ensembles of Relatively Shallow Networks", 2016, section 4.1). A stage of
many similar blocks can lose several of them; the measured damage decides which.
"""

from __future__ import annotations

from torch import fx

from slimseg.errors import Unsupported
from slimseg.graph import ops
from slimseg.graph.graph import Graph, needed
from slimseg.results import Needs, Refusal
from slimseg.techniques.technique import Found, Settings, Site, dimensions


class Shortcut:
    """Removes the branches of residual sums."""

    name = "residual branch left out"
    needs: Needs = "images"
    paper = "Veit et al., Residual Networks Behave Like Ensembles of Relatively Shallow Networks, 2016, section 4.1"
    settings = Settings

    def find(self, graph: Graph) -> Found:
        sites: list[Site] = []
        refusals: list[Refusal] = []
        for node in graph.layers():
            if (
                graph.layer_as(node, ops.Add) is None
                or node is graph.output
                or (sides := sides_of(graph, node)) is None
            ):
                continue
            shortcut, branch = sides
            outside = next((each.name for each in branch[:-1] for user in each.users if user not in branch), None)
            if outside is not None:
                refusals.append(Refusal(self.name, node.name, f"{outside} of its branch is also read elsewhere"))
                continue
            sites.append(self._site(graph, shortcut, branch))
        return Found(tuple(sites), tuple(refusals))

    def _site(self, graph: Graph, shortcut: fx.Node, branch: list[fx.Node]) -> Site:
        total = branch[-1]
        reason = (
            f"{len(branch) - 1} layers up to {total.name} only add to the {dimensions(graph, shortcut)} values of "
            f"{shortcut.name}, which bypass them"
        )
        names = tuple(node.name for node in branch)
        return Site(self.name, names, shortcut.name, total.name, self.needs, reason, whole=True)

    def apply(self, graph: Graph, site: Site) -> Graph:
        result = graph.copy()
        total = result.node(site.target)
        sides = sides_of(result, total) if result.layer_as(total, ops.Add) is not None else None
        # The shortcut has another name if the sum that gave it was removed before.
        same = sides is not None and (
            sides[0].name == site.source or [each.name for each in sides[1]] == [*site.layers]
        )
        if sides is None or not same:
            raise Unsupported(f"{site.target} is not the sum of {site.source} and a branch that starts there")
        total.replace_all_uses_with(sides[0])
        result.refresh()
        return result


def sides_of(graph: Graph, total: fx.Node) -> tuple[fx.Node, list[fx.Node]] | None:
    """The shortcut of a residual sum, and the layers of its branch followed by the sum; None for any other sum."""
    if len(total.all_input_nodes) != 2:
        return None
    first, second = total.all_input_nodes
    if not graph.shape(first) == graph.shape(second) == graph.shape(total):
        return None
    for shortcut, end in ((first, second), (second, first)):
        branch = needed(end, {shortcut})
        if (
            branch
            and all(node.op == "call_module" for node in branch)
            and graph.shape(shortcut) == graph.shape(end) == graph.shape(total)
        ):
            return shortcut, [*branch, total]
    return None

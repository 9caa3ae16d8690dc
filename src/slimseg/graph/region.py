"""The smallest part of a network that holds given layers and has one way in and one way out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from torch import fx

from slimseg.graph.graph import Graph


def region(graph: Graph, layers: Sequence[str]) -> tuple[str, str]:
    """(source, target): all that the layers and `target` know of the image comes through `source`'s value, and all that
    the layers say to the result goes through `target`'s.

    The part in between may contain more than the layers; in the worst case it is the whole network.
    """
    nodes = [node for node in _computed(graph) if node.op != "output"]
    inside = {graph.node(name) for name in layers}
    above = _dominators(nodes, lambda node: node.all_input_nodes)
    below = _dominators(nodes[::-1], lambda node: [user for user in node.users if user.op != "output"])
    before = set.intersection(*(above[node] for node in inside)) - inside
    after = set.intersection(*(below[node] for node in inside))
    position = {node: index for index, node in enumerate(nodes)}
    sources = sorted(before or {graph.input}, key=position.__getitem__, reverse=True)
    targets = sorted(after, key=position.__getitem__)
    # A way in and a way out that belong together: the target's values come through the source alone.
    pairs = ((source, target) for target in targets for source in sources if source in above[target])
    source, target = next(pairs, (graph.input, graph.output))
    return source.name, target.name


def _computed(graph: Graph) -> list[fx.Node]:
    """The input and what depends on it; constants do not."""
    found: list[fx.Node] = []
    for node in graph.module.graph.nodes:
        if node.op == "placeholder" or any(source in found for source in node.all_input_nodes):
            found.append(node)
    return found


def _dominators(
    nodes: Iterable[fx.Node], before: Callable[[fx.Node], Iterable[fx.Node]]
) -> dict[fx.Node, set[fx.Node]]:
    """For each node those that every way to it passes through, itself included (nodes come in topological order)."""
    found: dict[fx.Node, set[fx.Node]] = {}
    for node in nodes:
        known = [found[each] for each in before(node) if each in found]
        found[node] = {node} | (set.intersection(*known) if known else set())
    return found

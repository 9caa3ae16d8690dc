"""The smallest part of a network that contains given layers and has a single entry and a single exit."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from torch import fx

from slimseg.graph.graph import Graph


def region(graph: Graph, layers: Sequence[str]) -> tuple[str, str]:
    """(source, target): the node before the smallest part that contains `layers`, and the part's last node.

    `source` dominates the layers and `target`: every path from the image to them passes through it. `target`
    post-dominates the layers: every path from them to the output passes through it. The part may contain more than
    `layers`; in the worst case it is the whole network.
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
    # Entry and exit must match: the source has to dominate the target, too.
    pairs = ((source, target) for target in targets for source in sources if source in above[target])
    source, target = next(pairs, (graph.input, graph.output))
    return source.name, target.name


def _computed(graph: Graph) -> list[fx.Node]:
    """The input and the nodes that depend on it, which constants do not."""
    found: list[fx.Node] = []
    for node in graph.module.graph.nodes:
        if node.op == "placeholder" or any(source in found for source in node.all_input_nodes):
            found.append(node)
    return found


def _dominators(
    nodes: Iterable[fx.Node], before: Callable[[fx.Node], Iterable[fx.Node]]
) -> dict[fx.Node, set[fx.Node]]:
    """For each node the nodes on every path to it, itself included; `nodes` are in topological order."""
    found: dict[fx.Node, set[fx.Node]] = {}
    for node in nodes:
        known = [found[each] for each in before(node) if each in found]
        found[node] = {node} | (set.intersection(*known) if known else set())
    return found

"""Times only one of several equal what-ifs: equal layers with equal settings and shapes take the same time."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence

from torch import fx

from slimseg.deployment import Deployment
from slimseg.graph.graph import Graph, needed
from slimseg.planning.pricing import whatif
from slimseg.planning.pricing.whatif import Priced
from slimseg.progress import Progress
from slimseg.results import Refusal
from slimseg.techniques import Site

SECONDS_PER_FILE = 0.1  # short, as there may be hundreds; edits that are then applied are timed for longer


def price_alike(
    graph: Graph,
    sites: Sequence[Site],
    deployment: Deployment,
    progress: Progress,
    until: float = math.inf,
) -> Priced:
    """As `whatif.price`, but sites with equal what-ifs share one measurement (or one reason for its failure)."""
    alike = groups(graph, sites, deployment)
    first = [group[0] for group in alike]
    priced = whatif.price(graph, first, deployment, progress, SECONDS_PER_FILE, until)
    failed = {(refusal.technique, refusal.layer): refusal.reason for refusal in priced.refusals}
    prices, refusals = {}, []
    for group in alike:
        if group[0] in priced.prices:
            prices.update(dict.fromkeys(group, priced.prices[group[0]]))
        elif reason := failed.get((group[0].technique, group[0].layers[0])):
            refusals += [Refusal(site.technique, site.layers[0], reason) for site in group]
    return Priced(prices, tuple(refusals))


def groups(graph: Graph, sites: Sequence[Site], deployment: Deployment) -> list[list[Site]]:
    """The sites in groups whose what-ifs are equal."""
    result: dict[Hashable, list[Site]] = {}
    for site in sites:
        result.setdefault(signature(graph, site, deployment), []).append(site)
    return list(result.values())


def part(graph: Graph, site: Site, deployment: Deployment) -> list[fx.Node] | None:
    """The nodes that a what-if of the site times, in order; None if it times the whole network."""
    if site.whole:
        return None
    nodes = needed(graph.node(whatif.end_of_part(graph, site.target, deployment)), {graph.node(site.source)})
    return None if any(node.op == "placeholder" for node in nodes) else nodes


def signature(graph: Graph, site: Site, deployment: Deployment) -> Hashable:
    """A key that is equal for two sites exactly if their what-ifs differ in nothing but the values of weights."""
    nodes = part(graph, site, deployment)
    if nodes is None:
        return site
    source = graph.node(site.source)
    position = {source: 0} | {node: index for index, node in enumerate(nodes, 1)}
    layers = tuple(
        (
            _settings(graph, node),
            tuple(position[each] for each in node.all_input_nodes),
            graph.shape(node) if "shape" in node.meta else (),
        )
        for node in nodes
    )
    edited = tuple(position.get(graph.node(name), -1) for name in site.layers)
    # The number of readers matters: a node with several readers may prevent fusing.
    read = tuple(len(node.users) for node in nodes)
    return site.technique, site.settings, graph.shape(source), layers, edited, read


def _settings(graph: Graph, node: fx.Node) -> Hashable:
    layer = graph.layer(node)
    if layer is None:
        return str(node.target)
    return repr(layer), tuple(tuple(value.shape) for value in layer.state_dict().values())

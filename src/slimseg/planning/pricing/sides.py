"""Layers whose height or width is no multiple of 8, and what that costs, measured (article, section 2).

The article asks for sides in multiples of 8 in every layer, not in the input alone. The slowest of the convolutions
with other sides are timed alone, as they are and at the next multiples, and compared per pixel. On XNNPACK, which packs
pixels into tiles of its own, the answer has been: nothing (benchmarks/README.md). Where a runtime minds, it shows here.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import fx, nn

from slimseg.deployment import Deployment
from slimseg.errors import SlimsegError
from slimseg.graph import edit
from slimseg.graph.graph import Graph, producer
from slimseg.graph.shapes import pair
from slimseg.planning.pricing import whatif
from slimseg.planning.pricing.spent import Spent
from slimseg.results import Finding
from slimseg.techniques.technique import ARTICLE

STEP = 8
WORTH_SHARE = 0.05  # of the latency, that such layers have to take
MEASURED = 2  # of the slowest


def odd_sides(
    graph: Graph, times: Mapping[str, float], latency_ms: float, deployment: Deployment
) -> tuple[Finding, ...]:
    """One finding for all such layers, or none where there are none that take time; `times` by node."""
    odd = sorted((node for node in graph.layers() if _is_odd(graph, node)), key=lambda node: -times.get(node.name, 0.0))
    spent = sum(times.get(node.name, 0.0) for node in odd)
    if spent < WORTH_SHARE * latency_ms:
        return ()
    ratios = {}
    for node in odd[:MEASURED]:
        try:
            ratios[node] = _time_per_pixel(graph, node, deployment)
        except SlimsegError:  # a part that cannot be written or run alone says nothing
            continue
    if not ratios:
        return ()
    weights = [times.get(node.name, 0.0) for node in ratios]
    after = spent * sum(weight / ratio for weight, ratio in zip(weights, ratios.values(), strict=True)) / sum(weights)
    told = "; ".join(f"{node.name} at {_size(graph, node)}: {ratio:.2f} times" for node, ratio in ratios.items())
    reason = (
        f"{len(odd)} convolutions have a height or width that is no multiple of {STEP}. Time per pixel, against the "
        f"next multiples: {told}"
    )
    found = Spent([node.name for node in odd], spent, after, latency_ms)
    return (
        found.finding(f"sides that are no multiple of {STEP}", reason, paper=f"{ARTICLE}, section 2", basis="what-if"),
    )


def _is_odd(graph: Graph, node: fx.Node) -> bool:
    """Smaller maps than two steps have no multiple of 8 near them."""
    if graph.layer_as(node, (nn.Conv2d, nn.ConvTranspose2d)) is None:
        return False
    sides = graph.shape(node)[2:]
    return min(sides) >= 2 * STEP and any(side % STEP for side in sides)


def _time_per_pixel(graph: Graph, node: fx.Node, deployment: Deployment) -> float:
    """Of the layer as it is, over that at the next multiples of 8."""
    alone = edit.extract(graph, producer(node).name, node.name)
    layer = graph.layer(node)
    height, width = alone.input_size
    # Whatever the layer makes of a side, multiples of 8 times its stride give multiples of 8.
    down, across = pair(layer.stride) if isinstance(layer, nn.Conv2d) else (1, 1)
    even = edit.at_input_size(alone, (_up(height, STEP * down), _up(width, STEP * across)))
    price = whatif.compare(alone, even, deployment)
    return (price.before_ms / _pixels(alone)) / (price.after_ms / _pixels(even))


def _up(length: int, step: int) -> int:
    return -(-length // step) * step


def _pixels(graph: Graph) -> int:
    _, _, height, width = graph.shape(graph.output)
    return height * width


def _size(graph: Graph, node: fx.Node) -> str:
    return "x".join(map(str, graph.shape(node)[2:]))

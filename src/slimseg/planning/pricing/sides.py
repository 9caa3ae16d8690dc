"""Measures what it costs that a layer's height or width is no multiple of 8.

The article that `techniques.technique` cites advises multiples of 8 in every layer, not only in the input. The slowest
convolutions with other sizes are timed alone, at their own size and at the next multiples of 8, and their times per
pixel are compared. On XNNPACK, which packs pixels into its own tiles, no cost was found (benchmarks/README.md).
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
WORTH_SHARE = 0.05  # share of the latency that such layers must take together for a finding
MEASURED = 2  # number of layers that are timed, slowest first


def odd_sides(
    graph: Graph, times: Mapping[str, float], latency_ms: float, deployment: Deployment
) -> tuple[Finding, ...]:
    """One finding for all such layers, or none if they take too little time; `times`: milliseconds by node name."""
    odd = sorted((node for node in graph.layers() if _is_odd(graph, node)), key=lambda node: -times.get(node.name, 0.0))
    spent = sum(times.get(node.name, 0.0) for node in odd)
    if spent < WORTH_SHARE * latency_ms:
        return ()
    ratios = {}
    for node in odd[:MEASURED]:
        try:
            ratios[node] = _time_per_pixel(graph, node, deployment)
        except SlimsegError:  # skip a layer that cannot be written or run alone
            continue
    if not ratios:
        return ()
    weights = [times.get(node.name, 0.0) for node in ratios]
    after = spent * sum(weight / ratio for weight, ratio in zip(weights, ratios.values(), strict=True)) / sum(weights)
    told = "; ".join(f"{node.name} at {_size(graph, node)}: {ratio:.2f} times" for node, ratio in ratios.items())
    reason = (
        f"{len(odd)} convolutions have a height or width that is not a multiple of {STEP}. Time per pixel relative "
        f"to the next multiples: {told}"
    )
    found = Spent([node.name for node in odd], spent, after, latency_ms)
    return (
        found.finding(f"sides that are no multiple of {STEP}", reason, paper=f"{ARTICLE}, section 2", basis="what-if"),
    )


def _is_odd(graph: Graph, node: fx.Node) -> bool:
    """Whether a convolution's height or width is no multiple of 8; maps below 16 pixels, far from one, do not count."""
    if graph.layer_as(node, (nn.Conv2d, nn.ConvTranspose2d)) is None:
        return False
    sides = graph.shape(node)[2:]
    return min(sides) >= 2 * STEP and any(side % STEP for side in sides)


def _time_per_pixel(graph: Graph, node: fx.Node, deployment: Deployment) -> float:
    """Time per pixel of the layer at its own size, divided by that at the next multiples of 8."""
    alone = edit.extract(graph, producer(node).name, node.name)
    layer = graph.layer(node)
    height, width = alone.input_size
    # An input side that is a multiple of 8 times the stride gives an output side that is a multiple of 8.
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

"""Layers at the input's resolution, or at half of it -> the same ones on a quarter of the pixels (article, section 3).

    Given   y = f(x),            f layers that keep the size, (C, H, W) to (O, H, W), H and W at least half the input's
    Result  y ≈ U(f(P(x)))       P the mean of 2×2 pixels, U the bilinear resize back          "half resolution"
    Result  y ≈ U(f₂(x))         f₂ is f with stride 2 in its first convolution                "stride 2"

Convolutions inside work on (H/2, W/2), so their MACs fall to a quarter; the what-if measures what the resize costs.
The weights are unchanged but see features at half the scale, so the result is a starting point for training.
Zhao et al., "ICNet for Real-Time Semantic Segmentation", 2018, section 3.2: most of the work at low resolution.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Literal

from torch import fx, nn

from slimseg.errors import Unsupported
from slimseg.graph import edit, ops
from slimseg.graph.graph import Graph, only_consumer, producer
from slimseg.graph.shapes import pair
from slimseg.results import Needs, Refusal
from slimseg.techniques.technique import Found, Settings, Site

SMALLEST_SIDE = 64  # pixels; on smaller maps there is little to gain
# Layers that keep the size and work at any size.
_POINTWISE: tuple[type[nn.Module], ...] = (
    nn.BatchNorm2d,
    *(kind for kind in ops.ACTIVATIONS if kind is not ops.SpatialPReLU),
)


@dataclass(frozen=True)
class Halving(Settings):
    form: Literal["pooled", "strided"]

    @property
    def words(self) -> str:
        return {"pooled": "half resolution", "strided": "stride 2"}[self.form]


POOLED, STRIDED = Halving("pooled"), Halving("strided")


class FullResolution:
    """Moves runs of layers down to half their resolution."""

    name = "full resolution"
    needs: Needs = "images"
    paper = "Zhao et al., ICNet for Real-Time Semantic Segmentation, 2018, section 3.2"
    settings = Halving

    def find(self, graph: Graph) -> Found:
        sites: list[Site] = []
        refusals: list[Refusal] = []
        for run in _runs(graph):
            shared = next((other for node in run if (other := edit.shared_with(graph, node))), None)
            if shared:
                refusals.append(Refusal(self.name, run[0].name, f"its weights are shared with {shared}"))
                continue
            forms = (POOLED, STRIDED) if _first_convolution(graph, run) is not None else (POOLED,)
            sites.extend(self._site(graph, run, form) for form in forms)
        return Found(tuple(sites), tuple(refusals))

    def _site(self, graph: Graph, run: list[fx.Node], form: Halving) -> Site:
        _, _, height, width = graph.shape(run[-1])
        channels = [graph.shape(node)[1] for node in (producer(run[0]), *_convolutions(graph, run))]
        layers = f"{len(channels) - 1} convolutions" if len(channels) > 2 else "a convolution"
        reason = (
            f"{layers} of {' to '.join(map(str, channels))} channels at {height}x{width}, where the input has "
            f"{graph.input_size[0]}x{graph.input_size[1]}: {math.ceil(height / 2)}x{math.ceil(width / 2)} has a "
            "quarter of the pixels"
        )
        names = tuple(node.name for node in run)
        return Site(self.name, names, producer(run[0]).name, names[-1], self.needs, reason, form)

    def apply(self, graph: Graph, site: Site) -> Graph:
        run = [graph.node(name) for name in site.layers]
        form = site.settings_as(Halving)
        if not all(_keeps_size(graph, node) for node in run):
            raise Unsupported(f"{site.target} does not end a run of layers that can work at {form.words}")
        layers = [copy.deepcopy(graph.layer(node)) for node in run]
        first: list[nn.Module] = [nn.AvgPool2d(2, ceil_mode=True, count_include_pad=False)]
        if form == STRIDED:
            if not isinstance(layers[0], nn.Conv2d):
                raise Unsupported(f"{site.layers[0]} is not a convolution that can have a stride")
            layers[0], first = _strided(layers[0]), []
        _, _, height, width = graph.shape(run[-1])
        block = nn.Sequential(*first, *layers, ops.Resize((height, width)))  # type: ignore[arg-type]
        return edit.replace(graph, [site.source], site.target, block)


def _runs(graph: Graph) -> list[list[fx.Node]]:
    """Maximal runs of layers that keep the size, each the only reader of the one before, with a convolution in them."""
    runs: list[list[fx.Node]] = []
    for node in graph.layers():
        if not (_keeps_size(graph, node) and _is_large(graph, node)):
            continue
        before = producer(node)
        if runs and runs[-1][-1] is before and only_consumer(before) is node:
            runs[-1].append(node)
        else:
            runs.append([node])
    return [run for run in runs if _convolutions(graph, run)]


def _convolutions(graph: Graph, run: list[fx.Node]) -> list[fx.Node]:
    return [node for node in run if graph.layer_as(node, nn.Conv2d) is not None]


def _first_convolution(graph: Graph, run: list[fx.Node]) -> nn.Conv2d | None:
    return graph.layer_as(run[0], nn.Conv2d)


def _keeps_size(graph: Graph, node: fx.Node) -> bool:
    layer = graph.layer(node)
    if isinstance(layer, nn.Conv2d):
        return pair(layer.stride) == (1, 1) and graph.shape(producer(node))[2:] == graph.shape(node)[2:]
    return isinstance(layer, _POINTWISE) and len(graph.shape(node)) == 4


def _is_large(graph: Graph, node: fx.Node) -> bool:
    size, full = graph.shape(node)[2:], graph.input_size
    return all(2 * side >= whole and side >= SMALLEST_SIDE for side, whole in zip(size, full, strict=True))


def _strided(layer: nn.Conv2d) -> nn.Conv2d:
    result = nn.Conv2d(
        layer.in_channels,
        layer.out_channels,
        pair(layer.kernel_size),
        2,
        pair(layer.padding),
        pair(layer.dilation),
        layer.groups,
        layer.bias is not None,
    )
    result.load_state_dict(layer.state_dict())
    return result

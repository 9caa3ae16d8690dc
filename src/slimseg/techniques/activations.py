"""Rewrite activations in the form that the runtime has a kernel for, or fuses (article, section 3.4 (3)).

    Given   x · relu6(x + 3) / 6,  relu6(x + 3) / 6                as several layers
    Result  hard-swish, hard sigmoid                               one layer of one or two kernels
    Given   min(max(x, 0), 6),  clip(x, 0, ∞),  PReLU with slopes 0
    Result  ReLU6, ReLU, which the runtime fuses into the layer before
    Given   PReLU with one slope for all channels
    Result  leaky ReLU, which needs no constants per channel

All of them give the same values. Howard et al., "Searching for MobileNetV3", 2019, section 5.2, define the hard forms.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import fx, nn

from slimseg.errors import Unsupported
from slimseg.graph import edit, ops
from slimseg.graph.graph import Graph, only_consumer, producer
from slimseg.results import Needs, Refusal
from slimseg.techniques.technique import Found, Settings, Site, dimensions

Activation = Literal["hard-swish", "hard sigmoid", "ReLU", "ReLU6", "leaky ReLU"]
_Spelling = tuple[Activation, nn.Module, fx.Node, tuple[fx.Node, ...]]  # name, layer, source, nodes that it replaces


@dataclass(frozen=True)
class Spelling(Settings):
    activation: Activation

    @property
    def words(self) -> str:
        return self.activation


class ActivationSpelling:
    """Rewrites activations as the layers that the runtime has kernels for."""

    name = "activation spelling"
    needs: Needs = "nothing"
    paper = "Howard et al., Searching for MobileNetV3, 2019, section 5.2"
    settings = Spelling

    def find(self, graph: Graph) -> Found:
        sites: list[Site] = []
        refusals: list[Refusal] = []
        for node in graph.layers():
            spelling = _spelling(graph, node)
            if spelling is None:
                continue
            name, _, source, nodes = spelling
            other = edit.shared_with(graph, node)
            if other:
                refusals.append(Refusal(self.name, node.name, f"its layer is shared with {other}"))
                continue
            names = tuple(each.name for each in nodes)
            shape = dimensions(graph, node)
            reason = f"{' and '.join(names)} of {shape} values {'compute' if names[1:] else 'computes'} a {name}"
            sites.append(Site(self.name, names, source.name, node.name, self.needs, reason, Spelling(name)))
        return Found(tuple(sites), tuple(refusals))

    def apply(self, graph: Graph, site: Site) -> Graph:
        wanted = site.settings_as(Spelling).activation
        spelling = _spelling(graph, graph.node(site.target))
        if spelling is None or spelling[0] != wanted:
            raise Unsupported(f"{site.target} does not end a {wanted}")
        _, layer, source, _ = spelling
        return edit.replace(graph, [source.name], site.target, nn.Sequential(layer))


def _spelling(graph: Graph, node: fx.Node) -> _Spelling | None:
    """A better form of the activation that ends in this node; None if there is none."""
    for recognise in (_gated, _hard_sigmoid, _clipped, _sloped):
        spelling = recognise(graph, node)
        if spelling is not None:
            return spelling
    return None


def _gated(graph: Graph, node: fx.Node) -> _Spelling | None:
    """A hard-swish x · g(x), or x · g(x) / 6 with the division last, if it ends in this node."""
    if (scale := _scale(graph, node)) is not None:
        product = producer(node)
        if math.isclose(scale, 1 / 6, rel_tol=1e-6) and only_consumer(product) is node:
            for value, gate in _factors(graph, product):
                if (path := _relu6_of_three_more(graph, gate, value)) and only_consumer(gate) is product:
                    return "hard-swish", nn.Hardswish(), value, (*path, product, node)
        return None
    for value, gate in _factors(graph, node):
        if only_consumer(gate) is not node:
            continue
        if graph.layer_as(gate, nn.Sigmoid) is not None and producer(gate) is value:
            return None  # there is no better form of swish
        if graph.layer_as(gate, nn.Hardsigmoid) is not None and producer(gate) is value:
            return "hard-swish", nn.Hardswish(), value, (gate, node)
        found = _sixth(graph, gate)
        if found is not None and found[2] is value:
            return "hard-swish", nn.Hardswish(), value, (*found[3], node)
    return None


def _factors(graph: Graph, node: fx.Node) -> list[tuple[fx.Node, fx.Node]]:
    """(value, gate) of a product, in both orders."""
    if graph.layer_as(node, ops.Multiply) is None or len(node.all_input_nodes) != 2:
        return []
    first, second = node.all_input_nodes
    return [(first, second), (second, first)] if graph.shape(first) == graph.shape(second) else []


def _relu6_of_three_more(graph: Graph, node: fx.Node, of: fx.Node | None = None) -> tuple[fx.Node, ...]:
    """(shift, clip) if node is relu6(x + 3), with x the value of `of` if that is given; else ()."""
    if bounds(graph, node) != (0.0, 6.0):
        return ()
    shift = producer(node)
    layer = graph.layer_as(shift, ops.Affine)
    plus_three = layer is not None and layer.scale is None and _number(layer.shift) == 3.0
    if not plus_three or only_consumer(shift) is not node:
        return ()
    return (shift, node) if of is None or producer(shift) is of else ()


def _hard_sigmoid(graph: Graph, node: fx.Node) -> _Spelling | None:
    spelling = _sixth(graph, node)
    if spelling is None:
        return None
    halves = (reader for reader in node.users if spelling[2] in (value for value, _ in _factors(graph, reader)))
    return None if any(halves) else spelling  # None: it is the gate of a hard-swish


def _sixth(graph: Graph, node: fx.Node) -> _Spelling | None:
    """The hard sigmoid relu6(x + 3) / 6, if it ends in this node."""
    scale = _scale(graph, node)
    if scale is None or not math.isclose(scale, 1 / 6, rel_tol=1e-6):
        return None
    clip = producer(node)
    path = _relu6_of_three_more(graph, clip)
    if not path or only_consumer(clip) is not node:
        return None
    return "hard sigmoid", nn.Hardsigmoid(), producer(path[0]), (*path, node)


def _clipped(graph: Graph, node: fx.Node) -> _Spelling | None:
    """One or two clips that together are equal to a ReLU or ReLU6."""
    limits = bounds(graph, node)
    if limits is None:
        return None
    nodes: tuple[fx.Node, ...] = (node,)
    before = producer(node)
    inner = bounds(graph, before)
    if inner is not None and only_consumer(before) is node and not edit.shared_with(graph, before):
        joint = max(limits[0], min(limits[1], inner[0])), max(limits[0], min(limits[1], inner[1]))
        if joint in _CLIPS:
            limits, nodes = joint, (before, node)
    if limits not in _CLIPS:
        return None
    name, kind = _CLIPS[limits]
    if len(nodes) == 1 and isinstance(graph.layer(node), kind):
        return None
    return name, kind(), producer(nodes[0]), nodes


_CLIPS: dict[tuple[float, float], tuple[Activation, type[nn.Module]]] = {
    (0.0, math.inf): ("ReLU", nn.ReLU),
    (0.0, 6.0): ("ReLU6", nn.ReLU6),
}


def _sloped(graph: Graph, node: fx.Node) -> _Spelling | None:
    """PReLU or leaky ReLU whose slopes are all zero, or all the same."""
    layer = graph.layer(node)
    if isinstance(layer, nn.PReLU | ops.SpatialPReLU):
        slopes = layer.weight.detach()
        if not torch.all(slopes == slopes.flatten()[0]):
            return None
        slope = float(slopes.flatten()[0])
    elif isinstance(layer, nn.LeakyReLU) and layer.negative_slope == 0:
        slope = 0.0
    else:
        return None
    if slope == 0:
        return "ReLU", nn.ReLU(), producer(node), (node,)
    return "leaky ReLU", nn.LeakyReLU(slope), producer(node), (node,)


def bounds(graph: Graph, node: fx.Node) -> tuple[float, float] | None:
    """(lowest, highest) output of a clip; None for other layers."""
    layer = graph.layer(node)
    if isinstance(layer, nn.ReLU):
        return 0.0, math.inf
    if isinstance(layer, nn.Hardtanh):  # ReLU6 is a subclass
        return float(layer.min_val), float(layer.max_val)
    return None


def _scale(graph: Graph, node: fx.Node) -> float | None:
    """The number by which a layer multiplies all values, if it does only that; else None."""
    layer = graph.layer_as(node, ops.Affine)
    return _number(layer.scale) if layer is not None and layer.shift is None else None


def _number(value: torch.Tensor | None) -> float | None:
    return float(value) if value is not None and value.numel() == 1 else None

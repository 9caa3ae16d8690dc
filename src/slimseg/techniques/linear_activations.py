"""Piecewise linear activations instead of curved ones (article, section 3.4 (3)).

    Given   y = f(x),  f hard-swish, swish, GELU, ELU, PReLU or leaky ReLU
    Result  y ≈ max(s·x + t, 0)                 which the runtime fuses into the layer before it
    Given   σ(x) or tanh(x)                     an exponential per value
    Result  min(max(s·x + t + 3, 0), 6) / 6 or min(max(s·x + t, -1), 1)

They keep only the sign and growth of the activation that they replace. The scale s and shift t of each channel start at
1 and 0. Recovery fits them block by block: mimicry has no other weights to train here. They cost no time, as they are
folded into the convolution before. If there is no convolution before, s and t are left out, and the surrounding layers
have to learn the difference. A sigmoid that gives the network's output is kept. A swish written as x · σ(x) counts as
one activation.
Howard et al., "Searching for MobileNetV3", 2019, section 5.2, replaces the same functions for the same reason.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import fx, nn

from slimseg.errors import Unsupported
from slimseg.graph import edit, ops
from slimseg.graph.graph import Graph, only_consumer, producer
from slimseg.graph.output import last_computed
from slimseg.results import Needs, Refusal
from slimseg.techniques.technique import Found, Settings, Site, dimensions

_Made = Callable[[], nn.Module]
# By class of the replaced activation: its name in a sentence, and its replacement.
REPLACED: dict[type[nn.Module], tuple[str, _Made]] = {
    nn.Hardswish: ("hard-swish", nn.ReLU),
    nn.SiLU: ("swish", nn.ReLU),
    nn.GELU: ("GELU", nn.ReLU),
    nn.ELU: ("ELU", nn.ReLU),
    nn.PReLU: ("PReLU", nn.ReLU),
    ops.SpatialPReLU: ("PReLU with a slope per pixel", nn.ReLU),
    nn.LeakyReLU: ("leaky ReLU", nn.ReLU),
    nn.Sigmoid: ("sigmoid", nn.Hardsigmoid),
    nn.Tanh: ("tanh", nn.Hardtanh),
}
Linear = Literal["ReLU", "hard sigmoid", "hard tanh"]
_NAMES: dict[_Made, Linear] = {nn.ReLU: "ReLU", nn.Hardsigmoid: "hard sigmoid", nn.Hardtanh: "hard tanh"}


@dataclass(frozen=True)
class Replacement(Settings):
    activation: Linear

    @property
    def words(self) -> str:
        return self.activation


class LinearActivations:
    """Replaces activations that are curved, or that the runtime does not fuse."""

    name = "linear activation"
    needs: Needs = "images"
    paper = "Howard et al., Searching for MobileNetV3, 2019, section 5.2"
    settings = Replacement

    def find(self, graph: Graph) -> Found:
        sites: list[Site] = []
        refusals: list[Refusal] = []
        last = last_computed(graph)
        for node in graph.layers():
            kind = kind_of(graph, node)
            if kind is None or node is last:
                continue
            if other := edit.shared_with(graph, node):
                refusals.append(Refusal(self.name, node.name, f"its layer is shared with {other}"))
            else:
                sites.append(self._site(graph, node, kind))
        return Found(tuple(sites), tuple(refusals))

    def _site(self, graph: Graph, node: fx.Node, kind: type[nn.Module]) -> Site:
        what, made = REPLACED[kind]
        result = _NAMES[made]
        gate = gate_of(graph, node)
        layers = (node.name,) if gate is None else (gate.name, node.name)
        before = producer(gate or node)
        host = host_of(graph, node) if result == "ReLU" else None
        shape = dimensions(graph, node)
        gain = f"a ReLU would be fused into {host.name}" if host is not None else f"a {result} only compares and scales"
        reason = f"{what} of {shape} values is a separate pass over them: {gain}"
        return Site(
            self.name, layers, (producer(host) if host is not None else before).name, node.name, self.needs, reason,
            Replacement(result),
        )  # fmt: skip

    def apply(self, graph: Graph, site: Site) -> Graph:
        node = graph.node(site.target)
        kind = kind_of(graph, node)
        wanted = site.settings_as(Replacement)
        if kind is None or node is last_computed(graph) or wanted != Replacement(_NAMES[REPLACED[kind][1]]):
            raise Unsupported(f"{site.target} is not an activation that {self.name} ({wanted.words}) can replace")
        block = nn.Sequential(*free_constants(graph, node), REPLACED[kind][1]())
        return edit.replace(graph, [producer(gate_of(graph, node) or node).name], site.target, block)


def kind_of(graph: Graph, node: fx.Node) -> type[nn.Module] | None:
    """The class of the replaceable activation that ends in this node; None if there is none."""
    if gate_of(graph, node) is not None:
        return nn.SiLU
    if any(gate_of(graph, reader) is node for reader in node.users):
        return None  # the gate of a swish
    layer = graph.layer(node)
    return next((kind for kind in REPLACED if type(layer) is kind), None)


def gate_of(graph: Graph, node: fx.Node) -> fx.Node | None:
    """The sigmoid of a swish that is written as x · σ(x), if nothing else reads it."""
    if graph.layer_as(node, ops.Multiply) is None:
        return None
    for gate, value in (node.args, node.args[::-1]):
        if graph.layer_as(gate, nn.Sigmoid) is None:
            continue
        assert isinstance(gate, fx.Node)
        if only_consumer(gate) is node and producer(gate) is value:
            return gate
    return None


def host_of(graph: Graph, node: fx.Node) -> fx.Node | None:
    """The layer before, if a ReLU would be fused into it; a batch norm between them is folded."""
    readers = {node, gate_of(graph, node) or node}
    source = producer(gate_of(graph, node) or node)
    if set(source.users) <= readers and graph.layer_as(source, nn.BatchNorm2d) is not None:
        readers, source = {source}, producer(source)
    takes_in = graph.layer_as(source, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)) is not None
    return source if takes_in and set(source.users) <= readers else None


def free_constants(graph: Graph, node: fx.Node, scale: float = 1.0) -> list[nn.Module]:
    """A trainable scale (at first `scale`) and shift per channel, if they can be folded into the layer before."""
    host, shape = host_of(graph, node), graph.shape(node)
    if host is None or edit.shared_with(graph, host):
        return []
    per_channel = (shape[1], *(1 for _ in shape[2:]))
    return [ops.Affine(nn.Parameter(torch.full(per_channel, scale)), nn.Parameter(torch.zeros(per_channel)))]

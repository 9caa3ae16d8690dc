"""Hard-swish instead of GELU or swish: no exponential, and close to both.

    Given   y = GELU(x) ≈ x · σ(1.702 x)    or    y = x · σ(x)
    Result  y ≈ h(c·x) / c,   h(x) = x · relu6(x + 3) / 6,   c = 1.702 or 1

The largest difference is 0.07 for GELU and 0.14 for swish. That of a ReLU is 0.17 and 0.28 (linear_activations.py), but
a ReLU is fused into the layer before. The factor c is folded into the layer before, 1/c into the layers behind; where
there are no such layers, both are left out. Mimicry trains the factor before and a shift that starts at 0.
Hendrycks and Gimpel, "Gaussian Error Linear Units", 2016, section 2, for 1.702; Howard et al., "Searching for
MobileNetV3", 2019, section 5.2, for hard-swish.
"""

from __future__ import annotations

import torch
from torch import fx, nn

from slimseg.errors import Unsupported
from slimseg.graph import edit, ops
from slimseg.graph.graph import Graph, only_consumer, producer
from slimseg.graph.output import last_computed
from slimseg.results import Needs, Refusal
from slimseg.techniques.linear_activations import free_constants, gate_of, host_of, kind_of
from slimseg.techniques.technique import Found, Settings, Site, dimensions

FACTORS: dict[type[nn.Module], tuple[str, float]] = {nn.GELU: ("GELU", 1.702), nn.SiLU: ("swish", 1.0)}  # c by class


class HardSwish:
    """Replaces GELU and swish."""

    name = "hard-swish instead of GELU or swish"
    needs: Needs = "images"
    paper = "Howard et al., Searching for MobileNetV3, 2019, section 5.2"
    settings = Settings

    def find(self, graph: Graph) -> Found:
        sites: list[Site] = []
        refusals: list[Refusal] = []
        for node in graph.layers():
            if not _is_replaced(graph, node):
                continue
            if other := edit.shared_with(graph, node):
                refusals.append(Refusal(self.name, node.name, f"its layer is shared with {other}"))
            else:
                sites.append(self._site(graph, node))
        return Found(tuple(sites), tuple(refusals))

    def _site(self, graph: Graph, node: fx.Node) -> Site:
        gate, host, reader = gate_of(graph, node), host_of(graph, node), only_consumer(node)
        kind = kind_of(graph, node)
        assert kind is not None
        target = reader if reader is not None and _takes_factor(graph, node) else node
        names = (node.name,) if gate is None else (gate.name, node.name)
        name, _ = FACTORS[kind]
        reason = f"{name} of {dimensions(graph, node)} values takes an exponential for each: hard-swish takes none"
        return Site(self.name, names, producer(host or gate or node).name, target.name, self.needs, reason)

    def apply(self, graph: Graph, site: Site) -> Graph:
        site.settings_as(Settings)
        node = graph.node(site.layers[-1])
        if not _is_replaced(graph, node):
            raise Unsupported(f"{node.name} is no GELU or swish inside the network")
        kind = kind_of(graph, node)
        assert kind is not None
        before, behind = free_constants(graph, node), []
        if before and _takes_factor(graph, node):
            _, factor = FACTORS[kind]
            before = free_constants(graph, node, factor)
            behind = [ops.Affine(torch.tensor(1 / factor), None)] if factor != 1 else []
        block = nn.Sequential(*before, nn.Hardswish(), *behind)
        return edit.replace(graph, [producer(gate_of(graph, node) or node).name], node.name, block)


def _is_replaced(graph: Graph, node: fx.Node) -> bool:
    return node.op == "call_module" and kind_of(graph, node) in FACTORS and node is not last_computed(graph)


def _takes_factor(graph: Graph, node: fx.Node) -> bool:
    """Whether the layers behind can multiply what they read by one number without taking longer."""
    return all(graph.layer_as(reader, nn.Conv2d) and not edit.shared_with(graph, reader) for reader in node.users)

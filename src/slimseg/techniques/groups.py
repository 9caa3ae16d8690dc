"""Group convolutions in fewer groups, or in one (article, section 3.4 (1): memory access).

    Given   y = W ∗ x,   W of shape (O, I/g, k, k) in g groups
    Result  y = W' ∗ x,  W' of shape (O, I/h, k, k) in h < g groups, h a divisor of g: W' is W with zeros      (exact)

ShuffleNetV2's second guideline (Ma et al., 2018, section 2): at equal MACs more groups move more bytes. Here MACs grow
by g/h, and the new ones multiply by zero. That is faster if a group has fewer channels than a register has lanes (on
XNNPACK up to 8 in int8, up to 4 in float32) and never for wide groups. Runtimes have special kernels for depthwise
convolutions, so these are only tried with few channels, as one group.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from slimseg.errors import Unsupported
from slimseg.graph import edit, ops
from slimseg.graph.graph import Graph, producer
from slimseg.results import Needs, Refusal
from slimseg.techniques.technique import Found, Settings, Site, dimensions

TOGETHER = (2, 4)  # groups that become one, which multiplies the MACs by this number; larger ones are never faster
FEW_CHANNELS = 16  # of a depthwise convolution: the lanes of the widest registers


@dataclass(frozen=True)
class Groups(Settings):
    number: int

    @property
    def words(self) -> str:
        return f"{self.number} group{'s' if self.number > 1 else ''}"


class FewerGroups:
    """Joins groups of a convolution by filling in zeros between them."""

    name = "fewer groups"
    needs: Needs = "nothing"
    paper = "Ma et al., ShuffleNet V2, 2018, section 2 (G2)"
    settings = Groups

    def find(self, graph: Graph) -> Found:
        sites: list[Site] = []
        refusals: list[Refusal] = []
        for node in graph.layers():
            layer = graph.layer_as(node, nn.Conv2d)
            if layer is None or not _worth_trying(layer):
                continue
            if other := edit.shared_with(graph, node):
                refusals.append(Refusal(self.name, node.name, f"its weights are shared with {other}"))
                continue
            sites.extend(self._site(graph, node, layer, groups) for groups in _worth_trying(layer))
        return Found(tuple(sites), tuple(refusals))

    def _site(self, graph: Graph, node: fx.Node, layer: nn.Conv2d, groups: int) -> Site:
        inside = layer.in_channels // layer.groups
        reason = (
            f"{node.name} to {dimensions(graph, node)} works in {layer.groups} groups of {inside} channels each: with "
            f"zeros between them they become {groups if groups > 1 else 'one'} of {layer.in_channels // groups}"
        )
        name = node.name
        return Site(self.name, (name,), producer(node).name, name, self.needs, reason, Groups(groups))

    def apply(self, graph: Graph, site: Site) -> Graph:
        layer = graph.layer_as(graph.node(site.target), nn.Conv2d)
        wanted = site.settings_as(Groups)
        if layer is None or wanted.number not in _worth_trying(layer):
            raise Unsupported(f"{site.target} is not a convolution that can have {wanted.words}")
        return edit.replace(graph, [site.source], site.target, nn.Sequential(in_groups(layer, wanted.number)))


def in_groups(layer: nn.Conv2d, groups: int) -> nn.Conv2d:
    """The same function in `groups` groups, a divisor of the layer's number of groups."""
    result = copy.deepcopy(layer)
    result.groups = groups
    result.weight = nn.Parameter(_with_zeros(layer.weight.detach(), layer.groups, layer.groups // groups))
    return result


def _with_zeros(weight: Tensor, groups: int, together: int) -> Tensor:
    """Weights (O, I/g, k, k) of groups joined `together` at a time, with zeros between: (O, together·I/g, k, k)."""
    per_group = weight.reshape(groups, -1, *weight.shape[1:])
    outputs, inputs = per_group.shape[1:3]
    result = torch.zeros(groups, outputs, together, inputs, *weight.shape[2:], dtype=weight.dtype)
    for group in range(groups):
        result[group, :, group % together] = per_group[group]
    return result.reshape(groups * outputs, together * inputs, *weight.shape[2:])


def _worth_trying(layer: nn.Conv2d) -> list[int]:
    """Numbers of groups worth timing: a half and a quarter of the layer's; one for depthwise or three groups."""
    if layer.groups == 1 or (ops.is_depthwise(layer) and layer.groups > FEW_CHANNELS):
        return []
    fewer = [layer.groups // together for together in TOGETHER if layer.groups % together == 0]
    return [1] if ops.is_depthwise(layer) else fewer or ([1] if layer.groups == 3 else [])

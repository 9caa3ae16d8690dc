"""Merge linear layers in a row: a scale before a convolution, a 1x1 convolution after another (article, section 2).

    Given   W ∗ (s·x + t)           one number per channel, or a batch norm, before a convolution
    Result  W' ∗ x + b',            W' = W·s along the inputs,  b' = b + Σ W·t
    Given   P · (W ∗ x + b) + c     a convolution of any kind, then a 1x1 convolution, no activation between
    Result  (P·W) ∗ x + (P·b + c)

A batch norm is a site only if it is not folded anyway (graph/fold.py). If t ≠ 0 the convolution must not pad, since its
zeros would have to be -t/s instead. The second form needs more MACs if W is depthwise or narrow. It is faster if maps
are large and channels few, because the map in between is not written.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, fx, nn

from slimseg.errors import Unsupported
from slimseg.graph import edit, ops
from slimseg.graph.fold import host, is_folded, scale_and_shift, scaled, with_scaled_inputs
from slimseg.graph.graph import Graph, only_consumer, producer
from slimseg.graph.shapes import pair
from slimseg.results import Needs, Refusal
from slimseg.techniques.technique import Found, Settings, Site

MOST_MACS = 5.0  # largest MACs of a merged layer that is worth timing, as a multiple of those of the two


@dataclass(frozen=True)
class Merge(Settings):
    form: Literal["scale", "pointwise"]

    @property
    def words(self) -> str:
        return {"scale": "scale into the layer behind", "pointwise": "with the 1x1 convolution behind"}[self.form]


SCALE, POINTWISE = Merge("scale"), Merge("pointwise")


class Merging:
    """Merges linear layers in a row into one convolution."""

    name = "merged linear layers"
    needs: Needs = "nothing"
    paper = "Ding et al., RepVGG: Making VGG-style ConvNets Great Again, 2021, section 3.3"
    settings = Merge

    def find(self, graph: Graph) -> Found:
        sites: list[Site] = []
        refusals: list[Refusal] = []
        for node in graph.layers():
            run, merge = _run(graph, node)
            if len(run) < 2:
                continue
            refusal = _refusal(graph, run, merge)
            if refusal:
                refusals.append(Refusal(self.name, node.name, refusal))
                continue
            names = tuple(each.name for each in run)
            reason = (
                f"{names[0]} of {'x'.join(map(str, graph.shape(node)[1:]))} and {names[-1]} have no activation between "
                "them: one layer computes both, and the values between them are never written"
            )
            sites.append(Site(self.name, names, producer(node).name, names[-1], self.needs, reason, merge))
        return Found(tuple(sites), tuple(refusals))

    def apply(self, graph: Graph, site: Site) -> Graph:
        node = graph.node(site.layers[0])
        run, merge = _run(graph, node)
        there = tuple(each.name for each in run) == site.layers and merge == site.settings_as(Merge) and len(run) > 1
        if not there or _refusal(graph, run, merge):
            raise Unsupported(
                f"{site.layers[0]} and {site.target} are not consecutive linear layers that can be merged"
            )
        merged = _scaled_inputs(graph, run) if merge == SCALE else _composed(graph, run)
        return edit.replace(graph, [site.source], site.target, nn.Sequential(merged))


def _run(graph: Graph, node: fx.Node) -> tuple[list[fx.Node], Merge]:
    """The layers that can be merged, in order, and which of the two forms it is; fewer than two if there are none."""
    if graph.layer_as(node, (nn.BatchNorm2d, ops.Affine)) is not None:
        reader = only_consumer(node)
        takes = len(graph.shape(node)) == 4 and graph.layer_as(reader, (nn.Conv2d, nn.ConvTranspose2d)) is not None
        possible = takes and not is_folded(graph, node) and scale_and_shift(graph, node) is not None
        return ([node, reader] if possible and reader is not None else [node]), SCALE
    run = [node]
    if graph.layer_as(node, (nn.Conv2d, nn.ConvTranspose2d)) is None:
        return run, POINTWISE
    reader = only_consumer(node)
    while reader is not None and reader.op == "call_module" and host(graph, reader) is run[-1] and len(run) == 1:
        run.append(reader)
        reader = only_consumer(reader)
    last = graph.layer_as(reader, nn.Conv2d)
    pointwise = last is not None and (last.kernel_size, last.stride, last.groups) == ((1, 1), (1, 1), 1)
    if reader is None or last is None or not pointwise or pair(last.padding) != (0, 0):
        return [node], POINTWISE
    return [*run, reader], POINTWISE


def _scaled_inputs(graph: Graph, run: list[fx.Node]) -> nn.Module:
    constants = scale_and_shift(graph, run[0])
    layer = copy.deepcopy(graph.layer(run[-1]))
    assert constants is not None
    assert isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)
    scale, shift = constants
    weight = layer.weight.detach()
    if isinstance(layer, nn.ConvTranspose2d):  # (in, out / groups, ...)
        layer.weight = nn.Parameter(weight * scale.reshape(-1, 1, 1, 1))
        return layer
    return with_scaled_inputs(layer, scale, shift)


def _composed(graph: Graph, run: list[fx.Node]) -> nn.Module:
    first, last = copy.deepcopy(graph.layer(run[0])), graph.layer_as(run[-1], nn.Conv2d)
    assert isinstance(first, nn.Conv2d | nn.ConvTranspose2d)
    assert last is not None
    for node in run[1:-1]:
        constants = scale_and_shift(graph, node)
        assert constants is not None
        layer = scaled(first, *constants)
        assert isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)
        first = layer
    mix = last.weight.detach()[:, :, 0, 0]
    kernel = _dense(first)
    if isinstance(first, nn.ConvTranspose2d):
        first.weight = nn.Parameter(torch.einsum("no,iohw->inhw", mix, kernel))
    else:
        first.weight = nn.Parameter(torch.einsum("no,oihw->nihw", mix, kernel))
    bias = None if first.bias is None else mix @ first.bias.detach()
    if last.bias is not None:
        bias = last.bias.detach() if bias is None else bias + last.bias.detach()
    first.bias = None if bias is None else nn.Parameter(bias.clone())
    first.out_channels, first.groups = last.out_channels, 1
    return first


def _dense(layer: nn.Conv2d | nn.ConvTranspose2d) -> Tensor:
    """Weights of a grouped convolution as those of one group, with zeros between groups."""
    weight = layer.weight.detach()
    if layer.groups == 1:
        return weight
    assert isinstance(layer, nn.Conv2d)
    full = torch.zeros(layer.out_channels, layer.in_channels, *weight.shape[2:])
    outputs, inputs = layer.out_channels // layer.groups, weight.shape[1]
    for group in range(layer.groups):
        rows = slice(group * outputs, (group + 1) * outputs)
        full[rows, group * inputs : (group + 1) * inputs] = weight[rows]
    return full


def _refusal(graph: Graph, run: list[fx.Node], merge: Merge) -> str | None:
    for node in run:
        if other := edit.shared_with(graph, node):
            return f"{node.name} shares its layer with {other}"
    first, last = graph.layer(run[0]), graph.layer(run[-1])
    if merge == SCALE:
        constants = scale_and_shift(graph, run[0])
        shifts = constants is not None and bool(torch.any(constants[1] != 0))
        if shifts and isinstance(last, nn.ConvTranspose2d):
            return f"it adds a constant, which {run[-1].name} spreads unevenly at the edges of the map"
        if shifts and isinstance(last, nn.Conv2d) and pair(last.padding) != (0, 0):
            return f"it adds a constant, and {run[-1].name} pads with zeros after it"
        return None
    assert isinstance(first, nn.Conv2d | nn.ConvTranspose2d)
    assert isinstance(last, nn.Conv2d)
    if isinstance(first, nn.ConvTranspose2d) and first.groups > 1:
        return f"it works in {first.groups} groups"
    kernel = first.kernel_size[0] * first.kernel_size[1]
    before = (kernel * first.in_channels // first.groups + last.out_channels) * first.out_channels
    after = kernel * first.in_channels * last.out_channels
    if after > MOST_MACS * before:
        return f"merged with {run[-1].name} it would need {after / before:.1f} times as many MACs"
    return None

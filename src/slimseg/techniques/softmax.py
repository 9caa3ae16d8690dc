"""Softmax and argmax at the end of a network, without needless exponentials (article, section 3.4 (5)).

    Given   softmax(z)ₖ of two classes, one kept
    Result  σ(zₖ − z₁₋ₖ),  one channel out of the last convolution                                  (exact)
    Given   softmax(z) of two classes
    Result  σ((z₀ − z₁, z₁ − z₀))                                                                   (exact)
    Given   argmax(softmax(z)), argmax(σ(z))
    Result  argmax(z)                                                                               (exact)
    Given   argmax(U(z)),  U a nearest-neighbour resize
    Result  U(argmax(z)),  one channel resized instead of all                                       (exact)

If only scales, shifts and resizes lie between the last convolution and the softmax, the difference is taken in the
convolution's weights: scales and shifts are folded into them, and a resize commutes with a difference of channels.
A bilinear resize mixes neighbours before they are compared, so it does not commute with argmax.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, fx, nn

from slimseg.errors import Unsupported
from slimseg.graph import edit, ops
from slimseg.graph.fold import scale_and_shift, scaled
from slimseg.graph.graph import Graph, only_consumer, producer
from slimseg.results import Needs, Refusal
from slimseg.techniques.technique import ARTICLE, Found, Settings, Site, dimensions

_CONVOLUTIONS = (nn.Conv2d, nn.ConvTranspose2d)


@dataclass(frozen=True)
class Form(Settings):
    form: Literal["one kept", "both kept", "compared", "before resize"]

    @property
    def words(self) -> str:
        return {
            "one kept": "sigmoid of the difference",
            "both kept": "sigmoid of both differences",
            "compared": "argmax without softmax",
            "before resize": "argmax before the resize",
        }[self.form]


ONE_KEPT, BOTH_KEPT = Form("one kept"), Form("both kept")
COMPARED, BEFORE_RESIZE = Form("compared"), Form("before resize")


class TwoClassSoftmax:
    """Rewrites softmax of two classes as a sigmoid of their difference, and moves argmax before softmax or a resize."""

    name = "softmax and argmax"
    needs: Needs = "nothing"
    paper = f"{ARTICLE}, section 3.4 (5)"
    settings = Form

    def find(self, graph: Graph) -> Found:
        sites: list[Site] = []
        refusals: list[Refusal] = []
        for node in graph.layers():
            if _is_two_class_softmax(graph, node):
                sites.append(self._two_classes(graph, node))
            elif graph.layer_as(node, ops.ArgMax):
                sites.extend(self._compared(graph, node))
                sites.extend(self._before_resize(graph, node, refusals))
        return Found(tuple(sites), tuple(refusals))

    def _two_classes(self, graph: Graph, softmax: fx.Node) -> Site:
        cut = _kept(graph, softmax)
        chain = _linear_chain(graph, softmax)
        names = tuple(node.name for node in (*chain, softmax, *([cut] if cut is not None else [])))
        what = (
            "with one class kept is the sigmoid of their difference"
            if cut is not None
            else "is a sigmoid of each difference"
        )
        reason = f"softmax of two classes at {dimensions(graph, softmax)} {what}" + (
            f", which {chain[0].name} can compute" if chain else ""
        )
        source = producer(chain[0] if chain else softmax).name
        form = ONE_KEPT if cut is not None else BOTH_KEPT
        return Site(self.name, names, source, names[-1], self.needs, reason, form)

    def _compared(self, graph: Graph, node: fx.Node) -> list[Site]:
        before = producer(node)
        if not _keeps_order(graph, before):
            return []
        reason = f"{before.name} of {dimensions(graph, before)} does not change which class is largest"
        names = (before.name, node.name)
        return [Site(self.name, names, producer(before).name, node.name, self.needs, reason, COMPARED)]

    def _before_resize(self, graph: Graph, node: fx.Node, refusals: list[Refusal]) -> list[Site]:
        before = producer(node)
        resize = graph.layer_as(before, ops.Resize)
        if resize is None or graph.shape(producer(before))[2:] == graph.shape(before)[2:]:
            return []
        if resize.mode == "bilinear":
            reason = (
                f"{before.name} is bilinear: it mixes pixels before {node.name} compares them, so the two cannot be "
                "exchanged"
            )
            refusals.append(Refusal(self.name, node.name, reason))
            return []
        reason = (
            f"{before.name} repeats pixels up to {dimensions(graph, before)}: {node.name} can compare each of "
            f"{dimensions(graph, producer(before))} once before that"
        )
        names = (before.name, node.name)
        return [Site(self.name, names, producer(before).name, node.name, self.needs, reason, BEFORE_RESIZE)]

    def apply(self, graph: Graph, site: Site) -> Graph:
        return edit.replace(graph, [site.source], site.target, self._block(graph, site))

    def _block(self, graph: Graph, site: Site) -> nn.Module:
        layers, form = [graph.node(name) for name in site.layers], site.settings_as(Form)
        if form in (ONE_KEPT, BOTH_KEPT):
            softmax = next((node for node in layers if _is_two_class_softmax(graph, node)), None)
            if softmax is not None:
                return _sigmoid(graph, softmax)
        last = layers[-1]
        if form == COMPARED and graph.layer_as(last, ops.ArgMax) and _keeps_order(graph, producer(last)):
            return nn.Sequential(ops.ArgMax())
        resize = graph.layer_as(layers[0], ops.Resize)
        if form == BEFORE_RESIZE and resize is not None and resize.mode != "bilinear":
            low, high = graph.shape(producer(layers[0])), graph.shape(layers[0])
            return nn.Sequential(
                ops.ArgMax(), ops.Reshape((1, 1, *low[2:])), ops.Cast("float32"), copy.deepcopy(resize),
                ops.Cast("int32"), ops.Reshape((1, *high[2:])),
            )  # fmt: skip
        raise Unsupported(f"{site.target} does not end in a {form.words}")


def _sigmoid(graph: Graph, softmax: fx.Node) -> nn.Module:
    """The block that replaces the softmax and the linear layers before it, up to the last convolution."""
    cut = _kept(graph, softmax)
    kept = graph.layer_as(cut, ops.Slice)
    signs = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]) if kept is None else _difference(kept.start)
    chain = _linear_chain(graph, softmax)
    if not chain:
        return nn.Sequential(_pointwise(signs), nn.Sigmoid())
    layer = copy.deepcopy(graph.layer(chain[0]))
    assert isinstance(layer, _CONVOLUTIONS)
    resizes: list[nn.Module] = []
    for node in chain[1:]:
        constants = scale_and_shift(graph, node)
        if constants is not None:
            layer = scaled(layer, *constants)
        else:
            resizes.append(copy.deepcopy(graph.module.get_submodule(str(node.target))))
    assert isinstance(layer, _CONVOLUTIONS)
    return nn.Sequential(_mixed(layer, signs), *resizes, nn.Sigmoid())


def _difference(kept: int) -> Tensor:
    return torch.tensor([[1.0 - 2 * kept, 2 * kept - 1.0]])


def _pointwise(mix: Tensor) -> nn.Conv2d:
    layer = nn.Conv2d(mix.shape[1], mix.shape[0], 1, bias=False)
    layer.weight = nn.Parameter(mix[:, :, None, None].clone())
    return layer


def _mixed(layer: nn.Conv2d | nn.ConvTranspose2d, mix: Tensor) -> nn.Module:
    """The layer, changed in place, whose outputs are linear combinations `mix` (new, old) of its old outputs."""
    equation = "no,iohw->inhw" if isinstance(layer, nn.ConvTranspose2d) else "no,oihw->nihw"
    layer.weight = nn.Parameter(torch.einsum(equation, mix, layer.weight.detach()))
    layer.out_channels = mix.shape[0]
    if layer.bias is not None:
        layer.bias = nn.Parameter(mix @ layer.bias.detach())
    return layer


def _is_two_class_softmax(graph: Graph, node: fx.Node) -> bool:
    layer, shape = graph.layer_as(node, nn.Softmax), graph.shape(node)
    return layer is not None and len(shape) == 4 and layer.dim in (1, -3) and shape[1] == 2


def _kept(graph: Graph, softmax: fx.Node) -> fx.Node | None:
    """The slice of one class if it is the softmax's only reader, else None."""
    cut = only_consumer(softmax)
    layer = graph.layer_as(cut, ops.Slice)
    return cut if layer is not None and layer.dim == 1 and layer.stop - layer.start == 1 else None


def _linear_chain(graph: Graph, softmax: fx.Node) -> list[fx.Node]:
    """The convolution that gives the logits and the layers between it and the softmax; empty if there is none."""
    chain: list[fx.Node] = []
    node = producer(softmax)
    while only_consumer(node) is not None and not edit.shared_with(graph, node):
        chain.insert(0, node)
        layer = graph.layer(node)
        if isinstance(layer, _CONVOLUTIONS):
            return chain if layer.groups == 1 else []
        if not isinstance(layer, ops.Resize) and scale_and_shift(graph, node) is None:
            break
        node = producer(node)
    return []


def _keeps_order(graph: Graph, node: fx.Node) -> bool:
    """Whether the largest channel of the node's input is also the largest of its output."""
    softmax = graph.layer_as(node, nn.Softmax)
    return graph.layer_as(node, nn.Sigmoid) is not None or (softmax is not None and softmax.dim in (1, -3))

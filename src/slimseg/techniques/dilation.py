"""Dilated convolutions -> undilated ones (article, section 3.4 (4)).

    Given   y = W ∗_d x,  W of shape (O, I, k, k), dilation d > 1, padding p
    Result  y ≈ W ∗ x,    dilation 1, padding p − (d − 1)(k − 1) / 2: same weights, MACs, shape        "no holes"
    Result  y ≈ V ∗ (D ∗ x),  a depthwise kernel first: the same receptive field, see algebra/cascade.py  "cascade"
    Result  y ≈ U(W ∗_{d/n} P(x)),  P pools by n, U resizes back, see algebra/low_resolution.py        "1/n resolution"

A separate padding layer before the convolution counts as the convolution's own padding. In the form "no holes" the
receptive field shrinks from d(k − 1) + 1 to k pixels a side, which only training with labels makes up for; the what-if
shows what it costs the runtime to read rows that lie d apart. The other forms start close to the dilated convolution
and are recovered on images. Several dilated convolutions that read one value, directly or not, form one more site,
pooled once and resized once: ASPP (branches of rates 6, 12, 18, joined and mixed by a 1x1), or a stage whose stride was
turned into dilation.
Yu and Koltun, "Multi-Scale Context Aggregation by Dilated Convolutions", 2016, eq. 1; Chen et al., "Rethinking Atrous
Convolution", 2017, section 3.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import fx, nn

from slimseg.errors import Unsupported
from slimseg.graph import edit, ops
from slimseg.graph.graph import Graph, only_consumer, producer
from slimseg.graph.shapes import pair
from slimseg.results import Needs, Refusal
from slimseg.techniques.algebra.cascade import can_be_cascade, cascade
from slimseg.techniques.algebra.channelwise import tail
from slimseg.techniques.algebra.low_resolution import at_fraction, fits, is_dilated, part_behind
from slimseg.techniques.technique import Found, Settings, Site, dimensions

FRACTIONS = (2, 3, 4)
SMALLEST = 4  # pixels a side at the lower resolution
WAY_UP = 12  # number of nodes before a dilated convolution that are tried as the start of its stage


@dataclass(frozen=True)
class Form(Settings):
    form: Literal["no holes", "cascade", "low resolution"]
    divisor: int = 1  # of the resolution: n for the form "1/n resolution"

    @property
    def words(self) -> str:
        return f"1/{self.divisor} resolution" if self.form == "low resolution" else self.form


NO_HOLES, CASCADE = Form("no holes"), Form("cascade")


class Dilation:
    """Replaces dilated convolutions by undilated ones, or by ones at a lower resolution."""

    name = "convolution without dilation"
    needs: Needs = "images"
    paper = "Yu and Koltun, Multi-Scale Context Aggregation by Dilated Convolutions, 2016, eq. 1"
    settings = Form

    def find(self, graph: Graph) -> Found:
        sites: list[Site] = []
        refusals: list[Refusal] = []
        for node in graph.layers():
            layer = graph.layer_as(node, nn.Conv2d)
            if layer is None or not is_dilated(layer):
                continue
            if other := edit.shared_with(graph, node):
                refusals.append(Refusal(self.name, node.name, f"its weights are shared with {other}"))
                continue
            found = self._sites(graph, node, layer)
            if found:
                sites += found
            else:
                refusals.append(Refusal(self.name, node.name, _no_counterpart(layer)))
        return Found((*sites, *self._parts(graph)), tuple(refusals))

    def _sites(self, graph: Graph, node: fx.Node, layer: nn.Conv2d) -> list[Site]:
        """Sites for every variant of one convolution."""
        pad = _pad(graph, node)
        padded = (node.name,) if pad is None else (pad.name, node.name)
        source = producer(pad or node)
        (rows, columns), (down, across) = pair(layer.kernel_size), pair(layer.dilation)
        seen = f"{(rows - 1) * down + 1}x{(columns - 1) * across + 1}"
        what = (
            f"{rows}x{columns} {_kind(layer)} of {layer.in_channels} to {layer.out_channels} channels at "
            f"{'x'.join(map(str, graph.shape(node)[2:]))} reads pixels {max(down, across)} apart"
        )
        sites = []
        if _padding(graph, node, layer) is not None:
            reason = f"{what}: without dilation the same weights see {rows}x{columns} pixels instead of {seen}"
            sites.append(Site(self.name, padded, source.name, node.name, "labels", reason, NO_HOLES))
        if can_be_cascade(layer):
            reason = f"{what}: behind a depthwise convolution it sees the same {seen} pixels without dilation"
            sites.append(Site(self.name, (node.name,), producer(node).name, node.name, "images", reason, CASCADE))
        run = [node, *tail(graph, node)]
        if fits(graph, node, producer(node)):
            sites += [self._lowered(graph, producer(node), run, n, what) for n in _fractions(graph, run)]
        return sites

    def _parts(self, graph: Graph) -> list[Site]:
        """Sites for parts with several dilated convolutions."""
        return [
            self._lowered(graph, source, part, n, _together(graph, part))
            for source, part in _stages(graph)
            for n in _fractions(graph, part)
        ]

    def _lowered(self, graph: Graph, source: fx.Node, part: list[fx.Node], n: int, what: str) -> Site:
        names = tuple(node.name for node in part)
        reason = f"{what}: on means of {n}x{n} pixels it needs less dilation and computes {n * n}x fewer pixels"
        return Site(self.name, names, source.name, names[-1], "images", reason, Form("low resolution", n))

    def apply(self, graph: Graph, site: Site) -> Graph:
        wanted = site.settings_as(Form)
        if wanted.form == "low resolution":
            return _lowered(graph, site, wanted.divisor)
        node = graph.node(site.target)
        layer = graph.layer_as(node, nn.Conv2d)
        if layer is None or not is_dilated(layer):
            raise Unsupported(f"{site.target} is not a dilated convolution that can lose its dilation")
        if wanted == CASCADE and can_be_cascade(layer):
            return edit.replace(graph, [site.source], site.target, cascade(layer))
        amounts = _padding(graph, node, layer) if wanted == NO_HOLES else None
        if amounts is None:
            raise Unsupported(f"{site.target} is not a dilated convolution that can lose its dilation ({wanted.words})")
        return edit.replace(graph, [site.source], site.target, _without_holes(layer, amounts))


def _lowered(graph: Graph, site: Site, n: int) -> Graph:
    source, part = graph.node(site.source), [graph.node(name) for name in site.layers]
    if not all(fits(graph, node, source) for node in part) or n not in _fractions(graph, part):
        raise Unsupported(f"{site.target} does not end a part that can work at 1/{n} of its resolution")
    return edit.replace(graph, [site.source], site.target, at_fraction(graph, source, part, n))


def _without_holes(layer: nn.Conv2d, amounts: tuple[int, int, int, int]) -> nn.Sequential:
    left, right, top, bottom = amounts
    symmetric = left == right and top == bottom
    dense = nn.Conv2d(
        layer.in_channels,
        layer.out_channels,
        pair(layer.kernel_size),
        pair(layer.stride),
        (top, left) if symmetric else 0,
        groups=layer.groups,
        bias=layer.bias is not None,
    )
    dense.load_state_dict(layer.state_dict())
    return nn.Sequential(dense) if symmetric else nn.Sequential(ops.Pad(amounts), dense)


def _stages(graph: Graph) -> list[tuple[fx.Node, list[fx.Node]]]:
    """(source, layers) of parts with several dilated convolutions; no convolution is in two parts.

    A residual stage begins some layers before its first dilated convolution, so a few starts are tried.
    """
    found: list[tuple[fx.Node, list[fx.Node]]] = []
    taken: set[fx.Node] = set()
    nodes = list(graph.module.graph.nodes)
    for index, node in enumerate(nodes):
        if not is_dilated(graph.layer(node)) or node in taken:
            continue
        starts = [each for each in nodes[max(0, index - WAY_UP) : index] if "shape" in each.meta]
        parts = [(start, part_behind(graph, start)) for start in starts[::-1] if len(graph.shape(start)) == 4]
        source, part = max(
            ((start, part) for start, part in parts if node in part and taken.isdisjoint(part)),
            key=lambda each: len(_dilations(graph, each[1])),
            default=(node, []),
        )
        if len(_dilations(graph, part)) > 1:
            found.append((source, part))
            taken.update(part)
    return found


def _fractions(graph: Graph, part: list[fx.Node]) -> list[int]:
    """The numbers by which a part's resolution could be divided: the smallest and the largest that fit."""
    _, _, height, width = graph.shape(part[-1])
    dilations = _dilations(graph, part)
    fitting = [
        n
        for n in FRACTIONS
        if dilations and n <= max(dilations) and min(height, width) >= n * SMALLEST
        and all(-side % n <= 1 for side in (height, width))  # if more pixels are missing, TFLite pads on both sides
        and (len(dilations) > 1 or dilations[0] % n == 0)
    ]  # fmt: skip
    return list(dict.fromkeys([*fitting[:1], *fitting[-1:]]))


def _dilations(graph: Graph, part: list[fx.Node]) -> list[int]:
    layers = [graph.layer_as(node, nn.Conv2d) for node in part]
    return [max(pair(layer.dilation)) for layer in layers if layer is not None and is_dilated(layer)]


def _together(graph: Graph, part: list[fx.Node]) -> str:
    dilations = _dilations(graph, part)
    rates = ", ".join(str(rate) for rate in sorted(set(dilations)))
    return (
        f"{len(part)} layers up to {part[-1].name} of {dimensions(graph, part[-1])}, {len(dilations)} of them with "
        f"dilation {rates}"
    )


def _pad(graph: Graph, node: fx.Node) -> fx.Node | None:
    """The layer before a convolution if it only pads with zeros and has no other reader, else None."""
    before = producer(node)
    pad = graph.layer_as(before, ops.Pad)
    if pad is None or pad.value != 0 or any(pad.channels) or min(pad.padding) < 0:
        return None
    return before if only_consumer(before) is node and not edit.shared_with(graph, before) else None


def _padding(graph: Graph, node: fx.Node, layer: nn.Conv2d) -> tuple[int, int, int, int] | None:
    """Padding (left, right, top, bottom) in pixels that keeps the output size without dilation; None if none does."""
    pad = graph.layer_as(_pad(graph, node), ops.Pad)
    outside = (0, 0, 0, 0) if pad is None else pad.padding
    (rows, columns), (down, across), (vertical, horizontal) = map(
        pair, (layer.kernel_size, layer.dilation, layer.padding)
    )
    across_less, down_less = (across - 1) * (columns - 1), (down - 1) * (rows - 1)
    left, right, top, bottom = (
        amount + own - less
        for amount, own, less in zip(
            outside,
            (horizontal, horizontal, vertical, vertical),
            (across_less // 2, across_less - across_less // 2, down_less // 2, down_less - down_less // 2),
            strict=True,
        )
    )
    return (left, right, top, bottom) if min(left, right, top, bottom) >= 0 else None


def _no_counterpart(layer: nn.Conv2d) -> str:
    return (
        f"its padding of {pair(layer.padding)} with dilation {pair(layer.dilation)} has no undilated counterpart "
        "that keeps the output's size"
    )


def _kind(layer: nn.Conv2d) -> str:
    return "depthwise convolution" if ops.is_depthwise(layer) else "convolution"

"""Concatenation and convolution -> convolutions and a sum (article, section 3.4 (1): memory access).

    Given   y = W ∗ [a; b; ...]                 maps concatenated along their channels, then a convolution
    Result  y = W_a ∗ a + W_b ∗ b + ...         W_a, W_b the columns of W; nothing is concatenated        (exact)
    Given   y = P · [U(a); U(b); c; ...]        P a 1x1 convolution, U a resize
    Result  y = U(P_a · a + P_b · b) + P_c · c  P works on the small maps, and one resize moves O channels (exact)

The first holds because a convolution is linear in its inputs. The second holds because a resize mixes pixels, with
weights that add up to one, and P mixes channels, so that they commute. It helps decoders that resize every scale to one
size before a 1x1 (HRNet, SegFormer, FPN), which do most of their work on interpolated pixels. Maps of the same size
with the same resize are summed first and resized once. The bias goes with one of the summands; a resize keeps it.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import fx, nn

from slimseg.errors import Unsupported
from slimseg.graph import edit, ops
from slimseg.graph.graph import Graph, only_consumer, producer
from slimseg.graph.region import region
from slimseg.graph.shapes import Shape, pair
from slimseg.results import Needs, Refusal
from slimseg.techniques.technique import Found, Settings, Site, dimensions


@dataclass(frozen=True)
class Order(Settings):
    form: Literal["apart", "before resize"]

    @property
    def words(self) -> str:
        return {"apart": "a convolution for each", "before resize": "before the resize"}[self.form]


APART, BEFORE_RESIZE = Order("apart"), Order("before resize")


@dataclass(frozen=True)
class Part:
    """One of the concatenated maps: the node that is read, its columns of W, and the resize to apply afterwards."""

    value: fx.Node
    columns: slice
    resize: fx.Node | None = None

    def key(self, graph: Graph) -> tuple[Shape, str]:
        """A key that is equal for parts that can be summed before a common resize."""
        settings = "" if self.resize is None else repr(graph.layer(self.resize))
        return graph.shape(self.value)[2:], settings


class ConcatToSum:
    """Splits convolutions of concatenated maps into a sum of convolutions."""

    name = "sum instead of concatenation"
    needs: Needs = "nothing"
    paper = "Xie et al., SegFormer, 2021, section 3.2; Ma et al., ShuffleNet V2, 2018, section 2 (G4)"
    settings = Order

    def find(self, graph: Graph) -> Found:
        sites: list[Site] = []
        refusals: list[Refusal] = []
        for node, reader, layer in joined(graph):
            refusal = refusal_of(graph, node, reader, layer)
            if refusal:
                refusals.append(Refusal(self.name, node.name, refusal))
            else:
                sites.extend(self._sites(graph, node, reader, layer))
        return Found(tuple(sites), tuple(refusals))

    def _sites(self, graph: Graph, concat: fx.Node, reader: fx.Node, layer: nn.Conv2d) -> list[Site]:
        parts = parts_of(graph, concat, layer)
        resized = [part.resize for part in parts if part.resize is not None]
        values = " and ".join(dimensions(graph, node) for node in concat.all_input_nodes)
        reason = f"{concat.name} joins {values} only for {reader.name} to sum over them: sum the parts instead"
        variants: list[tuple[Order, list[fx.Node], str]] = [(APART, [], reason)]
        if resized:
            channels = sum(graph.shape(node)[1] for node in resized)
            reason = (
                f"{channels} of the {layer.in_channels} channels that {reader.name} reads at "
                f"{dimensions(graph, concat)} were resized before: convolve before the resize"
            )
            variants.append((BEFORE_RESIZE, resized, reason))
        sites = []
        for order, resizes, reason in variants:
            names = tuple(node.name for node in (*dict.fromkeys(resizes), concat, reader))
            source, _ = region(graph, names)
            sites.append(Site(self.name, names, source, reader.name, self.needs, reason, order))
        return sites

    def apply(self, graph: Graph, site: Site) -> Graph:
        reader = graph.node(site.target)
        layer = graph.layer_as(reader, nn.Conv2d)
        concat = producer(reader)
        if layer is None or graph.layer_as(concat, ops.Concat) is None or refusal_of(graph, concat, reader, layer):
            raise Unsupported(f"{site.target} is not a convolution of concatenated maps")
        parts = parts_of(graph, concat, layer)
        if site.settings_as(Order) == APART:
            parts = [Part(part.resize or part.value, part.columns) for part in parts]
        elif not any(part.resize for part in parts):
            raise Unsupported(f"no input of {concat.name} is resized for {site.target} alone")
        sources = [part.value.name for part in parts]
        return edit.replace(graph, sources, site.target, sum_of(graph, parts, layer))


def sum_of(graph: Graph, parts: Sequence[Part], layer: nn.Conv2d) -> fx.GraphModule:
    """Σ resize(Σ convolution(part)), outer sum over groups of parts with the same resize; inputs: the parts' values."""
    groups: dict[tuple[Shape, str], list[int]] = {}
    for index, part in enumerate(parts):
        groups.setdefault(part.key(graph), []).append(index)
    with_bias = next(reversed(groups.values()))[-1]
    root, block = nn.Module(), fx.Graph()
    inputs = [block.placeholder(f"x{index}") for index in range(len(parts))]

    def add(name: str, module: nn.Module, *arguments: fx.Node) -> fx.Node:
        root.add_module(name, module)
        return block.call_module(name, arguments)

    def total(values: Sequence[fx.Node], name: str) -> fx.Node:
        result = values[0]
        for number, value in enumerate(values[1:], 1):
            result = add(f"{name}{number}", ops.Add(), result, value)
        return result

    sums = []
    for number, group in enumerate(groups.values()):
        values = [
            add(f"part{index}", _columns(layer, parts[index], index == with_bias), inputs[index]) for index in group
        ]
        value = total(values, f"sum{number}_")
        resize = graph.layer_as(parts[group[0]].resize, ops.Resize)
        sums.append(value if resize is None else add(f"resize{number}", copy.deepcopy(resize), value))
    block.output(total(sums, "sum"))
    return fx.GraphModule(root, block)


def _columns(layer: nn.Conv2d, part: Part, with_bias: bool) -> nn.Conv2d:
    """The convolution that reads one part."""
    result = copy.deepcopy(layer)
    result.in_channels = part.columns.stop - part.columns.start
    result.weight = nn.Parameter(layer.weight.detach()[:, part.columns].clone())
    if not with_bias:
        result.bias = None
    return result


def parts_of(graph: Graph, concat: fx.Node, layer: nn.Conv2d) -> list[Part]:
    """The concatenated maps as parts; a resize that could follow the convolution becomes the part's `resize`."""
    pointwise = (layer.kernel_size, layer.stride, pair(layer.padding)) == ((1, 1), (1, 1), (0, 0))
    parts, start = [], 0
    for node in concat.args:
        assert isinstance(node, fx.Node)
        columns = slice(start, start := start + graph.shape(node)[1])
        movable = pointwise and graph.layer_as(node, ops.Resize) and only_consumer(node) is concat
        parts.append(Part(producer(node), columns, node) if movable else Part(node, columns))
    return parts


def joined(graph: Graph) -> Iterator[tuple[fx.Node, fx.Node, nn.Conv2d]]:
    """Concatenations of channels whose only reader is a convolution, each with that node and its layer."""
    for node in graph.layers():
        reader = only_consumer(node)
        concat, layer = graph.layer_as(node, ops.Concat), graph.layer_as(reader, nn.Conv2d)
        if concat is not None and layer is not None and reader is not None and concat.dim == 1:
            yield node, reader, layer


def refusal_of(graph: Graph, concat: fx.Node, reader: fx.Node, layer: nn.Conv2d) -> str | None:
    if layer.groups > 1:
        return f"{reader.name}, which reads it, works in {layer.groups} groups"
    if isinstance(layer.padding, str):
        return f"{reader.name} has padding {layer.padding!r} instead of a number of pixels"
    other = edit.shared_with(graph, reader)
    return f"the weights of {reader.name}, which reads it, are shared with {other}" if other else None

"""Depthwise convolutions of few channels, on bands of rows that are stacked as channels (article, section 2).

    Given   y = f(x),  x and y of (C, H, W), f depthwise and 1x1 convolutions, activations and sums; C below a register
    Result  y = J(f'(S(x))),  S cuts x into an upper and a lower band, each with r rows of the other, and stacks them as
            (2C, H/2 + r, W); f' has every constant twice, 1x1 convolutions as diag(P, P); J joins the two bands

As long as the channels fit into one register, a depthwise kernel takes the same time per pixel for any number of them:
with 8 channels in 16 lanes half of the register is idle. Each convolution of k rows makes k // 2 rows at the bands'
inner edges invalid, since it pads there with zeros; r is the number of invalid rows on the longest path, and these rows
are cut off. At the outer edges the padding is the same as before.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, fx, nn

from slimseg.errors import Unsupported
from slimseg.graph import edit, ops
from slimseg.graph.graph import Graph
from slimseg.graph.shapes import pair
from slimseg.results import Needs, Refusal
from slimseg.techniques.algebra.channelwise import is_channelwise, repeated
from slimseg.techniques.technique import ARTICLE, Found, Settings, Site

BANDS = 2
FEW_CHANNELS = 8  # half of the 16 float lanes of the widest registers
SMALLEST = 64  # rows; in smaller maps the overlap is a large part
_JOINS = (ops.Add, ops.Multiply, ops.Subtract, ops.Maximum, ops.Minimum)


class Bands:
    """Rewrites stages of few channels to work on two bands at once."""

    name = "bands as channels"
    needs: Needs = "nothing"
    paper = f"{ARTICLE}, section 2"
    settings = Settings

    def find(self, graph: Graph) -> Found:
        sites: list[Site] = []
        refusals: list[Refusal] = []
        taken: set[fx.Node] = set()
        for node in graph.module.graph.nodes:
            if node in taken or not _may_start(graph, node):
                continue
            stage = _stage(graph, node)
            if not stage:
                continue
            taken.update(stage)
            refusal = _refusal(graph, stage, node)
            if refusal:
                refusals.append(Refusal(self.name, stage[0].name, refusal))
                continue
            depthwise = [each for each in stage if _reach(graph, each)]
            _, channels, height, width = graph.shape(node)
            names = tuple(each.name for each in stage)
            reason = (
                f"{len(depthwise)} depthwise convolutions of {channels} channels at {height}x{width}, from {names[0]} "
                f"to {names[-1]}, fill half a register: two bands of rows, stacked, have {BANDS * channels} channels"
            )
            sites.append(Site(self.name, names, node.name, names[-1], self.needs, reason))
        return Found(tuple(sites), tuple(refusals))

    def apply(self, graph: Graph, site: Site) -> Graph:
        source = graph.node(site.source)
        stage = _stage(graph, source) if _may_start(graph, source) else []
        if tuple(node.name for node in stage) != site.layers or not stage or _refusal(graph, stage, source):
            raise Unsupported(f"{site.source} does not start a stage of few channels")
        return edit.replace(graph, [site.source], site.target, _Banded(graph, source, stage))


class _Banded(nn.Module):
    """The stage on two bands. It is traced, so `forward` may loop over the graph's nodes."""

    def __init__(self, graph: Graph, source: fx.Node, stage: list[fx.Node]) -> None:
        super().__init__()
        _, channels, height, _ = graph.shape(source)
        half, overlap = height // 2, _spoilt(graph, source, stage)
        self.upper, self.lower = ops.Slice(2, 0, half + overlap), ops.Slice(2, half - overlap, height)
        self.stack = ops.Concat(1)
        self.layers = nn.ModuleDict({node.name: _twice(graph, node, channels) for node in stage})
        self.first = nn.Sequential(ops.Slice(1, 0, channels), ops.Slice(2, 0, half))
        self.second = nn.Sequential(
            ops.Slice(1, channels, 2 * channels), ops.Slice(2, overlap, overlap + height - half)
        )  # fmt: skip
        self.together = ops.Concat(2)
        self.steps = [(node.name, [each.name for each in node.all_input_nodes]) for node in stage]
        self.source = source.name

    def forward(self, x: Tensor) -> Tensor:
        values = {self.source: self.stack(self.upper(x), self.lower(x))}
        for name, sources in self.steps:
            values[name] = self.layers[name](*(values[source] for source in sources))
        last = values[self.steps[-1][0]]
        return self.together(self.first(last), self.second(last))  # type: ignore[no-any-return]


def _twice(graph: Graph, node: fx.Node, channels: int) -> nn.Module:
    """The layer for twice as many channels."""
    layer = graph.module.get_submodule(str(node.target))
    if not isinstance(layer, nn.Conv2d):
        return copy.deepcopy(layer) if isinstance(layer, _JOINS) else repeated(layer, channels, BANDS)
    result = copy.deepcopy(layer)
    result.in_channels, result.out_channels = BANDS * layer.in_channels, BANDS * layer.out_channels
    weight = layer.weight.detach()
    if layer.groups == 1:
        weight = torch.kron(torch.eye(BANDS), weight[:, :, 0, 0])[:, :, None, None]
    else:
        weight, result.groups = weight.repeat(BANDS, 1, 1, 1), BANDS * layer.groups
    result.weight = nn.Parameter(weight.contiguous())
    result.bias = None if layer.bias is None else nn.Parameter(layer.bias.detach().repeat(BANDS))
    return result


def _may_start(graph: Graph, node: fx.Node) -> bool:
    shape = node.meta.get("shape", ())
    return len(shape) == 4 and shape[1] <= FEW_CHANNELS and shape[2] >= SMALLEST and node is not graph.output


def _stage(graph: Graph, source: fx.Node) -> list[fx.Node]:
    """The longest run of layers that read only `source`, keep its shape, and of which only the last is read outside."""
    inside: set[fx.Node] = set()
    run: list[fx.Node] = []
    longest = 0
    open_values: set[fx.Node] = set()  # nodes of the run that are read outside of it, as far as seen
    node = source.next
    while node.op == "call_module":
        if all(each is source or each in inside for each in node.all_input_nodes) and _fits(graph, node):
            inside.add(node)
            run.append(node)
            open_values = {each for each in run if not inside.issuperset(each.users)}
            if open_values == {node}:
                longest = len(run)
        elif any(each in inside for each in node.all_input_nodes):
            break  # a layer outside the run reads a value inside it
        node = node.next
    stage = run[:longest]
    return stage if any(_reach(graph, each) for each in stage) else []


def _fits(graph: Graph, node: fx.Node) -> bool:
    """Whether the layer keeps the shape and treats all rows alike."""
    if graph.shape(node) != graph.shape(node.all_input_nodes[0]):
        return False
    layer = graph.layer(node)
    if isinstance(layer, nn.Conv2d):
        pointwise = layer.groups == 1 and layer.kernel_size == (1, 1)
        depthwise = ops.keeps_channels_apart(layer)
        return (pointwise or depthwise) and layer.stride == (1, 1) and not isinstance(layer.padding, str)
    if isinstance(layer, _JOINS):
        return len({graph.shape(each) for each in node.all_input_nodes}) == 1
    return is_channelwise(graph, node)


def _reach(graph: Graph, node: fx.Node) -> int:
    """Number of rows above, and as many below, that a layer reads for each output row."""
    layer = graph.layer_as(node, nn.Conv2d)
    return 0 if layer is None else pair(layer.dilation)[0] * (layer.kernel_size[0] - 1) // 2


def _spoilt(graph: Graph, source: fx.Node, stage: list[fx.Node]) -> int:
    """Number of rows that padding at the inner edges makes invalid along the longest path."""
    rows = {source: 0}
    for node in stage:
        rows[node] = max(rows[each] for each in node.all_input_nodes) + _reach(graph, node)
    return max(rows.values())


def _refusal(graph: Graph, stage: list[fx.Node], source: fx.Node) -> str | None:
    for node in stage:
        if other := edit.shared_with(graph, node):
            return f"{node.name} shares its layer with {other}"
    height, overlap = graph.shape(source)[2], _spoilt(graph, source, stage)
    if overlap > height // 8:
        return f"its bands would overlap by {overlap} of their {height // 2} rows"
    return None

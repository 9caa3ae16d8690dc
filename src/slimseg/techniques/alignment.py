"""Channels in multiples of 8, because kernels work on 8 values at a time (article, sections 2 and 3.4 (2)).

    Given   y = Q(g(P(x))),   P a convolution I to C channels, Q one of C to O, g layers that do not mix channels
                              (batch norm, activation, depthwise convolution, pooling, resize); C no multiple of 8
    Result  y = Q'(g'(P'(x))),  C' = 8⌈C/8⌉, the new channels of P' and Q' all zero                      (exact)
    Result  y ≈ Q'(g'(P'(x))),  C' = 8⌊C/8⌋, without the C − C' channels whose filters in P are smallest (approximate)

The new channels of g' may have any values, as the zeros of Q' discard them. The what-if measures whether the runtime is
slower with odd numbers of channels at all; XNNPACK packs weights into full registers by itself.
The smaller form is filter pruning by norm: Li et al., "Pruning Filters for Efficient ConvNets", 2017, section 3.1.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from slimseg.errors import Unsupported
from slimseg.graph import edit, ops
from slimseg.graph.graph import Graph, only_consumer, producer
from slimseg.results import Needs, Refusal
from slimseg.techniques.technique import ARTICLE, Found, Settings, Site

STEP = 8
_ANY_CHANNELS: tuple[type[nn.Module], ...] = (
    *ops.PLAIN_ACTIVATIONS,
    *ops.POOLINGS,
    ops.Resize,
    ops.Pad,
)
_FULL = (nn.Conv2d, nn.ConvTranspose2d)
_PAPER = "Li et al., Pruning Filters for Efficient ConvNets, 2017, section 3.1"


@dataclass(frozen=True)
class Width(Settings):
    before: int  # channels
    after: int

    @property
    def words(self) -> str:
        return f"{self.before} to {self.after} channels"


class PaddedChannels:
    """Fills channels up to the next multiple of 8 with zeros."""

    name = "channels padded to a multiple of 8"
    needs: Needs = "nothing"
    paper = f"{ARTICLE}, section 2"
    settings = Width

    def find(self, graph: Graph) -> Found:
        return _find(graph, self.name, self.needs, up=True)

    def apply(self, graph: Graph, site: Site) -> Graph:
        return _apply(graph, site, up=True)


class FewerChannels:
    """Removes channels down to the next multiple of 8."""

    name = "channels cut to a multiple of 8"
    needs: Needs = "images"
    paper = _PAPER
    settings = Width

    def find(self, graph: Graph) -> Found:
        return _find(graph, self.name, self.needs, up=False)

    def apply(self, graph: Graph, site: Site) -> Graph:
        return _apply(graph, site, up=False)


def _find(graph: Graph, technique: str, needs: Needs, up: bool) -> Found:
    sites: list[Site] = []
    refusals: list[Refusal] = []
    for node in graph.layers():
        layer = _full(graph, node)
        if layer is None or layer.out_channels % STEP == 0 or node is graph.output:
            continue
        run = run_of(graph, node)
        refusal = _refusal(graph, run, up)
        if refusal:
            refusals.append(Refusal(technique, node.name, refusal))
            continue
        channels, wanted = layer.out_channels, _wanted(layer.out_channels, up)
        _, _, height, width = graph.shape(node)
        reason = (
            f"{channels} channels at {height}x{width} between {node.name} and {run[-1].name}, no multiple of {STEP}: "
            + (f"{wanted - channels} of zeros pad them to {wanted}" if up else f"{wanted} would fill whole registers")
        )
        names = tuple(each.name for each in run)
        sites.append(Site(technique, names, producer(node).name, names[-1], needs, reason, Width(channels, wanted)))
    return Found(tuple(sites), tuple(refusals))


def _apply(graph: Graph, site: Site, up: bool) -> Graph:
    run = [graph.node(name) for name in site.layers]
    first, width = _full(graph, run[0]), site.settings_as(Width)
    if first is None or first.out_channels % STEP == 0 or len(run) < 2 or _refusal(graph, run, up):
        raise Unsupported(f"{site.layers[0]} is not a convolution whose channels can become a multiple of {STEP}")
    if width != Width(first.out_channels, _wanted(first.out_channels, up)):
        raise Unsupported(f"{site.layers[0]} has {first.out_channels} channels, not {width.before}")
    kept = _kept(first, width.after)
    layers = [copy.deepcopy(graph.layer(node)) for node in run]
    block = [_with_outputs(layers[0], kept), *(_with_channels(layer, kept) for layer in layers[1:-1])]
    return edit.replace(graph, [site.source], site.target, nn.Sequential(*block, _with_inputs(layers[-1], kept)))


def _wanted(channels: int, up: bool) -> int:
    return -(-channels // STEP) * STEP if up else channels // STEP * STEP


def run_of(graph: Graph, node: fx.Node) -> list[fx.Node]:
    """A convolution and the layers after it, each the only reader of the one before, up to one that mixes channels."""
    run = [node]
    while (reader := only_consumer(run[-1])) is not None and len(reader.args) == 1 and reader.op == "call_module":
        run.append(reader)
        if not _keeps_channels(graph, reader):
            break
    return run


def _refusal(graph: Graph, run: Sequence[fx.Node], up: bool) -> str | None:
    layer, end = _full(graph, run[0]), _full(graph, run[-1])
    assert layer is not None
    if len(run) < 2 or end is None:
        reader = run[-1] if len(run) > 1 and not _keeps_channels(graph, run[-1]) else next(iter(run[-1].users))
        kind = "output" if graph.layer(reader) is None else type(graph.layer(reader)).__name__
        several = " among others" if reader is not run[-1] and len(run[-1].users) > 1 else ""
        return (
            f"its {layer.out_channels} channels are read by a layer of kind {kind}{several}, which would have to change"
        )
    if not up and layer.out_channels < STEP:
        return f"its {layer.out_channels} channels are fewer than {STEP}"
    other = next((other for node in run if (other := edit.shared_with(graph, node))), None)
    return f"its weights, or those of the layers after it, are shared with {other}" if other else None


def _full(graph: Graph, node: fx.Node) -> nn.Conv2d | nn.ConvTranspose2d | None:
    """The node's convolution if it mixes all channels (one group), else None."""
    layer = graph.layer(node)
    return layer if isinstance(layer, _FULL) and layer.groups == 1 else None


def _keeps_channels(graph: Graph, node: fx.Node) -> bool:
    """Whether the layer computes each output channel from the same input channel alone."""
    layer = graph.layer(node)
    if isinstance(layer, nn.Conv2d):
        return ops.is_depthwise(layer) and ops.keeps_channels_apart(layer)
    if isinstance(layer, ops.Pad):
        return not any(layer.channels)
    return isinstance(layer, (*_ANY_CHANNELS, nn.BatchNorm2d, nn.PReLU))


def _kept(first: nn.Conv2d | nn.ConvTranspose2d, wanted: int) -> list[int | None]:
    """For each new channel the old one that it was, None for a channel of zeros."""
    channels = first.out_channels
    if wanted >= channels:
        return [*range(channels), *[None] * (wanted - channels)]
    filters = first.weight.detach().transpose(0, 1) if isinstance(first, nn.ConvTranspose2d) else first.weight.detach()
    return sorted(filters.flatten(1).norm(dim=1).topk(wanted).indices.tolist())


def _gather(values: Tensor, kept: Sequence[int | None], dim: int, fill: float = 0.0) -> Tensor:
    """`values` with the channels in dimension `dim` selected by `kept`; new channels are filled with `fill`."""
    parts = [
        values.select(dim, channel) if channel is not None else torch.full_like(values.select(dim, 0), fill)
        for channel in kept
    ]
    return torch.stack(parts, dim)


def _with_outputs(layer: nn.Module | None, kept: Sequence[int | None]) -> nn.Module:
    assert isinstance(layer, _FULL)
    layer.out_channels = len(kept)
    dim = 1 if isinstance(layer, nn.ConvTranspose2d) else 0
    layer.weight = nn.Parameter(_gather(layer.weight.detach(), kept, dim))
    if layer.bias is not None:
        layer.bias = nn.Parameter(_gather(layer.bias.detach(), kept, 0))
    return layer


def _with_inputs(layer: nn.Module | None, kept: Sequence[int | None]) -> nn.Module:
    assert isinstance(layer, _FULL)
    layer.in_channels = len(kept)
    dim = 0 if isinstance(layer, nn.ConvTranspose2d) else 1
    layer.weight = nn.Parameter(_gather(layer.weight.detach(), kept, dim))
    return layer


def _with_channels(layer: nn.Module | None, kept: Sequence[int | None]) -> nn.Module:
    """A layer that does not mix channels, adapted to the new channels."""
    assert layer is not None
    if isinstance(layer, nn.Conv2d):
        layer.in_channels = layer.groups = len(kept)
        return _with_outputs(layer, kept)
    if isinstance(layer, nn.PReLU) and layer.num_parameters > 1:
        layer.num_parameters = len(kept)
        layer.weight = nn.Parameter(_gather(layer.weight.detach(), kept, 0))
    if isinstance(layer, nn.BatchNorm2d):
        layer.num_features = len(kept)
        for name, fill in (("weight", 1.0), ("bias", 0.0), ("running_mean", 0.0), ("running_var", 1.0)):
            value = getattr(layer, name)
            if value is not None:
                new = _gather(value.detach(), kept, 0, fill)
                setattr(layer, name, nn.Parameter(new) if isinstance(value, nn.Parameter) else new)
    return layer

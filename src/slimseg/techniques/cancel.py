"""Remove layers that undo each other, do nothing, or whose result is not used (article, section 2: move less).

    Given   two transposes, reshapes or pads in a row          Result  one, or none if they undo each other
    Given   a slice, pad, resize, cast, pool or scale that returns its input unchanged  Result  none
    Given   channels computed and then cut off                 Result  a convolution without them
    Given   the same layer twice on the same input             Result  one of them
    Given   a branch scaled by zero and added                  Result  nothing added
    Given   ReLU of a value that is never negative             Result  none

Converters leave such layers behind. The result is the same for all finite values.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import fx, nn

from slimseg.errors import Unsupported
from slimseg.graph import edit, ops
from slimseg.graph.fold import scale_and_shift
from slimseg.graph.graph import Graph, only_consumer, producer
from slimseg.graph.vocabulary import is_never_negative
from slimseg.results import Needs, Refusal
from slimseg.techniques.activations import bounds
from slimseg.techniques.algebra.channelwise import is_channelwise, rearranged
from slimseg.techniques.technique import ARTICLE, Found, Settings, Site

_Idle = tuple[str, fx.Node]  # reason, the node whose value replaces that of the idle one
_Joined = tuple[str, tuple[fx.Node, ...], fx.Node, nn.Module]  # reason, nodes, source, the block that replaces them
_KEEPS_SIGN = (
    nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, ops.Resize, ops.Reshape, ops.Transpose, ops.Slice,
    ops.DepthToSpace, ops.SpaceToDepth,
)  # fmt: skip


@dataclass(frozen=True)
class Removal(Settings):
    form: Literal["idle", "joined"]

    @property
    def words(self) -> str:
        return {"idle": "left out", "joined": "made one"}[self.form]


IDLE, JOINED = Removal("idle"), Removal("joined")


class Cancel:
    """Removes layers whose work is not needed."""

    name = "idle layers"
    needs: Needs = "nothing"
    paper = f"{ARTICLE}, section 2"
    settings = Removal

    def find(self, graph: Graph) -> Found:
        sites: list[Site] = []
        refusals: list[Refusal] = []
        idle = _idle(graph)
        if idle:
            names = tuple(node.name for node in idle)
            first = next(iter(idle))
            more = f", and {len(names) - 1} more of the same kind" if names[1:] else ""
            reason = f"{names[0]}: {idle[first][0]}{more}"
            source, target = graph.input.name, graph.output.name
            sites.append(Site(self.name, names, source, target, self.needs, reason, IDLE, whole=True))
        for node in graph.layers():
            joined = None if node in idle else _joined(graph, node)
            if joined is None:
                continue
            reason, nodes, source_node, _ = joined
            other = next((other for each in nodes if (other := edit.shared_with(graph, each))), None)
            if other:
                refusals.append(Refusal(self.name, node.name, f"a layer here is shared with {other}"))
                continue
            names = tuple(each.name for each in nodes)
            sites.append(Site(self.name, names, source_node.name, node.name, self.needs, reason, JOINED))
        return Found(tuple(sites), tuple(refusals))

    def apply(self, graph: Graph, site: Site) -> Graph:
        removal = site.settings_as(Removal)
        if removal == IDLE and (idle := _idle(graph)):
            return _without(graph, idle)
        joined = _joined(graph, graph.node(site.target)) if removal == JOINED else None
        if joined is None or tuple(node.name for node in joined[1]) != site.layers:
            raise Unsupported(f"{site.target} cannot be removed")
        return edit.replace(graph, [site.source], site.target, joined[3])


def _without(graph: Graph, idle: Mapping[fx.Node, tuple[str, fx.Node]]) -> Graph:
    """A copy in which the readers of each idle layer read its replacement instead."""
    result = graph.copy()
    for node, (_, stays) in idle.items():
        gone = result.node(node.name)
        while stays in idle:
            stays = idle[stays][1]
        gone.replace_all_uses_with(result.node(stays.name))
    result.refresh()
    return result


def _idle(graph: Graph) -> dict[fx.Node, tuple[str, fx.Node]]:
    """Layers that can be removed, each with the reason and the node whose value replaces its own."""
    found: dict[fx.Node, tuple[str, fx.Node]] = {}
    twins = _twins(graph)
    for node in graph.layers():
        if node.op != "call_module" or node is graph.output:
            continue
        if node in twins:
            found[node] = (f"it computes the same values as {twins[node].name}", twins[node])
            continue
        for rule in (_does_nothing, _undoes, _adds_zero, _already_positive):
            if (idle := rule(graph, node)) is not None:
                found[node] = idle
                break
    return found


def _does_nothing(graph: Graph, node: fx.Node) -> _Idle | None:
    if len(node.all_input_nodes) != 1 or not _is_identity(graph, node):
        return None
    return "its output equals its input", producer(node)


def _already_positive(graph: Graph, node: fx.Node) -> _Idle | None:
    """A ReLU, or another activation that leaves values above zero unchanged, of a value that is never negative."""
    limits = bounds(graph, node)
    lets_through = limits is not None and limits[0] <= 0 and limits[1] == math.inf
    if not lets_through and not isinstance(graph.layer(node), nn.PReLU | nn.LeakyReLU | ops.SpatialPReLU):
        return None
    source = producer(node)
    return (f"{source.name} is never negative", source) if _is_not_negative(graph, source) else None


def _is_not_negative(graph: Graph, node: fx.Node) -> bool:
    layer = graph.layer(node)
    while isinstance(layer, _KEEPS_SIGN):
        node = producer(node)
        layer = graph.layer(node)
    if isinstance(layer, ops.Concat | ops.Add | ops.Multiply):
        return all(is_never_negative(graph.layer(source)) for source in node.all_input_nodes)
    return is_never_negative(layer) or (isinstance(layer, nn.Hardtanh) and layer.min_val >= 0)


def _undoes(graph: Graph, node: fx.Node) -> _Idle | None:
    """A transpose or reshape that undoes the one before it."""
    if len(node.all_input_nodes) != 1 or producer(node).op != "call_module":
        return None
    before = producer(node)
    first, second = graph.layer(before), graph.layer(node)
    back = False
    if isinstance(first, ops.Transpose) and isinstance(second, ops.Transpose):
        back = tuple(first.dims[dim] for dim in second.dims) == tuple(range(len(first.dims)))
    elif isinstance(first, ops.Reshape) and isinstance(second, ops.Reshape):
        alike = first.channels_last == second.channels_last
        back = alike and graph.shape(producer(before)) == graph.shape(node)
    return (f"it undoes {before.name}", producer(before)) if back else None


def _is_identity(graph: Graph, node: fx.Node) -> bool:
    layer, source = graph.layer(node), producer(node)
    if graph.shape(source) != graph.shape(node):
        return False
    if isinstance(layer, ops.Slice | ops.Resize | ops.Reshape | ops.Concat):
        return True
    if isinstance(layer, ops.Pad):
        return not any((*layer.padding, *layer.channels))
    if isinstance(layer, ops.Transpose):
        return layer.dims == tuple(range(len(layer.dims)))
    if isinstance(layer, ops.Cast):
        return layer.dtype == "float32" and not _gives_integers(graph, source)
    if isinstance(layer, nn.MaxPool2d | nn.AvgPool2d):
        return layer.kernel_size in (1, (1, 1))
    if isinstance(layer, nn.AdaptiveAvgPool2d):
        return True
    if isinstance(layer, ops.Affine):
        constants = scale_and_shift(graph, node)
        return constants is not None and bool(torch.all(constants[0] == 1) and torch.all(constants[1] == 0))
    return False


def _gives_integers(graph: Graph, node: fx.Node) -> bool:
    layer = graph.layer(node)
    while isinstance(layer, ops.Reshape | ops.Transpose | ops.Slice):
        node = producer(node)
        layer = graph.layer(node)
    return layer is None or isinstance(layer, ops.ArgMax | ops.Cast)


def _joined(graph: Graph, node: fx.Node) -> _Joined | None:
    """Layers that end in this node and can be replaced by one layer, or by a smaller one."""
    return _cut_off(graph, node) or _in_a_row(graph, node) if node.op == "call_module" else None


def _in_a_row(graph: Graph, node: fx.Node) -> _Joined | None:
    """Two transposes, reshapes or pads in a row."""
    if (
        len(node.all_input_nodes) != 1
        or producer(node).op != "call_module"
        or only_consumer(producer(node)) is not node
    ):
        return None
    before = producer(node)
    first, second = graph.layer(before), graph.layer(node)
    joint: nn.Module
    if isinstance(first, ops.Transpose) and isinstance(second, ops.Transpose):
        joint = ops.Transpose(tuple(first.dims[dim] for dim in second.dims))
    elif isinstance(first, ops.Reshape) and isinstance(second, ops.Reshape):
        if first.channels_last != second.channels_last:
            return None
        joint = copy.deepcopy(second)
    elif isinstance(first, ops.Pad) and isinstance(second, ops.Pad) and _pads_add_up(first, second):
        left, right, top, bottom = (a + b for a, b in zip(first.padding, second.padding, strict=True))
        channels = (first.channels[0] + second.channels[0], first.channels[1] + second.channels[1])
        joint = ops.Pad((left, right, top, bottom), first.value, channels)
    else:
        return None
    return f"it and {before.name} can be one layer", (before, node), producer(before), nn.Sequential(joint)


def _pads_add_up(first: ops.Pad, second: ops.Pad) -> bool:
    """Whether both pads add the same value, or both crop."""
    amounts = [(*pad.padding, *pad.channels) for pad in (first, second)]
    if all(min(each) >= 0 for each in amounts):
        return first.value == second.value
    return all(max(each) <= 0 for each in amounts)


def _cut_off(graph: Graph, node: fx.Node) -> _Joined | None:
    """A convolution, channelwise layers, and a slice that keeps some of the channels, without other readers."""
    cut = graph.layer_as(node, ops.Slice)
    if cut is None or cut.dim != 1 or len(graph.shape(node)) != 4:
        return None
    run = [producer(node)]
    while is_channelwise(graph, run[0]) and only_consumer(run[0]) is not None:
        run.insert(0, producer(run[0]))
    layer = graph.layer(run[0])
    if not isinstance(layer, nn.Conv2d | nn.ConvTranspose2d) or layer.groups > 1:
        return None
    if any(only_consumer(each) is None for each in run) or graph.shape(node)[1] >= layer.out_channels:
        return None
    kept = list(range(cut.start, cut.stop, cut.step))
    narrow = copy.deepcopy(layer)
    narrow.out_channels = len(kept)
    weight = layer.weight.detach()
    narrow.weight = nn.Parameter(weight[:, kept] if isinstance(layer, nn.ConvTranspose2d) else weight[kept])
    narrow.bias = None if layer.bias is None else nn.Parameter(layer.bias.detach()[kept])
    block = nn.Sequential(narrow, *(rearranged(graph.layer(each), kept) for each in run[1:]))
    reason = f"it keeps {len(kept)} of the {layer.out_channels} channels that {run[0].name} computes"
    return reason, (*run, node), producer(run[0]), block


def _adds_zero(graph: Graph, node: fx.Node) -> _Idle | None:
    if graph.layer_as(node, ops.Add) is None or len(node.all_input_nodes) != 2:
        return None
    for branch, other in (node.all_input_nodes, node.all_input_nodes[::-1]):
        constants = scale_and_shift(graph, branch) if graph.layer_as(branch, ops.Affine) else None
        zero = constants is not None and not torch.any(constants[0]) and not torch.any(constants[1])
        if zero and graph.shape(other) == graph.shape(node):
            return f"{branch.name} is zero everywhere", other
    return None


def _twins(graph: Graph) -> dict[fx.Node, fx.Node]:
    """Nodes that compute the same as an earlier one, each with that earlier node."""
    seen: dict[tuple[str, tuple[fx.Node, ...]], list[fx.Node]] = {}
    twins: dict[fx.Node, fx.Node] = {}
    for node in graph.layers():
        if node.op != "call_module" or node is graph.output:
            continue
        key = (repr(graph.layer(node)), tuple(arg for arg in node.args if isinstance(arg, fx.Node)))
        earlier = seen.setdefault(key, [])
        twin = next((each for each in earlier if _same(graph, each, node)), None)
        if twin is None:
            earlier.append(node)
        else:
            twins[node] = twin
    return twins


def _same(graph: Graph, first: fx.Node, second: fx.Node) -> bool:
    """Whether two layers with the same `repr` have the same weights."""
    if first.target == second.target:
        return True
    ours, theirs = (graph.module.get_submodule(str(node.target)).state_dict() for node in (first, second))
    return ours.keys() == theirs.keys() and all(
        value.shape == theirs[key].shape and torch.equal(value, theirs[key]) for key, value in ours.items()
    )

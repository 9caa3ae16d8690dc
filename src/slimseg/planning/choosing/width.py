"""Chooses how many channels each group keeps: removes channels in steps of 8 until a target is reached.

    repeat   remove 8 channels from the group g whose  Σ importance of its 8 weakest channels / gain_g  is least
             gain_g = Δms / ms still to save + Δparameters / parameters still to save

Δms and Δparameters are sums over the layers that read or write a group's channels: the time and parameters of a
convolution are proportional to inputs x outputs, those of a depthwise convolution to its channels. A step in one group
changes the gain of steps in others, so all gains are computed again after each step.
The problem is that of Shen et al., "Structural Pruning via Latency-Saliency Knapsack", 2022, section 3 (eq. 5: channels
in groups, measured latency); it is solved greedily as in Yang et al., "NetAdapt", 2018, algorithm 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from slimseg.deployment import Deployment
from slimseg.disk import scratch
from slimseg.graph import costs
from slimseg.graph.channel_groups import ChannelGroup, channel_groups, group_importance
from slimseg.graph.graph import Graph
from slimseg.planning.pricing import whatif
from slimseg.planning.pricing.layer_times import layer_times
from slimseg.results import Refusal
from slimseg.runtimes import registry
from slimseg.techniques import Found
from slimseg.techniques.channels import LEAST, STEP, Channels, site_of

LEAST_SHARE = 1 / 8  # least share of its channels that a group keeps


@dataclass
class _Layer:
    """One layer's cost at full width, and the channels that it has lost so far."""

    ms: float
    params: int
    outputs: int
    inputs: int  # 0 for a layer that computes each channel separately (depthwise convolution, batch norm)
    lost_outputs: int = 0
    lost_inputs: int = 0

    def share(self, fewer_outputs: int = 0, fewer_inputs: int = 0) -> float:
        outputs = 1 - (self.lost_outputs + fewer_outputs) / self.outputs
        inputs = 1 - (self.lost_inputs + fewer_inputs) / self.inputs if self.inputs else 1.0
        return max(0.0, outputs) * max(0.0, inputs)


@dataclass
class _Group:
    group: ChannelGroup
    importance: list[float]  # ascending
    kept: int
    least: int

    def step(self) -> int:
        """Number of channels to remove next, so that a multiple of 8 remains; 0 if none may be removed any more."""
        wanted = (self.kept - 1) // STEP * STEP
        return self.kept - wanted if wanted >= self.least else 0

    def loss(self) -> float:
        gone = self.group.channels - self.kept
        return sum(self.importance[gone : gone + self.step()])


def narrowing(graph: Graph, deployment: Deployment, need_ms: float, need_bytes: int) -> Found:
    """A site for every group that loses channels, and a refusal for every group that cannot lose any.

    `need_ms` and `need_bytes` must be saved from the latency and size of the network's own file, which is written and
    profiled here.
    """
    groups = channel_groups(graph)
    refusals = tuple(Refusal(Channels.name, group.root, group.fixed) for group in groups if group.fixed is not None)
    free = [group for group in groups if group.fixed is None and group.channels >= LEAST]
    with scratch.folder() as folder:
        path = whatif.written(graph, deployment, folder / "whole")
        times = layer_times(graph, registry.of(path).profile(path))
        bytes_per_parameter = registry.size_bytes(path) / costs.total(graph).params
    kept = widths(graph, free, times, need_ms, int(need_bytes / bytes_per_parameter))
    return Found(tuple(site_of(graph, group, kept[group.root]) for group in free if group.root in kept), refusals)


def widths(
    graph: Graph,
    groups: Sequence[ChannelGroup],
    layer_ms: Mapping[str, float],
    need_ms: float,
    need_params: int,
) -> dict[str, int]:
    """Number of channels that each group keeps, by its root; groups that keep all channels are left out.

    Args:
        groups: the groups that may lose channels.
        layer_ms: milliseconds by node name, from a profile.
        need_ms, need_params: savings to reach; if they are out of reach, all groups end at their smallest width.
    """
    layers = {node.name: layer for node in graph.layers() if (layer := _layer(graph, node.name, layer_ms)) is not None}
    states = [
        _Group(group, _ascending(graph, group), group.channels, max(STEP, int(group.channels * LEAST_SHARE)))
        for group in groups
    ]
    saved_ms, saved_params = 0.0, 0.0
    while saved_ms < need_ms or saved_params < need_params:
        best: tuple[float, _Group, float, float] | None = None
        for state in states:
            if not state.step():
                continue
            ms, params = _gain(state, layers)
            gain = ms / max(need_ms - saved_ms, 1e-9) * (saved_ms < need_ms)
            gain += params / max(need_params - saved_params, 1) * (saved_params < need_params)
            price = state.loss() / max(gain, 1e-12)
            if gain > 0 and (best is None or price < best[0]):
                best = price, state, ms, params
        if best is None:
            break
        _, state, ms, params = best
        _take(state, layers)
        saved_ms, saved_params = saved_ms + ms, saved_params + params
    return {state.group.root: state.kept for state in states if state.kept < state.group.channels}


def _ascending(graph: Graph, group: ChannelGroup) -> list[float]:
    values: list[float] = torch.sort(group_importance(graph, group)).values.tolist()
    return values


def _layer(graph: Graph, name: str, layer_ms: Mapping[str, float]) -> _Layer | None:
    layer = graph.layer(graph.node(name))
    params = sum(parameter.numel() for parameter in layer.parameters()) if layer is not None else 0
    if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
        depthwise = layer.groups > 1
        inputs = 0 if depthwise else layer.in_channels
        return _Layer(layer_ms.get(name, 0.0), params, layer.out_channels, inputs)
    if isinstance(layer, nn.BatchNorm2d):
        return _Layer(0.0, params, layer.num_features, 0)
    return None


def _gain(state: _Group, layers: Mapping[str, _Layer]) -> tuple[float, float]:
    """Milliseconds and parameters that the group's next step saves."""
    ms = params = 0.0
    for name, (outputs, inputs) in _touched(state).items():
        if name in layers:
            layer = layers[name]
            saved = layer.share() - layer.share(outputs, inputs)
            ms, params = ms + saved * layer.ms, params + saved * layer.params
    return ms, params


def _touched(state: _Group) -> dict[str, tuple[int, int]]:
    """Numbers of output and input channels that each layer loses with the group's next step, by layer name."""
    step, channels = state.step(), state.group.channels
    touched: dict[str, tuple[int, int]] = {}
    for name, positions in state.group.outputs.items():
        touched[name] = (step * len(positions) // channels, 0)
    for name, positions in state.group.inputs.items():
        touched[name] = (touched.get(name, (0, 0))[0], step * len(positions) // channels)
    return touched


def _take(state: _Group, layers: Mapping[str, _Layer]) -> None:
    for name, (outputs, inputs) in _touched(state).items():
        if name in layers:
            layers[name].lost_outputs += outputs
            layers[name].lost_inputs += inputs
    state.kept -= state.step()

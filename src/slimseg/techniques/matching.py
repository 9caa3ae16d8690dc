"""Batch norms of a new block set by the values that it will be given and is to give, as far as weights tell them.

    Given   a block with random weights, mean and variance of every channel of x and of the wanted y
    Result  batch norms with the statistics to be expected in front of them; the last ones with β, γ such that the
            block's output, before its last activation, has the wanted mean β_y and variance γ_y²

Where two branches are added, each gives half of both; where one of them is fixed (a shortcut without layers), the
other gives what is missing, and at least a quarter of the variance.
"""

from __future__ import annotations

import torch
from torch import fx, nn

from slimseg.graph import edit, ops
from slimseg.graph.graph import Graph, producer
from slimseg.graph.moments import Moments, through
from slimseg.graph.shapes import Shape

_QUIET_SHARE = 0.1  # of the channels' mean variance: one that is expected to vary less may surprise
_LEAST_SHARE = 0.25


@torch.no_grad()
def match(block: nn.Module, shape: Shape, given: Moments, wanted: Moments) -> None:
    """Set the batch norms of `block`, in place.

    Args:
        shape: of the block's input, (1, C, H, W).
        given: of the input.
        wanted: of the output, before the activation if the block ends with one.
    """
    graph = edit.trace(block, shape)  # its layers are the block's own
    known = {graph.input: given}
    for node in graph.layers():
        layer = graph.layer(node)
        inputs = [known[each] for each in node.all_input_nodes]
        if isinstance(layer, nn.BatchNorm2d):
            known[node] = _normalised(layer, inputs[0])
        else:
            assert layer is not None
            known[node] = through(layer, inputs)
    last = graph.output
    _impose(graph, producer(last) if graph.layer_as(last, ops.ACTIVATIONS) else last, wanted, known)


def _normalised(layer: nn.BatchNorm2d, given: Moments) -> Moments:
    layer.running_mean = given.mean.clone()
    layer.running_var = given.variance.clamp(min=_QUIET_SHARE * float(given.variance.mean()) + layer.eps)
    return Moments(layer.bias.clone(), layer.weight**2 * given.variance / layer.running_var)


def _impose(graph: Graph, node: fx.Node, wanted: Moments, known: dict[fx.Node, Moments]) -> None:
    layer, inputs = graph.layer(node), node.all_input_nodes
    if isinstance(layer, nn.BatchNorm2d):
        layer.bias.copy_(wanted.mean)
        layer.weight.copy_(wanted.variance.sqrt())
    elif isinstance(layer, ops.Concat):
        widths = [graph.shape(each)[1] for each in inputs]
        parts = zip(inputs, torch.split(wanted.mean, widths), torch.split(wanted.variance, widths), strict=True)
        for each, mean, variance in parts:
            _impose(graph, each, Moments(mean, variance), known)
    elif isinstance(layer, ops.ACTIVATIONS):
        _impose(graph, producer(node), wanted, known)
    elif isinstance(layer, ops.Add):
        free = [each for each in inputs if graph.layer_as(each, nn.BatchNorm2d)]
        fixed = [known[each] for each in inputs if each not in free]
        for each in free:
            _impose(graph, each, _missing(wanted, fixed, len(free)), known)


def _missing(wanted: Moments, fixed: list[Moments], parts: int) -> Moments:
    mean, variance = wanted.mean, wanted.variance
    for each in fixed:
        mean, variance = mean - each.mean, variance - each.variance
    least = _LEAST_SHARE * wanted.variance
    return Moments(mean / parts, torch.maximum(variance, least) / parts)

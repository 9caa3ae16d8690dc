"""Initialise a new block close to the part that it will replace, by fitting it to that part on noise: no image needed.

    Given   f, a part of a trained network; g, a block with random weights whose last layers are 1x1 convolutions with
            batch norm, g(x) = Σ_j N_j(W_j h_j(x)) + s(x)     (j the branches that are added, s a bare shortcut)
    Result  W = argmin Σ_p ‖f(x)_p − s(x)_p − Σ_j W_j h_j(x)_p‖² + λ ‖W‖²     over the pixels p of noise x

The features h_j are random, except for a shortcut's, which is x itself. The fit gives g the part of f that is linear in
the features, so training need not find it. The noise is smooth and has the mean and variance that every channel of x
has in the network (graph/moments.py). Its channels are independent, unlike real ones; hence the strong regularisation
λ, the mean eigenvalue of the features' covariance. The mean of g is taken from f's last batch norm if it has one, else
from f on the noise. Every batch norm of g takes its statistics from the noise. (Synthetic "dead leaves" images instead
of noise were tried: better after convolutions without batch norm, worse elsewhere.)

Measured on camvid_unet's stages: after 60 steps of mimicry the error of a decoder's block is 0.15 to 0.25 of the
features' variance. It is 0.9 to 1.5 for a block that starts only with the right mean and variance.
Hoerl and Kennard, "Ridge Regression", 1970; Huang et al., "Extreme Learning Machine", 2006, for random features.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from slimseg.errors import Unsupported
from slimseg.graph import edit, ops
from slimseg.graph.features import Features
from slimseg.graph.graph import Graph, producer
from slimseg.graph.moments import Moments

SAMPLES, SIDE = 4, 32  # maps of noise, and their height and width
QUIET_SHARE = 0.1  # share of the channels' mean variance: the least of a channel, as a lower estimate may be wrong
RIDGE = 1.0  # λ, as a multiple of the mean eigenvalue


@dataclass(frozen=True)
class _Ending:
    """The nodes that sum to some of the output's channels: branches that end with a batch norm, and fixed values."""

    channels: slice
    norms: tuple[fx.Node, ...]
    fixed: tuple[fx.Node, ...] = ()


@torch.no_grad()
def match(block: nn.Module, old: Graph, given: Moments) -> None:
    """Fit `block` to the part that it replaces: sets its weights and statistics in place.

    Args:
        old: the part that it replaces, without its last activation, (1, C, H, W) to (1, O, h, w).
        given: the moments of its input's channels.
    """
    old, x = _sized(old, given)
    wanted = old(x)
    norm = old.layer_as(old.output, nn.BatchNorm2d)
    wanted_mean = _pixels(wanted).mean(0) if norm is None else norm.bias
    graph = edit.trace(block, (1, *x.shape[1:]))  # its layers are the block's own
    _take_statistics(graph, x)
    _, values = Features(graph.module, [node.name for node in graph.layers()])(x)
    values[graph.input.name] = x
    end = graph.output
    last = producer(end) if graph.layer_as(end, ops.ACTIVATIONS) else end
    for ending in _endings(graph, last, 0):
        fixed = [values[node.name] for node in ending.fixed]
        _fit(graph, ending, values, wanted[:, ending.channels] - sum(fixed, torch.zeros(())))
        mean = wanted_mean[ending.channels] - sum((_pixels(each).mean(0) for each in fixed), torch.zeros(()))
        for node in ending.norms:
            _norm(graph, node).bias.copy_(mean / len(ending.norms))


def _sized(old: Graph, given: Moments) -> tuple[Graph, Tensor]:
    """The part at a small input size, or at its own if it accepts no other, and noise of that size."""
    with suppress(Unsupported):
        old = edit.at_input_size(old, (SIDE, SIDE))
    return old, noise(given, old.input_size)


def noise(given: Moments, size: tuple[int, int]) -> Tensor:
    """(SAMPLES, C, *size): normally distributed noise whose neighbouring pixels are correlated."""
    generator = torch.Generator().manual_seed(0)
    white = torch.randn(SAMPLES, len(given.mean), *size, generator=generator)
    smooth = 3 * F.avg_pool2d(white, 3, 1, 1)  # of variance 1, as white is
    both = (white + smooth) / 2**0.5
    variance = given.variance.clamp(min=QUIET_SHARE * float(given.variance.mean()))
    return given.mean[:, None, None] + variance.sqrt()[:, None, None] * both


def _take_statistics(graph: Graph, x: Tensor) -> None:
    norms = [layer for layer in graph.module.modules() if isinstance(layer, nn.BatchNorm2d)]
    momenta = [layer.momentum for layer in norms]
    for layer in norms:
        layer.momentum = 1.0
    graph.module.train()
    graph(x)
    graph.module.eval()
    for layer, momentum in zip(norms, momenta, strict=True):
        layer.momentum = momentum


def _endings(graph: Graph, node: fx.Node, first: int) -> Iterator[_Ending]:
    """The endings that give the value of `node`, whose channels are the output's from channel `first` on."""
    layer = graph.layer(node)
    channels = slice(first, first + graph.shape(node)[1])
    if isinstance(layer, nn.BatchNorm2d):
        yield _Ending(channels, (node,))
    elif isinstance(layer, ops.ACTIVATIONS):
        yield from _endings(graph, producer(node), first)
    elif isinstance(layer, ops.Concat):
        for part in node.all_input_nodes:
            yield from _endings(graph, part, first)
            first += graph.shape(part)[1]
    elif isinstance(layer, ops.Add):
        norms = tuple(each for each in node.all_input_nodes if graph.layer_as(each, nn.BatchNorm2d))
        yield _Ending(channels, norms, tuple(each for each in node.all_input_nodes if each not in norms))


def _fit(graph: Graph, ending: _Ending, values: dict[str, Tensor], wanted: Tensor) -> None:
    """Fit the 1x1 convolutions before the norms, and set the norms so that they change only the mean."""
    convolutions = [graph.layer_as(producer(node), nn.Conv2d) for node in ending.norms]
    features = [
        _pixels(_strided(values[producer(producer(node)).name], layer))
        for node, layer in zip(ending.norms, convolutions, strict=True)
        if layer is not None
    ]
    solved = _ridge(torch.cat(features, 1), _pixels(wanted))
    weights = torch.split(solved, [each.shape[1] for each in features])
    for node, layer, feature, weight in zip(ending.norms, convolutions, features, weights, strict=True):
        assert layer is not None
        layer.weight.copy_(weight.T[:, :, None, None])
        norm, result = _norm(graph, node), feature @ weight
        norm.running_mean, norm.running_var = result.mean(0), result.var(0)
        norm.weight.copy_((norm.running_var + norm.eps).sqrt())


def _ridge(features: Tensor, wanted: Tensor) -> Tensor:
    """Ridge regression: weights (F, O) for features (P, F) and values (P, O) of P pixels, both centred first."""
    centred = features - features.mean(0)
    gram = centred.T @ centred
    gram.diagonal().add_(RIDGE * gram.diagonal().mean() + 1e-6)
    result: Tensor = torch.linalg.solve(gram, centred.T @ (wanted - wanted.mean(0)))
    return result


def _strided(value: Tensor, convolution: nn.Conv2d) -> Tensor:
    return value[:, :, :: convolution.stride[0], :: convolution.stride[1]]


def _pixels(value: Tensor) -> Tensor:
    """(N, C, H, W) as (N·H·W, C)."""
    return value.movedim(1, -1).flatten(0, 2)


def _norm(graph: Graph, node: fx.Node) -> nn.BatchNorm2d:
    layer = graph.layer_as(node, nn.BatchNorm2d)
    assert layer is not None
    return layer

"""Fold batch normalisation into the convolution before it: exact, and what every inference file wants.

y = γ (W∗x + b − μ) / √(σ² + ε) + β  =  W'∗x + b',   W' = W·s,  b' = (b − μ)·s + β,  s = γ / √(σ² + ε)
"""

from __future__ import annotations

import copy

import torch
from torch import fx, nn
from torch.nn.utils import fusion

from slimseg.graph.graph import Graph, only_consumer, producer


def fold_batch_norm(graph: Graph) -> Graph:
    """A copy in which every batch norm that directly follows a convolution of its own is folded into it.

    A batch norm that cannot be folded becomes a depthwise 1x1 convolution.
    """
    result = graph.copy()
    for node in list(result.layers()):
        norm = result.layer_as(node, nn.BatchNorm2d)
        if norm is None:
            continue
        source = producer(node)
        convolution = result.layer_as(source, (nn.Conv2d, nn.ConvTranspose2d))
        if convolution is not None and only_consumer(source) is node and _calls(result, source) == 1:
            _replace_module(result, source, _fused(convolution, norm))
            node.replace_all_uses_with(source)
            result.module.graph.erase_node(node)
        else:
            _replace_module(result, node, _as_convolution(norm))
    result.refresh()
    return result


def _calls(graph: Graph, node: fx.Node) -> int:
    return sum(other.op == "call_module" and other.target == node.target for other in graph.module.graph.nodes)


def _replace_module(graph: Graph, node: fx.Node, module: nn.Module) -> None:
    graph.module.add_module(str(node.target), module.eval())


def _fused(convolution: nn.Module, norm: nn.BatchNorm2d) -> nn.Module:
    if isinstance(convolution, nn.Conv2d):
        return fusion.fuse_conv_bn_eval(convolution.eval(), norm.eval())
    assert isinstance(convolution, nn.ConvTranspose2d)
    if convolution.groups == 1:
        return fusion.fuse_conv_bn_eval(convolution.eval(), norm.eval(), transpose=True)
    return _fused_grouped_transposed(convolution, norm)


def _fused_grouped_transposed(convolution: nn.ConvTranspose2d, norm: nn.BatchNorm2d) -> nn.ConvTranspose2d:
    """torch's helper scales dimension 1 of the weights, which holds one group's channels only."""
    fused = copy.deepcopy(convolution)
    scale, shift = scale_and_shift(norm)
    bias = convolution.bias if convolution.bias is not None else torch.zeros_like(shift)
    per_group = scale.reshape(convolution.groups, 1, -1, 1, 1)
    weight = convolution.weight.reshape(convolution.groups, -1, *convolution.weight.shape[1:])
    fused.weight = nn.Parameter((weight * per_group).reshape(convolution.weight.shape).detach())
    fused.bias = nn.Parameter((bias * scale + shift).detach())
    return fused


def scale_and_shift(norm: nn.BatchNorm2d) -> tuple[torch.Tensor, torch.Tensor]:
    """(s, t) with batch norm = s·x + t per channel, in inference."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = torch.rsqrt(norm.running_var + norm.eps)
    if norm.weight is not None:
        scale = scale * norm.weight
    shift = -norm.running_mean * scale
    if norm.bias is not None:
        shift = shift + norm.bias
    return scale.detach(), shift.detach()


def _as_convolution(norm: nn.BatchNorm2d) -> nn.Conv2d:
    scale, shift = scale_and_shift(norm)
    depthwise = nn.Conv2d(norm.num_features, norm.num_features, 1, groups=norm.num_features)
    depthwise.weight = nn.Parameter(scale.reshape(-1, 1, 1, 1))
    depthwise.bias = nn.Parameter(shift)
    return depthwise

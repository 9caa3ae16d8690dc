"""Fold scales and shifts into the layer before them: exact, and usual in files for inference.

    Given   s·(W∗x + b) + t      a batch norm, or a scale and a shift of one number per channel
    Result  W'∗x + b',           W' = W·s,  b' = b·s + t

A batch norm is such a scale and shift: s = γ / √(σ² + ε), t = β − μ·s. It can be folded into a convolution, transposed
convolution or linear layer that nothing else reads and that shares its weights with no other node.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, fx, nn

from slimseg.graph.graph import Graph, only_consumer, producer
from slimseg.graph.ops import MIXING, Affine, Mixing, Pad

FOLDED: tuple[type[nn.Module], ...] = (nn.BatchNorm2d,)  # classes that do not occur in a folded graph


def fold_scales(graph: Graph) -> Graph:
    """A copy in which every batch norm and affine layer is folded into the layer before it, if possible.

    A batch norm that cannot be folded becomes a depthwise 1x1 convolution; such an affine layer stays as it is.
    """
    result = graph.copy()
    for node in list(result.layers()):
        norm = result.layer_as(node, nn.BatchNorm2d)
        if host(result, node) is not None:
            _fold(result, node)
        elif norm is not None:
            _replace_module(result, node, _as_convolution(norm))
    result.refresh()
    return result


def host(graph: Graph, node: fx.Node) -> fx.Node | None:
    """The layer that a batch norm or affine layer can be folded into, which is the one before it; else None."""
    if graph.layer_as(node, (nn.BatchNorm2d, Affine)) is None:
        return None
    source = producer(node)
    layer = graph.layer_as(source, MIXING)
    if layer is None or only_consumer(source) is not node or _calls(graph, source) > 1:
        return None
    return source if scale_and_shift(graph, node) is not None else None


def is_padding_of_next(graph: Graph, node: fx.Node) -> bool:
    """Whether a layer is zero padding whose only reader is a convolution, so that the convolution itself can pad."""
    pad, reader = graph.layer_as(node, Pad), only_consumer(node)
    if pad is None or pad.value != 0 or reader is None or min(pad.padding) < 0 or any(pad.channels):
        return False
    return graph.layer_as(reader, nn.Conv2d) is not None


def scale_and_shift(graph: Graph, node: fx.Node) -> tuple[Tensor, Tensor] | None:
    """(s, t), each (channels,), with node(x) = s·x + t; None for any other layer, or constants that vary over pixels.

    The channels of a flat tensor (N, F) are its F values.
    """
    layer = graph.layer(node)
    if isinstance(layer, nn.BatchNorm2d):
        return norm_scale_and_shift(layer)
    if not isinstance(layer, Affine):
        return None
    shape = graph.shape(node)
    if graph.shape(producer(node)) != shape:
        return None  # the constants broadcast the input to a larger shape
    scale, shift = (
        torch.full((shape[1],), neutral) if value is None else _per_channel(value.detach(), shape)
        for value, neutral in ((layer.scale, 1.0), (layer.shift, 0.0))
    )
    return None if scale is None or shift is None else (scale, shift)


def _per_channel(value: Tensor, shape: tuple[int, ...]) -> Tensor | None:
    if value.numel() == 1:
        return value.reshape(1).expand(shape[1])
    full = (1,) * (len(shape) - value.ndim) + tuple(value.shape)
    return value.reshape(-1) if full == (1, shape[1], *(1 for _ in shape[2:])) else None


def scaled(layer: Mixing, scale: Tensor, shift: Tensor) -> Mixing:
    """A copy of `layer` whose output is scale·y + shift instead of y; `scale` and `shift` are (out channels,)."""
    result = copy.deepcopy(layer)
    weight = layer.weight.detach()
    if isinstance(layer, nn.ConvTranspose2d):  # (in, out / groups, ...), the groups along `in`
        grouped = weight.reshape(layer.groups, -1, *weight.shape[1:])
        weight = (grouped * scale.reshape(layer.groups, 1, -1, 1, 1)).reshape(weight.shape)
    else:
        weight = weight * scale.reshape(-1, *(1 for _ in weight.shape[1:]))
    bias = shift if layer.bias is None else layer.bias.detach() * scale + shift
    result.weight, result.bias = nn.Parameter(weight.clone()), nn.Parameter(bias.clone())
    return result


def _fold(graph: Graph, node: fx.Node) -> None:
    source, constants = producer(node), scale_and_shift(graph, node)
    layer = graph.layer(source)
    assert isinstance(layer, MIXING)
    assert constants is not None
    _replace_module(graph, source, scaled(layer, *constants))
    node.replace_all_uses_with(source)
    graph.module.graph.erase_node(node)


def _calls(graph: Graph, node: fx.Node) -> int:
    return sum(other.op == "call_module" and other.target == node.target for other in graph.module.graph.nodes)


def _replace_module(graph: Graph, node: fx.Node, module: nn.Module) -> None:
    graph.module.add_module(str(node.target), module.eval())


def norm_scale_and_shift(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
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
    scale, shift = norm_scale_and_shift(norm)
    depthwise = nn.Conv2d(norm.num_features, norm.num_features, 1, groups=norm.num_features)
    depthwise.weight = nn.Parameter(scale.reshape(-1, 1, 1, 1))
    depthwise.bias = nn.Parameter(shift)
    return depthwise

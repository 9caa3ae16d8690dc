"""Fold scales and shifts into the layers beside them: exact, and usual in files for inference.

    Given   s·(W∗x + b) + t      a batch norm, or a scale and a shift of one number per channel
    Result  W'∗x + b',           W' = W·s,  b' = b·s + t

A batch norm is such a scale and shift: s = γ / √(σ² + ε), t = β − μ·s. It can be folded into a convolution, transposed
convolution or linear layer that nothing else reads and that shares its weights with no other node.

    Given   W∗(s·x + t) + b      scale and shift behind a layer norm or hard-swish, or a batch norm behind other layers
    Result  W'∗x + b',           W' = W·s along the inputs,  b' = b + Σ W·t

This holds if convolutions, without padding unless t = 0, and linear layers are all that reads it. The scale of
attention's scores is folded, too (`attention_scale`).
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, fx, nn

from slimseg.graph.attention_scale import fold_attention_scales
from slimseg.graph.graph import Graph, only_consumer, producer
from slimseg.graph.ops import MIXING, Affine, Mixing, Normalise, Pad
from slimseg.graph.shapes import pair

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
        elif readers := _layers_behind(result, node):
            _fold_into_readers(result, node, readers)
        elif norm is not None:
            _replace_module(result, node, _as_convolution(norm))
    fold_attention_scales(result)
    result.refresh()
    return result


def is_folded(graph: Graph, node: fx.Node) -> bool:
    """Whether a batch norm or affine layer is folded into a layer beside it."""
    return host(graph, node) is not None or bool(_layers_behind(graph, node))


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

    The channels of a linear layer's result (N, ..., F) are its F features.
    """
    layer = graph.layer(node)
    if isinstance(layer, nn.BatchNorm2d):
        return norm_scale_and_shift(layer)
    if not isinstance(layer, Affine):
        return None
    is_linear = graph.layer_as(producer(node), nn.Linear) is not None
    return _along(graph, node, len(graph.shape(node)) - 1 if is_linear else 1)


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


def _layers_behind(graph: Graph, node: fx.Node) -> list[fx.Node]:
    """The layers behind that a scale and shift can be folded into; empty if something else reads them."""
    follows = graph.layer_as(node, Affine) is not None and graph.layer_as(producer(node), (Normalise, nn.Hardswish))
    if not follows and graph.layer_as(node, nn.BatchNorm2d) is None:
        return []
    readers = list(node.users)
    for reader in readers:
        layer, dim = graph.layer(reader), _input_dim(graph, reader)
        constants = None if dim is None else _along(graph, node, dim)
        if constants is None or _calls(graph, reader) > 1:
            return []
        if isinstance(layer, nn.Conv2d) and pair(layer.padding) != (0, 0) and constants[1].any():
            return []
    return readers


def _input_dim(graph: Graph, node: fx.Node) -> int | None:
    """The dimension of a layer's input over which the layer sums; None for other layers."""
    if graph.layer_as(node, nn.Linear) is not None:
        return len(graph.shape(node)) - 1
    return 1 if graph.layer_as(node, nn.Conv2d) is not None else None


def _along(graph: Graph, node: fx.Node, dim: int) -> tuple[Tensor, Tensor] | None:
    """(s, t) of an affine layer or batch norm, each with one number for every index of `dim`; else None."""
    layer, shape = graph.layer(node), graph.shape(node)
    if isinstance(layer, nn.BatchNorm2d):
        return norm_scale_and_shift(layer) if dim == 1 else None
    assert isinstance(layer, Affine)
    if graph.shape(producer(node)) != shape:
        return None  # the constants broadcast the input to a larger shape
    found = []
    for value, neutral in ((layer.scale, 1.0), (layer.shift, 0.0)):
        whole = torch.tensor(neutral) if value is None else value.detach()
        whole = whole.reshape((1,) * (len(shape) - whole.ndim) + tuple(whole.shape))
        if any(length > 1 for other, length in enumerate(whole.shape) if other != dim):
            return None
        found.append(whole.reshape(-1).expand(shape[dim]))
    return found[0], found[1]


def _fold_into_readers(graph: Graph, node: fx.Node, readers: list[fx.Node]) -> None:
    for reader in readers:
        layer, dim = graph.layer(reader), _input_dim(graph, reader)
        constants = _along(graph, node, dim) if dim is not None else None
        assert isinstance(layer, nn.Conv2d | nn.Linear)
        assert constants is not None
        _replace_module(graph, reader, with_scaled_inputs(layer, *constants))
    node.replace_all_uses_with(producer(node))
    graph.module.graph.erase_node(node)


def with_scaled_inputs(layer: nn.Conv2d | nn.Linear, scale: Tensor, shift: Tensor) -> nn.Conv2d | nn.Linear:
    """A copy of `layer` that computes layer(scale·x + shift) from x; `scale` and `shift` are (in channels,).

    A convolution must not pad if the shift is not zero, since its zeros would have to be -shift/scale instead.
    """
    result = copy.deepcopy(layer)
    weight = layer.weight.detach()
    groups = layer.groups if isinstance(layer, nn.Conv2d) else 1
    per_group = weight.reshape(groups, -1, *weight.shape[1:])  # (groups, out / groups, in / groups, ...)
    pixels = (1,) * (weight.ndim - 2)
    scaled_weight = per_group * scale.reshape(groups, 1, -1, *pixels)
    added = (per_group * shift.reshape(groups, 1, -1, *pixels)).flatten(2).sum(2).flatten()
    result.weight = nn.Parameter(scaled_weight.reshape(weight.shape))
    result.bias = nn.Parameter(added if layer.bias is None else layer.bias.detach() + added)
    return result


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

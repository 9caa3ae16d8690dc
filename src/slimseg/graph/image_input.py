"""Fold the normalisation into the first convolution, so that the network takes the image's bytes.

    Given   W ∗ P((x − m) / s)                      x (3, H, W) in bytes, m and s per channel, P pads with zeros
    Result  W' ∗ P(x − z) + Σ W'·(z − m),           W' = W / s,  z one whole number for all channels      (exact)

In a runtime whose 8-bit tensors have a zero point, the input x − z with scale 1 and zero point z is stored as the byte
x itself, and padding puts z around the image. The sum Σ W'·(z − m) must not count the padding. It vanishes if all m
are z (up to half a grey level), and is a bias if the convolution does not pad. Otherwise a fourth input channel carries
it: a constant v inside the image, and zero in the padding:

    Result  [W' | Σ W'·(z − m) / v] ∗ P([x − z | v])                                                      (exact)

Scales and shifts that the network itself has before that convolution are folded as well, and so is the channel order.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from dataclasses import replace as with_fields

import torch
from torch import Tensor, fx, nn

from slimseg.errors import Unsupported
from slimseg.graph import edit, ops
from slimseg.graph.fold import scale_and_shift
from slimseg.graph.graph import Graph, only_consumer, producer
from slimseg.graph.preprocessing import Preprocessing

_HALF_A_GREY_LEVEL = 0.5  # in units of bytes: below the resolution of 8 bits


@dataclass(frozen=True)
class _Normalisation:
    """gain · (byte − mean) for each of the network's input channels, float64 (3,)."""

    gain: Tensor
    mean: Tensor


def fold(graph: Graph) -> Graph:
    """A graph that is the same function of the image's bytes, with the preprocessing `byte - z`, in RGB.

    Its float input is (1, 3, H, W) in [-z, 255 - z]. A graph that can take bytes already is returned as it is.

    Raises:
        Unsupported: the layer that reads the image is not a convolution that the normalisation can be folded into.
    """
    last, normalisation = _normalisation(graph)
    if last is graph.input and graph.description.preprocessing.takes_bytes:
        return graph
    zero = float(min(255, max(0, round(float(normalisation.mean.mean())))))
    convolutions = [_through_padding(graph, reader) for reader in last.users]
    for node in convolutions:
        _check(graph, node)
    result = graph
    for node in convolutions:
        result = edit.replace(result, [graph.input.name], node.name, _block(graph, node, normalisation, zero))
    result.description = with_fields(graph.description, preprocessing=Preprocessing.of(zero, 1.0))
    return result


def _normalisation(graph: Graph) -> tuple[fx.Node, _Normalisation]:
    """The scales and shifts between a byte and the first other layer, with the node of the last of them."""
    own = graph.description.preprocessing
    gain, mean = torch.tensor(own.std, dtype=torch.float64).reciprocal(), torch.tensor(own.mean, dtype=torch.float64)
    node = graph.input
    while (reader := only_consumer(node)) is not None and (constants := scale_and_shift(graph, reader)) is not None:
        scale, shift = (value.double() for value in constants)
        if not bool(scale.all()):
            raise Unsupported(f"{reader.name} multiplies a channel of the image by zero: remove it from the network")
        mean = mean - shift / (scale * gain)
        gain = gain * scale
        node = reader
    return node, _Normalisation(gain, mean)


def _through_padding(graph: Graph, node: fx.Node) -> fx.Node:
    """The only reader of `node` if that is zero padding, else `node` itself."""
    pad, reader = graph.layer_as(node, ops.Pad), only_consumer(node)
    return reader if pad is not None and reader is not None and pad.value == 0 and not any(pad.channels) else node


def _check(graph: Graph, node: fx.Node) -> None:
    layer = graph.layer_as(node, nn.Conv2d)
    if layer is None or layer.groups != 1:
        raise Unsupported(
            f"the normalisation cannot be folded into {node.name}, which reads the image but is no plain convolution: "
            "keep the float input"
        )


def _block(graph: Graph, node: fx.Node, normalisation: _Normalisation, zero: float) -> nn.Module:
    """The block that replaces everything between the image and the convolution's output."""
    convolution = copy.deepcopy(graph.layer(node))
    assert isinstance(convolution, nn.Conv2d)
    pad = graph.layer_as(producer(node), ops.Pad)
    before: list[nn.Module] = [] if pad is None else [copy.deepcopy(pad)]
    weight = convolution.weight.detach().double() * normalisation.gain.reshape(1, 3, 1, 1)
    offset = (weight * (zero - normalisation.mean).reshape(1, 3, 1, 1)).sum(1, keepdim=True)  # per tap
    if graph.description.preprocessing.channel_order == "bgr":
        weight = weight.flip(1)
    differs = float((normalisation.mean - zero).abs().max()) > _HALF_A_GREY_LEVEL
    if differs and _pads(convolution, pad):
        constant = 255 - zero if zero < 128 else -zero  # the value of byte - z with the largest magnitude
        before.insert(0, _with_constant(constant))
        weight = torch.cat((weight, offset / constant), 1)
        convolution.in_channels = 4
    elif bool(offset.any()):
        bias = offset.sum((1, 2, 3)) + (0 if convolution.bias is None else convolution.bias.detach().double())
        convolution.bias = nn.Parameter(bias.float())
    convolution.weight = nn.Parameter(weight.float())
    return nn.Sequential(*before, convolution)


def _with_constant(value: float) -> nn.Conv2d:
    """[x | value] as a 1x1 convolution, for which every runtime has a fast 8-bit kernel."""
    layer = nn.Conv2d(3, 4, 1)
    layer.weight = nn.Parameter(torch.eye(4, 3).reshape(4, 3, 1, 1))
    layer.bias = nn.Parameter(torch.tensor([0.0, 0.0, 0.0, value]))
    return layer


def _pads(convolution: nn.Conv2d, pad: ops.Pad | None) -> bool:
    return any(int(side) for side in convolution.padding) or (pad is not None and max(pad.padding) > 0)

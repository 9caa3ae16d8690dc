"""Transposed convolution -> convolution at the low resolution + bilinear or nearest resize (article, section 3.2).

    Given   y = act(K ⊛ₛ x),  transposed convolution of stride s: (I, H, W) to (O, sH, sW)
    Result  y ≈ U(act(W ∗ x)),  W of shape (O, I, m, m), m = 3 or 1, U the resize by s

Before the activation both forms are linear and repeat every s pixels, so each pair (o, i) is fitted separately. An
impulse at one low-resolution pixel gives the kernel K[i, o] in the first and Σ_t W[o, i, t] U(δ_t) in the second, where
δ_t is the impulse at tap t. Let the columns of A be the responses U(δ_t):

    W[o, i] = argmin_w ‖A w − vec K[i, o]‖²  =  A⁺ vec K[i, o]

A is the same for all pairs. The convolution may in turn be separable (see separable.py). MACs per
low-resolution pixel fall from k² to m² for each pair.
A scale and shift after the transposed convolution (a separate bias, batch norm) are folded in first. If they differ
from pixel to pixel, as some converters write them at borders, the median of each channel is used.
The resize comes after the activation, which is therefore fused into the convolution.
Odena et al., "Deconvolution and Checkerboard Artifacts", 2016.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from slimseg.blocks.upsample import ConvUpsample
from slimseg.errors import Unsupported
from slimseg.graph import edit, ops
from slimseg.graph.fold import scale_and_shift, scaled
from slimseg.graph.graph import Graph, only_consumer, producer
from slimseg.graph.ops import CroppedConvTranspose2d, ResizeMode
from slimseg.graph.shapes import pair
from slimseg.results import Needs, Refusal
from slimseg.techniques.separable import factorise
from slimseg.techniques.technique import Found, Settings, Site


@dataclass(frozen=True)
class Variant(Settings):
    kernel_size: int
    mode: ResizeMode
    separable: bool = False

    @property
    def words(self) -> str:
        kernel = f"{'separable ' if self.separable else ''}{self.kernel_size}x{self.kernel_size}"
        return f"{kernel}, {self.mode.removesuffix('-exact')}"


VARIANTS = (
    Variant(3, "bilinear"),
    Variant(3, "bilinear", separable=True),
    Variant(1, "bilinear"),
    Variant(3, "nearest-exact"),
)


class Upsampling:
    """Replaces transposed convolutions that enlarge by a whole number."""

    name = "transposed convolution to resize"
    needs: Needs = "images"
    paper = "Odena et al., Deconvolution and Checkerboard Artifacts, 2016"
    settings = Variant

    def find(self, graph: Graph) -> Found:
        sites: list[Site] = []
        refusals: list[Refusal] = []
        for node in graph.layers():
            layer = graph.layer_as(node, nn.ConvTranspose2d)
            if layer is None:
                continue
            refusal = _refusal(graph, node, layer)
            if refusal:
                refusals.append(Refusal(self.name, node.name, refusal))
            else:
                sites.extend(self._site(graph, node, layer, variant) for variant in VARIANTS)
        return Found(tuple(sites), tuple(refusals))

    def _site(self, graph: Graph, node: fx.Node, layer: nn.ConvTranspose2d, variant: Variant) -> Site:
        _, _, height, width = graph.shape(node)
        layers = tuple(each.name for each in _chain(graph, node))
        reason = (
            f"{layer.kernel_size[0]}x{layer.kernel_size[1]} transposed convolution of {layer.in_channels} to "
            f"{layer.out_channels} channels up to {height}x{width}: convolve before the resize, on "
            f"{layer.stride[0] * layer.stride[1]}x fewer pixels"
        )
        return Site(self.name, layers, producer(node).name, layers[-1], self.needs, reason, variant)

    def apply(self, graph: Graph, site: Site) -> Graph:
        layer = graph.layer_as(graph.node(site.layers[0]), nn.ConvTranspose2d)
        variant = site.settings_as(Variant)
        if layer is None:
            raise Unsupported(f"{site.layers[0]} is not a transposed convolution that can become {variant.words!r}")
        activation = None
        for name in site.layers[1:]:
            constants = _constants(graph, graph.node(name))
            if constants is None:
                activation = graph.layer(graph.node(name))
            else:
                layer = scaled(layer, *constants)  # type: ignore[assignment]  # of the same kind
        size = (graph.shape(graph.node(site.target))[2], graph.shape(graph.node(site.target))[3])
        convolution: nn.Module = fitted(layer, variant.kernel_size, variant.mode)
        if variant.separable:
            convolution = factorise(convolution, 1)  # type: ignore[arg-type]
        return edit.replace(
            graph, [site.source], site.target, ConvUpsample(convolution, size, variant.mode, activation)
        )


def fitted(transposed: nn.ConvTranspose2d, kernel_size: int, mode: ResizeMode) -> nn.Conv2d:
    """The convolution that, followed by a resize, comes nearest to a transposed convolution (by least squares)."""
    convolution = nn.Conv2d(
        transposed.in_channels, transposed.out_channels, kernel_size, padding=kernel_size // 2, bias=True
    )
    with torch.no_grad():
        taps = _fit(kernel_size, transposed, mode) @ transposed.weight.flatten(2).flatten(0, 1).T.double()
        shape = (kernel_size, kernel_size, transposed.in_channels, transposed.out_channels)
        convolution.weight.copy_(taps.reshape(shape).permute(3, 2, 0, 1))
        assert convolution.bias is not None
        convolution.bias.copy_(transposed.bias if transposed.bias is not None else torch.zeros_like(convolution.bias))
    return convolution


def _fit(taps: int, transposed: nn.ConvTranspose2d, mode: ResizeMode) -> Tensor:
    """The columns of A⁺ for the pixels that the transposed kernel covers: (taps², kernel pixels)."""
    stride = transposed.stride[0]
    canvas = 2 * (taps + max(transposed.kernel_size) // stride) + 1
    middle, side = canvas // 2, canvas * stride
    impulse = torch.zeros(1, 1, canvas, canvas, dtype=torch.float64)
    impulse[..., middle, middle] = 1
    align = {"align_corners": False} if mode == "bilinear" else {}
    # A convolution (correlation) with weight at tap t moves the impulse by −t from the middle.
    moved = [
        impulse.roll((taps // 2 - row, taps // 2 - column), (2, 3)) for row in range(taps) for column in range(taps)
    ]
    responses = F.interpolate(torch.cat(moved), (side, side), mode=mode, **align).flatten(1).T
    inverse = torch.linalg.pinv(responses).reshape(taps * taps, side, side)
    # Where pixel (0, 0) of the kernel lies in the response to the impulse.
    cropped = (transposed.crop[2], transposed.crop[0]) if isinstance(transposed, CroppedConvTranspose2d) else (0, 0)
    top, left = (
        middle * stride - padding - crop for padding, crop in zip(pair(transposed.padding), cropped, strict=True)
    )
    height, width = transposed.kernel_size
    met: Tensor = inverse[:, top : top + height, left : left + width].flatten(1)
    return met


def _chain(graph: Graph, node: fx.Node) -> list[fx.Node]:
    """The transposed convolution, the scales and shifts after it, and the activation after those."""
    chain = [node]
    while (reader := only_consumer(chain[-1])) is not None and _constants(graph, reader) is not None:
        chain.append(reader)
    if reader is not None and graph.layer_as(reader, (nn.ReLU, nn.ReLU6)) is not None:
        chain.append(reader)
    return chain


def _constants(graph: Graph, node: fx.Node) -> tuple[Tensor, Tensor] | None:
    """(scale, shift), each (channels,), of a layer that only scales and shifts; medians if they differ by pixel."""
    constants = scale_and_shift(graph, node)
    layer = graph.layer_as(node, ops.Affine)
    if constants is not None or layer is None or graph.shape(producer(node)) != graph.shape(node):
        return constants
    channels = graph.shape(node)[1]
    scale, shift = (
        torch.full((channels,), neutral) if value is None else _middle(value.detach(), channels)
        for value, neutral in ((layer.scale, 1.0), (layer.shift, 0.0))
    )
    return scale, shift


def _middle(value: Tensor, channels: int) -> Tensor:
    """(channels,): the median over the pixels of constants that broadcast to (1, channels, H, W)."""
    value = value.reshape((1,) * (4 - value.ndim) + tuple(value.shape))
    return value.expand(1, channels, *value.shape[2:])[0].flatten(1).median(1).values


def _refusal(graph: Graph, node: fx.Node, layer: nn.ConvTranspose2d) -> str | None:
    _, _, in_height, in_width = graph.shape(node.all_input_nodes[0])
    _, _, height, width = graph.shape(node)
    if layer.groups > 1:
        return f"it works in {layer.groups} groups"
    if layer.dilation != (1, 1):
        return f"it is dilated by {layer.dilation}"
    if layer.stride[0] != layer.stride[1] or layer.stride[0] < 2:
        return f"its stride is {layer.stride}"
    if (height, width) != (in_height * layer.stride[0], in_width * layer.stride[1]):
        return f"it enlarges {in_height}x{in_width} to {height}x{width}, not by {layer.stride[0]} in height and width"
    other = edit.shared_with(graph, node)
    return f"its weights are shared with {other}" if other else None

"""Transposed convolution -> convolutions at the low resolution + depth to space, exactly (article, section 3.2).

    Given   y = act(K ⊛ₛ x),  transposed convolution of stride s: (I, H, W) to (O, sH, sW)
    Result  y = D(act(W ∗ x)),  W of shape (s·s·O, I, m, m), D depth to space of block s

Output pixel s·q + r, with phase r < s, is a sum over the kernel's taps t that meet an input pixel, where p is the
number of pixels cropped before the first:

    y[s·q + r] = Σ_t K[t] x[q + δ],    s·δ = r + p − t

so each phase is a convolution with every s-th tap. As one convolution ("one") all phases share the widest of their
windows, with zeros where a phase has no tap. As a convolution per phase ("each") nothing is multiplied by zero, but
their results have to be concatenated. With stride 1 there is one phase, and the kernel is just flipped.
Channelwise layers that follow (act: a bias, activations) move before D, where ReLU is fused and maps have s·s times as
many channels.
Shi et al., "Is the deconvolution layer the same as a convolutional layer?", 2016.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, fx, nn

from slimseg.errors import Unsupported
from slimseg.graph import edit, ops
from slimseg.graph.fold import scale_and_shift, scaled
from slimseg.graph.graph import Graph, producer
from slimseg.graph.shapes import pair
from slimseg.results import Needs, Refusal
from slimseg.techniques.algebra.channelwise import repeated, tail
from slimseg.techniques.technique import Found, Settings, Site


@dataclass(frozen=True)
class Form(Settings):
    form: Literal["flipped", "one", "each"]

    @property
    def words(self) -> str:
        return {"flipped": "flipped kernel", "one": "one convolution", "each": "a convolution per phase"}[self.form]


FLIPPED, ONE, EACH = Form("flipped"), Form("one"), Form("each")


class Transposed:
    """Rewrites transposed convolutions as convolutions and depth to space."""

    name = "transposed convolution to depth to space"
    needs: Needs = "nothing"
    paper = "Shi et al., Is the deconvolution layer the same as a convolutional layer?, 2016"
    settings = Form

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
                sites.extend(self._site(graph, node, layer, form) for form in _forms(graph, node, layer))
        return Found(tuple(sites), tuple(refusals))

    def _site(self, graph: Graph, node: fx.Node, layer: nn.ConvTranspose2d, form: Form) -> Site:
        (rows, columns), (stride, _) = layer.kernel_size, layer.stride
        _, _, height, width = graph.shape(node)
        what = (
            f"{rows}x{columns} transposed convolution of {layer.in_channels} to {layer.out_channels} channels "
            f"up to {height}x{width}"
        )
        how = {
            FLIPPED: "with stride 1 it is a convolution",
            ONE: f"a convolution to {stride * stride * layer.out_channels} channels and depth to space do the same",
            EACH: f"its {stride * stride} phases are convolutions, each with a part of the kernel",
        }
        names = (node.name, *(each.name for each in tail(graph, node)))
        return Site(
            self.name, names, producer(node).name, names[-1], self.needs, f"{what}: {how[form]}", form
        )  # fmt: skip

    def apply(self, graph: Graph, site: Site) -> Graph:
        node = graph.node(site.layers[0])
        layer = graph.layer_as(node, nn.ConvTranspose2d)
        form = site.settings_as(Form)
        if layer is None or _refusal(graph, node, layer) or form not in _forms(graph, node, layer):
            raise Unsupported(f"{site.layers[0]} is not a transposed convolution that can become {form.words!r}")
        rows, columns = _axes(graph, node, layer)
        layer, rest = _with_scales(graph, layer, [graph.node(name) for name in site.layers[1:]])
        activations = [graph.module.get_submodule(str(each.target)) for each in rest]
        rewritten = _Phases if form == EACH else _Joint
        return edit.replace(
            graph, [site.source], site.target, _Rewritten(rewritten(layer, rows, columns, activations), rows, columns)
        )


def _with_scales(
    graph: Graph, layer: nn.ConvTranspose2d, after: list[fx.Node]
) -> tuple[nn.ConvTranspose2d, list[fx.Node]]:
    """The layer with the scales and shifts that follow folded into it, and the remaining nodes of `after`."""
    while after and (constants := scale_and_shift(graph, after[0])) is not None:
        folded = scaled(layer, *constants)
        assert isinstance(folded, nn.ConvTranspose2d)
        layer, after = folded, after[1:]
    return layer, after


@dataclass(frozen=True)
class Axis:
    """One axis of a transposed convolution: which kernel taps each phase uses, and which input pixels they read."""

    kernel: int
    stride: int
    cut: int  # pixels that padding and crop remove before the first
    source: int  # input pixels
    length: int  # output pixels

    @property
    def positions(self) -> int:
        """Number of pixels that each phase computes."""
        return -(-self.length // self.stride)

    @property
    def surplus(self) -> int:
        """Number of surplus pixels at the end after the phases are joined, which are cropped."""
        return self.positions * self.stride - self.length

    def taps(self, phase: int) -> dict[int, int]:
        """The kernel's taps for a phase, by the offset δ of the input pixel that each reads."""
        taps = range((phase + self.cut) % self.stride, self.kernel, self.stride)
        return {(phase + self.cut - tap) // self.stride: tap for tap in taps}

    def window(self, phases: range) -> range:
        """The range of offsets that these phases read."""
        offsets = [offset for phase in phases for offset in self.taps(phase)]
        return range(min(offsets), max(offsets) + 1)

    def padding(self, window: range) -> tuple[int, int]:
        """(before, after): pixels of zero padding that a convolution over `window` needs; negative values crop."""
        return -window[0], self.positions - 1 + window[-1] - (self.source - 1)


class _Joint(nn.Module):
    """All phases in one convolution; a phase without a tap at an offset has a zero there."""

    def __init__(self, layer: nn.ConvTranspose2d, rows: Axis, columns: Axis, activations: list[nn.Module]) -> None:
        super().__init__()
        self.conv = _convolution(layer, rows, columns, range(rows.stride), range(columns.stride))
        times = rows.stride * columns.stride
        self.after = nn.Sequential(*(repeated(each, layer.out_channels, times) for each in activations))

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.conv(x))  # type: ignore[no-any-return]


class _Phases(nn.Module):
    """A convolution for each phase, concatenated by channels; activations come before that, where they are fused."""

    def __init__(self, layer: nn.ConvTranspose2d, rows: Axis, columns: Axis, activations: list[nn.Module]) -> None:
        super().__init__()
        self.phases = nn.ModuleList(
            nn.Sequential(
                _convolution(layer, rows, columns, range(row, row + 1), range(column, column + 1)),
                *(copy.deepcopy(each) for each in activations),
            )
            for row in range(rows.stride)
            for column in range(columns.stride)
        )
        self.join = ops.Concat(1)

    def forward(self, x: Tensor) -> Tensor:
        return self.join(*(phase(x) for phase in self.phases))  # type: ignore[no-any-return]


class _Rewritten(nn.Module):
    def __init__(self, phases: nn.Module, rows: Axis, columns: Axis) -> None:
        super().__init__()
        self.phases = phases
        self.spread = ops.DepthToSpace(rows.stride) if rows.stride > 1 else nn.Sequential()
        surplus = (0, -columns.surplus, 0, -rows.surplus)
        self.cut = ops.Pad(surplus) if any(surplus) else nn.Sequential()

    def forward(self, x: Tensor) -> Tensor:
        return self.cut(self.spread(self.phases(x)))  # type: ignore[no-any-return]


def _convolution(layer: nn.ConvTranspose2d, rows: Axis, columns: Axis, down: range, across: range) -> nn.Module:
    """The convolution that computes the phases `down` x `across`; its channels are ordered by phase."""
    window_h, window_w = rows.window(down), columns.window(across)
    weight = torch.zeros(len(down) * len(across), layer.out_channels, layer.in_channels, len(window_h), len(window_w))
    kernel = layer.weight.detach().transpose(0, 1)
    for index, (row, column) in enumerate((row, column) for row in down for column in across):
        for offset_h, tap_h in rows.taps(row).items():
            for offset_w, tap_w in columns.taps(column).items():
                weight[index, :, :, offset_h - window_h[0], offset_w - window_w[0]] = kernel[:, :, tap_h, tap_w]
    (top, bottom), (left, right) = rows.padding(window_h), columns.padding(window_w)
    even = top == bottom >= 0 and left == right >= 0
    convolution = nn.Conv2d(
        layer.in_channels,
        weight.shape[0] * layer.out_channels,
        (len(window_h), len(window_w)),
        padding=(top, left) if even else 0,
        bias=layer.bias is not None,
    )
    convolution.weight = nn.Parameter(weight.flatten(0, 1))
    if layer.bias is not None:
        convolution.bias = nn.Parameter(layer.bias.detach().repeat(weight.shape[0]))
    return convolution if even else nn.Sequential(ops.Pad((left, right, top, bottom)), convolution)


def _axes(graph: Graph, node: fx.Node, layer: nn.ConvTranspose2d) -> tuple[Axis, Axis]:
    left, _, top, _ = getattr(layer, "crop", (0, 0, 0, 0))
    before, after = graph.shape(producer(node)), graph.shape(node)
    settings = zip(
        layer.kernel_size, layer.stride, pair(layer.padding), (top, left), before[2:], after[2:], strict=True
    )
    rows, columns = (
        Axis(kernel, stride, padding + cut, source, length) for kernel, stride, padding, cut, source, length in settings
    )
    return rows, columns


def _forms(graph: Graph, node: fx.Node, layer: nn.ConvTranspose2d) -> tuple[Form, ...]:
    if layer.stride[0] == 1:
        return (FLIPPED,)
    alike = all(
        axis.taps(phase).keys() == axis.taps(0).keys()
        for axis in _axes(graph, node, layer)
        for phase in range(axis.stride)
    )
    return (ONE,) if alike else (ONE, EACH)


def _refusal(graph: Graph, node: fx.Node, layer: nn.ConvTranspose2d) -> str | None:
    if layer.groups > 1:
        return f"it works in {layer.groups} groups"
    if layer.dilation != (1, 1):
        return f"it is dilated by {layer.dilation}"
    if layer.stride[0] != layer.stride[1]:
        return f"its stride is {layer.stride}, and depth to space needs equal strides"
    if min(layer.kernel_size) < layer.stride[0]:
        return f"its kernel of {layer.kernel_size} is smaller than its stride {layer.stride[0]}"
    other = edit.shared_with(graph, node)
    return f"its weights are shared with {other}" if other else None

"""Layers that are written out as arithmetic, and views in a row, are recognised on the Graph."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import slimseg
from slimseg.graph import edit, ops
from slimseg.graph.graph import Graph
from slimseg.graph.spellings import in_one_spelling, views

SIZE = (16, 24)


class Written(nn.Module):
    """A function between two convolutions."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.last, self.function = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 4, 1), function

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.function(self.first(x)))


def opened(network: nn.Module) -> Graph:
    """The network as a Graph, with the same values for one image and for two."""
    graph = slimseg.load(network.eval(), SIZE)
    images = torch.randn(2, 3, *SIZE)
    with torch.no_grad():
        for each in (images[:1], images):
            torch.testing.assert_close(graph(each), network(each), rtol=1e-4, atol=1e-5)
    return graph


def between(graph: Graph) -> list[str]:
    """The classes of the layers between the two convolutions."""
    return [type(graph.layer(node)).__name__ for node in graph.layers()][1:-1]


def normal(x: Tensor, dim: int | tuple[int, ...]) -> Tensor:
    centred = x - x.mean(dim, keepdim=True)
    return centred / torch.sqrt((centred * centred).mean(dim, keepdim=True) + 1e-5)


def batch_normal(x: Tensor) -> Tensor:
    """As TensorFlow writes it, with the scale 2 and the shift 3."""
    mean = x.mean(1, keepdim=True)
    factor = torch.rsqrt((x - mean).square().mean(1, keepdim=True) + 1e-3) * 2.0
    return x * factor + (3.0 - mean * factor)


def grouped(x: Tensor) -> Tensor:
    return normal(x.reshape(x.shape[0], 2, -1), 2).reshape(x.shape)


def grouped_pixels_first(x: Tensor) -> Tensor:
    n, channels, height, width = x.shape
    apart = x.permute(0, 2, 3, 1).reshape(n, height, width, 2, channels // 2)
    return normal(apart, (1, 2, 4)).reshape(n, height, width, channels).permute(0, 3, 1, 2)


def tanh_gelu(x: Tensor) -> Tensor:
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)))


WRITTEN: dict[str, tuple[Callable[[Tensor], Tensor], list[str]]] = {
    "layer norm": (lambda x: normal(x, 1), ["Normalise"]),
    "instance norm": (lambda x: normal(x, (2, 3)), ["Normalise"]),
    "layer norm with scale and shift": (batch_normal, ["Normalise", "Affine"]),
    "RMS norm": (lambda x: x * torch.rsqrt(x.pow(2).mean(1, keepdim=True) + 1e-6), ["Normalise"]),
    "group norm": (grouped, ["Normalise"]),
    "group norm, pixels first": (grouped_pixels_first, ["Normalise"]),
    "GELU by tanh": (tanh_gelu, ["GELU"]),
    "SiLU": (lambda x: x * torch.sigmoid(x), ["SiLU"]),
    "hardswish": (lambda x: x * F.relu6(x + 3) / 6, ["Hardswish"]),
    "hardsigmoid of an activation": (lambda x: F.relu6(F.relu(x) + 3) * 0.16667, ["ReLU", "Hardsigmoid"]),
}
# What looks alike and is not: it stays as it is written.
OTHER: dict[str, Callable[[Tensor], Tensor]] = {
    "variance over other dimensions": lambda x: (
        (x - x.mean(1, keepdim=True)) / torch.sqrt(x.square().mean((2, 3), keepdim=True) + 1e-5)
    ),
    "another mean": lambda x: (
        (x - x.mean((2, 3), keepdim=True))
        / torch.sqrt((x - x.mean(1, keepdim=True)).square().mean(1, keepdim=True) + 1e-5)
    ),
    "quick GELU": lambda x: x * torch.sigmoid(1.702 * x),
    "a wider hardswish": lambda x: x * F.relu6(x + 3) / 5,
}


@pytest.mark.parametrize("name", WRITTEN)
def test_written_out_layers_are_recognised(name: str) -> None:
    function, expected = WRITTEN[name]
    assert between(opened(Written(function))) == expected


@pytest.mark.parametrize("name", OTHER)
def test_what_only_looks_alike_stays(name: str) -> None:
    assert not {"Normalise", "GELU", "SiLU", "Hardswish"} & set(between(opened(Written(OTHER[name]))))


def test_group_norm_keeps_its_groups_and_epsilon() -> None:
    graph = opened(Written(grouped))
    (norm,) = [layer for node in graph.layers() if (layer := graph.layer_as(node, ops.Normalise))]
    assert (norm.groups, norm.epsilon, norm.dims) == (2, 1e-5, (1, 2, 3))


class Shuffled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.wide, self.last = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(F.pixel_shuffle(self.wide(x).relu(), 2))


def test_pixel_shuffle_reorders_the_convolution_before_its_activation() -> None:
    assert between(opened(Shuffled())) == ["ReLU", "DepthToSpace"]


class Biases(nn.Module):
    """An addition after a convolution without bias that is called twice: with one bias, or with two."""

    def __init__(self, shared: bool) -> None:
        super().__init__()
        self.first, self.both, self.last = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1, bias=False), nn.Conv2d(8, 4, 1)
        self.one = nn.Parameter(torch.randn(8, 1, 1))
        self.other = self.one if shared else nn.Parameter(torch.randn(8, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        y = (self.both(self.first(x)) + self.one).relu()
        return self.last(self.both(y) + self.other)


@pytest.mark.parametrize("shared", [True, False])
def test_an_addition_is_a_bias_where_all_calls_of_a_layer_have_it(shared: bool) -> None:
    found = between(opened(Biases(shared)))
    assert found == (["Conv2d", "ReLU", "Conv2d"] if shared else ["Conv2d", "Affine", "ReLU", "Conv2d", "Affine"])


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ((ops.Transpose((0, 2, 3, 1)), ops.Transpose((0, 3, 1, 2))), []),
        ((ops.Reshape((1, 8, 384), False), ops.Reshape((1, 8, 16, 24), False)), []),
        ((ops.Reshape((1, 8, 384), False), ops.Transpose((0, 2, 1))), [ops.Reshape((1, 384, 8), True)]),
        ((ops.Transpose((0, 2, 3, 1)), ops.Reshape((1, 384, 8), False)), [ops.Reshape((1, 384, 8), True)]),
        (
            (ops.Reshape((1, 384, 2, 1, 4), True), ops.Transpose((3, 0, 2, 1, 4)), ops.Reshape((1, 2, 384, 4), False)),
            [ops.Reshape((1, 384, 8), True), ops.Reshape((1, 384, 2, 4), False), ops.Transpose((0, 2, 1, 3))],
        ),
    ],
)
def test_views_in_a_row(layers: tuple[nn.Module, ...], expected: list[nn.Module]) -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 1), *layers)
    graph = edit.trace(network, (1, 3, *SIZE))
    image = torch.randn(1, 3, *SIZE)
    views.simplify(graph)
    graph.refresh()
    found = [layer for node in graph.layers() if (layer := graph.layer(node)) is not None][1:]
    assert list(map(repr, found)) == list(map(repr, expected))
    torch.testing.assert_close(graph(image), network(image))


def test_a_row_that_takes_a_dimension_apart_in_another_way_stays() -> None:
    layers = (ops.Reshape((1, 6, 512), False), ops.Transpose((0, 2, 1)), ops.Reshape((1, 3, 32, 32), False))
    graph = edit.trace(nn.Sequential(nn.Conv2d(3, 8, 1), *layers), (1, 3, *SIZE))
    before = graph.copy()
    image = torch.randn(1, 3, *SIZE)
    torch.testing.assert_close(in_one_spelling(graph)(image), before(image))

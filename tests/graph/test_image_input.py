"""The normalisation folded away: equal outputs from bytes, borders included."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from slimseg.errors import Unsupported
from slimseg.graph import edit, image_input, ops
from slimseg.graph.graph import Graph
from slimseg.graph.preprocessing import Preprocessing
from slimseg.runtimes.host import ImagePipeline

SIZE = (11, 14)
IMAGE = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)


def network(*layers: nn.Module, preprocessing: Preprocessing) -> Graph:
    graph = edit.trace(nn.Sequential(*layers).eval(), (1, 3, *SIZE))
    graph.description = replace(graph.description, preprocessing=preprocessing)
    return graph


def answer(graph: Graph) -> Tensor:
    value = ImagePipeline(graph.description.preprocessing, SIZE)(IMAGE)
    with torch.no_grad():
        return graph(torch.from_numpy(value).permute(2, 0, 1)[None])


def difference(graph: Graph, folded: Graph) -> float:
    assert folded.description.preprocessing.takes_bytes
    expected = answer(graph)
    return float((answer(folded) - expected).abs().max() / expected.abs().max())


MEANS = st.tuples(*[st.floats(-20, 280, allow_nan=False)] * 3)
STDS = st.tuples(*[st.floats(0.5, 300, allow_nan=False)] * 3)


@settings(max_examples=40, deadline=None)
@given(MEANS, STDS, st.sampled_from(["rgb", "bgr"]), st.sampled_from([0, 1, (2, 1), "pad before"]), st.booleans())
def test_equal_outputs(
    mean: tuple[float, ...], std: tuple[float, ...], order: str, padding: int | tuple[int, int] | str, bias: bool
) -> None:
    torch.manual_seed(1)
    before = [ops.Pad((0, 1, 0, 1))] if padding == "pad before" else []
    own = 0 if padding == "pad before" else padding
    convolution = nn.Conv2d(3, 5, 3, 2, own, bias=bias)
    preprocessing = Preprocessing.of(mean, std, order)
    graph = network(*before, convolution, nn.ReLU(), preprocessing=preprocessing)
    folded = image_input.fold(graph)
    if max(mean) - min(mean) > 1:  # else the borders may be off by half a grey level
        assert difference(graph, folded) < 1e-4


@pytest.mark.parametrize("mean", [0, 127, 128])
def test_nothing_to_do_where_bytes_fit_already(mean: int) -> None:
    graph = network(nn.Conv2d(3, 4, 3, 2, 1), preprocessing=Preprocessing.of(mean, 127.5))
    assert image_input.fold(graph) is graph


def test_half_a_grey_level_stays_in_the_padding_alone() -> None:
    graph = network(nn.Conv2d(3, 4, 3, 1, 1), preprocessing=Preprocessing.of(127.5, 127.5))
    folded = image_input.fold(graph)
    assert [type(folded.layer(node)) for node in folded.layers()] == [nn.Conv2d]  # no channel for the padding
    expected, got = answer(graph), answer(folded)
    assert torch.allclose(got[..., 1:-1, 1:-1], expected[..., 1:-1, 1:-1], atol=1e-5)
    assert (got - expected).abs().max() < 0.5 / 127.5 * graph.layer(graph.output).weight.abs().sum((1, 2, 3)).max()


def test_the_networks_own_scale_goes_too() -> None:
    own = ops.Affine(torch.tensor([2.0, -0.5, 1.0]).reshape(3, 1, 1), torch.tensor([0.1, 0.2, -3.0]).reshape(3, 1, 1))
    graph = network(own, nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3, 2, 1), preprocessing=Preprocessing())
    folded = image_input.fold(graph)
    assert difference(graph, folded) < 1e-4
    assert not any(isinstance(folded.layer(node), ops.Affine | nn.BatchNorm2d) for node in folded.layers())


class TwoReaders(nn.Module):
    """A stem of two branches, one of which is used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(3, 4, 3, 2, 1)
        self.add, self.twice = ops.Add(), ops.Add()

    def forward(self, x: Tensor) -> Tensor:
        return self.twice(self.add(self.left(x), self.right(x)), self.right(x))


def test_several_readers_of_the_image() -> None:
    graph = network(TwoReaders(), preprocessing=Preprocessing.of((120, 110, 100), (60, 55, 50)))
    assert difference(graph, image_input.fold(graph)) < 1e-4


@pytest.mark.parametrize("first", [nn.Conv2d(3, 3, 3, groups=3), nn.MaxPool2d(2)])
def test_refused_with_the_layer(first: nn.Module) -> None:
    graph = network(first, preprocessing=Preprocessing.of((120, 110, 100), 60))
    with pytest.raises(Unsupported, match=r"cannot be folded into layer_0.*keep the float input"):
        image_input.fold(graph)


def test_a_channel_that_the_network_drops() -> None:
    own = ops.Affine(torch.tensor([1.0, 0.0, 1.0]).reshape(3, 1, 1))
    graph = network(own, nn.Conv2d(3, 4, 1), preprocessing=Preprocessing())
    with pytest.raises(Unsupported, match="by zero"):
        image_input.fold(graph)

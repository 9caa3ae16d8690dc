"""Channels padded to a multiple of 8 change nothing; channels cut to one are those with the smallest filters."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from slimseg.graph import edit, ops
from slimseg.graph.graph import Graph
from slimseg.techniques import Site, named

quick = settings(max_examples=25, deadline=None, derandomize=True)
PADDED, CUT = "channels padded to a multiple of 8", "channels cut to a multiple of 8"


def graph_of(*layers: nn.Module, channels: int = 3) -> Graph:
    torch.manual_seed(0)
    for layer in layers:
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.running_var, 0.5, 2.0)  # type: ignore[arg-type]
            nn.init.normal_(layer.bias)
        if isinstance(layer, nn.PReLU):
            nn.init.uniform_(layer.weight, -1, 1)
    return edit.trace(nn.Sequential(*layers).eval(), (1, channels, 16, 20), "net")


def run(graph: Graph) -> Tensor:
    with torch.no_grad():
        return graph(torch.randn(graph.input_shape, generator=torch.Generator().manual_seed(1)))


def sites(graph: Graph, technique: str) -> list[Site]:
    return list(named(technique).find(graph).sites)


MIDDLES = {
    "nothing": lambda c: [],
    "norm": lambda c: [nn.BatchNorm2d(c), nn.ReLU()],
    "prelu": lambda c: [nn.PReLU(c)],
    "one slope": lambda c: [nn.PReLU()],
    "sigmoid": lambda c: [nn.Sigmoid()],  # gives ½ where the new channels are 0
    "depthwise": lambda c: [nn.Conv2d(c, c, 3, padding=1, groups=c, bias=False), nn.Hardswish()],
    "pooled": lambda c: [nn.MaxPool2d(2), nn.Tanh(), ops.Resize((16, 20))],
    "padded": lambda c: [ops.Pad((1, 0, 0, 1), value=2.0), nn.AvgPool2d(3, 1)],
}


@quick
@given(
    channels=st.integers(2, 30).filter(lambda channels: channels % 8),
    middles=st.lists(st.sampled_from(sorted(MIDDLES)), max_size=2),
    ends=st.tuples(st.booleans(), st.booleans()),
    bias=st.booleans(),
)
def test_zeros_change_nothing(channels: int, middles: list[str], ends: tuple[bool, bool], bias: bool) -> None:
    layers = [layer for middle in middles for layer in MIDDLES[middle](channels)]
    first = nn.ConvTranspose2d(3, channels, 3, 1, 1, bias=bias) if ends[0] else nn.Conv2d(3, channels, 3, bias=bias)
    last = nn.ConvTranspose2d(channels, 8, 2, 2, bias=bias) if ends[1] else nn.Conv2d(channels, 8, 1, bias=bias)
    graph = graph_of(first, *layers, last)
    (site,) = sites(graph, PADDED)
    padded = named(PADDED).apply(graph, site)
    assert any(padded.shape(node)[1] == -(-channels // 8) * 8 for node in padded.layers())
    assert not any(padded.shape(node)[1] == channels for node in padded.layers())
    torch.testing.assert_close(run(padded), run(graph), atol=1e-5, rtol=1e-5)


def test_a_cropped_transposed_convolution_keeps_its_crop() -> None:
    up = ops.CroppedConvTranspose2d(3, 12, 3, 2, crop=(0, 1, 0, 1))
    graph = graph_of(up, nn.ReLU(), nn.Conv2d(12, 8, 1))
    (site,) = sites(graph, PADDED)
    torch.testing.assert_close(run(named(PADDED).apply(graph, site)), run(graph), atol=1e-5, rtol=1e-5)


def test_the_smallest_filters_go() -> None:
    first, last = nn.Conv2d(3, 10, 3), nn.Conv2d(10, 8, 1)
    graph = graph_of(first, nn.PReLU(10), last)
    with torch.no_grad():
        first.weight[2].mul_(1e-6)
        first.weight[7].mul_(1e-6)
        first.bias[[2, 7]] = 0.0  # type: ignore[index]
    (site,) = sites(graph, CUT)
    assert site.variant == "10 to 8 channels"
    cut = named(CUT).apply(graph, site)
    # What is left out was next to nothing, so the result stays: the right channels went, and their slopes with them.
    torch.testing.assert_close(run(cut), run(graph), atol=1e-4, rtol=1e-4)
    assert sum(each.numel() for each in cut.module.parameters()) == 3 * 9 * 8 + 8 + 8 + 8 * 8 + 8


@pytest.mark.parametrize("technique", [PADDED, CUT])
@pytest.mark.parametrize(
    ("layers", "reason"),
    [
        ([nn.Conv2d(3, 12, 1), nn.Conv2d(12, 12, 3, groups=4), nn.Conv2d(12, 8, 1)], "kind Conv2d"),
        ([nn.Conv2d(3, 12, 1), nn.Softmax(1), nn.Conv2d(12, 8, 1)], "kind Softmax"),
        ([nn.Conv2d(3, 12, 1), nn.ReLU()], "kind output"),
    ],
)
def test_what_would_have_to_change_with_it_is_refused(technique: str, layers: list[nn.Module], reason: str) -> None:
    graph = graph_of(*layers)
    found = named(technique).find(graph)
    assert not any(site.layers[0] == "layer_0" for site in found.sites)
    assert any(refusal.layer == "layer_0" and reason in refusal.reason for refusal in found.refusals)


class Shared(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inside, self.outside = nn.Conv2d(8, 12, 1), nn.Conv2d(12, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.outside(self.inside(self.outside(self.inside(x))))


@pytest.mark.parametrize("technique", [PADDED, CUT])
def test_shared_weights_are_refused(technique: str) -> None:
    graph = edit.trace(Shared().eval(), (1, 8, 16, 20), "net")
    found = named(technique).find(graph)
    assert found.sites == ()
    assert all("shared" in refusal.reason for refusal in found.refusals)

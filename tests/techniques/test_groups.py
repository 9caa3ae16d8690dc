"""Zeros between the groups of a convolution change nothing but the number of groups."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch import nn

from slimseg.errors import Unsupported
from slimseg.graph import edit
from slimseg.graph.graph import Graph
from slimseg.techniques import named
from slimseg.techniques.groups import in_groups

NAME = "fewer groups"


def graph_of(*layers: nn.Module, channels: int = 24) -> Graph:
    torch.manual_seed(0)
    return edit.trace(nn.Sequential(*layers).eval(), (1, channels, 12, 16), "net")


@settings(max_examples=30, deadline=None)
@given(
    st.sampled_from([1, 2, 3, 4]), st.sampled_from([1, 2, 3, 6]), st.integers(1, 3), st.integers(1, 3), st.booleans()
)
def test_equal_in_any_divisor(groups: int, together: int, inputs: int, outputs: int, bias: bool) -> None:
    torch.manual_seed(0)
    count = groups * together
    layer = nn.Conv2d(count * inputs, count * outputs, 3, 2, 1, groups=count, bias=bias)
    x = torch.randn(2, count * inputs, 7, 9)
    wide = in_groups(layer, groups)
    torch.testing.assert_close(wide(x), layer(x), atol=1e-5, rtol=1e-4)
    assert wide.groups == groups


@pytest.mark.parametrize(
    ("layer", "variants"),
    [
        (nn.Conv2d(24, 48, 3, padding=1, groups=4), ["2 groups", "1 group"]),
        (nn.Conv2d(24, 24, 3, padding=1, groups=3), ["1 group"]),
        (nn.Conv2d(24, 24, 3, padding=1, groups=12), ["6 groups", "3 groups"]),
        (nn.Conv2d(24, 24, 3, padding=1, groups=24), []),
        (nn.Conv2d(24, 24, 3, padding=1), []),
    ],
)
def test_variants(layer: nn.Conv2d, variants: list[str]) -> None:
    graph = graph_of(layer, nn.ReLU())
    found = named(NAME).find(graph)
    assert [site.variant for site in found.sites] == variants
    for site in found.sites:
        torch.testing.assert_close(named(NAME).apply(graph, site)(x := torch.randn(1, 24, 12, 16)), graph(x))


def test_a_depthwise_convolution_of_few_channels_may_be_one_group() -> None:
    graph = graph_of(nn.Conv2d(8, 8, 3, padding=1, groups=8), channels=8)
    (site,) = named(NAME).find(graph).sites
    edited = named(NAME).apply(graph, site)
    x = torch.randn(1, 8, 12, 16)
    torch.testing.assert_close(edited(x), graph(x))
    with pytest.raises(Unsupported):
        named(NAME).apply(edited, site)


def test_shared_weights_are_refused() -> None:
    layer = nn.Conv2d(24, 24, 3, padding=1, groups=2)
    found = named(NAME).find(graph_of(layer, nn.ReLU(), layer))
    assert found.sites == ()
    assert "shared" in found.refusals[0].reason

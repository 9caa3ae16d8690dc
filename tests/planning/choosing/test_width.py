"""Widths against the cost model that they are chosen by, worked out here from the widths alone."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from slimseg.graph import edit
from slimseg.graph.channel_groups import channel_groups, without
from slimseg.graph.graph import Graph
from slimseg.planning.choosing.width import LEAST_SHARE, STEP, widths

SHAPE = (1, 3, 8, 8)
CHANNELS = (20, 64, 40)


def net() -> Graph:
    torch.manual_seed(0)
    a, b, c = CHANNELS
    layers = [
        nn.Conv2d(3, a, 3, padding=1), nn.BatchNorm2d(a), nn.ReLU(), nn.Conv2d(a, b, 3, padding=1), nn.ReLU(),
        nn.Conv2d(b, b, 3, padding=1, groups=b), nn.Conv2d(b, c, 1), nn.ReLU(), nn.Conv2d(c, 2, 1),
    ]  # fmt: skip
    return edit.trace(nn.Sequential(*layers).eval(), SHAPE)


NET = net()
GROUPS = channel_groups(NET)
MS = {"layer_0": 1.0, "layer_3": 4.0, "layer_5": 1.0, "layer_6": 2.0, "layer_8": 0.5, "layer_2": 7.0}
PARAMS = sum(parameter.numel() for parameter in NET.module.parameters())


def with_importance(*scales: float) -> Graph:
    graph = NET.copy()
    graph.importance = {
        group.root: torch.linspace(0.1, 1, group.channels) * scale for group, scale in zip(GROUPS, scales, strict=True)
    }
    return graph


def cost_ms(kept: Mapping[str, int]) -> float:
    a, b, c = (kept.get(group.root, group.channels) / group.channels for group in GROUPS)
    return MS["layer_0"] * a + MS["layer_3"] * a * b + MS["layer_5"] * b + MS["layer_6"] * b * c + MS["layer_8"] * c


def params(kept: Mapping[str, int]) -> int:
    graph = NET
    for root, count in kept.items():
        group = next(each for each in channel_groups(graph) if each.root == root)
        graph = without(graph, group, range(group.channels - count))
    return sum(parameter.numel() for parameter in graph.module.parameters())


needs = st.floats(0, 6.5)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(needs, st.floats(0, 0.8), st.lists(st.floats(0.01, 100), min_size=3, max_size=3))
def test_targets_are_met_in_whole_steps(need_ms: float, need_share: float, scales: list[float]) -> None:
    need_params = int(need_share * PARAMS)
    kept = widths(with_importance(*scales), GROUPS, MS, need_ms, need_params)
    assert cost_ms({}) - cost_ms(kept) >= need_ms - 1e-6
    # A filter's bias does not shrink with its inputs, which the model leaves out of account.
    assert PARAMS - params(kept) >= 0.97 * need_params
    for group in GROUPS:
        if group.root in kept:
            assert kept[group.root] % STEP == 0
            assert max(STEP, group.channels * LEAST_SHARE) <= kept[group.root] < group.channels


@settings(max_examples=30, deadline=None, derandomize=True)
@given(needs, needs)
def test_who_needs_more_gives_more(one: float, other: float) -> None:
    graph = with_importance(1, 2, 3)
    few, many = (widths(graph, GROUPS, MS, need, 0) for need in sorted((one, other)))
    assert all(many.get(group.root, group.channels) <= few.get(group.root, group.channels) for group in GROUPS)


def test_nothing_leaves_where_nothing_is_needed() -> None:
    assert widths(NET, GROUPS, MS, 0.0, 0) == {}
    assert widths(NET, GROUPS, MS, -3.0, -10) == {}
    assert widths(NET, [], MS, 5.0, 10) == {}


def test_what_cannot_be_reached_ends_at_the_least() -> None:
    least = {"layer_0": 8, "layer_3": 8, "layer_6": 8}
    assert widths(NET, GROUPS, MS, 1e6, 0) == least
    assert widths(NET, GROUPS, MS, 1e6, 10**9) == least
    assert widths(NET, GROUPS, {}, 0.0, 10**9) == least


def test_layers_without_a_time_save_none() -> None:
    assert widths(NET, GROUPS, {}, 1.0, 0) == {}
    assert set(widths(NET, GROUPS, {"layer_8": 1.0}, 0.3, 0)) == {"layer_6"}


@pytest.mark.parametrize(("need_ms", "need_params"), [(3.0, 0), (0.0, PARAMS // 2)])
def test_the_more_important_keep_more(need_ms: float, need_params: int) -> None:
    cheap = widths(with_importance(1, 0.001, 1), GROUPS, MS, need_ms, need_params)
    dear = widths(with_importance(1, 1000, 1), GROUPS, MS, need_ms, need_params)
    assert cheap["layer_3"] < dear.get("layer_3", 64)


def test_the_first_step_brings_a_width_to_a_multiple_of_8() -> None:
    kept = widths(with_importance(0.001, 1, 1), GROUPS, MS, 0.01, 0)
    assert kept == {"layer_0": 16}

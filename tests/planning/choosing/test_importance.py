"""What each channel is said to matter, against what happens without it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from slimseg.graph import edit, ops
from slimseg.graph.channel_groups import channel_groups, group_importance, without
from slimseg.graph.graph import Graph
from slimseg.planning.choosing.importance import measured


@pytest.fixture(scope="module")
def batches(shapes: Path) -> list[Tensor]:
    """Four of two images, preprocessed as the network has it."""
    images = [np.asarray(Image.open(path)) for path in sorted((shapes / "train" / "images").iterdir())[:8]]
    return list(torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float().sub(127).div(128).split(2))


def distance(first: Graph, second: Graph, batches: list[Tensor]) -> float:
    """How far what two networks say is apart."""
    with torch.no_grad():
        pairs = [(first(images).softmax(1), second(images).softmax(1)) for images in batches]
        return sum(float((one - other).abs().mean()) for one, other in pairs)


def rank_correlation(first: list[float], second: np.ndarray) -> float:
    """Spearman's, of values that all differ: +1 for the same order, -1 for the reverse."""
    ranks = [np.argsort(np.argsort(values)) for values in (first, second)]
    return float(np.corrcoef(*ranks)[0, 1])


def test_all_channels_of_all_convolutions_have_one(shapes_graph: Graph, batches: list[Tensor]) -> None:
    found = measured(shapes_graph, batches)
    kinds = (nn.Conv2d, nn.ConvTranspose2d)
    convolutions = [node for node in shapes_graph.layers() if isinstance(shapes_graph.layer(node), kinds)]
    assert {name: tuple(values.shape) for name, values in found.items()} == {
        node.name: (shapes_graph.shape(node)[1],) for node in convolutions
    }
    for values in found.values():
        assert values.min() >= 0
        assert values.max() > 0
        assert not values.requires_grad


def test_the_least_important_are_those_that_are_missed_least(shapes_graph: Graph, batches: list[Tensor]) -> None:
    graph = shapes_graph.copy()
    graph.importance = measured(graph, batches)
    ranks = []
    for group in channel_groups(graph)[1:]:
        missed = [distance(graph, without(graph, group, [channel]), batches[:2]) for channel in range(group.channels)]
        ranks.append(rank_correlation(missed, group_importance(graph, group).numpy()))
    assert min(ranks) > 0.2
    assert sum(ranks) / len(ranks) > 0.5


def test_a_channel_that_does_nothing_does_not_matter(shapes_graph: Graph, batches: list[Tensor]) -> None:
    graph = shapes_graph.copy()
    group = channel_groups(graph)[0]
    for name, positions in group.inputs.items():
        layer = graph.layer(graph.node(name))
        assert isinstance(layer, nn.Conv2d)
        layer.weight.data[:, [positions[3], positions[9]]] = 0
    importance = measured(graph, batches)[group.root]
    assert importance[[3, 9]].tolist() == [0, 0]
    assert (importance > 0).sum() > 8


def test_the_graph_is_left_as_it_was(shapes_graph: Graph, batches: list[Tensor]) -> None:
    graph = shapes_graph.copy()
    graph.module.requires_grad_(False)
    before = {name: value.clone() for name, value in graph.module.state_dict().items()}
    measured(graph, batches[:1])
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in graph.module.parameters())
    assert not graph.module.training
    for name, value in graph.module.state_dict().items():
        torch.testing.assert_close(value, before[name], atol=0, rtol=0)


def test_batches_are_added_up(shapes_graph: Graph, batches: list[Tensor]) -> None:
    apart = [measured(shapes_graph, [images]) for images in batches[:2]]
    for name, values in measured(shapes_graph, batches[:2]).items():
        torch.testing.assert_close(values, apart[0][name] + apart[1][name], rtol=1e-3, atol=1e-9)
    assert measured(shapes_graph, []) == {}


@pytest.mark.parametrize("ends", [ops.ArgMax(), nn.Softmax(1)])
def test_a_network_that_has_decided_is_asked_for_its_logits(
    shapes_graph: Graph, batches: list[Tensor], ends: nn.Module
) -> None:
    decided = edit.append(shapes_graph, ends, "end")
    expected = measured(shapes_graph, batches[:1])
    for name, values in measured(decided, batches[:1]).items():
        torch.testing.assert_close(values, expected[name])


def test_a_depthwise_transposed_convolution_has_one_for_each_channel() -> None:
    layers = nn.Conv2d(3, 6, 1), nn.ConvTranspose2d(6, 6, 2, 2, groups=6), nn.Conv2d(6, 2, 1)
    graph = edit.trace(nn.Sequential(*layers).eval(), (1, 3, 8, 8))
    graph.importance = measured(graph, [torch.randn(2, 3, 8, 8)])
    assert [len(values) for values in graph.importance.values()] == [6, 6, 2]
    assert len(group_importance(graph, channel_groups(graph)[0])) == 6

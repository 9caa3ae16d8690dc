"""What the end of a network says of its output."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from slimseg.graph import edit, ops
from slimseg.graph.output import as_map, class_count, giving_map, map_node, map_size, output_kind


@pytest.mark.parametrize(
    ("end", "kind"),
    [
        ((nn.Conv2d(3, 2, 1),), "logits"),
        ((nn.Conv2d(3, 2, 1), nn.Softmax(1), ops.Slice(1, 1, 2)), "probabilities"),
        ((nn.Conv2d(3, 1, 1), nn.Sigmoid(), ops.Resize((16, 16)), ops.Reshape((1, 256))), "probabilities"),
        ((nn.Conv2d(3, 4, 1), ops.ArgMax()), "mask"),
        ((nn.Conv2d(3, 4, 1), ops.ArgMax(), ops.Cast("float32")), "mask"),
        ((nn.ReLU(),), "logits"),
    ],
)
def test_output_kind(end, kind):
    assert output_kind(edit.trace(nn.Sequential(*end), (1, 3, 8, 8))) == kind


def test_map_node_is_what_is_flattened():
    graph = edit.trace(nn.Sequential(nn.Conv2d(3, 1, 1), nn.Sigmoid(), ops.Reshape((1, 64))), (1, 3, 8, 8))
    assert graph.shape(map_node(graph)) == (1, 1, 8, 8)
    plain = edit.trace(nn.Sequential(nn.Conv2d(3, 2, 1), ops.ArgMax()), (1, 3, 8, 8))
    assert map_node(plain) is plain.output


def test_flattened_maps_are_maps_again():
    graph = edit.trace(nn.Sequential(nn.Conv2d(3, 2, 1), ops.Reshape((1, 40, 2))), (1, 3, 5, 8))
    image = torch.randn(3, 3, 5, 8)
    torch.testing.assert_close(as_map(graph, graph(image)), graph.module.get_submodule("layer_0")(image))
    assert map_size(graph) == (5, 8)
    assert class_count(graph) == 2


def test_maps_that_are_flattened_in_two_steps():
    ends = ops.Transpose((0, 2, 3, 1)), ops.Reshape((1, 40, 2), channels_last=False)
    graph = edit.trace(nn.Sequential(nn.Conv2d(3, 2, 1), *ends), (1, 3, 5, 8))
    image = torch.randn(3, 3, 5, 8)
    assert graph.shape(map_node(graph)) == (1, 2, 5, 8)
    torch.testing.assert_close(as_map(graph, graph(image)), graph.module.get_submodule("layer_0")(image))


@pytest.mark.parametrize(
    "ends",
    [(ops.Reshape((1, 40, 2)),), (ops.Transpose((0, 2, 3, 1)), ops.Reshape((1, 40, 2), channels_last=False))],
)
def test_giving_the_map_itself(ends):
    graph = edit.trace(nn.Sequential(nn.Conv2d(3, 2, 1), *ends), (1, 3, 5, 8))
    given = giving_map(graph)
    image = torch.randn(1, 3, 5, 8)
    torch.testing.assert_close(given(image), as_map(graph, graph(image)))
    assert len(list(given.layers())) == 1
    assert giving_map(given) is given

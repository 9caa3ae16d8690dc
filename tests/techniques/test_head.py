"""Other outputs for networks that flatten theirs: channels are told apart by the map."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from slimseg.errors import Unsupported
from slimseg.graph import edit, ops
from slimseg.graph.description import Description
from slimseg.graph.graph import Graph
from slimseg.graph.output import output_kind
from slimseg.techniques.head import REDUCED, RESIZE_LATE, Head, with_output

SIZE = (6, 8)
FLATTENINGS = {
    "in one step": (ops.Reshape((1, 48, 3)),),
    "in two": (ops.Transpose((0, 2, 3, 1)), ops.Reshape((1, 48, 3), channels_last=False)),
}


def network(*end: nn.Module, classes: int = 3) -> Graph:
    graph = edit.trace(nn.Sequential(nn.Conv2d(3, classes, 1), *end).eval(), (1, 3, *SIZE))
    graph.description = Description(output_kind=output_kind(graph))
    return graph


@pytest.mark.parametrize("steps", FLATTENINGS)
def test_a_flattened_map_of_classes(steps):
    graph = network(nn.Softmax(1), *FLATTENINGS[steps])
    image = torch.randn(1, 3, *SIZE)
    mask, logits = with_output(graph, "mask"), with_output(graph, "logits")
    with torch.no_grad():
        scores = graph(image).reshape(1, *SIZE, 3)
        assert torch.equal(mask(image), scores.argmax(-1).to(mask(image).dtype))
        torch.testing.assert_close(logits(image).softmax(1).permute(0, 2, 3, 1), scores)


def test_one_flattened_channel_is_no_mask():
    graph = network(nn.Sigmoid(), ops.Reshape((1, 48)), classes=1)
    with pytest.raises(Unsupported, match="one output channel"):
        with_output(graph, "mask")
    logits = with_output(graph, "logits")
    assert logits.shape(logits.output) == (1, 1, *SIZE)
    assert with_output(graph, "probabilities") is graph


def test_the_reduced_size_stands_on_the_late_resize():
    """Without that edit the last layer of this name is the classifier, which must not go."""
    layers = (nn.Conv2d(3, 16, 1), ops.Resize((12, 16), "bilinear"), nn.Conv2d(16, 3, 1))
    graph = edit.trace(nn.Sequential(*layers).eval(), (1, 3, *SIZE))
    head = Head()
    (late,) = [site for site in head.find(graph).sites if site.settings == RESIZE_LATE]
    moved = head.apply(graph, late)
    (reduced,) = [site for site in head.find(moved).sites if site.settings == REDUCED]
    result = head.apply(moved, reduced)
    assert result.shape(result.output) == (1, 3, *SIZE)
    with pytest.raises(Unsupported, match="not the last layer of"):
        head.apply(graph, reduced)

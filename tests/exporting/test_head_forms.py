"""The forms of a network's output: which there are, and that all of them say the same."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from slimseg.exporting.head_forms import AS_IS, forms
from slimseg.graph import edit, ops
from slimseg.graph.description import Description
from slimseg.graph.graph import Graph
from slimseg.graph.output import map_size, output_kind
from slimseg.runtimes import host

SIZE = (16, 24)


def network(*end: nn.Module, classes: int = 4) -> Graph:
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, classes, 1), *end)
    graph = edit.trace(layers.eval(), (1, 3, *SIZE))
    graph.description = Description(output_kind=output_kind(graph))
    return graph


def mask(graph: Graph, image: torch.Tensor) -> np.ndarray:
    with torch.no_grad():
        output = graph(image)
    value = output.permute(0, 2, 3, 1) if output.ndim == 4 else output
    return host.to_mask(host.in_rows(value.numpy()[0], SIZE, "network"), SIZE, graph.description.output_kind)


@pytest.mark.parametrize(
    ("graph", "wanted"),
    [
        (
            network(ops.Resize(SIZE)),
            ["as it is (logits at 16x24)", "logits at 8x12", "probabilities at 8x12", "mask at 8x12",
             "probabilities at 16x24", "mask at 16x24"],
        ),
        (
            network(nn.Softmax(1), ops.ArgMax()),
            ["as it is (mask at 8x12)", "logits at 8x12", "probabilities at 8x12",
             "logits at 16x24", "probabilities at 16x24", "mask at 16x24"],
        ),
        (  # the classifier behind the resize
            network(ops.Resize(SIZE), nn.Conv2d(4, 3, 1)),
            ["as it is (logits at 16x24)", "logits at 8x12", "probabilities at 8x12", "mask at 8x12",
             "probabilities at 16x24", "mask at 16x24"],
        ),
        (  # softmax before the resize: no logits to be had
            network(nn.Softmax(1), ops.Resize(SIZE)),
            ["as it is (probabilities at 16x24)", "probabilities at 8x12", "logits at 8x12", "mask at 8x12",
             "mask at 16x24"],
        ),
    ],
)  # fmt: skip
def test_every_form_of_a_network(graph, wanted):
    found, _ = forms(graph)
    assert next(iter(found)) == wanted[0]
    assert found[wanted[0]] is graph
    assert set(found) <= set(wanted)
    for name, form in found.items():
        kind, _, size = name.removeprefix(f"{AS_IS} (").removesuffix(")").split(" ")
        assert (form.description.output_kind, f"{map_size(form)[0]}x{map_size(form)[1]}") == (kind, size)


def test_masks_are_the_same():
    """At the network's own size nothing but the order of softmax and resize may change a pixel."""
    graph = network(ops.Resize(SIZE))
    image = torch.randn(1, 3, *SIZE, generator=torch.Generator().manual_seed(1))
    found, refused = forms(graph)
    expected = mask(graph, image)
    assert not refused
    for name in ("logits at 8x12", "probabilities at 16x24", "mask at 16x24"):
        assert np.array_equal(mask(found[name], image), expected), name
    assert np.mean(mask(found["mask at 8x12"], image) == expected) < 1


@pytest.mark.parametrize("end", [(nn.Sigmoid(),), (nn.Softmax(1), ops.Slice(1, 1, 2))])
@pytest.mark.parametrize("flat", [True, False])
def test_one_channel(end, flat):
    """The logit comes out of the sigmoid, or of the difference of two classes; flattened or not."""
    shape = (ops.Reshape((1, 8 * 12)),) if flat else ()
    graph = network(*end, *shape, classes=len(end))
    found, refused = forms(graph)
    image = torch.randn(1, 3, *SIZE, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        logits, probabilities = found["logits at 8x12"](image), graph(image)
    assert logits.shape == (1, 1, 8, 12)
    torch.testing.assert_close(torch.sigmoid(logits).flatten(), probabilities.flatten(), atol=1e-6, rtol=1e-5)
    assert "one output channel" in refused["mask"]
    assert not any(name.startswith("mask") for name in found)

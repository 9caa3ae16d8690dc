"""Small networks: built, saved, opened again, deployed as int8 without leaving XNNPACK, and refused in one sentence."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import slimseg
from slimseg import models
from slimseg.errors import ModelError
from slimseg.graph import costs, edit
from slimseg.graph.graph import Graph
from slimseg.runtimes.litert.quantising import quantizer
from slimseg.runtimes.litert.writing import writer

pytestmark = pytest.mark.usefixtures("hurried")

BLOCKS = get_args(models.Block)
each_block = pytest.mark.parametrize("block", BLOCKS)


def macs(graph: Graph) -> int:
    return costs.total(graph).macs


@each_block
@pytest.mark.parametrize("stride", [16, 32])
def test_shapes_and_channels(block, stride):
    graph = models.build(["road", "car", "tree"], (64, 96), block, 0.5, stride, mean=127, std=128)
    assert graph.shape(graph.output) == (1, 3, 64, 96)
    assert graph.description.classes == ("road", "car", "tree")
    assert graph.description.output_kind == "logits"
    assert graph.description.preprocessing.mean == (127, 127, 127)
    smallest = min(graph.shape(node)[2] for node in graph.layers())
    assert smallest == 64 // stride
    convolved = [graph.shape(node)[1] for node in graph.layers() if graph.layer_as(node, nn.Conv2d)]
    assert all(channels % 8 == 0 for channels in convolved[:-1])


@each_block
def test_saved_and_opened_again(block, tmp_path):
    torch.manual_seed(0)
    graph = models.build(["a", "b"], (64, 64), block, 0.5, std=64)
    graph.save(tmp_path / "model.pt2")
    again = slimseg.load(tmp_path / "model.pt2")
    x = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(again(x), graph(x))
    assert again.description == graph.description
    assert not again.opaque()


@each_block
def test_int8_stays_on_xnnpack(block, tmp_path):
    torch.manual_seed(0)
    graph = models.build(5, (96, 96), block)
    plain, int8 = tmp_path / "model.tflite", tmp_path / "int8.tflite"
    writer.write(graph, plain)
    sample = np.random.default_rng(0).standard_normal((1, 96, 96, 3)).astype(np.float32)
    quantizer.quantize_int8(plain, int8, [sample])
    profile = slimseg.profile(int8, runs=5)
    assert (profile.fallbacks, profile.islands, profile.delegate_parts) == ((), (), 1)
    assert {layer.delegate for layer in profile.layers} <= {"XNNPACK", ""}


def test_width_scales_the_cost():
    costs_by_width = [macs(models.build(5, (64, 64), width=width)) for width in (0.5, 1, 2)]
    assert costs_by_width[0] < 0.45 * costs_by_width[1] < 0.45**2 * costs_by_width[2]


def test_another_input_size():
    graph = models.build(4, (64, 96), "shuffle")
    assert edit.at_input_size(graph, (128, 160)).shape(graph.output)[:2] == (1, 4)


@each_block
def test_it_learns(block):
    """Left or right, by the brighter half: a handful of steps on one batch."""
    torch.manual_seed(0)
    network = models.build(2, (32, 32), block, 0.5).module.train()
    images, masks = torch.randn(4, 3, 32, 32), torch.zeros(4, 32, 32, dtype=torch.long)
    masks[:, :, 16:] = 1
    images[:, :, :, 16:] += 1
    optimiser = torch.optim.Adam(network.parameters(), 3e-3)
    losses = []
    for _ in range(15):
        loss = F.cross_entropy(network(images), masks)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"classes": 1}, "1 classes"),
        ({"classes": ["only"]}, "1 classes"),
        ({"input_size": (100, 96)}, "multiples of 16"),
        ({"input_size": (0, 0)}, "multiples of 16"),
        ({"input_size": (48, 48), "stride": 32}, "multiples of 32"),
        ({"block": "transformer"}, "block 'transformer' is unknown: give one of inverted residual, residual, shuffle"),
        ({"width": 0}, "width 0"),
        ({"width": float("nan")}, "width nan"),
        ({"stride": 8}, "stride 8"),
        ({"std": 0}, "std"),
    ],
)
def test_bad_arguments_are_refused_in_one_sentence(arguments, message):
    with pytest.raises(ModelError, match=message) as raised:
        models.build(**{"classes": 3, "input_size": (64, 64)} | arguments)
    assert "\n" not in str(raised.value)


def test_it_is_public():
    assert slimseg.models is models

"""A network runs once where it is opened: what cannot run, or asks for absurd amounts, is refused in one sentence."""

from __future__ import annotations

import re

import pytest
import torch
from torch import Tensor, fx, nn

import slimseg
from slimseg.errors import ModelError
from slimseg.frontends import trial_run
from slimseg.frontends.trial_run import run_once
from slimseg.graph import ops
from slimseg.graph.graph import Graph


def chain(layers: dict[str, nn.Module], size: tuple[int, int] = (16, 16)) -> Graph:
    """Layers one after another, by name."""
    root, graph = nn.Module(), fx.Graph()
    value = graph.placeholder("image")
    for name, layer in layers.items():
        root.add_module(name, layer)
        value = graph.create_node("call_module", name, (value,), name=name)
    graph.output(value)
    return Graph(fx.GraphModule(root, graph), (1, 3, *size))


def refused(graph: Graph) -> str:
    with pytest.raises(ModelError) as caught:
        run_once(graph, "network.tflite")
    message = str(caught.value)
    assert "\n" not in message
    assert "network.tflite" in message
    return message


def test_a_network_that_runs_and_keeps_its_state():
    graph = chain({"conv": nn.Conv2d(3, 4, 3), "norm": nn.BatchNorm2d(4)})
    before = {name: value.clone() for name, value in graph.module.state_dict().items()}
    run_once(graph, "network.tflite")
    torch.testing.assert_close(graph.module.state_dict(), before)


def test_a_bias_of_the_wrong_length_names_the_layer():
    conv = nn.Conv2d(3, 4, 3)
    conv.bias = nn.Parameter(torch.zeros(5))
    assert "at second" in refused(chain({"first": nn.ReLU(), "second": conv}))


def test_a_value_whose_name_means_something_else():
    graph = chain({"relu": nn.ReLU(), "conv": nn.Conv2d(3, 4, 1)})
    graph.node("relu").name = "self"
    graph.module.recompile()
    assert "cannot run" in refused(graph)


def test_load_runs_the_network():
    class Late(nn.Module):
        """Can be traced, but not run without what it is given while it is traced."""

        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return torch.gather(self.conv(x), 1, torch.full((1, 1, 4, 4), 9))

    with pytest.raises(ModelError, match="late opens but cannot run"):
        slimseg.load(Late(), (8, 8), name="late")


@pytest.mark.parametrize(
    ("layer", "said"),
    [
        (ops.Resize((30000, 30000), "nearest"), "10.8 GB of memory for one image at the layer big"),
        (nn.MaxPool2d(3001, 1, 1500), "operations for one image (big)"),
        # What it crops again counts, too: it is made before.
        (
            ops.CroppedConvTranspose2d(3, 3, 2, (1, 8192), crop=(0, 1023 * 8192 - 1022, 0, 0)),
            "103.1 GB of memory for one image",
        ),
    ],
)
def test_absurd_amounts_are_told_before_anything_runs(layer, said):
    assert said in refused(chain({"relu": nn.ReLU(), "big": layer}, (1024, 1024)))


def test_memory_is_in_proportion_to_the_input_and_the_weights():
    """A file of 2 kB and an image of 32x48 pixels, of which one side is padded by 90,000."""
    layers = {"padded": ops.Pad((1, 1, 1, 90_000)), "up": nn.ConvTranspose2d(3, 8, 2, 2)}
    assert "GB of memory for an image of 32x48 pixels at the layer up: it is damaged" in refused(
        chain(layers, (32, 48))
    )
    heavy = {"wide": nn.Conv2d(3, 8, 1), "up": nn.ConvTranspose2d(8, 8, 2, 2)}
    run_once(chain(heavy, (1024, 2048)), "network.tflite")  # as much, of an image that explains it


def test_values_that_are_alive_together_count_together():
    root, graph = nn.Module(), fx.Graph()
    root.add_module("enlarge", ops.Resize((4096, 4096), "nearest"))
    image = graph.placeholder("image")
    values = [graph.create_node("call_module", "enlarge", (image,), name=f"enlarged_{number}") for number in range(30)]
    root.add_module("join", ops.Concat(1))
    joined = graph.create_node("call_module", "join", tuple(values), name="join")
    root.add_module("first", ops.Slice(1, 0, 1))
    graph.output(graph.create_node("call_module", "first", (joined,), name="first"))
    said = refused(Graph(fx.GraphModule(root, graph), (1, 3, 2048, 2048)))
    assert re.search(r"at the layer enlarged_2\d:", said)


def test_a_large_network_is_run_on_shapes_only(monkeypatch):
    monkeypatch.setattr(trial_run, "_random_image", lambda graph: pytest.fail("it made values"))
    run_once(chain({"relu": nn.ReLU(), "large": ops.Resize((8192, 8192), "nearest")}, (1024, 1024)), "network.tflite")


def test_a_pooling_takes_longer_than_its_reads_as_multiply_accumulates(monkeypatch):
    """A minute for each image, on one core."""
    monkeypatch.setattr(trial_run, "_random_image", lambda graph: pytest.fail("it made values"))
    run_once(chain({"relu": nn.ReLU(), "pool": nn.MaxPool2d(201, 1)}, (900, 900)), "network.tflite")

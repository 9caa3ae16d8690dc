"""`load` compares what it opened with the source's own runtime, and refuses a float network that differs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from onnx_files import node, weights, write
from torch import nn

import slimseg
from slimseg.errors import ModelError
from slimseg.frontends import source_check, trial_run

DATA = Path(__file__).resolve().parents[1] / "data"


def attach(graph, source):
    source_check.attach(graph, source, trial_run.run_once(graph, "model"))


def spoilt(graph):
    """As a reader that forgot a layer's weights would have it."""
    with torch.no_grad():
        next(graph.module.parameters()).mul_(1.5)
    return graph


@pytest.fixture(params=["tflite", "onnx", "pt2", "module"])
def source(request, tmp_path):
    if request.param == "tflite":
        return DATA / "gated_float.tflite", None
    if request.param == "onnx":
        nodes = [node("Conv", "x w", "h"), node("Relu", "h")]
        return write(tmp_path / "m.onnx", nodes, {"w": weights(5, 3, 1, 1)}, (1, 3, 24, 32)), None
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    if request.param == "pt2":
        torch.export.save(torch.export.export(module.eval(), (torch.zeros(1, 3, 24, 32),)), tmp_path / "m.pt2")
        return tmp_path / "m.pt2", None
    return module, (24, 32)


def test_a_float_network_is_as_its_runtime_has_it(source):
    graph = slimseg.load(*source)
    checked = graph.source_check
    assert checked.runtime in ("LiteRT", "onnxruntime", "PyTorch")
    assert checked.relative_difference < 1e-4
    assert not checked.differing_percent
    assert graph.copy().source_check == checked
    with pytest.raises(ModelError, match=f"its outputs differ from those of {checked.runtime}"):
        attach(spoilt(graph), source[0])


def test_images_are_compared_too(source):
    graph = slimseg.load(*source)
    images = [np.full((40, 40, 3), value, np.uint8) for value in (0, 90, 255)]
    checked = source_check.on_images(graph, images)
    assert (checked.images, checked.differing_percent) == (3, 0)
    assert f"outputs equal {checked.runtime}'s on 3 images within" in str(checked)
    with pytest.raises(ModelError, match="its outputs differ from those of"):
        source_check.on_images(spoilt(graph), images)


def test_a_quantised_file_may_differ_and_says_how_much():
    checked = slimseg.load(DATA / "squeeze_int8.tflite").source_check
    assert checked.differing_percent > 0
    assert "have another class" in str(checked)


def test_a_function_of_the_users_is_compared_with_its_module(tmp_path):
    (tmp_path / "net.py").write_text("from torch import nn\ndef make(): return nn.Conv2d(3, 4, 3)\n")
    checked = slimseg.load(f"{tmp_path / 'net.py'}:make", (24, 32)).source_check
    assert (checked.runtime, checked.differing_percent) == ("PyTorch", 0)


def test_nothing_is_compared_where_nobody_wants_it():
    graph = slimseg.load(DATA / "gated_float.tflite", verify=False)
    assert not graph.source_check.runtime
    assert graph.own_runtime is None


def test_what_cannot_be_compared_is_said():
    checked = slimseg.load(DATA / "planar_float.tflite").source_check
    assert "the size or layout of the file's input or output differs" in str(checked)
    assert not checked.runtime


def test_an_edited_network_is_no_longer_its_file():
    graph = slimseg.load(DATA / "gated_float.tflite")
    assert graph.source is not None
    graph.refresh()
    assert (graph.source, graph.own_runtime) == (None, None)
    assert "changed after it was opened" in str(graph.source_check)


class Redder(nn.Module):
    """A mask of the pixels with more red than green, where one in 256 has as much of both."""

    def __init__(self) -> None:
        super().__init__()
        self.score = nn.Conv2d(3, 1, 1)
        with torch.no_grad():
            self.score.weight.copy_(torch.tensor([1.0, -1.0, 0.0]).view(1, 3, 1, 1))
            self.score.bias.zero_()

    def forward(self, x):
        return torch.clamp(self.score(x) * 1e7, 0, 1)


def test_pixels_that_rounding_decides_are_no_mistake():
    module = Redder().eval()
    graph = slimseg.load(module, (64, 64)).copy()
    with torch.no_grad():
        module.score.bias.add_(2e-6)  # as much as the last bits of sums in another order
    attach(graph, module)
    assert graph.source_check.relative_difference == 1
    assert 0 < graph.source_check.differing_percent < 1
    with torch.no_grad():
        module.score.bias.add_(0.1)
    with pytest.raises(ModelError, match="its outputs differ from those of"):
        attach(graph, module)


def test_what_takes_too_much_memory_is_not_compared(monkeypatch):
    monkeypatch.setattr(source_check, "check", lambda *_: pytest.fail("it ran"))
    graph = slimseg.load(nn.Sequential(nn.Conv2d(3, 2, 1), nn.Upsample(scale_factor=18)), (512, 512))
    assert graph.source_check.reason == "it needs too much time or memory to run twice while it is opened"


class Noisy(nn.Module):
    """Dropout that was left on."""

    def __init__(self) -> None:
        super().__init__()
        self.score = nn.Conv2d(3, 2, 1)

    def forward(self, x):
        return self.score(x) + (torch.rand(1) if not torch.compiler.is_compiling() else 0.0)


def test_a_module_that_draws_numbers_is_not_compared():
    graph = slimseg.load(nn.Conv2d(3, 2, 1), (16, 16))
    attach(graph, Noisy().eval())
    assert graph.source_check.reason == "its outputs differ from run to run"


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_a_network_of_16_bits_is_compared_in_them(kind):
    graph = slimseg.load(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 2, 1)).to(kind).eval(), (24, 32))
    assert graph.source_check.runtime == "PyTorch"
    assert 1e-5 < graph.source_check.relative_difference < 0.05


def test_a_module_keeps_its_mode():
    module = nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2)).train()
    slimseg.load(module, (16, 16))
    assert module.training

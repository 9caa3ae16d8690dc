"""`load` compares what it opened with the source's own runtime, and refuses a float network that differs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from onnx_files import node, weights, write
from torch import nn

import slimseg
from slimseg.errors import ModelError
from slimseg.frontends import source_check

DATA = Path(__file__).resolve().parents[1] / "data"


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
    graph = slimseg.load(*source, verify=True)
    checked = graph.source_check
    assert checked.runtime in ("LiteRT", "onnxruntime", "PyTorch")
    assert checked.relative_difference < 1e-4
    assert not checked.differing_percent
    assert graph.copy().source_check == checked
    with pytest.raises(ModelError, match=f"other outputs than {checked.runtime}"):
        source_check.check(spoilt(graph), source[0])


def test_a_quantised_file_may_differ_and_says_how_much():
    checked = slimseg.load(DATA / "squeeze_int8.tflite", verify=True).source_check
    assert checked.differing_percent > 0
    assert "of another class" in str(checked)


def test_a_function_of_the_users_is_compared_with_its_module(tmp_path):
    (tmp_path / "net.py").write_text("from torch import nn\ndef make(): return nn.Conv2d(3, 4, 3)\n")
    checked = slimseg.load(f"{tmp_path / 'net.py'}:make", (24, 32), verify=True).source_check
    assert (checked.runtime, checked.differing_percent) == ("PyTorch", 0)


def test_nothing_is_compared_unless_asked():
    assert not slimseg.load(DATA / "gated_float.tflite").source_check.runtime


def test_what_cannot_be_compared_is_said():
    checked = slimseg.load(DATA / "planar_float.tflite", verify=True).source_check
    assert "laid out otherwise" in str(checked)
    assert not checked.runtime

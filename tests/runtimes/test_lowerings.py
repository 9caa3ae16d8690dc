"""Every runtime can say every class of the vocabulary, or says why it cannot."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

from slimseg.errors import Unsupported
from slimseg.graph import edit, ops
from slimseg.graph.fold import FOLDED, fold_scales
from slimseg.graph.vocabulary import OPERATORS
from slimseg.graph.written_out import WRITTEN_OUT
from slimseg.runtimes.coreml import lowering as coreml
from slimseg.runtimes.coreml import package
from slimseg.runtimes.coreml import writer as coreml_writer
from slimseg.runtimes.litert.writing import lowering as litert
from slimseg.runtimes.litert.writing import writer as litert_writer
from slimseg.runtimes.lowering import without_lowering
from slimseg.runtimes.ncnn import lowering as ncnn
from slimseg.runtimes.ncnn import writer as ncnn_writer
from slimseg.runtimes.onnxruntime import lowering as onnx
from slimseg.runtimes.onnxruntime import writer as onnx_writer

RUNTIMES = pytest.mark.parametrize("lowering", [litert, ncnn, coreml, onnx], ids=["litert", "ncnn", "coreml", "onnx"])


@RUNTIMES
def test_lowerings_and_refusals_together_are_the_vocabulary(lowering: ModuleType):
    assert {*lowering.LOWERINGS, *lowering.REFUSALS} == set(OPERATORS) - {*FOLDED, *WRITTEN_OUT}
    assert not set(lowering.LOWERINGS) & set(lowering.REFUSALS)


def test_what_is_folded_away_is_in_no_folded_graph():
    layers = nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.BatchNorm2d(4))
    folded = fold_scales(edit.trace(layers.eval(), (1, 3, 8, 8)))
    assert not [node for node in folded.layers() if isinstance(folded.layer(node), FOLDED)]


def test_layers_that_cannot_be_said_are_named_with_the_reason():
    layers = [nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Sigmoid(), nn.Tanh(), nn.Sigmoid()]
    graph = edit.trace(nn.Sequential(*layers), (1, 3, 8, 8))
    assert without_lowering(graph, {*map(type, layers)}, {}) == ""
    assert without_lowering(graph, {nn.Conv2d, nn.Tanh}, {}) == "layer_1, layer_2, layer_4"
    said = without_lowering(graph, {}, {nn.ReLU: "it has no corners", nn.Sigmoid: "it has no curves"})
    assert said == "layer_0, layer_1, layer_2 and 2 more; it has no corners; it has no curves"


def test_a_stated_refusal_is_told(tmp_path: Path):
    """Behind other layers: a network that ends in argmax is written up to its scores."""
    layers = nn.Sequential(nn.Conv2d(3, 4, 1), ops.ArgMax(), ops.Cast("float32"), ops.Unary("square"))
    with pytest.raises(Unsupported, match=r"\(layer_1; ncnn's ArgMax outputs one number"):
        ncnn_writer.write(edit.trace(layers, (1, 3, 8, 8)), tmp_path)


WRITERS: list[tuple[str, Callable[..., Any], str]] = [
    ("TFLite", litert_writer.write, "model.tflite"),
    ("ncnn", ncnn_writer.write, "model"),
    ("Core ML", coreml_writer.write, "model.mlpackage"),
    ("ONNX", onnx_writer.write, "model.onnx"),
]


@pytest.mark.parametrize(("runtime", "write", "name"), WRITERS, ids=lambda each: each if isinstance(each, str) else "")
def test_a_function_that_a_runtime_does_not_have_is_refused(tmp_path, monkeypatch, runtime, write, name):
    if runtime == "Core ML" and not package.available():
        pytest.skip(f"coremltools is not installed: {package.INSTALL}")
    monkeypatch.setitem(sys.modules, "litert_torch", None)  # which may have it
    monkeypatch.setitem(ops.Unary.FUNCTIONS, "sinc", torch.sinc)
    graph = edit.trace(nn.Sequential(nn.Conv2d(3, 4, 1), ops.Unary("sinc")), (1, 3, 8, 8))
    with pytest.raises(Unsupported, match=f"layer_1: {runtime} has no operator for the function sinc"):
        write(graph, tmp_path / name)
    assert not list(tmp_path.iterdir())

"""The model card says how the network that was exported compares with its source's own runtime."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from slimseg.commands.export import export
from slimseg.errors import ModelError
from slimseg.exporting import heads
from slimseg.frontends import load
from slimseg.runtimes.litert import session

SOURCE = Path(__file__).resolve().parents[1] / "data" / "gated_float.tflite"


def test_the_card_names_the_runtime(tmp_path: Path, quick_timing: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heads, "ROUNDS", 1)
    export(load(SOURCE), out=tmp_path / "app", to="tflite")
    card = json.loads((tmp_path / "app" / "model_card.json").read_text())
    assert card["provenance"]["source_check"].startswith("outputs equal LiteRT's on 8 images within ")
    assert card["provenance"]["source_check"] in (tmp_path / "app" / "model_card.md").read_text()


def test_a_network_that_was_misread_is_not_exported(tmp_path: Path) -> None:
    """As where images show what noise does not."""
    graph = load(SOURCE)
    with torch.no_grad():
        next(graph.module.parameters()).mul_(1.5)
    with pytest.raises(ModelError, match="outputs differ from those of LiteRT"):
        export(graph, out=tmp_path / "app", to="tflite")
    assert not (tmp_path / "app").exists()


def test_an_edited_network_is_exported_as_it_is_now(
    tmp_path: Path, quick_timing: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heads, "ROUNDS", 1)
    source = SOURCE.with_name("deeplab_float.tflite")
    graph = load(source)
    first = next(node for node in graph.layers() if graph.layer_as(node, nn.Conv2d))
    layer = graph.layer_as(first, nn.Conv2d)
    assert layer is not None
    with torch.no_grad():
        layer.weight.zero_()
    graph.refresh()
    card = export(graph, out=tmp_path / "app", to="tflite").card
    assert (tmp_path / "app" / "model.tflite").read_bytes() != source.read_bytes()
    assert "changed after it was opened" in card.provenance.source_check
    image = np.random.default_rng(0).standard_normal((1, *graph.input_size, 3), np.float32)
    with torch.no_grad():
        wanted = graph(torch.from_numpy(image).permute(0, 3, 1, 2)).permute(0, 2, 3, 1).numpy()
    found = session.predict(tmp_path / "app" / "model.tflite", image)
    np.testing.assert_allclose(found, wanted, atol=1e-4)

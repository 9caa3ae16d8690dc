"""Profiles through the public function: of a Graph, of a `.tflite`, of a path to load."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path

import pytest

import slimseg
from slimseg.errors import ModelError
from slimseg.graph import costs
from slimseg.graph.graph import Graph
from slimseg.report.files import to_json
from slimseg.results import Profile

KEYS = {"name", "op", "latency_ms", "share", "macs", "params", "memory_bytes", "output_shape"}


def check(result: Profile) -> None:
    assert set(json.loads(to_json(result))) >= {"latency_ms", "unattributed_ms", "layers"}
    for layer in json.loads(to_json(result))["layers"]:
        assert set(layer) >= KEYS
        assert layer["memory_bytes"] > 0
        assert 0 <= layer["share"] <= 1.2
    assert sum(layer.latency_ms for layer in result.layers) > 0
    assert sum(layer.share for layer in result.layers) == pytest.approx(1, abs=0.3)  # tests share their machine
    assert sum(layer.macs for layer in result.layers) == result.macs


def test_a_graph_has_its_nodes_for_layers(shapes_graph: Graph) -> None:
    result = slimseg.profile(shapes_graph, runs=20)
    check(result)
    assert result.model == "shapes"
    assert result.macs == pytest.approx(costs.total(shapes_graph).macs, rel=0.05)
    names = {layer.name for layer in result.layers}
    assert "classify" in names
    nodes = {node.name for node in shapes_graph.module.graph.nodes}
    assert {layer.name for layer in result.layers if layer.op != "PAD"} <= nodes
    assert result.layers[-1].output_shape == (1, 128, 160, 3)


def test_a_path_is_loaded(shapes_graph: Graph, tmp_path: Path) -> None:
    shapes_graph.save(tmp_path / "network.pt2")
    result = slimseg.profile(tmp_path / "network.pt2", runs=5)
    check(result)
    assert result.model == "network"


def test_a_real_file(shared: Path) -> None:
    result = slimseg.profile(shared / "models" / "prisma-net.tflite", runs=10)
    check(result)
    assert len(result.layers) > 50
    assert result.size_bytes == (shared / "models" / "prisma-net.tflite").stat().st_size
    assert len({layer.name for layer in result.layers}) == len(result.layers)


def test_a_missing_file(tmp_path: Path) -> None:
    for name in ("none.tflite", "none.pt2"):
        with pytest.raises(ModelError, match="none"):
            slimseg.profile(tmp_path / name)


def test_public_names() -> None:
    module = import_module("slimseg.commands.profile")
    assert callable(slimseg.profile)
    assert module.profile is slimseg.profile
    with pytest.raises(AttributeError, match="has no attribute 'prophile'"):
        _ = slimseg.prophile  # type: ignore[attr-defined]
    assert dir(slimseg) == sorted(slimseg.__all__)
    for name in slimseg.__all__:
        assert hasattr(slimseg, name)

"""One layer at a time in 8 bits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from slimseg.graph.graph import Graph
from slimseg.progress import Silent
from slimseg.quantisation import grids
from slimseg.quantisation.layer_sensitivity import layer_sensitivity
from slimseg.quantisation.network import QuantisedNetwork, file_form
from slimseg.runtimes.litert.quantising import quantizer
from slimseg.runtimes.litert.writing import writer


@pytest.fixture
def quantised(shapes_graph: Graph, tmp_path: Path):
    graph = file_form(shapes_graph)
    path = tmp_path / "float.tflite"
    writer.write(graph, path)
    images = np.random.default_rng(0).random((4, *graph.input_size, 3), np.float32) * 2 - 1
    ranges = quantizer.measure_ranges(path, list(images))
    return graph, grids.probe(path), ranges, torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()


def test_every_operator_has_its_number_worst_first(quantised):
    graph, found, ranges, images = quantised
    result = layer_sensitivity(graph, QuantisedNetwork(graph, found, ranges), images, Silent())
    assert set(result) == set(found.written)
    assert list(result.values()) == sorted(result.values(), reverse=True)
    assert all(0 <= value < 20 for value in result.values())


def test_the_layer_whose_range_is_spoilt_is_the_worst(quantised):
    graph, found, ranges, images = quantised
    victim = next(leader for leader in list(found.written)[1:] if found.written[leader].leader == leader)
    spoilt = {**ranges, victim: (ranges[victim][0] * 2000, ranges[victim][1] * 2000)}  # all of it rounds to nothing
    result = layer_sensitivity(graph, QuantisedNetwork(graph, found, spoilt), images, Silent())
    healthy = layer_sensitivity(graph, QuantisedNetwork(graph, found, ranges), images, Silent())
    assert result[victim] > 3 * healthy[victim] + 0.1
    assert victim in list(result)[:3], "it, or one that reads it"
    others = [name for name in result if name != victim and not _reads(graph, name, victim)]
    assert all(result[name] == pytest.approx(healthy[name], abs=0.5) for name in others)


def _reads(graph: Graph, name: str, source: str) -> bool:
    """Whether an operator reads that value, also through what is fused with it."""
    waiting, seen = [graph.node(name)], set()
    for _ in range(4):
        waiting = [each for node in waiting for each in node.all_input_nodes]
        seen |= {node.name for node in waiting}
    return source in seen

"""What the corrections are for: int8 files of a network whose channels lie orders of magnitude apart."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from slimseg import models
from slimseg.demonstration import scenes
from slimseg.graph.fold import fold_scales
from slimseg.graph.graph import Graph, only_consumer
from slimseg.graph.ops import is_depthwise
from slimseg.quantisation.bias_correction import bias_corrected
from slimseg.quantisation.equalise import equalised
from slimseg.runtimes import deployed, host
from slimseg.runtimes.litert import session
from slimseg.runtimes.litert.runtime import LITERT
from slimseg.training.normalisation import recalibrate

SIZE = (64, 64)


@functools.cache
def images() -> list[np.ndarray]:
    return [scenes.render(seed, SIZE)[0] for seed in range(16)]


def tensor(graph: Graph) -> Tensor:
    """The calibration images as the network wants them, NCHW."""
    pipeline = host.ImagePipeline(graph.description.preprocessing, SIZE)
    return torch.from_numpy(np.stack([pipeline(image) for image in images()[:10]])).permute(0, 3, 1, 2).contiguous()


def network(activation: str) -> Graph:
    torch.manual_seed(0)
    graph = models.build(5, SIZE, "separable", width=0.5)
    if activation == "PReLU":
        for node in graph.layers():
            if graph.layer_as(node, nn.ReLU) is not None:
                setattr(graph.module, str(node.target), nn.PReLU(graph.shape(node)[1], 0.15))
        graph.refresh()
    recalibrate(graph.module, [tensor(graph)])
    return fold_scales(graph)


def spoilt(graph: Graph) -> Graph:
    """The same function: a depthwise layer's channels times 10^U(-1.5, 1.5), undone in the layer that reads them."""
    result, found = graph.copy(), 0
    for node in result.layers():
        layer, activation = result.layer(node), only_consumer(node)
        reader = only_consumer(activation) if activation is not None else None
        pointwise = result.layer_as(reader, nn.Conv2d)
        if not is_depthwise(layer) or pointwise is None:
            continue
        factors = 10 ** (3 * torch.rand(layer.out_channels) - 1.5)
        layer.weight.data *= factors.reshape(-1, 1, 1, 1)
        layer.bias.data *= factors
        pointwise.weight.data /= factors.reshape(1, -1, 1, 1)
        found += 1
    assert found >= 5
    return result


def masks(graph: Graph, folder: Path, precision: str) -> np.ndarray:
    """(images, H, W) of a file on images that it was not calibrated with."""
    path = folder / f"{precision}.tflite"
    deployed.write_float(graph, folder / "float.tflite")
    if precision == "int8":
        LITERT.quantiser().quantise_int8(folder / "float.tflite", path, host.prepared(graph, images()[:10]))
    pipeline, runner = host.ImagePipeline(graph.description.preprocessing, SIZE), session.Session(path)
    return np.stack([runner.run(pipeline(image)[None])[0].argmax(-1) for image in images()[10:]])


@pytest.mark.parametrize("activation", ["ReLU", "PReLU"])
def test_equalisation_brings_an_int8_file_back(activation: str, tmp_path: Path):
    graph = network(activation)
    wanted = masks(graph, tmp_path, "float")

    def agreement(other: Graph) -> float:
        return float((masks(other, tmp_path, "int8") == wanted).mean())

    bad = spoilt(graph)
    result = equalised(bad, tensor(graph), bound=64).graph
    assert agreement(bad) < agreement(graph) - 0.25  # int8 cannot hold such channels
    assert agreement(result) > agreement(graph) - 0.05  # and holds them as well as if nothing had happened
    assert agreement(bias_corrected(result, tensor(graph))) > agreement(graph) - 0.02
    assert agreement(equalised(bad, tensor(graph)).graph) > agreement(graph) - 0.1
    assert agreement(equalised(bad).graph) > agreement(graph) - 0.1  # without images, too

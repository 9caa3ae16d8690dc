"""Damage, importance and accuracy are measured on the GPU if there is one, and the network comes back from it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from slimseg.frontends import load
from slimseg.graph.graph import Graph
from slimseg.planning.choosing import importance, sensitivity
from slimseg.progress import Silent
from slimseg.techniques.separable import Separable
from slimseg.training import device

SIZE = (32, 48)
CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def graph() -> Graph:
    net = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 1, 1), nn.ReLU(), nn.Conv2d(8, 3, 1))
    return load(net, SIZE)


def test_modules_come_back_whatever_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    moves: list[tuple[nn.Module, torch.device]] = []
    monkeypatch.setattr(device, "best", lambda: GPU)
    monkeypatch.setattr(device, "_move", lambda modules, where: moves.extend((module, where) for module in modules))
    first, second = nn.Conv2d(3, 4, 1), nn.ReLU()
    with device.on_best(first, second) as where:
        assert where == GPU
        assert moves == [(first, GPU), (second, GPU)]
    assert moves[2:] == [(first, CPU), (second, CPU)]
    with pytest.raises(KeyError), device.on_best(first):
        raise KeyError
    assert moves[4:] == [(first, GPU), (first, CPU)]


def test_without_a_gpu_nothing_moves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "best", lambda: CPU)
    monkeypatch.setattr(device, "_move", lambda *_: pytest.fail("nothing is to be moved"))
    with device.on_best(nn.Conv2d(3, 4, 1)) as where:
        assert where == CPU


def test_modules_do_not_move_in_inference_mode() -> None:
    """Parameters that it made could not be trained afterwards."""

    class Module(nn.Module):
        def to(self, *_: object) -> Module:
            assert not torch.is_inference_mode_enabled()
            return self

    with torch.inference_mode():
        device._move((Module(),), CPU)
        assert torch.is_inference_mode_enabled()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU that torch can use")
def test_the_gpu_measures_what_the_processor_measures(graph: Graph, monkeypatch: pytest.MonkeyPatch) -> None:
    images = torch.from_numpy(np.random.default_rng(0).normal(size=(4, 3, *SIZE)).astype(np.float32))
    sites = Separable().find(graph).sites
    found = []
    for where in (GPU, CPU):
        monkeypatch.setattr(device, "best", lambda where=where: where)
        masks = sensitivity.masks(graph, images)
        damage = sensitivity.damage(graph, sites, images, Silent())
        scores = importance.measured(graph, [images])
        assert {each.device for each in (masks, *scores.values(), *graph.module.parameters())} == {CPU}
        found.append((masks, damage, scores))
    (masks, damage, scores), (masks_cpu, damage_cpu, scores_cpu) = found
    assert (masks == masks_cpu).float().mean() > 0.99
    assert damage == pytest.approx(damage_cpu, abs=1.0)
    for name, score in scores.items():
        torch.testing.assert_close(score, scores_cpu[name], rtol=0.05, atol=1e-6)

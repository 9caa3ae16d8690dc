"""Costs of layers that can be counted by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import slimseg
from slimseg.graph import costs, edit, ops
from slimseg.graph.costs import Cost


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (nn.Conv2d(4, 8, 3, padding=1), Cost(296, 10 * 10 * 8 * 4 * 9, 4 * (400 + 800 + 296))),
        (nn.Conv2d(4, 8, 3, 2, 1, groups=2, bias=False), Cost(144, 5 * 5 * 8 * 2 * 9, 4 * (400 + 200 + 144))),
        (nn.Conv2d(4, 4, 3, padding=1, groups=4), Cost(40, 10 * 10 * 4 * 9, 4 * (400 + 400 + 40))),
        (nn.ConvTranspose2d(4, 2, 2, 2), Cost(34, 10 * 10 * 4 * 2 * 4, 4 * (400 + 800 + 34))),
        (nn.Linear(10, 5), Cost(55, 4 * 10 * 5 * 10, 4 * (400 + 200 + 55))),
        (nn.BatchNorm2d(4), Cost(8, 0, 4 * (800 + 8))),
        (nn.ReLU(), Cost(0, 0, 4 * 800)),
        (ops.Resize((20, 20)), Cost(0, 0, 4 * (400 + 1600))),
    ],
    ids=repr,
)
def test_cost_of_a_layer(layer, expected):
    graph = edit.trace(nn.Sequential(layer), (1, 4, 10, 10))
    assert costs.cost(graph, graph.output) == expected
    assert costs.total(graph) == expected


def test_shared_parameters_count_once_in_the_total():
    layer = nn.Conv2d(4, 4, 1)
    graph = edit.trace(nn.Sequential(layer, nn.ReLU(), layer), (1, 4, 10, 10))
    assert costs.total(graph).params == 20
    assert costs.total(graph).macs == 2 * 1600


def test_arithmetic_intensity():
    assert Cost(0, 100, 50).arithmetic_intensity == 2
    assert Cost(0, 0, 0).arithmetic_intensity == 0


class Summed(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.logcumsumexp(2)


def test_an_opaque_node_has_memory_traffic_only():
    graph = slimseg.load(nn.Sequential(nn.Conv2d(3, 4, 1), Summed()), (8, 8))
    node = graph.opaque()[0]
    cost = costs.cost(graph, node)
    assert (cost.macs, cost.params) == (0, 0)
    assert cost.memory_bytes >= 4 * 2 * 4 * 64
    assert torch.is_tensor(graph(torch.zeros(1, 3, 8, 8)))

"""Curved activations become linear ones, and the what-if's part holds the layer that takes them in."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from slimseg.deployment import Deployment
from slimseg.graph import edit, ops
from slimseg.graph.graph import Graph
from slimseg.planning.pricing import alike
from slimseg.runtimes.litert.writing import writer
from slimseg.techniques import Site, named
from slimseg.techniques.linear_activations import REPLACED
from slimseg.training import distil

NAME = "linear activation"


def graph_of(net: nn.Module) -> Graph:
    torch.manual_seed(0)
    return edit.trace(net.eval(), (1, 8, 12, 16), "net")


def sites(graph: Graph) -> list[Site]:
    return list(named(NAME).find(graph).sites)


MAKERS = {kind: kind for kind in REPLACED} | {
    nn.PReLU: lambda: nn.PReLU(8),
    ops.SpatialPReLU: lambda: ops.SpatialPReLU(torch.rand(8, 12, 16)),
}


@pytest.mark.parametrize("kind", REPLACED, ids=lambda kind: kind.__name__)
def test_each_kind(kind: type[nn.Module]) -> None:
    graph = graph_of(nn.Sequential(nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8), MAKERS[kind](), nn.Conv2d(8, 4, 1)))
    (site,) = sites(graph)
    edited = named(NAME).apply(graph, site)
    wanted = REPLACED[kind][1]
    assert type(edited.layer(edited.node(site.target))) is wanted
    # A ReLU vanishes into the convolution, which therefore belongs to what is timed.
    assert site.source == ("x" if wanted is nn.ReLU else "layer_1") or site.source == graph.input.name


@pytest.mark.parametrize("kind", [nn.Sigmoid, nn.Tanh])
def test_bounded_ones_stay_near(kind: type[nn.Module]) -> None:
    graph = graph_of(nn.Sequential(kind(), nn.Conv2d(8, 4, 1)))
    (site,) = sites(graph)
    layer = (edited := named(NAME).apply(graph, site)).layer(edited.node(site.target))
    assert layer is not None
    x = torch.linspace(-8, 8, 100)
    assert (layer(x) - kind()(x)).abs().max() < 0.3


class Swish(nn.Module):
    """x · σ(x) spelled out, in either order, and a gate that looks like it but is none."""

    def __init__(self, turned: bool) -> None:
        super().__init__()
        self.conv, self.gate, self.multiply = nn.Conv2d(8, 8, 3, padding=1), nn.Sigmoid(), ops.Multiply()
        self.other, self.sigmoid, self.product = nn.Conv2d(8, 8, 1), nn.Sigmoid(), ops.Multiply()
        self.last = nn.Conv2d(8, 4, 1)
        self.turned = turned

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        y = self.multiply(self.gate(y), y) if self.turned else self.multiply(y, self.gate(y))
        return self.last(self.product(y, self.sigmoid(self.other(y))))


@pytest.mark.parametrize("turned", [True, False])
def test_a_swish_spelled_out_is_one_activation(turned: bool) -> None:
    graph = graph_of(Swish(turned))
    swish, gate = sites(graph)
    assert swish.layers == ("gate", "multiply")
    assert (swish.source, swish.target, swish.variant) == ("x", "multiply", "ReLU")
    assert (gate.layers, gate.variant) == (("sigmoid",), "hard sigmoid")
    edited = named(NAME).apply(graph, swish)
    assert "gate" not in {node.name for node in edited.layers()}
    x = torch.randn(1, 8, 12, 16)
    y = torch.relu(graph.layer(graph.node("conv"))(x))  # type: ignore[misc]
    assert edited.layer_as(edited.node("multiply"), nn.ReLU)
    assert edited(x).shape == graph(x).shape
    assert torch.equal(named(NAME).apply(graph, swish).module.get_submodule("conv")(x).relu(), y)


@pytest.mark.parametrize("behind", [[], [ops.Reshape((1, 12 * 16))], [ops.Slice(1, 0, 1), ops.Resize((24, 32))]])
def test_the_result_is_left_alone(behind: list[nn.Module]) -> None:
    channels = 1 if len(behind) == 1 else 2
    assert sites(graph_of(nn.Sequential(nn.Conv2d(8, channels, 1), nn.Sigmoid(), *behind))) == []


def test_shared_activations_are_refused() -> None:
    act = nn.PReLU(8)
    graph = graph_of(nn.Sequential(nn.Conv2d(8, 8, 1), act, nn.Conv2d(8, 8, 1), act, nn.Conv2d(8, 8, 1)))
    assert sites(graph) == []
    assert all("shared" in refusal.reason for refusal in named(NAME).find(graph).refusals)


def test_recovery_fits_the_scale_and_the_shift() -> None:
    """What mimicry can move beside nothing: one scale and shift per channel, folded into the layer before."""
    graph = graph_of(nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.SiLU(), nn.Conv2d(8, 4, 1)))
    (site,) = sites(graph)
    edited = named(NAME).apply(graph, site)
    new = {node.name for node in edited.layers()} - {node.name for node in graph.layers()}
    distil.freeze_except(edited, lambda layer: layer in {*new, *site.layers})
    moving = [each for each in edited.module.parameters() if each.requires_grad]
    assert [tuple(each.shape) for each in moving] == [(8, 1, 1), (8, 1, 1)]
    loss = distil.mimic_loss(graph, edited, [distil.BlockPair(site.source, site.target)])
    optimizer, losses = torch.optim.Adam(moving, 0.03), []
    for _ in range(60):
        value = loss(distil.Batch(torch.randn(2, 8, 12, 16)))
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        losses.append(value.item())
    assert losses[-1] < 0.8 * losses[0]
    assert set(writer.serialise(edited).covers) == {site.target, edited.output.name}  # all of it one convolution


def test_dozens_of_alike_activations_are_timed_as_one() -> None:
    block = [(nn.Conv2d(8, 8, 1), nn.Hardswish()) for _ in range(24)]
    graph = graph_of(nn.Sequential(*(layer for pair in block for layer in pair), nn.Conv2d(8, 4, 1)))
    assert len(sites(graph)) == 24
    assert [len(group) for group in alike.groups(graph, sites(graph), Deployment())] == [24]

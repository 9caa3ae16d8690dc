"""Equalisation: equal outputs whatever the network, like ranges where it may, reasons where it may not."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from slimseg import models
from slimseg.graph import edit, ops
from slimseg.graph.features import Features
from slimseg.graph.graph import Graph
from slimseg.quantisation.equalise import equalised

SHAPE = (1, 4, 12, 16)
quick = settings(max_examples=25, deadline=None, derandomize=True)

CONVOLUTIONS = {
    "full": lambda width, stride: nn.Conv2d(width, 8, 3, stride, 1),
    "depthwise": lambda width, stride: nn.Conv2d(width, width, 3, stride, 1, groups=width),
    "grouped": lambda width, stride: nn.Conv2d(width, 12, 3, stride, 1, groups=4, bias=False),
    "transposed": lambda width, stride: nn.ConvTranspose2d(width, 8, 2 * stride, stride, stride // 2),
    "grouped transposed": lambda width, stride: nn.ConvTranspose2d(width, 4, 3, stride, 1, groups=2),
}
BETWEEN = {
    "norm": nn.BatchNorm2d,
    "relu": lambda width: nn.ReLU(),
    "leaky": lambda width: nn.LeakyReLU(0.2),
    "prelu": lambda width: nn.PReLU(width),
    "relu6": lambda width: nn.ReLU6(),
    "resize": lambda width: ops.Resize((10, 14)),
    "pool": lambda width: nn.MaxPool2d(3, 1, 1),
    "mean": lambda width: nn.AvgPool2d(3, 1, 1),
    "pad": lambda width: ops.Pad((1, 0, 2, 1)),
}
step = st.tuples(
    st.sampled_from(sorted(CONVOLUTIONS)), st.integers(1, 2), st.lists(st.sampled_from(sorted(BETWEEN)), max_size=3)
)


def wild(module: nn.Module) -> nn.Module:
    """Channels whose ranges lie orders of magnitude apart, and norms that have seen something."""
    for layer in module.modules():
        if isinstance(layer, ops.MIXING):
            layer.weight.data.transpose(0, -1).mul_(10 ** (2 * torch.rand(len(layer.weight)) - 1))
        elif isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.running_var, 0.3, 3)
            nn.init.normal_(layer.running_mean)
            nn.init.normal_(layer.bias)
    return module.eval()


def chain(recipe: Sequence[tuple[str, int, list[str]]]) -> Graph:
    torch.manual_seed(len(recipe))
    layers: list[nn.Module] = []
    width = SHAPE[1]
    for kind, stride, between in recipe:
        layers.append(CONVOLUTIONS[kind](width, stride))
        width = layers[-1].out_channels
        layers += [BETWEEN[name](width) for name in between]
    return edit.trace(wild(nn.Sequential(*layers, nn.Conv2d(width, 5, 1))), SHAPE)


def assert_equal(after: Graph, before: Graph) -> None:
    x = torch.randn(2, *before.input_shape[1:])
    with torch.no_grad():
        wanted, got = before(x), after(x)
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-4 * float(wanted.abs().max()))


@quick
@given(st.lists(step, min_size=1, max_size=4), st.booleans())
def test_outputs_stay(recipe, with_images: bool):
    graph = chain(recipe)
    before = {name: value.clone() for name, value in graph.module.state_dict().items()}
    result = equalised(graph, torch.randn(3, *SHAPE[1:]) if with_images else None)
    assert_equal(result.graph, graph)
    assert all(torch.equal(value, before[name]) for name, value in graph.module.state_dict().items())


class Branches(nn.Module):
    """Sums, concatenations, slices, a gate, several readers, shared weights, blocks of pixels as channels."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = (nn.Conv2d(width, 8, 3, 1, 1) for width in (4, 8, 8))
        self.relu, self.sigmoid = nn.ReLU(), nn.Sigmoid()
        self.squeeze, self.flat, self.map = nn.AdaptiveAvgPool2d(1), ops.Reshape((1, 8)), ops.Reshape((1, 8, 1, 1))
        self.narrow, self.gate, self.multiply = nn.Linear(8, 3), nn.Linear(3, 8), ops.Multiply()
        self.add, self.largest, self.concat = ops.Add(), ops.Maximum(), ops.Concat()
        self.part, self.pad = ops.Slice(1, 2, 12, 2), ops.Pad((0, 0, 0, 0), channels=(1, 2))
        self.wide, self.depth, self.space = nn.Conv2d(8, 32, 1), ops.DepthToSpace(2), ops.SpaceToDepth(2)
        self.shared, self.resize, self.end = nn.Conv2d(8, 8, 1), ops.Resize((24, 32)), nn.Conv2d(64, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        skip = self.relu(self.first(x))
        y = self.add(self.second(skip), skip)
        gate = self.gate(self.relu(self.narrow(self.flat(self.squeeze(y)))))
        gated = self.multiply(self.sigmoid(self.map(gate)), y)
        spread = self.depth(self.relu(self.wide(y)))
        z = self.pad(self.part(self.concat(gated, self.largest(self.third(skip), y))))
        again = self.resize(self.shared(self.relu(self.shared(z))))
        return self.end(self.space(self.concat(spread, again)))


@pytest.mark.parametrize("with_images", [True, False])
def test_what_branches_is_scaled_together(with_images: bool):
    torch.manual_seed(0)
    graph = edit.trace(wild(Branches()), SHAPE)
    result = equalised(graph, torch.randn(3, *SHAPE[1:]) if with_images else None)
    assert_equal(result.graph, graph)
    pairs = {(pair.producer, pair.reader) for pair in result.pairs}
    assert pairs >= {("wide", "end"), ("first", "wide"), ("second", "narrow"), ("narrow", "gate"), ("third", "narrow")}
    reasons = {kept.producer: kept.reason for kept in result.kept}
    assert "shares its weights" in reasons["shared"]
    assert "Sigmoid" in reasons["gate"]
    assert "the result" in reasons["end"]


@pytest.mark.parametrize("block", ["shuffle", "separable", "residual"])
def test_networks_of_ours(block):
    torch.manual_seed(0)
    graph = models.build(5, (64, 64), block, width=0.5)
    wild(graph.module)
    result = equalised(graph, torch.randn(2, 3, 64, 64))
    assert_equal(result.graph, graph)
    convolutions = [node for node in result.graph.layers() if result.graph.layer_as(node, nn.Conv2d)]
    assert {pair.reader for pair in result.pairs} == {node.name for node in convolutions} - {"stem_conv"}


def spread(values: Tensor) -> float:
    """Of the largest magnitudes of channels, the widest over the narrowest."""
    largest = values.abs().transpose(0, 1).flatten(1).amax(1)
    return float(largest.max() / largest.min())


def test_values_before_a_depthwise_layer_end_up_alike():
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(4, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=8), nn.PReLU(8), nn.Conv2d(8, 5, 1))
    graph = edit.trace(wild(layers), SHAPE)
    images = torch.randn(4, *SHAPE[1:])
    result = equalised(graph, images, bound=64)
    with torch.no_grad():
        before, after = (Features(each.module, ["layer_1", "layer_2"])(images)[1] for each in (graph, result.graph))
    assert spread(before["layer_1"]) > 5
    assert spread(after["layer_1"]) < 1.05
    assert spread(after["layer_2"]) < spread(before["layer_2"]) / 2


def test_a_dense_reader_is_met_half_way():
    """Equation 11: the ranges of values and of the weights that read them are in proportion."""
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(4, 8, 3), nn.ReLU(), nn.Conv2d(8, 1, 3))
    graph, images = edit.trace(wild(layers), SHAPE), torch.randn(4, *SHAPE[1:])
    result = equalised(graph, images, bound=64).graph
    with torch.no_grad():
        values = Features(result.module, ["layer_1"])(images)[1]["layer_1"].abs().amax((0, 2, 3))
    weights = result.layer(result.output).weight.detach().abs().amax((0, 2, 3))
    torch.testing.assert_close(values / values.max(), weights / weights.max(), rtol=0.05, atol=0)


def test_weights_alone_meet_like_the_papers():
    torch.manual_seed(0)
    graph = edit.trace(wild(nn.Sequential(nn.Conv2d(4, 8, 3), nn.ReLU(), nn.Conv2d(8, 1, 3))), SHAPE)
    result = equalised(graph, bound=64).graph
    first, second = (result.layer(node).weight.detach().abs() for node in result.layers() if node.name != "layer_1")
    made, read = first.amax((1, 2, 3)), second.amax((0, 2, 3))
    torch.testing.assert_close(made / made.max(), read / read.max(), rtol=0.05, atol=0)


def test_bounded_activations_are_left_alone_and_say_so():
    graph = edit.trace(wild(nn.Sequential(nn.Conv2d(4, 8, 3), nn.ReLU6(), nn.Conv2d(8, 5, 1))), SHAPE)
    result = equalised(graph)
    assert result.pairs == ()
    assert result.kept[0].producer == "layer_0"
    assert result.kept[0].reason == "layer_1 (ReLU6) does not allow channels with different scales"


def test_dead_channels_and_bounds():
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(4, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 5, 1)).eval()
    layers[0].weight.data[0] = 0
    layers[0].bias.data[0] = -1  # behind the ReLU it is 0 on every image
    layers[0].weight.data[1] *= 1e-4
    layers[0].bias.data[1] = 0
    layers[3].weight.data[:, 2] = 0  # nobody reads it
    graph = edit.trace(layers, SHAPE)
    result = equalised(graph, torch.randn(2, *SHAPE[1:]), bound=8)
    assert_equal(result.graph, graph)
    ratio = result.graph.layer(result.graph.node("layer_0")).weight[1] / layers[0].weight[1]
    torch.testing.assert_close(ratio, torch.full_like(ratio, 8.0))
    torch.testing.assert_close(result.graph.layer(result.graph.node("layer_0")).bias[0], layers[0].bias[0])

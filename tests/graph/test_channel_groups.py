"""Channels that carry nothing leave without a trace; channels whose leaving would be felt do not leave."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from slimseg import load
from slimseg.errors import Unsupported
from slimseg.graph import edit, ops
from slimseg.graph.channel_groups import ChannelGroup, channel_groups, filters, group_importance, without
from slimseg.graph.graph import Graph

SHAPE = (1, 3, 8, 12)


class Net(nn.Module):
    """A program of layers: each reads the last value, and some an earlier one, too; a 1x1 convolution ends it."""

    def __init__(self, recipe: Sequence[tuple[str, int]]) -> None:
        super().__init__()
        self.steps: list[tuple[str, int]] = []
        self.shared = nn.Conv2d(8, 8, 1)
        shapes: list[tuple[int, ...]] = [SHAPE[1:]]
        for number, (kind, back) in enumerate(recipe):
            other = max(0, len(shapes) - 1 - back)
            made = self._layer(kind, shapes[-1], shapes[other])
            if made is None:
                continue
            layer, shape = made
            name = "shared" if layer is self.shared else f"{kind}{number}"
            if layer is not self.shared:
                self.add_module(name, layer)
            self.steps.append((name, other))
            shapes.append(shape)
        self.last = nn.Conv2d(shapes[-1][0], 2, 1)

    def _layer(self, kind: str, shape: tuple[int, ...], other: tuple[int, ...]) -> Any:
        c, h, w = shape
        make: dict[str, Callable[[], tuple[nn.Module, tuple[int, ...]]]] = {
            "conv": lambda: (nn.Conv2d(c, 8, 3, padding=1), (8, h, w)),
            "narrow": lambda: (nn.Conv2d(c, 4, 1, bias=False), (4, h, w)),
            "transposed": lambda: (nn.ConvTranspose2d(c, 8, 3, padding=1), (8, h, w)),
            "depthwise": lambda: (nn.Conv2d(c, c, 3, padding=1, groups=c), shape),
            "depthwise_up": lambda: (nn.ConvTranspose2d(c, c, 3, padding=1, groups=c), shape),
            "multiplier": lambda: (nn.Conv2d(c, 2 * c, 1, groups=c), (2 * c, h, w)),
            "norm": lambda: (_normed(c), shape),
            "prelu": lambda: (_prelu(c), shape),
            "prelu1": lambda: (nn.PReLU(), shape),
            "spatial": lambda: (ops.SpatialPReLU(torch.rand(c, h, w)), shape),
            "affine": lambda: (ops.Affine(torch.rand(c, 1, 1) + 0.5, nn.Parameter(torch.randn(1, c, 1, 1))), shape),
            "affine1": lambda: (ops.Affine(torch.tensor(0.5), torch.rand(1, 1, 1)), shape),
            "sigmoid": lambda: (nn.Sigmoid(), shape),
            "pool": lambda: (nn.MaxPool2d(3, 1, 1), shape),
            "resize": lambda: (ops.Resize((h, w)), shape),
            "crop": lambda: (ops.Slice(2, 0, h), shape),
            "add": lambda: (ops.Add(), other),
            "divide": lambda: (ops.Multiply(), other),
            "concat": lambda: (ops.Concat(), (c + other[0], h, w)),
            "twice": lambda: (ops.Concat(1), (2 * c, h, w)),
            "rows": lambda: (ops.Concat(2), (c, h + other[1], w)),
            "gate": lambda: (_Gate(c), shape),
            "linear_gate": lambda: (_LinearGate(c), shape),
            "one": lambda: (_OneForAll(c), shape),
            "split": lambda: (ops.Slice(1, 0, c // 2), (c // 2, h, w)),
            "pad": lambda: (ops.Pad((0, 0, 0, 0), 1.0, (1, 3)), (c + 4, h, w)),
            "unpad": lambda: (ops.Pad((0, 0, 0, 0), 0.0, (0, -1)), (c - 1, h, w)),
            "fold": lambda: (_There(ops.SpaceToDepth(2), ops.DepthToSpace(2)), shape),
            "unfold": lambda: (_There(ops.DepthToSpace(2), ops.SpaceToDepth(2)), shape),
            "turn": lambda: (_There(ops.Transpose((0, 1, 3, 2)), ops.Transpose((0, 1, 3, 2))), shape),
            "flat": lambda: (_There(ops.Reshape((1, c * h * w)), ops.Reshape((1, c, h, w))), shape),
            "softmax": lambda: (nn.Softmax(1), shape),
            "groups": lambda: (nn.Conv2d(c, 8, 1, groups=2), (8, h, w)),
            "shared": lambda: (self.shared, shape),
        }
        fits = {
            "add": shape == other,
            "divide": shape == other,
            "concat": shape[1:] == other[1:],
            "rows": c == other[0] and w == other[2] and h + other[1] <= 32,
            "split": c > 3,
            "unpad": c > 2,
            "fold": h % 2 == 0,
            "unfold": c % 4 == 0,
            "groups": c % 2 == 0,
            "shared": c == 8,
        }
        return make[kind]() if fits.get(kind, True) and c <= 40 else None

    def forward(self, x: Tensor) -> Tensor:
        values = [x]
        for name, other in self.steps:
            layer = self.get_submodule(name)
            if name.startswith("twice"):
                values.append(layer(values[-1], values[-1]))
            elif isinstance(layer, ops.Add | ops.Multiply | ops.Concat):
                values.append(layer(values[-1], values[other]))
            else:
                values.append(layer(values[-1]))
        return self.last(values[-1])


class _Gate(nn.Module):
    """Squeeze and excitation, with convolutions."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.squeeze, self.down, self.up = nn.AdaptiveAvgPool2d(1), nn.Conv2d(c, 4, 1), nn.Conv2d(4, c, 1)
        self.sigmoid, self.multiply = nn.Sigmoid(), ops.Multiply()

    def forward(self, x: Tensor) -> Tensor:
        return self.multiply(x, self.sigmoid(self.up(self.down(self.squeeze(x)))))


class _LinearGate(nn.Module):
    """Squeeze and excitation, with linear layers."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.squeeze, self.down, self.up = ops.Reduce("mean", (2, 3), False), nn.Linear(c, 4), nn.Linear(4, c)
        self.back, self.multiply = ops.Reshape((1, c, 1, 1)), ops.Multiply()

    def forward(self, x: Tensor) -> Tensor:
        return self.multiply(self.back(self.up(self.down(self.squeeze(x)))), x)


class _OneForAll(nn.Module):
    """Attention over pixels: one channel stands against all."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.attend, self.multiply = nn.Conv2d(c, 1, 1), ops.Multiply()

    def forward(self, x: Tensor) -> Tensor:
        return self.multiply(x, self.attend(x))


class _There(nn.Module):
    def __init__(self, there: nn.Module, back: nn.Module) -> None:
        super().__init__()
        self.there, self.back = there, back

    def forward(self, x: Tensor) -> Tensor:
        return self.back(self.there(x))


def _normed(channels: int) -> nn.BatchNorm2d:
    layer = nn.BatchNorm2d(channels)
    for values in (layer.weight.data, layer.bias.data, layer.running_mean):
        values.copy_(torch.randn(channels))
    layer.running_var.copy_(torch.rand(channels) + 0.5)
    return layer


def _prelu(channels: int) -> nn.PReLU:
    layer = nn.PReLU(channels)
    layer.weight.data.copy_(torch.rand(channels))
    return layer


KEEP = ["conv", "narrow", "transposed", "depthwise", "depthwise_up", "norm", "prelu", "prelu1", "spatial", "affine",
        "affine1", "sigmoid", "pool", "resize", "crop", "add", "divide", "concat", "twice", "rows", "gate",
        "linear_gate", "one"]  # fmt: skip
HOLD = ["split", "pad", "unpad", "fold", "unfold", "turn", "flat", "softmax", "groups", "multiplier", "shared"]
steps = st.tuples(st.sampled_from([*KEEP, "conv", "conv", "concat", "add", *HOLD]), st.integers(0, 4))
recipes = st.lists(steps, min_size=2, max_size=10)


def net(*recipe: tuple[str, int] | str) -> Graph:
    torch.manual_seed(len(recipe))
    full = [(step, 0) if isinstance(step, str) else step for step in recipe]
    return edit.trace(Net([("conv", 0), *full]).eval(), SHAPE)


def image(graph: Graph) -> Tensor:
    return torch.randn(graph.input_shape, generator=torch.Generator().manual_seed(3))


def silence(graph: Graph, group: ChannelGroup, dropped: Sequence[int]) -> Graph:
    """The same network whose readers pay some channels of a group no attention."""
    silent = graph.copy()
    for name, positions in group.inputs.items():
        layer = silent.layer(silent.node(name))
        assert isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear)
        weight = layer.weight.data.transpose(0, 1) if isinstance(layer, nn.ConvTranspose2d) else layer.weight.data
        weight[:, [each for index, each in enumerate(positions) if index % group.channels in set(dropped)]] = 0
    return silent


def assert_exact(graph: Graph, group: ChannelGroup, dropped: Sequence[int]) -> Graph:
    silent = silence(graph, group, dropped)
    cut = without(silent, group, dropped)
    with torch.no_grad():
        torch.testing.assert_close(cut(image(graph)), silent(image(graph)), atol=1e-4, rtol=1e-4)
    for name in group.outputs:
        assert cut.shape(cut.node(name))[1] == graph.shape(graph.node(name))[1] - len(dropped)
    return cut


def cuttable(graph: Graph) -> list[ChannelGroup]:
    return [group for group in channel_groups(graph) if group.channels > 1 and group.fixed is None]


@settings(max_examples=150, deadline=None, derandomize=True)
@given(recipes, st.data())
def test_channels_that_nobody_reads_leave_without_a_trace(recipe: list[tuple[str, int]], data: st.DataObject) -> None:
    graph = net(*recipe)
    for group in cuttable(graph):
        count = data.draw(st.integers(1, group.channels - 1))
        dropped = data.draw(st.permutations(range(group.channels)))[:count]
        assert_exact(graph, group, dropped)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(recipes)
def test_group_after_group_is_cut_to_half_and_the_network_runs(recipe: list[tuple[str, int]]) -> None:
    graph = net(*recipe)
    roots = [group.root for group in cuttable(graph)]
    for root in roots:
        (group,) = (each for each in cuttable(graph) if each.root == root)
        graph = assert_exact(graph, group, range(0, group.channels, 2))
    assert [group.root for group in channel_groups(graph) if group.root in roots] == roots


@settings(max_examples=40, deadline=None, derandomize=True)
@given(recipes)
def test_no_channel_is_in_two_groups_and_the_graph_is_left_alone(recipe: list[tuple[str, int]]) -> None:
    graph = net(*recipe)
    trainable = [parameter.requires_grad_(False) for parameter in graph.module.parameters()]
    before = str(graph.module.graph), {name: value.clone() for name, value in graph.module.state_dict().items()}
    seen: set[tuple[str, int]] = set()
    for group in channel_groups(graph):
        places = {(name, position) for name, positions in group.outputs.items() for position in positions}
        assert not places & seen
        seen |= places
        if group.fixed is None and group.channels > 1:
            without(graph, group, [0])
        else:
            with pytest.raises(Unsupported, match=group.root):
                without(graph, group, [0])
    assert str(graph.module.graph) == before[0]
    assert not any(parameter.requires_grad for parameter in trainable)
    for name, value in graph.module.state_dict().items():
        torch.testing.assert_close(value, before[1][name], atol=0, rtol=0)


@pytest.mark.parametrize("kind", KEEP)
def test_layers_that_keep_channels_apart_stand_in_no_cuts_way(kind: str) -> None:
    graph = net(kind, "conv")
    first = next(group for group in channel_groups(graph) if group.root == "conv0")
    assert first.fixed is None
    assert_exact(graph, first, [0, 3, 7])


@pytest.mark.parametrize("kind", HOLD)
def test_layers_to_which_the_number_of_channels_means_something_stand_in_the_way_by_name(kind: str) -> None:
    graph = net(kind, "conv")
    first = next(group for group in channel_groups(graph) if group.root == "conv0")
    reason = first.fixed or ""
    if kind == "pad":  # what is added stays; the others may leave
        assert_exact(graph, first, [0, 3, 7])
    elif kind == "shared":
        assert_exact(graph, first, [1])  # called once, it is shared with nothing
        twice = net(kind, "sigmoid", kind)
        refused = [group for group in channel_groups(twice) if "shares its weights" in (group.fixed or "")]
        assert {group.root for group in refused} >= {"conv0"}
    else:
        assert f"{kind}1" in reason


def test_a_residual_sum_ties_all_its_terms() -> None:
    graph = net("conv", ("add", 1), "norm", "conv", ("add", 1), "depthwise")
    (group,) = [group for group in channel_groups(graph) if "conv0" in group.outputs]
    assert set(group.outputs) == {"conv0", "conv1", "norm3", "conv4", "depthwise6"}
    assert set(group.inputs) == {"conv1", "conv4", "last"}


def test_a_sum_with_the_image_or_with_padding_holds_all_channels() -> None:
    class WithImage(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.add, self.last = nn.Conv2d(3, 3, 1), ops.Add(), nn.Conv2d(3, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.add(self.conv(x), x))

    (group,) = channel_groups(edit.trace(WithImage().eval(), SHAPE))
    assert "the input" in (group.fixed or "")


def test_a_value_concatenated_with_itself_is_read_at_both_places() -> None:
    graph = net("twice", "conv")
    group = channel_groups(graph)[0]
    assert group.inputs["conv2"] == tuple(range(16))
    assert_exact(graph, group, [2, 5])


def test_a_sum_of_concatenations_that_overlap_is_refused() -> None:
    class Overlap(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = (nn.Conv2d(3, count, 1) for count in (4, 4, 8))
            self.concat, self.add, self.last = ops.Concat(), ops.Add(), nn.Conv2d(8, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.add(self.concat(self.a(x), self.b(x)), self.c(x)))

    (group,) = channel_groups(edit.trace(Overlap().eval(), SHAPE))
    assert "only some of its channels" in (group.fixed or "")


def test_the_results_own_channels_are_no_group() -> None:
    assert "last" not in {name for group in channel_groups(net("conv")) for name in group.outputs}


@pytest.mark.parametrize("dropped", [[], range(8), [8], [-1]])
def test_channels_that_are_not_there_and_all_of_them_cannot_leave(dropped: Sequence[int]) -> None:
    graph = net("conv")
    with pytest.raises(Unsupported, match="conv0 cannot lose"):
        without(graph, channel_groups(graph)[0], dropped)


def test_importance_is_the_measured_one_and_follows_a_cut() -> None:
    graph = net("conv", ("add", 1), "conv")
    group = channel_groups(graph)[0]
    graph.importance = {"conv0": torch.arange(8.0), "conv1": torch.arange(8.0).flip(0) ** 2}
    expected = torch.arange(8.0) + torch.arange(8.0).flip(0) ** 2
    torch.testing.assert_close(group_importance(graph, group), expected)
    cut = without(graph, group, [0, 6])
    kept = [1, 2, 3, 4, 5, 7]
    torch.testing.assert_close(group_importance(cut, channel_groups(cut)[0]), expected[kept])
    assert len(graph.importance["conv0"]) == 8
    graph.importance = {"conv0": torch.arange(5.0)}  # of another width: not of this layer any more
    assert len(group_importance(graph, group)) == 8
    assert len(without(graph, group, [1]).importance["conv0"]) == 5


def test_without_images_the_norm_of_the_filters_tells() -> None:
    graph = net("depthwise_up", "transposed")
    first, second = channel_groups(graph)
    layers = [graph.layer(graph.node(name)) for name in ("conv0", "depthwise_up1", "transposed2")]
    norms = [layer.weight.detach().square() for layer in layers if layer is not None]
    torch.testing.assert_close(group_importance(graph, first), norms[0].sum((1, 2, 3)) + norms[1].sum((1, 2, 3)))
    torch.testing.assert_close(group_importance(graph, second), norms[2].sum((0, 2, 3)))


def test_filters_are_those_that_make_a_channel() -> None:
    for layer in (nn.Conv2d(4, 6, 3, groups=2), nn.ConvTranspose2d(4, 6, 3, groups=2), nn.ConvTranspose2d(4, 6, 2)):
        x = torch.randn(1, 4, 5, 5)
        for channel in range(6):
            weight = layer.weight.detach().clone().requires_grad_()
            function = nn.functional.conv2d if isinstance(layer, nn.Conv2d) else nn.functional.conv_transpose2d
            function(x, weight, groups=layer.groups)[:, channel].sum().backward()
            moved = filters(layer, weight.grad).abs().sum(1)
            assert moved.nonzero().flatten().tolist() == [channel]


REAL = {"camvid_unet.pt2": {"mean": 127, "std": 128}, "prisma-net.tflite": {}, "slim_reshape.tflite": {}}


@pytest.mark.parametrize("name", REAL)
def test_every_group_of_a_real_network_alone_and_all_together(shared: Path, name: str) -> None:
    graph = edit.at_input_size(load(shared / "models" / name, verify=False, **REAL[name]), (32, 64))
    groups = channel_groups(graph)
    assert [group.fixed for group in groups] == [None] * len(groups)
    params = sum(parameter.numel() for parameter in graph.module.parameters())
    cut = graph
    for number, group in enumerate(groups):
        half = range(0, group.channels, 2)
        if number % 10 == 0:
            assert_exact(graph, group, half)
        cut = without(cut, next(each for each in channel_groups(cut) if each.root == group.root), half)
    with torch.no_grad():
        assert cut(image(cut)).shape == graph(image(graph)).shape
    assert sum(parameter.numel() for parameter in cut.module.parameters()) < 0.3 * params

"""Edits: legal results, the original untouched, outputs equal where they should be."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, fx, nn

import slimseg
from slimseg.errors import GraphError, Unsupported
from slimseg.graph import edit, invariants, ops
from slimseg.graph.features import Features
from slimseg.graph.graph import Graph, only_consumer, producer

quick = settings(max_examples=20, deadline=None, derandomize=True)
SHAPE = (1, 4, 12, 16)


class Net(nn.Module):
    """Layers one after the other; each may add or concatenate an earlier value of the same size."""

    def __init__(self, recipe: Sequence[tuple[str, int]]) -> None:
        super().__init__()
        torch.manual_seed(len(recipe))
        self.steps: list[tuple[str, int]] = []
        channels = [SHAPE[1]]
        for number, (kind, back) in enumerate(recipe):
            back = min(back, len(channels) - 1)
            layer, width = self._layer(kind, channels[-1], channels[-1 - back])
            if layer is None:
                continue
            self.add_module(f"{kind}{number}", layer)
            self.steps.append((f"{kind}{number}", len(channels) - 1 - back))
            channels.append(width)

    def _layer(self, kind: str, width: int, other: int) -> tuple[nn.Module | None, int]:
        if kind == "conv":
            return nn.Conv2d(width, 4, 3, padding=1), 4
        if kind == "pointwise":
            return nn.Conv2d(width, 6, 1), 6
        if kind == "norm":
            return nn.BatchNorm2d(width), width
        if kind == "relu":
            return nn.ReLU(), width
        if kind == "pool":
            return nn.MaxPool2d(3, 1, 1), width
        if kind == "resize":
            return ops.Resize(SHAPE[2:]), width
        if kind == "concat":
            return ops.Concat(), width + other
        return (ops.Add(), width) if width == other else (None, width)

    def forward(self, x: Tensor) -> Tensor:
        values = [x]
        for name, other in self.steps:
            layer = self.get_submodule(name)
            two = isinstance(layer, ops.Add | ops.Concat)
            values.append(layer(values[-1], values[other]) if two else layer(values[-1]))
        return values[-1]


kinds = st.sampled_from(["conv", "pointwise", "norm", "relu", "pool", "resize", "concat", "add"])
graphs = st.lists(st.tuples(kinds, st.integers(0, 4)), min_size=2, max_size=9).map(
    lambda recipe: edit.trace(Net([("conv", 0), *recipe]).eval(), SHAPE)
)


def image(graph: Graph) -> Tensor:
    return torch.randn(graph.input_shape, generator=torch.Generator().manual_seed(3))


def snapshot(graph: Graph) -> tuple[str, Tensor, list[str]]:
    with torch.no_grad():
        return str(graph.module.graph), graph(image(graph)), [name for name, _ in graph.module.named_modules()]


def assert_untouched(graph: Graph, before: tuple[str, Tensor, list[str]]) -> None:
    after = snapshot(graph)
    assert before[0] == after[0]
    assert before[2] == after[2]
    torch.testing.assert_close(before[1], after[1], atol=0, rtol=0)


def assert_equal(first: Graph, second: Graph) -> None:
    with torch.no_grad():
        torch.testing.assert_close(first(image(first)), second(image(first)), atol=1e-5, rtol=1e-5)


@quick
@given(graphs)
def test_a_copy_is_independent_and_keeps_its_names(graph):
    before, copied = snapshot(graph), graph.copy()
    assert [node.name for node in copied.module.graph.nodes] == [node.name for node in graph.module.graph.nodes]
    assert [copied.shape(node) for node in copied.layers()] == [graph.shape(node) for node in graph.layers()]
    assert_equal(graph, copied)
    with torch.no_grad():
        for parameter in copied.module.parameters():
            parameter.add_(1)
    assert_untouched(graph, before)


@quick
@given(graphs, st.data())
def test_replacing_a_layer_by_its_equal_changes_nothing(graph, data):
    layers = [node for node in graph.layers() if len(node.args) == 1]
    node = data.draw(st.sampled_from(layers))
    before = snapshot(graph)
    block = nn.Sequential(graph.copy().layer(node), ops.Pad((0, 0, 0, 0)))
    result = edit.replace(graph, [producer(node).name], node.name, block)
    assert result.shape(result.node(node.name)) == graph.shape(node)
    assert len(list(result.layers())) == len(list(graph.layers())) + 1
    assert_equal(graph, result)
    assert_untouched(graph, before)


def reads_past(graph: Graph, source: fx.Node, target: fx.Node) -> bool:
    """Whether the target can be reached from the input around the source."""
    if target is source:
        return False
    return target is graph.input or any(reads_past(graph, source, each) for each in target.all_input_nodes)


@quick
@given(graphs, st.data())
def test_extract_gives_the_same_features(graph, data):
    nodes = list(graph.layers())
    target = data.draw(st.sampled_from(nodes))
    source = data.draw(st.sampled_from([graph.input, *nodes[: nodes.index(target)]]))
    before = snapshot(graph)
    with torch.no_grad():
        _, values = Features(graph.module, [source.name, target.name])(image(graph))
    if reads_past(graph, source, target):
        with pytest.raises(Unsupported, match="outside the part"):
            edit.extract(graph, source.name, target.name)
        return
    part = edit.extract(graph, source.name, target.name)
    with torch.no_grad():
        torch.testing.assert_close(part(values[source.name]), values[target.name])
    assert_untouched(graph, before)
    assert part.output.name == target.name


@quick
@given(graphs, st.sampled_from([(24, 32), (6, 8), (12, 16), (18, 24)]))
def test_another_input_size_keeps_weights_and_scales_resizes(graph, size):
    before = snapshot(graph)
    result = edit.at_input_size(graph, size)
    assert result.input_size == size
    assert result.shape(result.output)[2:] == size
    assert str(result.module.graph) == before[0]
    assert_untouched(graph, before)
    assert_equal(graph, edit.at_input_size(result, graph.input_size))


@quick
@given(graphs, st.data())
def test_bypass_leaves_a_layer_out(graph, data):
    layers = [node for node in graph.layers() if graph.layer_as(node, (nn.ReLU, nn.BatchNorm2d, ops.Resize))]
    if not layers:
        return
    name = data.draw(st.sampled_from(layers)).name
    before = snapshot(graph)
    result = edit.bypass(graph, name)
    assert name not in {node.name for node in result.layers()}
    assert_untouched(graph, before)


@quick
@given(graphs)
def test_swapping_pointwise_layers_commutes(graph):
    """resize(same size) commutes with everything pointwise."""
    before = snapshot(graph)
    for node in graph.layers():
        reader = only_consumer(node)
        commutes = graph.layer_as(reader, (nn.ReLU, nn.BatchNorm2d)) is not None
        if graph.layer_as(node, ops.Resize) and commutes and reader is not None:
            result = edit.swap(graph, node.name, reader.name)
            assert producer(result.node(node.name)).name == reader.name
            assert_equal(graph, result)
    assert_untouched(graph, before)


def graph_of(*layers: nn.Module, shape: tuple[int, ...] = SHAPE) -> Graph:
    return edit.trace(nn.Sequential(*layers).eval(), shape)


class Reused(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.relu = nn.Conv2d(4, 4, 1), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.conv(self.relu(self.conv(x))))


def test_a_layer_called_twice_stays_one_in_traces_and_blocks():
    graph = edit.trace(Reused().eval(), SHAPE)
    assert [node.name for node in graph.layers()] == ["conv", "relu", "conv_2", "relu_2"]
    assert sum(each.numel() for each in graph.module.parameters()) == 20
    outer = graph_of(nn.Conv2d(4, 4, 1), nn.ReLU())
    result = edit.replace(outer, ["layer_0"], "layer_1", Reused())
    assert sum(each.numel() for each in result.module.parameters()) == 40
    assert edit.shared_with(result, result.node("layer_1_conv")) == "layer_1_conv_2"


def test_replace_refuses_another_shape():
    graph = graph_of(nn.Conv2d(4, 4, 1))
    with pytest.raises(GraphError, match="layer_0 would have shape"):
        edit.replace(graph, [graph.input.name], "layer_0", nn.Sequential(nn.Conv2d(4, 5, 1)))


def test_swap_refuses_a_value_that_others_read():
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.relu, self.conv, self.add = nn.ReLU(), nn.Conv2d(4, 4, 1), ops.Add()

        def forward(self, x: Tensor) -> Tensor:
            x = self.relu(x)
            return self.add(x, self.conv(x))

    with pytest.raises(Unsupported, match="not the only layer"):
        edit.swap(edit.trace(Both(), SHAPE), "relu", "conv")


def test_a_size_that_does_not_fit_names_the_layer():
    graph = graph_of(nn.Conv2d(4, 4, 5), nn.MaxPool2d(4))
    with pytest.raises(Unsupported, match=r"input of 7x7: layer_1"):
        edit.at_input_size(graph, (7, 7))
    with pytest.raises(Unsupported, match="layer_0 resizes to"):
        edit.at_input_size(graph_of(ops.Resize((3, 5))), (20, 20))


def test_append_and_rename():
    graph = graph_of(nn.Conv2d(4, 3, 1))
    result = edit.renamed(edit.append(graph, ops.ArgMax(), "mask"), "layer_0_mask", "classes")
    assert result.output.name == "classes"
    assert result.shape(result.output) == (1, 12, 16)
    assert invariants.violations(result.module) == []


def test_flattened_output_follows_the_input_size():
    flat = edit.trace(nn.Sequential(nn.Conv2d(3, 1, 3, padding=1), ops.Reshape((1, 400))), (1, 3, 20, 20))
    small = edit.at_input_size(flat, (10, 12))
    assert small.shape(small.output) == (1, 120)
    assert small(torch.zeros(2, 3, 10, 12)).shape == (2, 120)


@pytest.mark.parametrize(("length", "expected"), [((65, 33), (64, 32)), ((257, 17), (256, 16)), ((513, 1), (512, 1))])
def test_resizes_to_what_strides_make_of_an_odd_input_follow_it(length, expected):
    graph = edit.trace(nn.Sequential(ops.Resize(length)), (1, 3, 513, 513))
    result = edit.at_input_size(graph, (512, 512))
    assert result.shape(result.output) == (1, 3, *expected)


def test_a_channel_shuffle_follows_the_input_size():
    layers = (ops.Reshape((1, 2, 3, 20, 24), False), ops.Transpose((0, 2, 1, 3, 4)), ops.Reshape((1, 6, 20, 24), False))
    shuffle = edit.trace(nn.Sequential(nn.Conv2d(3, 6, 1), *layers), (1, 3, 20, 24))
    small = edit.at_input_size(shuffle, (10, 12))
    assert small.shape(small.output) == (1, 6, 10, 12)
    assert small(torch.zeros(2, 3, 10, 12)).shape == (2, 6, 10, 12)


class Heads(nn.Module):
    """Attention with two heads, as PyTorch traces it from tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Linear(6, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n, c, h, w = x.shape
        tokens = self.project(x.flatten(2).transpose(1, 2))
        heads = tokens.reshape(n, h * w, 2, c // 2).permute(0, 2, 1, 3)
        mixed = (heads @ heads.transpose(-2, -1)).softmax(-1) @ heads
        return mixed.transpose(1, 2).reshape(n, h * w, c).transpose(1, 2).reshape(n, c, h, w)


class Windows(nn.Module):
    """A sum over windows of 4x4 pixels."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n, c, h, w = x.shape
        windows = x.permute(0, 2, 3, 1).reshape(n, h // 4, 4, w // 4, 4, c).permute(0, 1, 3, 2, 4, 5)
        tokens = windows.reshape(-1, 16, c)
        windows = (tokens + tokens.mean(1, keepdim=True)).reshape(n, h // 4, w // 4, 4, 4, c)
        return windows.permute(0, 5, 1, 3, 2, 4).reshape(n, c, h, w)


@pytest.mark.parametrize("block", [Heads(), Windows()])
@pytest.mark.parametrize("size", [(12, 16), (8, 20), (32, 40)])
def test_attention_follows_the_input_size(block, size):
    network = nn.Sequential(nn.Conv2d(3, 6, 1), block).eval()
    image = torch.rand(1, 3, *size)
    result = edit.at_input_size(slimseg.load(network, (16, 20), verify=False), size)
    torch.testing.assert_close(result(image), network(image))


class Rolled(nn.Module):
    """Every other pixel of a map whose last rows come first."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.roll(3, 2)[..., 1::2, ::2]


@pytest.mark.parametrize("size", [(8, 8), (24, 32)])
def test_slices_follow_the_input_size(size):
    network = nn.Sequential(nn.Conv2d(3, 4, 1), Rolled()).eval()
    image = torch.rand(1, 3, *size)
    result = edit.at_input_size(slimseg.load(network, (16, 20), verify=False), size)
    torch.testing.assert_close(result(image), network(image))

"""The part around some layers: one way in, one way out."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, fx, nn

from slimseg.graph import edit, ops
from slimseg.graph.graph import Graph
from slimseg.graph.region import region

SHAPE = (1, 4, 6, 6)


class Net(nn.Module):
    """Convolutions and sums of any two earlier values; what nobody read is summed in the end."""

    def __init__(self, recipe: list[tuple[int, int]]) -> None:
        super().__init__()
        self.recipe = recipe
        for number, (first, second) in enumerate(recipe):
            self.add_module(f"layer{number}", nn.Conv2d(4, 4, 1) if first == second else ops.Add())
        self.ends = nn.ModuleList(ops.Add() for _ in recipe)

    def forward(self, x: Tensor) -> Tensor:
        values, unread = [x], []
        for number, (first, second) in enumerate(self.recipe):
            one, other = values[first % len(values)], values[second % len(values)]
            layer = self.get_submodule(f"layer{number}")
            values.append(layer(one) if isinstance(layer, nn.Conv2d) else layer(one, other))
            unread = [value for value in unread if value is not one and value is not other] + [values[-1]]
        total = unread[0]
        for value, add in zip(unread[1:], self.ends, strict=False):
            total = add(total, value)
        return total


# Most steps go on from close by, so that networks get long.
steps = st.tuples(st.integers(0, 12), st.integers(0, 12))
graphs = st.lists(steps, min_size=1, max_size=12).map(lambda recipe: edit.trace(Net(recipe).eval(), SHAPE))


def reachable(start: fx.Node, closed: fx.Node | None = None) -> set[fx.Node]:
    """Nodes whose values depend on `start`'s other than through `closed`."""
    found, waiting = set(), [start]
    while waiting:
        node = waiting.pop()
        if node is not closed and node not in found:
            found.add(node)
            waiting.extend(node.users)
    return found


def chosen(graph: Graph, data: st.DataObject) -> list[str]:
    names = [node.name for node in graph.layers()]
    return data.draw(st.lists(st.sampled_from(names), min_size=1, max_size=3, unique=True))


@settings(max_examples=150, deadline=None, derandomize=True)
@given(graphs, st.data())
def test_every_way_in_passes_the_source_and_every_way_out_the_target(graph: Graph, data: st.DataObject) -> None:
    layers = chosen(graph, data)
    source, target = (graph.node(name) for name in region(graph, layers))
    output = next(node for node in graph.module.graph.nodes if node.op == "output")
    past_source = reachable(graph.input, closed=source)
    assert target not in past_source
    assert source.name not in layers
    for name in layers:
        assert graph.node(name) not in past_source
        assert output not in reachable(graph.node(name), closed=target)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(graphs, st.data())
def test_the_part_can_be_taken_out_and_computes_the_same(graph: Graph, data: st.DataObject) -> None:
    layers = chosen(graph, data)
    source, target = region(graph, layers)
    part = edit.extract(graph, source, target)
    assert set(layers) <= {node.name for node in part.layers()}
    x = torch.randn(SHAPE)
    with torch.no_grad():
        inside = edit.extract(graph, graph.input.name, source)(x) if source != graph.input.name else x
        whole = edit.extract(graph, graph.input.name, target)(x)
        torch.testing.assert_close(part(inside), whole)


def test_the_smallest_part_is_found() -> None:
    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c, self.d = (nn.Conv2d(4, 4, 1) for _ in range(4))
            self.add = ops.Add()

        def forward(self, x: Tensor) -> Tensor:
            x = self.a(x)
            return self.d(self.add(self.c(self.b(x)), x))

    graph = edit.trace(Residual().eval(), SHAPE)
    assert region(graph, ["b"]) == ("a", "b")
    assert region(graph, ["b", "c"]) == ("a", "c")
    assert region(graph, ["add"]) == ("a", "add")
    assert region(graph, ["a"]) == ("x", "a")
    assert region(graph, ["a", "b"]) == ("x", "add")
    assert region(graph, ["d", "b"]) == ("a", "d")


@pytest.mark.parametrize("name", ["input", "constant"])
def test_constants_are_no_way_in(name: str) -> None:
    """A constant that an opaque operation adds is part of what adds it."""
    root = nn.Module()
    root.register_buffer("constant", torch.ones(1, 4, 1, 1))
    root.conv, root.last = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)
    new = fx.Graph()
    first = new.call_module("conv", (new.placeholder("x"),))
    other = first if name == "input" else new.get_attr("constant")
    new.output(new.call_module("last", (new.call_function(torch.add, (first, other)),)))
    graph = Graph(fx.GraphModule(root, new), SHAPE)
    assert region(graph, ["last", "add"]) == ("conv", "last")
    edit.extract(graph, "conv", "last")

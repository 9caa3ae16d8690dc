"""Every invariant, broken once."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import fx, nn

from slimseg.errors import GraphError
from slimseg.graph import edit, invariants, ops
from slimseg.graph.graph import Graph


def graph() -> Graph:
    return edit.trace(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()).eval(), (1, 3, 8, 8))


def second_input(module: fx.GraphModule) -> None:
    with module.graph.inserting_before(next(iter(module.graph.nodes))):
        module.graph.placeholder("more")


def flat_input(module: fx.GraphModule) -> None:
    next(iter(module.graph.nodes)).meta["shape"] = (1, 3)


def two_outputs(module: fx.GraphModule) -> None:
    output = next(node for node in module.graph.nodes if node.op == "output")
    output.args = ((output.args[0], output.args[0]),)


def foreign_module(module: fx.GraphModule) -> None:
    module.add_module("layer_1", nn.Mish())


def method(module: fx.GraphModule) -> None:
    node = next(node for node in module.graph.nodes if node.name == "layer_1")
    with module.graph.inserting_after(node):
        module.graph.call_method("relu", (node,))


def number_as_argument(module: fx.GraphModule) -> None:
    node = next(node for node in module.graph.nodes if node.name == "layer_1")
    node.args = (*node.args, 3)


def no_shape(module: fx.GraphModule) -> None:
    next(node for node in module.graph.nodes if node.name == "layer_1").meta.clear()


def nested(module: fx.GraphModule) -> None:
    module.add_module("inner", nn.Sequential(nn.ReLU()))
    next(node for node in module.graph.nodes if node.name == "layer_1").target = "inner.0"


def reflecting(module: fx.GraphModule) -> None:
    module.get_submodule("layer_0").padding_mode = "reflect"


BREAKAGES: list[tuple[Callable[[fx.GraphModule], None], invariants.Invariant, str]] = [
    (second_input, invariants.one_input, "it has 2 inputs, not 1"),
    (flat_input, invariants.one_input, "not NCHW"),
    (two_outputs, invariants.one_output, "not one tensor"),
    (foreign_module, invariants.modules_are_canonical, "layer_1 calls Mish"),
    (method, invariants.modules_are_canonical, "calls a method"),
    (number_as_argument, invariants.module_arguments_are_nodes, "not a node"),
    (no_shape, invariants.shapes_are_known, "layer_1 has no shape"),
    (nested, invariants.names_are_targets, "nested module inner.0"),
    (reflecting, invariants.convolutions_are_zero_padded, "pads with reflect"),
]


def test_a_legal_graph_has_no_violations():
    assert invariants.violations(graph().module) == []


@pytest.mark.parametrize(
    ("breakage", "invariant", "message"), BREAKAGES, ids=lambda each: getattr(each, "__name__", "")
)
def test_a_broken_invariant_is_named(breakage, invariant, message):
    module = graph().module
    breakage(module)
    assert message in " ".join(invariant(module))
    assert message in " ".join(invariants.violations(module))


def test_every_invariant_is_broken_above():
    assert {invariant for _, invariant, _ in BREAKAGES} == set(invariants.INVARIANTS)


def test_an_illegal_graph_cannot_be_built():
    with pytest.raises(GraphError, match="pads with reflect"):
        edit.trace(nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect")), (1, 3, 8, 8))


def test_layers_that_do_not_fit_each_other_are_named():
    with pytest.raises(GraphError, match="layer_1 does not fit"):
        edit.trace(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(5, 4, 3)), (1, 3, 8, 8))


def test_an_unknown_node():
    with pytest.raises(GraphError, match="no node 'missing'"):
        graph().node("missing")


def test_vocabulary_runs():
    x = torch.randn(1, 4, 6, 6)
    assert ops.Slice(1, 1, 3)(x).shape == (1, 2, 6, 6)
    assert torch.equal(ops.Affine()(x), x)

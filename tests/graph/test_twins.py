"""A twin is what `copy.deepcopy` returns."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrizations

from slimseg.graph import edit
from slimseg.graph.graph import Graph
from slimseg.graph.twins import twin


class Counted(nn.ReLU):
    """A layer that says itself how it is copied."""

    copies = 0

    def __deepcopy__(self, memo: dict[int, Any]) -> Counted:
        result = Counted()
        result.copies = self.copies + 1
        return result


def storages(module: nn.Module) -> set[int]:
    return {tensor.data_ptr() for tensor in (*module.parameters(), *module.buffers())}


def test_it_computes_the_same_and_shares_nothing(shapes_graph: Graph) -> None:
    module = shapes_graph.module
    result, image = twin(module), torch.randn(1, 3, *shapes_graph.input_size)
    wanted = module(image)
    assert torch.equal(result(image), wanted)
    assert not storages(result) & storages(module)
    with torch.no_grad():
        for parameter in result.parameters():
            parameter.zero_()
    assert torch.equal(module(image), wanted)
    assert not torch.equal(result(image), wanted)


def test_layers_have_every_attribute(shapes_graph: Graph) -> None:
    ours, wanted = twin(shapes_graph.module), copy.deepcopy(shapes_graph.module)
    assert [name for name, _ in ours.named_modules()] == [name for name, _ in wanted.named_modules()]
    for mine, theirs in zip(ours.modules(), wanted.modules(), strict=True):
        assert type(mine).__name__ == type(theirs).__name__  # fx makes a class of its own for each network
        assert {name: type(value) for name, value in vars(mine).items()} == {
            name: type(value) for name, value in vars(theirs).items()
        }
        assert not any(value is vars(theirs)[name] for name, value in vars(mine).items() if isinstance(value, dict))


def test_what_layers_share_their_twins_share() -> None:
    first, second = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)
    second.weight = first.weight
    _, left, right = twin(edit.trace(nn.Sequential(first, second), (1, 4, 6, 5)).module).modules()
    assert left.weight is right.weight
    assert left.weight is not first.weight


def test_a_layer_may_say_itself_how_it_is_copied() -> None:
    graph = edit.trace(nn.Sequential(nn.Conv2d(4, 4, 1), Counted()), (1, 4, 6, 5))
    assert [layer.copies for layer in twin(twin(graph.module)).modules() if isinstance(layer, Counted)] == [2]


def test_a_weight_that_is_computed_from_others() -> None:
    layer = parametrizations.weight_norm(nn.Conv2d(4, 4, 1))
    graph = edit.trace(nn.Sequential(layer), (1, 4, 6, 5))
    result, image = twin(graph.module), torch.randn(1, 4, 6, 5)
    assert torch.equal(result(image), graph.module(image))
    assert not storages(result) & storages(graph.module)

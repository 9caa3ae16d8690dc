"""Shape arithmetic against torch itself."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from slimseg.errors import GraphError
from slimseg.graph import edit, ops, propagation

quick = settings(max_examples=100, deadline=None, derandomize=True)
one_to_three = st.tuples(st.integers(1, 3), st.integers(1, 3))
zero_to_two = st.tuples(st.integers(0, 2), st.integers(0, 2))


def agrees(layer: nn.Module, *inputs: tuple[int, ...]) -> None:
    """The same shape as torch, or a refusal where torch refuses or leaves nothing."""
    try:
        expected = tuple(layer.eval()(*(torch.zeros(shape) for shape in inputs)).shape)
    except (RuntimeError, ValueError):
        expected = (0,)
    if min(expected) > 0:
        assert propagation.shape_of(layer, inputs) == expected
    else:
        with pytest.raises(ValueError, match=r"no values|fit|needs|slices"):
            propagation.shape_of(layer, inputs)


@quick
@given(one_to_three, one_to_three, zero_to_two, one_to_three, zero_to_two, st.integers(1, 14), st.booleans())
def test_windows(kernel, stride, padding, dilation, extra, length, ceil):
    shape = (1, 4, length, length + 3)
    pooling_padding = tuple(min(each, side // 2) for each, side in zip(padding, kernel, strict=True))  # torch's limit
    extra = tuple(min(each, max(s, d) - 1) for each, s, d in zip(extra, stride, dilation, strict=True))
    agrees(nn.Conv2d(4, 6, kernel, stride, padding, dilation, groups=2), shape)
    agrees(nn.ConvTranspose2d(4, 6, kernel, stride, padding, extra, 2, dilation=dilation), shape)
    agrees(nn.MaxPool2d(kernel, stride, pooling_padding, dilation, ceil_mode=ceil), shape)
    agrees(nn.AvgPool2d(kernel, stride, pooling_padding, ceil), shape)


@pytest.mark.parametrize(
    ("layer", "inputs"),
    [
        (nn.Conv2d(3, 4, 1), [(1, 4, 5, 5)]),
        (nn.Linear(5, 2), [(1, 4, 5)]),
        (nn.Linear(6, 2), [(1, 4, 5)]),
        (nn.AdaptiveAvgPool2d((1, 2)), [(1, 4, 5, 5)]),
        (nn.ReLU(), [(1, 4, 5, 5)]),
        (nn.BatchNorm2d(4), [(1, 4, 5, 5)]),
        (ops.Add(), [(1, 4, 5, 5), (1, 4, 1, 1)]),
        (ops.Multiply(), [(1, 4, 5, 5), (1, 3, 5, 5)]),
        (ops.Concat(1), [(1, 4, 5, 5), (1, 3, 5, 5)]),
        (ops.Concat(1), [(1, 4, 5, 5), (1, 3, 5, 4)]),
        (ops.Pad((1, 2, 3, 4)), [(1, 4, 5, 5)]),
        (ops.Pad((-3, -3, 0, 0)), [(1, 4, 5, 5)]),
        (ops.Resize((7, 9)), [(1, 4, 5, 5)]),
        (ops.ArgMax(), [(1, 4, 5, 6)]),
        (ops.Slice(1, 1, 3), [(1, 4, 5, 5)]),
        (ops.Slice(1, 3, 6), [(1, 4, 5, 5)]),
        (ops.Concat(3), [(1, 4, 5, 5), (1, 4, 5, 4)]),
        (ops.Slice(3, 1, 5, 2), [(1, 4, 5, 5)]),
        (ops.Reduce("mean", (1, 3), True), [(1, 4, 5, 6)]),
        (ops.Reduce("mean", (1, 3), False), [(1, 4, 5, 6)]),
        (ops.Affine(torch.ones(4, 1, 1)), [(1, 4, 5, 5)]),
    ],
)
def test_layer(layer, inputs):
    agrees(layer, *inputs)


@pytest.mark.parametrize(
    "layer", [lambda: ops.Concat(-1), lambda: ops.Slice(-3, 0, 2), lambda: ops.Reduce("max", (2, -1), True)]
)
def test_dimensions_are_counted_from_the_front(layer):
    with pytest.raises(ValueError, match="is negative: give 0"):
        layer()


def test_a_layer_without_a_rule_has_no_shape():
    with pytest.raises(GraphError, match="Mish is outside the vocabulary"):
        propagation.shape_of(nn.Mish(), [(1, 4, 5, 5)])


def test_a_graph_with_such_a_layer_names_it():
    graph = edit.trace(nn.Sequential(nn.ReLU(), nn.ReLU()), (1, 3, 8, 8))
    graph.module.add_module("layer_1", nn.Mish())
    with pytest.raises(GraphError, match=r"layer_1.*Mish is outside the vocabulary"):
        graph.refresh()

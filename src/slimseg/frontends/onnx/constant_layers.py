"""Layers of constants, as a convolution of a table of positions: computed once, when the file is opened."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, fx

from slimseg.frontends.onnx.builder import Builder, Call, Value
from slimseg.frontends.onnx.reader import Node
from slimseg.frontends.onnx.tensors import Array
from slimseg.graph.vocabulary import operator_of


def computed(
    builder: Builder, node: Node, handler: Callable[[Call], Value | tuple[Value, ...]], inputs: Sequence[Array | None]
) -> tuple[Array, ...]:
    """The results of a node whose inputs are all constants, of which the first takes the place of an activation.

    Raises:
        ModelError: all operators of the file together compute more than a network needs.
    """
    assert inputs[0] is not None
    source = builder.always(node, inputs[0])
    made = handler(Call(builder, node, [source, *inputs[1:]]))
    results = made if isinstance(made, tuple) else (made,)
    layers = [source.node]
    while layers[-1].next.op != "root":
        layers.append(layers[-1].next)
    values = _values(builder, layers)
    arrays = tuple(values[result.node].permute(result.order).numpy() for result in results)
    for layer in reversed(layers):
        builder.graph.erase_node(layer)
    return arrays


def _values(builder: Builder, layers: Sequence[fx.Node]) -> dict[fx.Node, Tensor]:
    """What the layers compute; the first is a constant, and any that read the image read only its size."""
    values: dict[fx.Node, Tensor] = {}
    for node in layers:
        layer, shape = builder.layer(node), node.meta["shape"]
        operator = operator_of(layer)
        assert layer is not None
        assert operator is not None
        macs = operator.macs(layer, [source.meta["shape"] for source in node.all_input_nodes], shape)
        builder.work.compute(macs, math.prod(shape))
        with torch.no_grad():
            values[node] = layer.eval()(*(values.get(source, torch.zeros(1)) for source in node.all_input_nodes))
    return values

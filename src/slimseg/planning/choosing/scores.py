"""The logits of a network, whatever kind of output it ends with: training needs logits."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, fx, nn

from slimseg.graph import ops
from slimseg.graph.graph import Graph, producer
from slimseg.graph.output import map_node

_DECIDES = (ops.ArgMax, nn.Softmax, nn.Sigmoid)


def logits_of(graph: Graph) -> Graph:
    """The network up to its logits, with shared layers: (N, classes, h, w), or (N, 1, h, w) for two classes.

    A final argmax, softmax or sigmoid is removed, and a reshape that flattens the map. Probabilities that another layer
    computes are turned into logits by a logarithm.
    """
    end = last = map_node(graph)
    while graph.layer_as(last, _DECIDES) is not None:
        last = producer(last)
    probabilities = graph.description.output_kind == "probabilities" and last is end
    if last is graph.output and not probabilities:
        return graph
    view = copy.copy(graph)
    view.module = fx.GraphModule(graph.module, _ending_at(graph, last))
    if probabilities:
        _append(view.module, _Logarithm())
    view.module.eval()
    return view


def _ending_at(graph: Graph, last: fx.Node) -> fx.Graph:
    new = fx.Graph()
    values: dict[fx.Node, fx.Node] = {}
    for node in graph.module.graph.nodes:
        if node.op != "output":
            values[node] = new.node_copy(node, lambda old: values[old])
        if node is last:
            break
    new.output(values[last])
    return new


def _append(module: fx.GraphModule, layer: nn.Module) -> None:
    end = next(node for node in reversed(module.graph.nodes) if node.op == "output")
    module.add_module("logarithm", layer)
    with module.graph.inserting_before(end):
        value = module.graph.call_module("logarithm", end.args)
    end.args = (value,)
    module.recompile()


class _Logarithm(nn.Module):
    """Turns probabilities into logits: the inverse of softmax, or of sigmoid if there is one channel."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.logit(x, 1e-6) if x.shape[1] == 1 else x.clamp(min=1e-6).log()

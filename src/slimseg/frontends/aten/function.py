"""Functions in plain torch as layers, for what other formats have and the vocabulary has not.

So their operators become the same layers as the calls in PyTorch that they stand for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_leaves

from slimseg.frontends.aten.builder import Builder
from slimseg.frontends.aten.call import Parameter
from slimseg.frontends.aten.decomposition import MOST_CALLS, traced
from slimseg.frontends.aten.effort import Allowance
from slimseg.frontends.program import Program

_LARGEST_VALUE = 1 << 27  # values of one step


@dataclass(frozen=True)
class Layers:
    """Calls of layers in a graph of their own; `inputs` are the activations that they read, in order."""

    root: nn.Module
    graph: fx.Graph
    inputs: Sequence[fx.Node]
    result: fx.Node

    def __iter__(self) -> Iterator[tuple[fx.Node, nn.Module]]:
        for node in self.graph.nodes:
            if node.op == "call_module":
                yield node, self.root.get_submodule(str(node.target))


def layers_of(
    function: Callable[..., Tensor],
    inputs: Sequence[tuple[int, ...] | Tensor],
    allowance: Allowance,
    most_calls: int = MOST_CALLS,
) -> Layers:
    """The layers that compute a function of activations, of which the shapes are given, and of constants.

    Raises:
        NotImplementedError: there are none, or the function does not hold for these shapes.
    """
    examples = [torch.empty(each if isinstance(each, tuple) else each.shape, device="meta") for each in inputs]
    try:
        module = traced(function, examples, keeps_composites=True)
    except Exception as error:
        raise NotImplementedError(str(error)) from error
    placeholders = [node for node in module.graph.nodes if node.op == "placeholder"]
    values = [each for node in module.graph.nodes for each in tree_leaves(node.meta.get("val"))]
    if len(module.graph.nodes) > most_calls or any(
        isinstance(each, Tensor) and each.numel() > _LARGEST_VALUE for each in values
    ):
        raise NotImplementedError("it takes too many steps or too much memory")
    parameters = {
        node: Parameter(node.name, nn.Parameter(each) if each.is_floating_point() else each.float())
        for node, each in zip(placeholders, inputs, strict=True)
        if isinstance(each, Tensor)
    }
    return _built(module, [node for node in placeholders if node not in parameters], parameters, allowance)


def _built(
    module: fx.GraphModule, activations: Sequence[fx.Node], parameters: dict[fx.Node, Parameter], allowance: Allowance
) -> Layers:
    for node in module.graph.nodes:
        if node.op == "get_attr":  # a constant that the function computes itself
            node.meta["val"] = getattr(module, str(node.target))
            parameters[node] = Parameter(node.name, node.meta["val"])
    builder = Builder(Program(module.graph, activations[0], parameters, (), allowance))
    for node in activations[1:]:
        builder.values[node] = builder.graph.placeholder(node.name)
    builder.build()
    (end,) = [node for node in module.graph.nodes if node.op == "output"]
    for node in reversed(builder.graph.nodes):
        if node.op == "call_function" and not node.users:  # a split, whose parts are slices of what it reads
            builder.graph.erase_node(node)
    if any(node.op not in ("placeholder", "call_module") for node in builder.graph.nodes):
        raise NotImplementedError("its arguments are of a kind that mobile files lack")
    inputs = [builder.values[node] for node in activations]
    return Layers(builder.root, builder.graph, inputs, builder.values[end.args[0]])

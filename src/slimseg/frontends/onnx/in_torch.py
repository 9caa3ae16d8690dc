"""Operators without a layer of their own: functions in torch, which are opened as PyTorch networks are.

So such an operator becomes the same layers as the call in PyTorch that it was exported from.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeGuard

import numpy as np
import torch
from torch import Tensor, fx

from slimseg.errors import one_line
from slimseg.frontends.aten.builder import Builder
from slimseg.frontends.aten.call import Parameter
from slimseg.frontends.aten.decomposition import MOST_CALLS, traced
from slimseg.frontends.onnx.builder import LARGEST_VALUE, Call, Value, plain
from slimseg.frontends.onnx.tensors import Array
from slimseg.frontends.program import Program
from slimseg.graph import ops

# Gets the operator's call and its inputs: activations and constants as tensors without data, single floating-point
# numbers as such, whole numbers as arrays, None for inputs that are left out.
Function = Callable[..., Tensor]
MOST_TRACED = 512  # operators of one file that are opened in this way; each takes some 20 ms


def in_torch(function: Function) -> Callable[[Call], Value]:
    """A handler for an operator that `function` computes."""

    def handler(call: Call) -> Value:
        given = [call.plain(index) if isinstance(each, Value) else each for index, each in enumerate(call.inputs)]
        return plain(_Opened(call, function, given).node())

    return handler


def on_stored(call: Call, value: Value, function: Function) -> Value:
    """What `function` makes of a value as it is stored; the result has the same order of dimensions."""
    return Value(_Opened(call, function, [plain(value.node)]).node(), value.order)


class _Opened:
    """One operator, as a PyTorch network with these inputs: activations in the order in which they are stored."""

    def __init__(self, call: Call, function: Function, inputs: Sequence[Value | Array | None]) -> None:
        call.builder.traced += 1
        if call.builder.traced > MOST_TRACED:
            raise call.unknown(f"more than {MOST_TRACED} operators of the file are no layers")
        self.call, self.inputs = call, inputs
        self.places = [index for index, each in enumerate(inputs) if _is_tensor(each)]
        try:
            self.module = traced(lambda *tensors: function(call, *self._given(tensors)), self._examples(), True)
        except Exception as error:  # the function does not hold for these inputs
            raise call.unknown(one_line(error)) from error
        values = [node.meta["val"] for node in self.module.graph.nodes if "val" in node.meta]
        if len(values) > MOST_CALLS or any(each.numel() > LARGEST_VALUE for each in values):
            raise call.unknown("it takes too many steps or too much memory")

    def _given(self, tensors: Sequence[Tensor]) -> list[Any]:
        given: list[Any] = [float(each.reshape(-1)[0]) if _is_number(each) else each for each in self.inputs]
        for index, tensor in zip(self.places, tensors, strict=True):
            given[index] = tensor
        return given

    def _examples(self) -> list[Tensor]:
        shapes = [given.shape for given in self.inputs if _is_tensor(given)]
        return [torch.empty(shape, device="meta") for shape in shapes]

    def node(self) -> fx.Node:
        """The operator's result, from layers in the graph under construction."""
        placeholders = [node for node in self.module.graph.nodes if node.op == "placeholder"]
        inputs = {node: self.inputs[place] for node, place in zip(placeholders, self.places, strict=True)}
        activations = {node: value.node for node, value in inputs.items() if isinstance(value, Value)}
        builder = Builder(self._program(inputs, next(iter(activations))))
        for node in list(activations)[1:]:
            builder.values[node] = builder.graph.placeholder(node.name)
        builder.build()
        made = {builder.values[node]: source for node, source in activations.items()}
        (end,) = [node for node in self.module.graph.nodes if node.op == "output"]
        return self._emit(builder, made, builder.values[end.args[0]])

    def _program(self, inputs: dict[fx.Node, Value | Array | None], image: fx.Node) -> Program:
        """The traced calls; constants are its parameters."""
        parameters = {}
        for node in self.module.graph.nodes:
            constant = inputs.get(node)
            if isinstance(constant, np.ndarray):
                parameters[node] = Parameter(node.name, torch.nn.Parameter(torch.tensor(constant, dtype=torch.float32)))
            elif node.op == "get_attr":
                node.meta["val"] = getattr(self.module, str(node.target))
                parameters[node] = Parameter(node.name, node.meta["val"])
        return Program(self.module.graph, image, parameters, (), self.call.builder.allowance)

    def _emit(self, builder: Builder, made: dict[fx.Node, fx.Node], result: fx.Node) -> fx.Node:
        """Copy the layers; the last one has the operator's own name."""
        image = next(node for node in self.call.builder.graph.nodes if node.op == "placeholder")
        for node in builder.graph.nodes:
            if node.op == "placeholder":
                continue
            if node.op != "call_module":
                raise self.call.unknown("its arguments are of a kind that mobile files lack")
            layer = builder.root.get_submodule(str(node.target))
            sources = [image] if isinstance(layer, ops.Constant) else [made[each] for each in node.args]
            made[node] = self.call.emit(layer, *sources, suffix="" if node is result else node.name)
        return made[result]


def _is_tensor(given: object) -> TypeGuard[Value | Array]:
    return isinstance(given, Value) or (isinstance(given, np.ndarray) and given.dtype.kind in "fb" and given.size > 1)


def _is_number(given: object) -> TypeGuard[Array]:
    return isinstance(given, np.ndarray) and given.dtype.kind in "fb" and given.size == 1

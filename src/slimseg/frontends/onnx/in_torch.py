"""Operators without a layer of their own: functions in torch, which are opened as PyTorch networks are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeGuard

import numpy as np
import torch
from torch import Tensor, fx

from slimseg.errors import one_line
from slimseg.frontends.aten.decomposition import MOST_CALLS
from slimseg.frontends.aten.function import layers_of
from slimseg.frontends.onnx.builder import Call, Value, plain
from slimseg.frontends.onnx.tensors import Array
from slimseg.graph import ops

# Gets the operator's call and its inputs: activations and constants as tensors without data, single floating-point
# numbers as such, whole numbers as arrays, None for inputs that are left out.
Function = Callable[..., Tensor]
MOST_TRACED = 512  # operators of one file that are opened in this way; each takes some 20 ms


def in_torch(function: Function, most_calls: int = MOST_CALLS) -> Callable[[Call], Value]:
    """A handler for an operator that `function` computes, in at most so many calls."""

    def handler(call: Call) -> Value:
        given = [call.plain(index) if isinstance(each, Value) else each for index, each in enumerate(call.inputs)]
        return plain(_opened(call, function, given, most_calls))

    return handler


def on_stored(call: Call, value: Value, function: Function) -> Value:
    """What `function` makes of a value as it is stored; the result has the same order of dimensions."""
    return Value(_opened(call, function, [plain(value.node)]), value.order)


def _opened(
    call: Call, function: Function, inputs: Sequence[Value | Array | None], most_calls: int = MOST_CALLS
) -> fx.Node:
    """The function's layers in the graph under construction; activations are read as they are stored."""
    call.builder.traced += 1
    if call.builder.traced > MOST_TRACED:
        raise call.unknown(f"more than {MOST_TRACED} operators of the file are no layers")
    places = [index for index, each in enumerate(inputs) if _is_tensor(each)]

    def run(*tensors: Tensor) -> Tensor:
        given: list[Any] = [float(each.reshape(-1)[0]) if _is_number(each) else each for each in inputs]
        for index, tensor in zip(places, tensors, strict=True):
            given[index] = tensor
        return function(call, *given)

    tensors = [each.stored if isinstance(each, Value) else torch.tensor(each) for each in inputs if _is_tensor(each)]
    try:
        layers = layers_of(run, tensors, call.builder.allowance, most_calls)
    except NotImplementedError as error:
        raise call.unknown(one_line(error)) from error
    sources = [each.node for each in inputs if isinstance(each, Value)]
    made = dict(zip(layers.inputs, sources, strict=True))
    for node, layer in layers:
        if isinstance(layer, ops.Constant):
            made[node] = call.builder.constant(call.node, layer)
        else:
            read = [made[each] for each in node.args if isinstance(each, fx.Node)]
            made[node] = call.emit(layer, *read, suffix="" if node is layers.result else node.name)
    return made[layers.result]


def _is_tensor(given: object) -> TypeGuard[Value | Array]:
    return isinstance(given, Value) or (isinstance(given, np.ndarray) and given.dtype.kind in "fb" and given.size > 1)


def _is_number(given: object) -> TypeGuard[Array]:
    return isinstance(given, np.ndarray) and given.dtype.kind in "fb" and given.size == 1

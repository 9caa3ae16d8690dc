"""Keras's functions without a layer of their own: functions in torch, which are opened as PyTorch networks are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch.nn import functional as F

from slimseg.errors import ModelError, one_line
from slimseg.frontends.aten.decompositions import comparisons, matrices, positions
from slimseg.frontends.aten.function import layers_of
from slimseg.frontends.keras.builder import Builder, Value
from slimseg.graph import ops
from slimseg.graph.orders import TO_NCHW, TO_NHWC

Function = Callable[..., Tensor]


def elementwise(function: Function) -> Callable[..., Value]:
    """A function of each number, with settings."""

    def emit(b: Builder, x: Value, suffix: str = "", **settings: Any) -> Value:
        return _opened(b, lambda each: function(each, **settings), [x], suffix)

    return emit


def in_torch(function: Function) -> Callable[..., Value]:
    """A function of tensors in Keras's order of dimensions, among other arguments."""

    def emit(b: Builder, *arguments: Any, suffix: str = "", **settings: Any) -> Value:
        values = [each for each in arguments if isinstance(each, Value)]

        def run(*tensors: Tensor) -> Tensor:
            given = iter(each.permute(TO_NHWC) if each.ndim == 4 else each for each in tensors)
            result = function(*(next(given) if isinstance(each, Value) else each for each in arguments), **settings)
            return result.permute(TO_NCHW) if result.ndim == 4 else result

        return _opened(b, run, values, suffix)

    return emit


def _opened(b: Builder, function: Function, values: Sequence[Value], suffix: str) -> Value:
    """The function's layers in the graph under construction; the tensors are NCHW."""
    b.call()
    try:
        layers = layers_of(function, [value.shape for value in values], b.allowance)
    except NotImplementedError as error:
        raise ModelError(f"it has no counterpart in slimseg ({one_line(error)}): give the .tflite instead") from error
    made = dict(zip(layers.inputs, values, strict=True))
    for node, layer in layers:
        read = (
            [b.image]
            if isinstance(layer, ops.Constant)
            else [made[each] for each in node.args if isinstance(each, fx.Node)]
        )
        made[node] = b.emit(
            layer, *read, suffix=suffix if node is layers.result else f"{suffix}_{node.name}".strip("_")
        )
    return made[layers.result]


def _squareplus(x: Tensor, b: float = 4) -> Tensor:
    return (x + torch.sqrt(torch.square(x) + b)) * 0.5


def _glu(x: Tensor, axis: int = -1) -> Tensor:
    return F.glu(x, axis)


def padded(x: Tensor, paddings: Sequence[Sequence[int]], mode: str = "constant", value: float = 0.0) -> Tensor:
    if mode == "symmetric":
        for dim, (before, after) in enumerate(paddings):
            length = x.shape[dim]
            inside = [*range(before)][::-1], range(length), [*range(length - after, length)][::-1]
            x = positions.taken(x, dim, [place for part in inside for place in part])
        return x
    flat = [int(amount) for amounts in reversed(paddings) for amount in amounts]
    return positions.pad(x, flat, mode, value)


def _einsum(*arguments: Any, subscripts: str = "") -> Tensor:
    equation, *tensors = (subscripts, *arguments) if subscripts else arguments
    return torch.einsum(equation, *tensors)


def _axes(axis: Any, x: Tensor) -> list[int]:
    if axis is None:
        return list(range(1, x.ndim))
    return [axis] if isinstance(axis, int) else list(axis)


def _variance(x: Tensor, axis: Any = None, keepdims: bool = False) -> Tensor:
    return torch.var(x, _axes(axis, x), correction=0, keepdim=keepdims)


def _deviation(x: Tensor, axis: Any = None, keepdims: bool = False) -> Tensor:
    return torch.sqrt(_variance(x, axis, keepdims))


def _log_sum(x: Tensor, axis: Any = None, keepdims: bool = False) -> Tensor:
    return torch.logsumexp(x, _axes(axis, x), keepdims)


def _normalised(x: Tensor, axis: int = -1, order: int = 2, epsilon: float = 1e-12) -> Tensor:
    """x / √max(Σx², ε), as TensorFlow's l2_normalize, too."""
    if order != 2:
        raise NotImplementedError(f"a norm of order {order}")
    return x * torch.rsqrt(torch.clamp(torch.sum(torch.square(x), axis, True), min=epsilon))


ACTIVATIONS: dict[str, Callable[..., Value]] = {
    "mish": elementwise(F.mish),
    "softplus": elementwise(F.softplus),
    "log_sigmoid": elementwise(F.logsigmoid),
    "celu": elementwise(lambda x, alpha=1.0: F.celu(x, alpha)),
    "squareplus": elementwise(_squareplus),
    "tanh_shrink": elementwise(lambda x: x - torch.tanh(x)),
    "soft_shrink": elementwise(lambda x, threshold=0.5: F.softshrink(x, threshold)),
    "hard_shrink": elementwise(lambda x, threshold=0.5: F.hardshrink(x, threshold)),
    "glu": in_torch(_glu),
    "log_softmax": in_torch(lambda x, axis=-1: torch.log(torch.softmax(x, axis))),
}
FUNCTIONS: dict[str, Callable[..., Value]] = {
    "einsum": in_torch(_einsum),
    "matmul": in_torch(torch.matmul),
    "batch_mat_mul": in_torch(torch.matmul),
    "tile": in_torch(lambda x, repeats: positions.repeat(x, [1] * (x.ndim - len(repeats)) + list(repeats))),
    "repeat": in_torch(lambda x, repeats, axis: positions.repeat_interleave(x, repeats, axis)),
    "broadcast_to": in_torch(lambda x, shape: positions.expand(x, shape)),
    "flip": in_torch(lambda x, axis: positions.flip(x, _axes(axis, x))),
    "reverse": in_torch(lambda x, axis: positions.flip(x, _axes(axis, x))),
    "roll": in_torch(
        lambda x, shift, axis: positions.roll(x, [shift] if isinstance(shift, int) else shift, _axes(axis, x))
    ),
    "cumsum": in_torch(lambda x, axis: matrices.running_sum(x, axis)),
    "var": in_torch(_variance),
    "reduce_variance": in_torch(_variance),
    "std": in_torch(_deviation),
    "reduce_std": in_torch(_deviation),
    "logsumexp": in_torch(_log_sum),
    "reduce_logsumexp": in_torch(_log_sum),
    "normalize": in_torch(_normalised),
    "l2_normalize": in_torch(_normalised),
    "greater": in_torch(comparisons.greater),
    "greater_equal": in_torch(comparisons.greater_or_equal),
    "less": in_torch(comparisons.less),
    "less_equal": in_torch(comparisons.less_or_equal),
    "equal": in_torch(comparisons.equal),
    "not_equal": in_torch(comparisons.different),
    "where": in_torch(comparisons.where),
    "logical_not": in_torch(comparisons.negated),
    "logical_and": in_torch(comparisons.both),
    "logical_or": in_torch(comparisons.either),
    "sin": elementwise(torch.sin),
    "cos": elementwise(torch.cos),
    "floor": elementwise(torch.floor),
    "ceil": elementwise(torch.ceil),
    "sign": elementwise(torch.sign),
    "reciprocal": elementwise(torch.reciprocal),
    "log1p": elementwise(torch.log1p),
    "expm1": elementwise(torch.expm1),
}

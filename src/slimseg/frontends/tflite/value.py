"""What flows between a file's operators, and what an operator's handler is given."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, fx, nn

from slimseg.errors import ModelError, UnknownOperator
from slimseg.graph import ops
from slimseg.graph.orders import TO_NHWC

Array = np.ndarray[Any, Any]
NHWC, NCHW = TO_NHWC, (0, 1, 2, 3)  # for each dimension of the file's tensor, the node's dimension that holds it
Amounts = tuple[int, int, int, int]  # left, right, top, bottom


@dataclass(frozen=True)
class Space:
    """A value between SPACE_TO_BATCH and BATCH_TO_SPACE, whose node is still the whole picture.

    An operator on each of the block² interleaved small pictures becomes one on the whole picture, dilated by `block`.
    """

    block: tuple[int, int]  # height, width
    pending: Amounts = (0, 0, 0, 0)  # padding that is not yet applied to the node


@dataclass(frozen=True)
class Value:
    """A node, and the order of its dimensions in the file."""

    node: fx.Node
    order: tuple[int, ...]  # for four dimensions NHWC or another permutation; else (0, 1, ...)
    space: Space | None = None

    @property
    def rank(self) -> int:
        return len(self.order)

    @property
    def node_shape(self) -> tuple[int, ...]:
        return self.node.meta["shape"]  # type: ignore[no-any-return]


def natural(rank: int) -> tuple[int, ...]:
    """The order of dimensions of an untransposed tensor in a file."""
    return NHWC if rank == 4 else tuple(range(rank))


class Emitter(Protocol):
    """Adds a layer to the graph under construction."""

    def __call__(self, module: nn.Module, sources: Sequence[fx.Node], name: str) -> fx.Node: ...


@dataclass(frozen=True)
class Call:
    """One operator of the file: its inputs, options, and the name of its result."""

    op: str
    name: str
    layer: str  # the operator's own name; differs from its result's if slimseg wrote it with a fused activation
    inputs: tuple[Value | Array | None, ...]
    options: Any
    output_shapes: tuple[tuple[int, ...], ...]  # as in the file
    custom: bytes
    emit: Emitter
    saturates: int = 0  # the activation that the range of a quantised result amounts to, as a code of the schema
    crops: tuple[int, ...] | None = None  # crop of the BATCH_TO_SPACE that ends a SPACE_TO_BATCH

    @property
    def output_shape(self) -> tuple[int, ...]:
        return self.output_shapes[0]

    def unknown(self, reason: str) -> UnknownOperator:
        """The error for an operator that the vocabulary cannot express."""
        return UnknownOperator(f"{self.op} ({self.name}) {reason}")

    def option(self, name: str, default: Any = None) -> Any:
        return default if self.options is None else getattr(self.options, name)

    def constant(self, position: int) -> Array:
        """A constant input.

        Raises:
            UnknownOperator: the input is computed.
        """
        value = self.optional_constant(position)
        if value is None:
            raise self.unknown(f"lacks a constant as its input {position}")
        return value

    def optional_constant(self, position: int) -> Array | None:
        if position >= len(self.inputs) or self.inputs[position] is None:
            return None
        value = self.inputs[position]
        if isinstance(value, Value):
            raise self.unknown(f"computes its input {position}, which must be constant")
        return value

    def integers(self, position: int) -> list[int]:
        return [int(number) for number in self.constant(position).reshape(-1)]

    def is_value(self, position: int) -> bool:
        return position < len(self.inputs) and isinstance(self.inputs[position], Value)

    def raw(self, position: int = 0) -> Value:
        """An activation in the order that the file has it in."""
        value = self.inputs[position] if position < len(self.inputs) else None
        if not isinstance(value, Value):
            raise self.unknown(f"has a constant as its input {position}, which should be an activation")
        return value

    def value(self, position: int = 0, spaced: bool = False) -> Value:
        """An activation in the file's natural order; a transposed one is transposed back by a layer.

        Raises:
            UnknownOperator: it lies between SPACE_TO_BATCH and BATCH_TO_SPACE, and the operator cannot work there.
        """
        value = self.raw(position)
        if value.space is not None and not spaced:
            raise self.unknown("stands between SPACE_TO_BATCH and BATCH_TO_SPACE, where it has no counterpart")
        value = self.ordered(value, natural(value.rank))
        if value.space is None:
            return value
        return pad(self, replace(value, space=Space(value.space.block)), value.space.pending)

    def in_any_order(self, position: int = 0) -> Value:
        """An activation in the order that it has, for operators that work in any.

        Raises:
            UnknownOperator: it lies between SPACE_TO_BATCH and BATCH_TO_SPACE.
        """
        value = self.raw(position)
        return value if value.space is None else self.value(position)

    def raw_map(self) -> Value:
        """The input of a convolution: a map in the natural order; pending padding is not yet applied."""
        value = self.raw(0)
        if value.rank != 4:
            raise self.unknown(f"works on a tensor of {value.rank} dimensions, not on a map")
        return self.ordered(value, NHWC)

    def ordered(self, value: Value, order: tuple[int, ...]) -> Value:
        """The same file tensor, as a node whose dimensions are in `order`."""
        if value.order == order:
            return value
        # order[i] is the node dimension that holds file dimension i, for both orders.
        dims = [0] * value.rank
        for before, after in zip(value.order, order, strict=True):
            dims[after] = before
        return Value(self.emit(ops.Transpose(tuple(dims)), [value.node], f"{self.name}_transposed"), order, value.space)

    def result(self, module: nn.Module, *sources: Value, name: str = "", like: Value | None = None) -> Value:
        """Emit a layer on values; the result has the order of the first source, or of `like`."""
        first = like or sources[0]
        node = self.emit(module, [source.node for source in sources], name or self.name)
        order = first.order if len(node.meta["shape"]) == first.rank else natural(len(node.meta["shape"]))
        return Value(node, order, first.space)

    def always(self, constant: Array, order: tuple[int, ...], name: str) -> Value:
        """A constant as a value; it reads the image only for the number of images."""
        module = ops.Constant(parameter(constant))
        return Value(self.emit(module, [_image(self)], name), order)

    def activated(self, value_of: Callable[[str], Value]) -> Value:
        """`value_of(name)`, followed by the operator's fused activation, or by `saturates`."""
        code = self.option("fusedActivationFunction", 0) or self.saturates
        if code == 0:
            return value_of(self.name)
        activation = FUSED.get(code)
        if activation is None:
            raise self.unknown(f"has the fused activation {code}")
        name = self.name if self.layer != self.name else f"{self.name}_activation"
        return self.result(activation(), value_of(self.layer), name=name)

    def damaged(self, reason: str) -> ModelError:
        return ModelError(f"{self.op} ({self.name}) {reason}")


FUSED: dict[int, Callable[[], nn.Module]] = {
    1: nn.ReLU,
    2: lambda: nn.Hardtanh(-1.0, 1.0),
    3: nn.ReLU6,
    4: nn.Tanh,
}


def _image(call: Call) -> fx.Node:
    """The network's input, from any of an operator's activations."""
    value = next(value for value in call.inputs if isinstance(value, Value))
    image: fx.Node = next(node for node in value.node.graph.nodes if node.op == "placeholder")
    return image


def parameter(array: Array) -> nn.Parameter:
    return nn.Parameter(torch.from_numpy(np.ascontiguousarray(array, np.float32).copy()))


def filled(layer: nn.Module, weight: Array, bias: Array | None) -> nn.Module:
    """A layer with the given weights, and the bias if it has one.

    Raises:
        ModelError: their sizes differ from the layer's.
    """
    given = {"weight": weight} if bias is None else {"weight": weight, "bias": bias.reshape(-1)}
    for name, array in given.items():
        own = getattr(layer, name)
        if own is None or tuple(own.shape) != array.shape:
            wanted = () if own is None else tuple(own.shape)
            raise ModelError(f"has a layer whose {name} is {array.shape}, where {wanted} fits: export it again")
        setattr(layer, name, parameter(array))
    return layer


def in_order(constant: Array, order: Sequence[int]) -> Tensor:
    """A constant that broadcasts to a tensor of the file, converted to broadcast to its node, without the batch."""
    if constant.size == 1:
        return torch.tensor(float(constant.reshape(-1)[0]))
    full = constant.reshape((1,) * (len(order) - constant.ndim) + constant.shape)
    turned = full.transpose([order.index(dim) for dim in range(len(order))])
    kept = turned[0] if turned.shape[0] == 1 else turned
    return torch.from_numpy(np.ascontiguousarray(kept, np.float32).copy())


def pad(call: Call, value: Value, amounts: Amounts, fill: float = 0.0) -> Value:
    """The value with (left, right, top, bottom) more pixels; unchanged if all are 0."""
    if not any(amounts):
        return value
    return call.result(ops.Pad(amounts, fill), value, name=f"{call.name}_pad")

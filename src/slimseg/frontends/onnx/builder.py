"""Grows the canonical graph node by node, and keeps track of the order in which each value's dimensions lie.

A transpose is not written down when it is met: the value is remembered as `stored.permute(order)`, and only an operator
that cannot work in another order has it done. So a file that was NHWC before it became ONNX, with transposes at both
ends or around every layer, comes out as NCHW without any.
"""

from __future__ import annotations

import math
import re
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn

from slimseg.errors import ModelError, UnknownOperator, printable
from slimseg.frontends.onnx.reader import Model, Node
from slimseg.frontends.onnx.tensors import Array
from slimseg.graph import ops, propagation
from slimseg.graph.names import Names, node_name
from slimseg.graph.orders import TO_NHWC

LARGEST_VALUE = 1 << 27  # elements of one activation: half a GiB
MAX_LAYERS = 6_000  # one operator can be several
MAX_RANK = 8
NHWC = TO_NHWC
# How torch, Keras and Paddle call a layer's weights, behind the layer's own name.
_ROLES = r"([/.](weight|bias|(depthwise_|pointwise_)?kernel|gamma|beta|alpha)|[._](weights|w_\d+|scale))(:0|/.*)?$"
# What exporters call a value that has no name.
_NUMBERED = r"((n|t|val|tmp)?[_:]*[\d_]*|onnx::\w+(:[_:]*[\d_]*)?)"
_READ = 1000  # characters of a name
_LONGEST_NAME = 200  # of its part that names a layer
_WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul", "BatchNormalization", "PRelu")


@dataclass(frozen=True)
class Value:
    """An activation as ONNX sees it: `node`'s output with its dimensions in `order`, as torch's permute takes them."""

    node: fx.Node
    order: tuple[int, ...]

    @property
    def stored(self) -> tuple[int, ...]:
        """Shape of the node's output."""
        return self.node.meta["shape"]  # type: ignore[no-any-return]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape in ONNX's eyes."""
        return tuple(self.stored[dim] for dim in self.order)

    @property
    def rank(self) -> int:
        return len(self.order)


def plain(node: fx.Node) -> Value:
    return Value(node, tuple(range(len(node.meta["shape"]))))


def _is_vector(shape: Sequence[int]) -> bool:
    return sum(length > 1 for length in shape) <= 1


class Builder:
    """The graph so far. `emit` adds a layer under the name of the ONNX node at work."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.root = nn.Module()
        self.graph = fx.Graph()
        self.notes: list[str] = []
        self.is_nhwc = False  # whether the file takes its image so
        self.consumers: dict[str, list[Node]] = {}
        for node in model.nodes:
            for name in node.inputs:
                self.consumers.setdefault(name, []).append(node)
        self._names = Names()
        self.work = model.work
        self._shared: dict[Hashable, str] = {}
        self._transposed: dict[tuple[fx.Node, tuple[int, ...]], fx.Node] = {}

    def image(self, shape: tuple[int, ...], order: tuple[int, ...]) -> Value:
        """The input: `shape` is NCHW, `order` says how ONNX sees it."""
        node = self.graph.placeholder("image")
        node.meta["shape"] = shape
        self._names.new("image")
        self.is_nhwc = order == NHWC
        return Value(node, order)

    def note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)

    def emit(self, source: Node, layer: nn.Module, *inputs: fx.Node, suffix: str = "", key: Hashable = None) -> fx.Node:
        """A call of `layer`; layers of one `key` are the same module (shared weights).

        Raises:
            ModelError: the inputs do not fit it.
        """
        try:
            shape = propagation.shape_of(layer, [node.meta["shape"] for node in inputs])
        except (ValueError, IndexError, TypeError, ZeroDivisionError) as error:
            raise ModelError(f"{self.model.path}: the operator {source} does not fit its input: {error}") from error
        if math.prod(shape) > LARGEST_VALUE:
            raise ModelError(f"{self.model.path}: the operator {source} gives {shape}, too many values for a phone")
        if len(shape) > MAX_RANK:
            raise ModelError(
                f"{self.model.path}: the operator {source} gives {len(shape)} dimensions, more than the {MAX_RANK} "
                "that slimseg opens"
            )
        if len(self._names) > MAX_LAYERS:
            raise ModelError(f"{self.model.path} becomes more than the {MAX_LAYERS} layers that slimseg opens")
        name = self._names.new("_".join(filter(None, (layer_name(source), suffix))))
        target = self._shared.setdefault(key, name) if key is not None else name
        if target == name:
            self.work.store(layer)
            self.root.add_module(name, layer)
        node = self.graph.create_node("call_module", target, inputs, name=name)
        node.meta["shape"] = shape
        return node

    def layer(self, node: fx.Node) -> nn.Module | None:
        return self.root.get_submodule(str(node.target)) if node.op == "call_module" else None

    def shared(self, node: fx.Node) -> bool:
        """Whether another call uses the same module; if not, none will from now on."""
        target = str(node.target)
        if sum(str(other.target) == target for other in self.graph.nodes) > 1:
            return True
        self._shared = {key: name for key, name in self._shared.items() if name != target}
        return False

    def ordered(self, source: Node, value: Value, order: tuple[int, ...]) -> Value:
        """The same value, stored so that `order` brings it back to how ONNX sees it."""
        dims = tuple(value.order[order.index(dim)] for dim in range(value.rank))
        if dims == tuple(range(value.rank)):
            return value
        if (value.node, dims) not in self._transposed:
            self._transposed[value.node, dims] = self._permuted(source, value, dims)
        return Value(self._transposed[value.node, dims], order)

    def _permuted(self, source: Node, value: Value, dims: tuple[int, ...]) -> fx.Node:
        shape = tuple(value.stored[dim] for dim in dims)
        if not _is_vector(shape):
            return self.emit(source, ops.Transpose(dims), value.node, suffix="layout")
        # A vector keeps its order of values however its dimensions are called, and however often it was reshaped.
        node = value.node
        if isinstance(self.layer(node), ops.Reshape) and _is_vector(node.all_input_nodes[0].meta["shape"]):
            node = node.all_input_nodes[0]
        return self.emit(source, ops.Reshape(shape), node, suffix="layout")


class Call:
    """One ONNX node with its inputs, as a handler sees it."""

    def __init__(self, builder: Builder, node: Node, inputs: Sequence[Value | Array | None]) -> None:
        self.builder = builder
        self.node = node
        self.inputs = inputs
        self.opset = builder.model.opset

    def attribute(self, name: str, default: Any = None) -> Any:
        return self.node.attributes.get(name, default)

    def value(self, index: int = 0) -> Value:
        """An input that is an activation, in whatever order.

        Raises:
            UnknownOperator: it is a constant or left out.
        """
        value = self.inputs[index] if index < len(self.inputs) else None
        if not isinstance(value, Value):
            raise self.unknown(f"input {index + 1} is not computed from the image")
        return value

    def plain(self, index: int = 0) -> Value:
        """An input that is an activation, stored in ONNX's own order (NCHW)."""
        value = self.value(index)
        return self.builder.ordered(self.node, value, tuple(range(value.rank)))

    def constant(self, index: int) -> Array | None:
        """An input that is a constant; None where it is left out.

        Raises:
            UnknownOperator: it is computed from the image.
        """
        value = self.inputs[index] if index < len(self.inputs) else None
        if isinstance(value, Value):
            raise self.unknown(f"input {index + 1} is computed, not a constant")
        return value

    def constants(self) -> list[Array | None]:
        """Every input but the first; the first, being an activation, as None."""
        return [None, *(self.constant(index) for index in range(1, len(self.inputs)))]

    def emit(self, layer: nn.Module, *inputs: fx.Node, suffix: str = "", key: Hashable = None) -> fx.Node:
        return self.builder.emit(self.node, layer, *inputs, suffix=suffix, key=key)

    def on(self, value: Value, layer: nn.Module, suffix: str = "") -> Value:
        """A layer that keeps the order of dimensions."""
        return Value(self.emit(layer, value.node, suffix=suffix), value.order)

    def key(self, *more: Hashable) -> Hashable:
        """Identity of operator, settings, weights and whatever else makes the layer: called twice, it is one module."""
        settings = tuple(sorted((name, str(value)) for name, value in self.node.attributes.items()))
        return (self.node.op, self.node.inputs[1:], settings, more)

    def unknown(self, reason: str) -> UnknownOperator:
        return UnknownOperator(
            f"{self.builder.model.path} uses the operator {self.node} in a way that slimseg cannot open: {reason}"
        )


def layer_name(node: Node) -> str:
    """What a user calls the layer: the node's own name unless an exporter made it up, else its weights' or output's."""
    own = _module_path(node)[:_LONGEST_NAME]
    if own and not re.fullmatch(rf"(node_|p2o\.).*|n[\d_]+|({re.escape(node.op)})?[_@]?\d*", own, re.IGNORECASE):
        return node_name(own)
    for weights in node.inputs[1:]:
        weights = printable(weights[:_LONGEST_NAME])
        if re.search(_ROLES, weights):
            return node_name(re.sub(_ROLES, "", weights))
    output = printable(node.outputs[0][:_LONGEST_NAME]) if node.outputs else ""
    output = re.sub(r"(_output_\d+)?(_(De)?[Qq]uantizeLinear\w*)?$", "", output)
    return node_name(node.op.lower() if re.fullmatch(_NUMBERED, output) else output)


def _module_path(node: Node) -> str:
    """torch writes `/stem/stem.0/Conv` for the convolution of the module stem.0."""
    parts = printable(node.name[:_READ]).strip("/").split("/")
    parts = [part for part, after in zip(parts, [*parts[1:], ""], strict=True) if not after.startswith(f"{part}.")]
    has_weights = any(name for name in node.inputs[1:]) and node.op in _WEIGHTED
    return "/".join(parts[:-1] if has_weights and len(parts) > 1 and parts[-1] == node.op else parts)


def parameter(values: Array, shape: Sequence[int] | None = None) -> nn.Parameter:
    """A trainable copy of a constant."""
    array = values if shape is None else values.reshape(shape)
    return nn.Parameter(torch.tensor(array, dtype=torch.float32))

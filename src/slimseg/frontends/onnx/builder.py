"""Builds the Graph node by node, and tracks the order of each value's dimensions.

A transpose adds no node: its result is remembered as `stored.permute(order)`, and a transpose is only emitted for an
operator that needs another order. So a file that was NHWC before it became ONNX, with transposes at both ends or around
every layer, becomes an NCHW graph without transposes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import torch
from torch import fx, nn

from slimseg.errors import ModelError, UnknownOperator, printable
from slimseg.frontends.aten.effort import Allowance
from slimseg.frontends.onnx.reader import Branch, Model, Node, every
from slimseg.frontends.onnx.tensors import Array
from slimseg.graph import ops, propagation
from slimseg.graph.names import Names, node_name
from slimseg.graph.orders import TO_NHWC

LARGEST_VALUE = 1 << 27  # values of one activation: half a GiB
MAX_LAYERS = 6_000  # layers of one network; one operator can become several
MAX_RANK = 8
NHWC = TO_NHWC
# How torch, Keras and Paddle name a layer's weights: these endings follow the layer's own name.
_ROLES = r"([/.](weight|bias|(depthwise_|pointwise_)?kernel|gamma|beta|alpha)|[._](weights|w_\d+|scale))(:0|/.*)?$"
# How exporters name a value that the user gave no name.
_NUMBERED = r"((n|t|val|tmp)?[_:]*[\d_]*|onnx::\w+(:[_:]*[\d_]*)?)"
_READ = 1000  # characters of a name that are searched
_LONGEST_NAME = 200  # characters of the part of a name that names a layer
_WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul", "BatchNormalization", "PRelu")


@dataclass(frozen=True)
class Value:
    """An activation as ONNX sees it: `node`'s output, its dimensions permuted by `order` as torch's permute does."""

    node: fx.Node
    order: tuple[int, ...]

    @property
    def stored(self) -> tuple[int, ...]:
        """Shape of the node's output, as it is stored."""
        return self.node.meta["shape"]  # type: ignore[no-any-return]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape as ONNX sees it."""
        return tuple(self.stored[dim] for dim in self.order)

    @property
    def rank(self) -> int:
        return len(self.order)


def plain(node: fx.Node) -> Value:
    return Value(node, tuple(range(len(node.meta["shape"]))))


def _is_vector(shape: Sequence[int]) -> bool:
    return sum(length > 1 for length in shape) <= 1


class Builder:
    """The graph under construction. `emit` adds a layer, named after the ONNX node that is being read."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.root = nn.Module()
        self.graph = fx.Graph()
        self.notes: list[str] = []
        self.is_nhwc = False  # whether the file takes its image in NHWC
        self.consumers: dict[str, list[Node]] = {}
        for node in every(model.nodes):
            results = (each.outputs for each in node.attributes.values() if isinstance(each, Branch))
            for name in (*node.inputs, *chain.from_iterable(results)):
                self.consumers.setdefault(name, []).append(node)
        self._names = Names()
        self.work = model.work
        self.traced = 0  # operators that `in_torch` opened
        self.allowance = Allowance(str(model.path), sum(each.nbytes for each in model.constants.values()))
        self._shared: dict[Hashable, str] = {}
        self._transposed: dict[tuple[fx.Node, tuple[int, ...]], fx.Node] = {}

    def image(self, shape: tuple[int, ...], order: tuple[int, ...]) -> Value:
        """The input: `shape` is NCHW, `order` is the order in which ONNX sees its dimensions."""
        is_ours = self.model.description is not None
        node = self.graph.placeholder(self._names.new(node_name(self.model.inputs[0].name) if is_ours else "image"))
        node.meta["shape"] = shape
        self.is_nhwc = order == NHWC
        return Value(node, order)

    def note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)

    def emit(self, source: Node, layer: nn.Module, *inputs: fx.Node, suffix: str = "", key: Hashable = None) -> fx.Node:
        """Call `layer` on `inputs`; layers with equal `key` are one module (shared weights).

        Raises:
            ModelError: the inputs do not fit the layer.
        """
        try:
            shape = propagation.shape_of(layer, [node.meta["shape"] for node in inputs])
        except (ValueError, IndexError, TypeError, ZeroDivisionError) as error:
            raise ModelError(f"{self.model.path}: the operator {source} does not fit its input: {error}") from error
        if math.prod(shape) > LARGEST_VALUE:
            raise ModelError(f"{self.model.path}: the operator {source} outputs {shape}, too many values for a phone")
        if len(shape) > MAX_RANK:
            raise ModelError(
                f"{self.model.path}: the operator {source} outputs {len(shape)} dimensions, more than the {MAX_RANK} "
                "that slimseg opens"
            )
        if len(self._names) > MAX_LAYERS:
            raise ModelError(f"{self.model.path} becomes more than the {MAX_LAYERS} layers that slimseg opens")
        name = self._names.new(self._own_name(source, suffix))
        target = self._shared.setdefault(key, name) if key is not None else name
        if target == name:
            self.work.store(layer)
            self.root.add_module(name, layer)
        node = self.graph.create_node("call_module", target, inputs, name=name)
        node.meta["shape"] = shape
        return node

    def _own_name(self, source: Node, suffix: str) -> str:
        """The name of a layer: in slimseg's own files that of the operator's result, and of the padding before it."""
        result = source.outputs[0] if source.outputs else ""
        if self.model.description is None or not result:
            return "_".join(filter(None, (layer_name(source), suffix)))
        known = self.model.names.get(result)
        if known is not None and known.name in known.covers:
            result = known.name
        first = known.covers[0] if known is not None else result
        # The padding before a layer; or the product that an attention or linear layer, in parts, is named after.
        if first != result and (suffix == "pad" or result in (f"{first}_mixed", f"{first}_product")):
            return node_name(first)
        return "_".join(filter(None, (node_name(result), suffix)))

    def always(self, source: Node, constant: Array, name: str = "") -> Value:
        """A constant, called `name` in the file, as a value; it reads the image only for the number of images."""
        return plain(self.constant(source, ops.Constant(parameter(constant)), name))

    def constant(self, source: Node, layer: ops.Constant, name: str = "") -> fx.Node:
        image = next(node for node in self.graph.nodes if node.op == "placeholder")
        if name and self.model.description is not None:
            return self.emit(replace(source, outputs=(name,)), layer, image)
        return self.emit(source, layer, image, suffix="constant")

    def layer(self, node: fx.Node) -> nn.Module | None:
        return self.root.get_submodule(str(node.target)) if node.op == "call_module" else None

    def shared(self, node: fx.Node) -> bool:
        """Whether another call uses the node's module; if not, no later call will share it either."""
        target = str(node.target)
        if sum(str(other.target) == target for other in self.graph.nodes) > 1:
            return True
        self._shared = {key: name for key, name in self._shared.items() if name != target}
        return False

    def ordered(self, source: Node, value: Value, order: tuple[int, ...]) -> Value:
        """The same value, stored so that its order is `order`."""
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
        # The values of a vector stay in order when its dimensions are permuted or reshaped.
        node = value.node
        if isinstance(self.layer(node), ops.Reshape) and _is_vector(node.all_input_nodes[0].meta["shape"]):
            node = node.all_input_nodes[0]
        return self.emit(source, ops.Reshape(shape), node, suffix="layout")


class Call:
    """One ONNX node and its inputs, as a handler sees it."""

    def __init__(self, builder: Builder, node: Node, inputs: Sequence[Value | Array | None]) -> None:
        self.builder = builder
        self.node = node
        self.inputs = inputs
        self.opset = builder.model.opset

    def attribute(self, name: str, default: Any = None) -> Any:
        return self.node.attributes.get(name, default)

    def value(self, index: int = 0) -> Value:
        """An input that is an activation, in any order of dimensions.

        Raises:
            UnknownOperator: the input is a constant or left out.
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
        """An input that is a constant; None if it is left out.

        Raises:
            UnknownOperator: the input is computed from the image.
        """
        value = self.inputs[index] if index < len(self.inputs) else None
        if isinstance(value, Value):
            raise self.unknown(f"input {index + 1} is computed, not a constant")
        return value

    def constants(self) -> list[Array | None]:
        """The constants among the inputs; None for the first input, which is an activation."""
        return [None, *(self.constant(index) for index in range(1, len(self.inputs)))]

    def emit(self, layer: nn.Module, *inputs: fx.Node, suffix: str = "", key: Hashable = None) -> fx.Node:
        return self.builder.emit(self.node, layer, *inputs, suffix=suffix, key=key)

    def on(self, value: Value, layer: nn.Module, suffix: str = "") -> Value:
        """Emit a layer on `value`; the result has the same order of dimensions."""
        return Value(self.emit(layer, value.node, suffix=suffix), value.order)

    def key(self, *more: Hashable) -> Hashable:
        """Identity of operator, settings, weights and `more`: a layer that is called twice is one module."""
        settings = tuple(sorted((name, str(value)) for name, value in self.node.attributes.items()))
        return (self.node.op, self.node.inputs[1:], settings, more)

    def unknown(self, reason: str) -> UnknownOperator:
        return UnknownOperator(
            f"{self.builder.model.path} uses the operator {self.node} in a way that slimseg cannot open: {reason}"
        )


def layer_name(node: Node) -> str:
    """The user's name for the layer: the node's name unless an exporter made it up, else from weights or output."""
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
    """The module's path in torch's node names: `stem.0` for `/stem/stem.0/Conv`."""
    parts = printable(node.name[:_READ]).strip("/").split("/")
    parts = [part for part, after in zip(parts, [*parts[1:], ""], strict=True) if not after.startswith(f"{part}.")]
    has_weights = any(name for name in node.inputs[1:]) and node.op in _WEIGHTED
    return "/".join(parts[:-1] if has_weights and len(parts) > 1 and parts[-1] == node.op else parts)


def parameter(values: Array, shape: Sequence[int] | None = None) -> nn.Parameter:
    """A trainable copy of a constant."""
    array = values if shape is None else values.reshape(shape)
    return nn.Parameter(torch.tensor(array, dtype=torch.float32))

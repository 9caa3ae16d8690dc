"""Turns a traced network into modules of the vocabulary, call by call; computes what depends on parameters only."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from slimseg.errors import ModelError
from slimseg.frontends import aten
from slimseg.frontends.aten.effort import bytes_of
from slimseg.frontends.program import Program
from slimseg.graph import ops
from slimseg.graph.names import node_name, unused

LARGEST_CONSTANT = 1 << 26  # values of a tensor that is computed while opening; larger ones are computed in every run


class Builder:
    """Rebuilds an exported program node by node with modules in place of ATen calls."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.root = nn.Module()
        self.graph = fx.Graph()
        self.values: dict[fx.Node, fx.Node] = {}
        self.parameters = dict(program.parameters)
        self.computed: dict[fx.Node, Tensor] = {}
        self.modules: dict[tuple[Any, ...], str] = {}
        self.memory: dict[fx.Node, fx.Node] = {}
        self.viewed: set[fx.Node] = set()

    def build(self) -> None:
        """Follow all calls; `values` then holds the new node of every call that depends on the image.

        Raises:
            ModelError: the network does something unsupported, or its constants take far more than the file.
        """
        image = self.program.image
        self.values[image] = self.graph.placeholder("image")
        self.memory[image] = image
        for node in self.program.graph.nodes:
            if node.op == "call_function" and not self._is_constant(node):
                self._call(node)

    def module(self, result: fx.Node) -> fx.GraphModule:
        """The module that returns the value of one of the nodes that `build` made."""
        self.graph.output(self._mask(result))
        return fx.GraphModule(self.root, self.graph)

    def _mask(self, result: fx.Node) -> fx.Node:
        """A mask is (1, height, width): layers at the end that only cast it or add a channel are left out."""
        node = result
        while self._only_passes_on(node):
            node = node.all_input_nodes[0]
        is_mask = node.op == "call_module" and isinstance(self.root.get_submodule(str(node.target)), ops.ArgMax)
        return node if is_mask else result

    def _only_passes_on(self, node: fx.Node) -> bool:
        if node.op == "call_module":
            return isinstance(self.root.get_submodule(str(node.target)), ops.Reshape | ops.Cast)
        return str(node.target).removeprefix("aten.") in ("to.dtype", "to.dtype_layout", "_to_copy.default")

    # --- constants

    def _is_constant(self, node: fx.Node) -> bool:
        """Whether a value depends on parameters only (a reshaped constant, weight normalisation); computes it if so."""
        sources, name = node.all_input_nodes, str(node.target).removeprefix("aten.")
        fixed = all(source in self.parameters for source in sources) if sources else name in aten.FACTORIES
        result = node.meta.get("val")
        if not fixed or not isinstance(result, Tensor) or result.numel() > LARGEST_CONSTANT:
            return False
        if self.program.allowance is not None:
            self.program.allowance.spend(node.name, bytes_of(result), node.meta.get("operations", 0))
        arguments = fx.map_arg((node.args, node.kwargs), lambda source: self._memory_of(source))
        with torch.no_grad():
            value = node.target(*arguments[0], **arguments[1])  # type: ignore[operator]
        self.computed[node] = value
        trainable = any(isinstance(self.parameters[source].tensor, nn.Parameter) for source in sources)
        self._keep(node, self.parameters[sources[0]].name if sources else node.name, trainable)
        if _is_in_place(node):
            self._keep_others(node)
        return True

    def _memory_of(self, node: fx.Node) -> Tensor:
        """A constant's own memory, which its views share and in-place calls change."""
        return self.computed.setdefault(node, self.parameters[node].tensor.detach())

    def _keep(self, node: fx.Node, name: str, trainable: bool) -> None:
        tensor = self.computed[node].clone(memory_format=torch.contiguous_format)
        self.parameters[node] = aten.Parameter(name, nn.Parameter(tensor) if trainable else tensor)

    def _keep_others(self, node: fx.Node) -> None:
        """After an in-place call: update the other constants in the same memory."""
        for other in self._sharing(node):
            before = self.parameters[other]
            self._keep(other, before.name, isinstance(before.tensor, nn.Parameter))

    def _sharing(self, node: fx.Node) -> list[fx.Node]:
        """The other constants whose values lie in the same memory."""
        if node not in self.computed:
            return []
        start = self.computed[node].untyped_storage().data_ptr()
        found = ((other, value) for other, value in self.computed.items() if other is not node)
        return [other for other, value in found if value.untyped_storage().data_ptr() == start]

    # --- calls

    def _call(self, node: fx.Node) -> None:
        layer = self._canonical(node)
        if isinstance(layer, aten.Alias):
            self.values[node] = self._value(layer.source)
        elif isinstance(layer, aten.Layer):
            self.values[node] = self._layer(node, layer)
        elif isinstance(layer, aten.Chain):
            made: list[fx.Node] = []
            for each in layer.layers:
                made.append(self._layer(node, each, made))
            self.values[node] = made[-1]
        else:
            self.values[node] = self._opaque(node)
        self.memory[node] = self._memory(node, layer)
        if _is_in_place(node):
            self._overwrite(node)

    def _canonical(self, node: fx.Node) -> aten.Layer | aten.Chain | aten.Alias | None:
        if node.target is operator.getitem:
            return aten.part(node)
        handler = aten.HANDLERS.get(str(node.target).removeprefix("aten."))
        return handler(aten.Call(node, self.parameters)) if handler else None

    def _memory(self, node: fx.Node, layer: object) -> fx.Node:
        """The node that made the memory in which `node`'s value lies."""
        if isinstance(layer, aten.Alias) and not layer.copies:
            return self.memory.get(layer.source, layer.source)
        if not _is_in_place(node) and not _is_view(node):
            return node
        source = node.args[0]
        assert isinstance(source, fx.Node)
        owner = self.memory.get(source, source)
        if _is_view(node):
            self.viewed.add(owner)
        return owner

    def _overwrite(self, node: fx.Node) -> None:
        """After an in-place call, every reader of its argument, or of an alias of it, gets the result."""
        owner = self.memory[node]
        if owner in self.viewed or self._sharing(owner):
            raise ModelError(
                f"the model changes a tensor in place ({node.name}) while part of it is used elsewhere: "
                "write x = x + y instead of x += y"
            )
        self.memory.setdefault(owner, owner)
        for other, made in self.memory.items():
            if made is owner:
                self.values[other] = self.values[node]

    def _layer(self, node: fx.Node, layer: aten.Layer, earlier: Sequence[fx.Node] = ()) -> fx.Node:
        inputs = tuple(earlier[each] if isinstance(each, int) else self._value(each) for each in layer.inputs)
        target = self.modules.get(layer.key) if layer.key else None
        name = self._name(node, layer, inputs)
        if target is None:
            target = name
            self.root.add_module(target, layer.module())
            if layer.key:
                self.modules[layer.key] = target
        return self.graph.create_node("call_module", target, inputs, name=name)

    def _value(self, node: fx.Node) -> fx.Node:
        if node not in self.values:  # a parameter that is an operand, not a layer's weight
            parameter = self.parameters[node]
            flat = f"constant_{node_name(parameter.name)}_{node.name}"
            if isinstance(parameter.tensor, nn.Parameter):
                self.root.register_parameter(flat, parameter.tensor)
            else:
                self.root.register_buffer(flat, parameter.tensor)
            self.values[node] = self.graph.get_attr(flat)
        return self.values[node]

    def _opaque(self, node: fx.Node) -> fx.Node:
        copied = self.graph.node_copy(node, self._value)
        if copied.target is torch.ops.aten.view.default:
            # A view relies on strides, which can differ here (`contiguous` is left out, for one).
            copied.target = torch.ops.aten.reshape.default
        elif _is_in_place(node):
            copied.target = _out_of_place(node.target)
        copied.meta.clear()
        return copied

    def _name(self, node: fx.Node, layer: aten.Layer, inputs: tuple[fx.Node, ...]) -> str:
        """A layer is named after its parameters; without any and with one input, after the layer before it."""
        if layer.name:
            wanted = layer.name
        elif len(inputs) == 1 and inputs[0].op == "call_module":
            wanted = f"{inputs[0].meta.get('stem', inputs[0].name)}_{layer.suffix}"
        else:
            wanted = layer.suffix
        taken = {other.name for other in self.graph.nodes} | {child for child, _ in self.root.named_children()}
        return unused(node_name(wanted), taken)


def _out_of_place(target: Any) -> Any:
    """The operator that returns what an in-place one would write; readers of that memory read the result instead."""
    name, overload = str(target).split(".")[1:]
    plain = getattr(getattr(torch.ops.aten, name.removesuffix("_"), None), overload, None)
    return target if plain is None else plain


def _is_in_place(node: fx.Node) -> bool:
    name = str(node.target).split(".")[1] if str(node.target).startswith("aten.") else ""
    return name.endswith("_") and bool(node.args) and isinstance(node.args[0], fx.Node)


def _is_view(node: fx.Node) -> bool:
    """Whether a call returns a view of its argument's memory (a slice, a permutation), not a tensor of its own."""
    schema = getattr(node.target, "_schema", None)
    if schema is None or _is_in_place(node):
        return False
    return any(result.alias_info is not None for result in schema.returns)

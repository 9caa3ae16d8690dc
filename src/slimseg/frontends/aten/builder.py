"""Turns a traced network into modules of the vocabulary, call by call; computes what depends on parameters only."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import SymBool, SymInt, Tensor, fx, nn

from slimseg.errors import ModelError
from slimseg.frontends import aten
from slimseg.frontends.aten import decomposition
from slimseg.frontends.aten.effort import bytes_of, values_of
from slimseg.frontends.program import Program
from slimseg.graph import ops
from slimseg.graph.names import node_name, unused

LARGEST_CONSTANT = 1 << 26  # values of a tensor that is computed while opening; larger ones are computed in every run

MOST_DECOMPOSED = 2048  # calls without a handler that are decomposed; each takes some 0.1 s
DEEPEST = 16  # decompositions within decompositions; those of one that leads back to itself have no end
_IN_FLOAT = "it rounds weights and values to 8 bits: it is opened in float, without the rounding"
_DRAWN_ONCE = "it draws random numbers in every run: they are drawn once, and then always the same"
_HALVES = (torch.float16, torch.bfloat16)  # types of a network that is opened in float32


class WritesInPlace(ModelError):
    """A call overwrites a tensor of which others are views."""


class Builder:
    """Rebuilds an exported program node by node with modules in place of ATen calls."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.root = nn.Module()
        self.graph = fx.Graph()
        self.values: dict[fx.Node, fx.Node] = {}
        self.parameters = dict(program.parameters)
        self.computed: dict[fx.Node, Tensor] = {}
        self.lists: dict[fx.Node, Sequence[Tensor]] = {}  # of calls that return several constants
        self.results: dict[fx.Node, Sequence[fx.Node]] = {}  # of decomposed calls that return several values
        self.decomposed: dict[fx.Node, decomposition.Calls | None] = {}
        self.attributes: dict[fx.Node, fx.Node] = {}  # parameters that opaque nodes read
        self.constants: dict[fx.Node, fx.Node] = {}  # parameters that layers read as they read activations
        self.modules: dict[tuple[Any, ...], str] = {}
        self.memory: dict[fx.Node, fx.Node] = {}  # by node, the node that made the memory in which its value lies
        self.tensors: dict[fx.Node, fx.Node] = {}  # by node, the first node whose value is the same view of that memory
        self.known_calls: decomposition.KnownCalls = {}
        self.depth = 0  # of decompositions within decompositions
        self.taken: set[str] = set()  # names of nodes and modules
        self.notes: tuple[str, ...] = ()
        self.is_quantised = False  # whether steps that only round to 8 bits were left out

    def build(self) -> None:
        """Follow all calls; `values` then holds the new node of every call that depends on the image.

        Raises:
            ModelError: the network does something unsupported, or its constants take far more than the file.
        """
        image = self.program.image
        self.values[image] = self.graph.placeholder("image")
        self.taken.add("image")
        self.memory[image] = self.tensors[image] = image
        for node in self.program.graph.nodes:
            if node.op != "call_function" or _has_open_shape(node):
                continue
            if not (self._is_constant(node) or self._is_unused_part(node)):
                self._call(node)

    def _is_unused_part(self, node: fx.Node) -> bool:
        """Whether it is one of several results of a call, and nothing reads it."""
        returned = any(node is each for _, each in self.program.outputs)
        return node.target is operator.getitem and not node.users and not returned

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
        if node in self.parameters or node in self.lists:
            return True
        if aten.plain_name(node) in aten.ROUNDED and node.args[0] in self.parameters:
            self.parameters[node] = self.parameters[node.args[0]]  # type: ignore[index]
            self._note_quantised()
            return True
        sources, name = node.all_input_nodes, str(node.target).removeprefix("aten.")
        shaped = name in aten.SHAPED
        fixed = all(source in self.parameters or source in self.lists for source in sources)
        made = name in aten.FACTORIES or name in aten.DRAWN or _is_empty(node) or _is_arithmetic(node)
        if not (shaped or (fixed and sources) or made) or not self._is_small(node):
            return False
        if node.target is operator.getitem:
            source, index = node.args
            value = self.lists[source][index]  # type: ignore[index]
        else:
            arguments = fx.map_arg((node.args, node.kwargs), _undefined if shaped else self._memory_of)
            arguments = fx.node.map_aggregate(arguments, lambda each: torch.float32 if each in _HALVES else each)
            with torch.no_grad(), torch.random.fork_rng((), enabled=name in aten.DRAWN):
                if name in aten.DRAWN:
                    torch.manual_seed(0)  # the same network every time it is opened
                    self.notes = (_DRAWN_ONCE,)
                value = node.target(*arguments[0], **arguments[1])  # type: ignore[operator]
        if not isinstance(value, Tensor):
            self.lists[node] = value if isinstance(value, list | tuple) else ()
            if isinstance(value, int | float):
                _write_out(node, value)
            return True
        self.computed[node] = value
        trainable = any(isinstance(self.parameters[each].tensor, nn.Parameter) for each in self._owners(sources))
        named = next(self._owners(sources), None)
        self._keep(node, self.parameters[named].name if named else node.name, trainable)
        if _is_in_place(node):
            self._keep_others(node)
        return True

    def _is_small(self, node: fx.Node) -> bool:
        """Whether a constant may be computed; subtracts its cost from what the file may ask for."""
        result = node.meta.get("val")
        if result is None or values_of(result) > LARGEST_CONSTANT:
            return False
        if self.program.allowance is not None and node.target is not operator.getitem:
            self.program.allowance.spend(node.name, bytes_of(result), node.meta.get("operations", 0))
        return True

    def _note_quantised(self) -> None:
        self.is_quantised = True
        if _IN_FLOAT not in self.notes:
            self.notes = (*self.notes, _IN_FLOAT)

    def _owners(self, sources: Sequence[fx.Node]) -> Iterator[fx.Node]:
        """The parameters that a constant is computed from."""
        for source in sources:
            if source in self.lists:
                yield from self._owners(source.all_input_nodes)
            elif source in self.parameters:
                yield source

    def _memory_of(self, node: fx.Node) -> Tensor:
        """A constant's own memory, which its views share and in-place calls change."""
        return self.computed.setdefault(node, self.parameters[node].tensor.detach())

    def _keep(self, node: fx.Node, name: str, trainable: bool) -> None:
        tensor = self.computed[node].clone(memory_format=torch.contiguous_format)
        tensor = tensor.float() if tensor.is_floating_point() else tensor
        is_weight = trainable and tensor.is_floating_point()
        self.parameters[node] = aten.Parameter(name, nn.Parameter(tensor) if is_weight else tensor)

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
        if aten.plain_name(node) in aten.ROUNDED:
            self._note_quantised()
        layer = self._canonical(node)
        plain = self._decomposed(node) if layer is None else None
        if isinstance(layer, aten.Alias):
            self.values[node] = self._operand(layer.source)
        elif isinstance(layer, aten.Layer):
            self.values[node] = self._layer(node, layer)
        elif isinstance(layer, aten.Chain):
            made: list[fx.Node] = []
            for each in layer.layers:
                made.append(self._layer(node, each, made))
            self.values[node] = made[-1]
        elif plain is not None:
            self._follow(node, plain)
        else:
            self.values[node] = self._opaque(node)
        self.memory[node], self.tensors[node] = self._memory(node, layer)
        if _is_in_place(node):
            self._overwrite(node)

    def _canonical(self, node: fx.Node) -> aten.Layer | aten.Chain | aten.Alias | None:
        if node.target is operator.getitem:
            source, index = node.args
            if source in self.results:
                return aten.Alias(self.results[source][index])  # type: ignore[index]
            return aten.part(node)
        handler = aten.HANDLERS.get(aten.plain_name(node))
        return handler(aten.Call(node, self.parameters)) if handler else None

    def _decomposed(self, node: fx.Node) -> decomposition.Calls | None:
        """The calls that a call without a handler consists of, if all of them have handlers; computes their constants.

        A call that returns several values is decomposed only if no handler makes its results one by one.
        """
        if node not in self.decomposed:
            wanted = (
                len(self.decomposed) < MOST_DECOMPOSED
                and self.depth < DEEPEST
                and node.target is not operator.getitem
                and aten.plain_name(node) not in aten.TAKEN_APART
            )
            found = decomposition.decompose(node, self.parameters, self.known_calls) if wanted else None
            for constant, value in found.constants.items() if found else ():
                self.parameters[constant] = aten.Parameter(f"{node.name}_{constant.name}", value)
            self.depth += 1
            known = found is not None and _has_used(node, found) and all(self._is_known(call) for call in found.calls)
            self.depth -= 1
            self.decomposed[node] = found if known else None
        return self.decomposed[node]

    def _is_known(self, call: fx.Node) -> bool:
        if call.target is operator.getitem and self.decomposed.get(call.args[0]) is not None:  # type: ignore[arg-type]
            return True
        if self._is_constant(call) or self._canonical(call) is not None or self._decomposed(call) is not None:
            return True
        return aten.plain_name(call) in aten.TAKEN_APART

    def _follow(self, node: fx.Node, plain: decomposition.Calls) -> None:
        for call in plain.calls:
            if call not in self.parameters and call not in self.lists:
                self._call(call)
        if isinstance(plain.result, fx.Node):
            self.values[node] = self._operand(plain.result)
        else:
            self.results[node] = plain.result

    def _memory(self, node: fx.Node, layer: object) -> tuple[fx.Node, fx.Node]:
        """The node that made the memory in which `node`'s value lies, and the first node that views it in the same way.

        A part or another shape of a tensor (a slice, a permutation) is another view of the same memory.
        """
        shares = isinstance(layer, aten.Alias) and not layer.copies
        if not (shares or _is_in_place(node) or _is_view(node)):
            return node, node
        source = layer.source if isinstance(layer, aten.Alias) and shares else node.args[0]
        assert isinstance(source, fx.Node)
        owner = self.memory.setdefault(source, source)
        same = self.tensors.setdefault(source, source)
        return owner, node if _is_view(node) and not shares else same

    def _overwrite(self, node: fx.Node) -> None:
        """After an in-place call, every later reader of the same tensor gets the result.

        Raises:
            WritesInPlace: something reads another view of that memory afterwards.
        """
        owner, tensor = self.memory[node], self.tensors[node]
        others = [each for each, made in self.memory.items() if made is owner]
        if self._sharing(owner) or any(
            self.tensors[each] is not tensor and _is_read_after(each, node) for each in others
        ):
            raise WritesInPlace(
                f"the model changes a tensor in place ({node.name}) while part of it is used elsewhere: "
                "write x = x + y instead of x += y"
            )
        for each in others:
            if self.tensors[each] is tensor:
                self.values[each] = self.values[node]

    def _layer(self, node: fx.Node, layer: aten.Layer, earlier: Sequence[fx.Node] = ()) -> fx.Node:
        inputs = tuple(earlier[each] if isinstance(each, int) else self._operand(each) for each in layer.inputs)
        target = self.modules.get(layer.key) if layer.key else None
        name = self._name(node, layer, inputs)
        if target is None:
            target = name
            self.root.add_module(target, layer.module())
            if layer.key:
                self.modules[layer.key] = target
        self.taken.update((name, target))
        return self.graph.create_node("call_module", target, inputs, name=name)

    def _operand(self, node: fx.Node) -> fx.Node:
        """The value that a layer reads; a parameter, unless an in-place call changed it, becomes a constant layer."""
        if node in self.values:
            return self.values[node]
        if node not in self.constants:
            parameter = self.parameters[node]
            build = partial(ops.Constant, parameter.tensor)
            constant = aten.Layer(build, (self.program.image,), "constant", parameter.name.removeprefix("model."))
            self.constants[node] = self._layer(node, constant)
        return self.constants[node]

    def _attribute(self, node: fx.Node) -> fx.Node:
        """The value that an opaque node reads, which may be a parameter."""
        if node in self.values:
            return self.values[node]
        if _has_open_shape(node):
            raise ModelError(f"the image's values, not its size alone, decide the shape of a tensor ({node.name})")
        if node not in self.attributes:
            parameter = self.parameters[node]
            flat = f"constant_{node_name(parameter.name)}_{node.name}"
            if isinstance(parameter.tensor, nn.Parameter):
                self.root.register_parameter(flat, parameter.tensor)
            else:
                self.root.register_buffer(flat, parameter.tensor)
            self.attributes[node] = self.graph.get_attr(flat)
            self.taken.add(self.attributes[node].name)
        return self.attributes[node]

    def _opaque(self, node: fx.Node) -> fx.Node:
        copied = self.graph.node_copy(node, self._attribute)
        if copied.target is torch.ops.aten.view.default:
            # A view relies on strides, which can differ here (`contiguous` is left out, for one).
            copied.target = torch.ops.aten.reshape.default
        elif _is_in_place(node):
            copied.target = _out_of_place(node.target)
        copied.meta.clear()
        self.taken.add(copied.name)
        return copied

    def _name(self, node: fx.Node, layer: aten.Layer, inputs: tuple[fx.Node, ...]) -> str:
        """A layer is named after its parameters; without any and with one input, after the layer before it."""
        if layer.name:
            wanted = layer.name
        elif len(inputs) == 1 and inputs[0].op == "call_module":
            wanted = f"{inputs[0].meta.get('stem', inputs[0].name)}_{layer.suffix}"
        else:
            wanted = layer.suffix
        return unused(node_name(wanted), self.taken)


def _has_open_shape(node: fx.Node) -> bool:
    """Whether its shape depends on the image's values, as that of a list of positions; or it is or checks a length."""
    result = node.meta.get("val")
    parts = result if isinstance(result, list | tuple) else (result,)
    lengths = [length for part in parts for length in (part.shape if isinstance(part, Tensor) else (part,))]
    return any(isinstance(each, SymInt | SymBool) for each in lengths) or str(node.target).startswith("aten._assert")


def _has_used(node: fx.Node, found: decomposition.Calls) -> bool:
    """Whether a decomposition computes all results that are read."""
    if isinstance(found.result, fx.Node):
        return True
    return all(part.args[1] < len(found.result) for part in node.users if part.users)  # type: ignore[operator]


def _write_out(node: fx.Node, number: float) -> None:
    """Give the readers of a call the number that it returns, as of `item()` on a parameter."""
    for reader in [*node.users]:
        given = fx.map_arg((reader.args, reader.kwargs), lambda each: number if each is node else each)
        reader.args, reader.kwargs = given


def _undefined(node: fx.Node) -> Tensor:
    """A tensor like a node's value, for calls that read nothing of it but shape and type."""
    value = node.meta["val"]
    return torch.empty(value.shape, dtype=value.dtype)


def _is_empty(node: fx.Node) -> bool:
    """Whether a call makes a tensor without values, as features that an encoder leaves out."""
    return str(node.target) == "aten.empty.memory_format" and values_of(node.meta["val"]) == 0


def _is_arithmetic(node: fx.Node) -> bool:
    """Whether a call computes with numbers alone, as `126 * -1` in a network whose lengths are known."""
    return not node.all_input_nodes and torch.Tag.pointwise in getattr(node.target, "tags", ())


def _out_of_place(target: Any) -> Any:
    """The operator that returns what an in-place one would write; readers of that memory read the result instead."""
    name, overload = str(target).split(".")[1:]
    plain = getattr(getattr(torch.ops.aten, name.removesuffix("_"), None), overload, None)
    return target if plain is None else plain


def _is_in_place(node: fx.Node) -> bool:
    name = str(node.target).split(".")[1] if str(node.target).startswith("aten.") else ""
    return name.endswith("_") and bool(node.args) and isinstance(node.args[0], fx.Node)


def _is_read_after(node: fx.Node, call: fx.Node) -> bool:
    return any(reader > call for reader in node.users)


def _is_view(node: fx.Node) -> bool:
    """Whether a call returns a view of its argument's memory (a slice, a permutation), not a tensor of its own."""
    if node.target is operator.getitem:  # one of several results
        source = node.args[0]
        return isinstance(source, fx.Node) and _is_view(source)
    schema = getattr(node.target, "_schema", None)
    if schema is None or _is_in_place(node):
        return False
    return any(result.alias_info is not None for result in schema.returns)

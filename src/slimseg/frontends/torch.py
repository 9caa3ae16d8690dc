"""PyTorch in: an nn.Module, a `.pt2` file, or `file.py:function` become the canonical Graph.

torch.export gives every source the same form (ATen calls on named parameters); `canonical` turns those into
modules of the vocabulary. An ATen call that the table below does not know stays as an opaque node.
"""

from __future__ import annotations

import importlib
import importlib.util
import operator
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, fx, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, InputSpec

from slimseg.errors import ModelError, one_line
from slimseg.frontends import archive, aten
from slimseg.graph.description import Description
from slimseg.graph.graph import Graph
from slimseg.graph.output import output_kind

LARGEST_CONSTANT = 1 << 26  # values of a tensor that is computed at once; a file could ask for any number


def from_module(model: nn.Module, input_size: tuple[int, int], name: str) -> Graph:
    """Trace an nn.Module at (1, 3, height, width).

    A model that returns a mapping or a tuple gives its `logits`, `out` or first tensor.

    Raises:
        ModelError: torch.export cannot trace it.
    """
    example = torch.zeros(1, 3, *input_size)
    was_training = model.training
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            program = torch.export.export(_OneOutput(model.eval()), (example,))
    except Exception as error:
        raise ModelError(
            f"{name} cannot be traced at {input_size[0]}x{input_size[1]} ({one_line(error)}): "
            "it must be an nn.Module that takes one (1, 3, height, width) tensor, free of data-dependent control flow"
        ) from error
    finally:
        model.train(was_training)
    return canonical(program, None, name)


class _OneOutput(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return _one_tensor(self.model(x))


def _one_tensor(value: Any) -> Tensor:
    if isinstance(value, Tensor):
        return value
    for key in ("logits", "out"):
        if isinstance(value, dict) and key in value:
            return _one_tensor(value[key])
    if isinstance(value, list | tuple) and value:
        return _one_tensor(value[0])
    raise TypeError(f"the model returns {type(value).__name__}, not a tensor")


def from_file(path: Path, input_size: tuple[int, int] | None = None) -> Graph:
    """Open a `.pt2` file, at its own input size.

    Raises:
        ModelError: the file cannot be used (see `archive.read_program`).
    """
    program, embedded = archive.read_program(path)
    try:
        return canonical(program, embedded, path.stem)
    except ModelError:
        raise
    except Exception as error:  # a damaged archive can hold any nonsense that still parses
        raise ModelError(f"{path} holds no network that can be rebuilt ({one_line(error)}): export it again") from error


def from_factory(target: str, weights: Path | None) -> nn.Module:
    """Call the user's own `file.py:function` or `package.module:function`, then load `weights` into the result.

    The Python is the user's own and is executed; the weights are never unpickled (safetensors, or weights only).

    Raises:
        ModelError: there is no such function, it gives no nn.Module, or the weights do not fit it.
    """
    source, _, function = target.rpartition(":")
    factory = getattr(_import(source, target), function, None)
    if not callable(factory):
        raise ModelError(f"{source} has no function {function!r}: give file.py:function")
    try:
        model = factory()
    except Exception as error:
        raise ModelError(f"{target}() raised {type(error).__name__}: {error}") from error
    if not isinstance(model, nn.Module):
        raise ModelError(f"{target}() returned {type(model).__name__}, not an nn.Module")
    if weights is not None:
        _load_weights(model, weights)
    return model


def _import(source: str, target: str) -> Any:
    try:
        if not source.endswith(".py"):
            return importlib.import_module(source)
        path = Path(source)
        if not path.is_file():
            raise ModelError(f"{source} does not exist: give file.py:function")
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules.setdefault(path.stem, module)
        spec.loader.exec_module(module)
        return module
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(f"{target} cannot be imported: {type(error).__name__}: {error}") from error


def _load_weights(model: nn.Module, path: Path) -> None:
    if not path.is_file():
        raise ModelError(f"{path} does not exist: give a .safetensors or .pth file of weights")
    try:
        state = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
        for key in ("state_dict", "model_state_dict", "model"):
            if isinstance(state, dict) and isinstance(state.get(key), dict):
                state = state[key]
        model.load_state_dict(state)
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[:2]
        raise ModelError(
            f"{path} does not fit the model, or is not a plain file of weights: {' '.join(reason)}"
        ) from error


def canonical(program: ExportedProgram, description: Description | None, name: str) -> Graph:
    """Turn an exported program into a Graph.

    Raises:
        ModelError: it does not take one (1, channels, height, width) float tensor or gives no 4-dimensional one.
    """
    builder = _Builder(program)
    module, shape = builder.build(name)
    graph = Graph(module, shape, description, name)
    if description is None:
        graph.description = Description(output_kind=output_kind(graph))
    rank = len(graph.shape(graph.output))
    if rank not in (3, 4) and description is None:  # what slimseg wrote says itself what its output means
        raise ModelError(
            f"{name} gives a tensor of {rank} dimensions, not a (1, classes, height, width) map of classes"
        )
    return graph


class _Builder:
    """Rebuilds an exported program node by node with modules in place of ATen calls."""

    def __init__(self, program: ExportedProgram) -> None:
        self.program = program
        self.root = nn.Module()
        self.graph = fx.Graph()
        self.values: dict[fx.Node, fx.Node] = {}
        self.parameters: dict[fx.Node, aten.Parameter] = {}
        self.modules: dict[tuple[Any, ...], str] = {}
        self.memory: dict[fx.Node, fx.Node] = {}
        self.viewed: set[fx.Node] = set()

    def build(self, name: str) -> tuple[fx.GraphModule, tuple[int, ...]]:
        kinds = {spec.arg.name: spec for spec in self.program.graph_signature.input_specs}
        users = [spec for spec in self.program.graph_signature.input_specs if spec.kind is InputKind.USER_INPUT]
        if len(users) != 1:
            raise ModelError(f"{name} takes {len(users)} inputs, not one image")
        shape: tuple[int, ...] = ()
        for node in self.program.graph.nodes:
            if node.op == "placeholder":
                spec = kinds[node.name]
                if spec.kind is InputKind.USER_INPUT:
                    shape = tuple(node.meta["val"].shape)
                    self.values[node] = self.graph.placeholder("image")
                    self.memory[node] = node
                elif spec.target is not None:
                    self.parameters[node] = self._parameter(spec)
            elif node.op == "call_function" and not self._is_constant(node):
                self._call(node)
            elif node.op == "output":
                self.graph.output(self._result(node.args[0], name))
        if len(shape) != 4 or shape[0] != 1:
            raise ModelError(f"{name} takes a tensor of shape {shape}, not one (1, channels, height, width) image")
        return fx.GraphModule(self.root, self.graph), shape

    def _parameter(self, spec: InputSpec) -> aten.Parameter:
        target = str(spec.target)
        value = self.program.state_dict.get(target, self.program.constants.get(target))
        if not isinstance(value, Tensor):
            raise ModelError(f"the model's value {target} is not a tensor")
        tensor = value.detach().clone()
        return aten.Parameter(target, nn.Parameter(tensor) if spec.kind is InputKind.PARAMETER else tensor)

    def _result(self, values: Sequence[Any], name: str) -> fx.Node:
        candidates = [value for value in values if isinstance(value, fx.Node) and value in self.values]
        maps = [value for value in candidates if len(value.meta["val"].shape) == 4]
        if not candidates:
            raise ModelError(f"{name} returns nothing that depends on the image")
        return self.values[(maps or candidates)[0]]

    def _is_constant(self, node: fx.Node) -> bool:
        """Compute at once what depends on parameters only (weight normalisation, a reshaped constant)."""
        sources, name = node.all_input_nodes, str(node.target).removeprefix("aten.")
        fixed = all(source in self.parameters for source in sources) if sources else name in aten.FACTORIES
        result = node.meta.get("val")
        if not fixed or not isinstance(result, Tensor) or result.numel() > LARGEST_CONSTANT:
            return False
        if _is_in_place(node) and name not in aten.HANDLERS:
            return False
        arguments = fx.map_arg((node.args, node.kwargs), lambda source: self.parameters[source].tensor.detach())
        value = node.target(*arguments[0], **arguments[1])  # type: ignore[operator]
        trainable = any(isinstance(self.parameters[source].tensor, nn.Parameter) for source in sources)
        tensor = value.clone()
        self.parameters[node] = aten.Parameter(
            self.parameters[sources[0]].name if sources else node.name, nn.Parameter(tensor) if trainable else tensor
        )
        return True

    def _call(self, node: fx.Node) -> None:
        layer = self._canonical(node)
        if isinstance(layer, aten.Alias):
            self.values[node] = self._value(layer.source)
        elif isinstance(layer, aten.Layer):
            self.values[node] = self._layer(node, layer)
        else:
            self.values[node] = self._opaque(node)
        self.memory[node] = self._memory(node, layer)
        if _is_in_place(node):
            self._overwrite(node)

    def _canonical(self, node: fx.Node) -> aten.Layer | aten.Alias | None:
        if node.target is operator.getitem:
            return aten.part(node)
        handler = aten.HANDLERS.get(str(node.target).removeprefix("aten."))
        return handler(aten.Call(node, self.parameters)) if handler else None

    def _memory(self, node: fx.Node, layer: object) -> fx.Node:
        """The node that made the memory which `node`'s value lies in."""
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
        """After an in-place call, whoever reads its argument under any of its names sees the result."""
        if self.memory[node] in self.viewed:
            raise ModelError(
                f"the model changes a tensor in place ({node.name}) of which a part is used elsewhere: "
                "write x = x + y for x += y"
            )
        for other, owner in self.memory.items():
            if owner is self.memory[node]:
                self.values[other] = self.values[node]

    def _layer(self, node: fx.Node, layer: aten.Layer) -> fx.Node:
        inputs = tuple(self._value(source) for source in layer.inputs)
        target = self.modules.get(layer.key) if layer.key else None
        name = self._name(node, layer, inputs)
        if target is None:
            target = name
            self.root.add_module(target, layer.module())
            if layer.key:
                self.modules[layer.key] = target
        return self.graph.create_node("call_module", target, inputs, name=name)

    def _value(self, node: fx.Node) -> fx.Node:
        if node not in self.values:  # a parameter that is read as an ordinary tensor
            parameter = self.parameters[node]
            flat = f"constant_{parameter.name.replace('.', '_')}_{node.name}"
            if isinstance(parameter.tensor, nn.Parameter):
                self.root.register_parameter(flat, parameter.tensor)
            else:
                self.root.register_buffer(flat, parameter.tensor)
            self.values[node] = self.graph.get_attr(flat)
        return self.values[node]

    def _opaque(self, node: fx.Node) -> fx.Node:
        copied = self.graph.node_copy(node, self._value)
        if copied.target is torch.ops.aten.view.default:
            # The strides that a view relies on may be others here (`contiguous` is left out, for one).
            copied.target = torch.ops.aten.reshape.default
        copied.meta.clear()
        return copied

    def _name(self, node: fx.Node, layer: aten.Layer, inputs: tuple[fx.Node, ...]) -> str:
        """A convolution is named after its parameters, what acts on one tensor after the layer it follows."""
        if layer.name:
            wanted = layer.name.replace(".", "_")
        elif len(inputs) == 1 and inputs[0].op == "call_module":
            wanted = f"{inputs[0].meta.get('stem', inputs[0].name)}_{layer.suffix}"
        else:
            wanted = layer.suffix
        wanted = wanted if wanted[:1].isalpha() else f"layer_{wanted}"
        taken = {other.name for other in self.graph.nodes} | {child for child, _ in self.root.named_children()}
        name, number = wanted, 1
        while name in taken:
            number += 1
            name = f"{wanted}_{number}"
        return name


def _is_in_place(node: fx.Node) -> bool:
    name = str(node.target).split(".")[1] if str(node.target).startswith("aten.") else ""
    return name.endswith("_") and bool(node.args) and isinstance(node.args[0], fx.Node)


def _is_view(node: fx.Node) -> bool:
    """Whether a call gives another look at its argument's memory (a slice, a permutation), not a tensor of its own."""
    schema = getattr(node.target, "_schema", None)
    if schema is None or _is_in_place(node):
        return False
    return any(result.alias_info is not None for result in schema.returns)

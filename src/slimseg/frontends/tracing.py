"""Traces a module straight into ATen calls, in a third of the time that torch.export takes for the same calls.

torch.export notes where in the user's code every call was made, keeps the inputs' and outputs' structures, and checks
the result for later use; a Graph needs none of this. What only torch.export can trace (modes such as autocast,
numbers read from tensors, modules that change while they run) is left to it.
"""

from __future__ import annotations

import logging
import operator
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._ops import OpOverload
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._pytree import tree_leaves

from slimseg.frontends.aten.call import Parameter
from slimseg.frontends.program import Program

Tensors = Mapping[str, Tensor]


class Untraceable(Exception):
    """Only torch.export can trace the module, or nothing can."""


def trace(model: nn.Module, example: Tensor, labels: Sequence[str], notes: tuple[str, ...]) -> Program:
    """The ATen calls of a module that takes one image (1, 3, height, width) and returns a tuple of tensors.

    Args:
        labels: a list to which the module appends the label of each output while it runs.

    Raises:
        Untraceable: torch.export has to trace it.
        Exception: whatever the module raises.
    """
    parameters = dict(model.named_parameters())
    known: Tensors = {**parameters, **dict(model.named_buffers())}
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    without_data = {name: mode.from_tensor(tensor) for name, tensor in known.items()}

    def run(image: Tensor, *tensors: Tensor) -> Any:
        return torch.func.functional_call(model, dict(zip(known, tensors, strict=True)), (image,))

    with _quiet(), torch.no_grad(), mode, _exporting(), _keeping_nothing(model):
        traced = make_fx(run, pre_dispatch=True)(mode.from_tensor(example), *without_data.values())
    graph = traced.graph
    graph.eliminate_dead_code()
    image, *placeholders = [node for node in graph.nodes if node.op == "placeholder"]
    given = {
        node: Parameter(name, _copied(known[name], name in parameters))
        for node, name in zip(placeholders, known, strict=True)
    }
    given.update(_constants(model, traced, mode))
    _check_calls(graph)
    (end,) = [node for node in graph.nodes if node.op == "output"]
    outputs = [pair for pair in zip(labels, end.args[0], strict=True) if isinstance(pair[1], fx.Node)]
    return Program(graph, image, given, outputs, notes=notes)


def _copied(tensor: Tensor, trainable: bool) -> Tensor:
    copied = tensor.detach().clone()
    return nn.Parameter(copied) if trainable else copied


def _constants(model: nn.Module, traced: fx.GraphModule, mode: FakeTensorMode) -> dict[fx.Node, Parameter]:
    """Tensors that the code makes or a module holds without registering them; their nodes get a value without data."""
    names = {
        id(value): f"{path}.{name}".lstrip(".")
        for path, module in model.named_modules()
        for name, value in vars(module).items()
        if isinstance(value, Tensor)
    }
    found: dict[fx.Node, Parameter] = {}
    for node in traced.graph.nodes:
        if node.op == "get_attr":
            value = getattr(traced, str(node.target))
            if not isinstance(value, Tensor):
                raise Untraceable(f"{node.target} is not a tensor")
            name = names.get(id(value), f"lifted_tensor_{len(found)}")
            found[node] = Parameter(name, value.detach().clone())
            node.meta["val"] = mode.from_tensor(value)
    return found


def _check_calls(graph: fx.Graph) -> None:
    """
    Raises:
        Untraceable: something but calls of plain operators was noted, such as the beginning of a mode.
    """
    for node in graph.nodes:
        if node.op == "call_function" and not (isinstance(node.target, OpOverload) or node.target is operator.getitem):
            raise Untraceable(f"{node.target} is no operator")


@contextmanager
def _quiet() -> Iterator[None]:
    """No warnings of the module's code, and no errors that torch logs: torch.export repeats those that matter."""
    log = logging.getLogger("torch._subclasses.fake_tensor")
    was_disabled, log.disabled = log.disabled, True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.disabled = was_disabled


@contextmanager
def _exporting() -> Iterator[None]:
    """Libraries ask whether they are exported, and then leave out what cannot be traced."""
    compiler: Any = torch.compiler
    before = compiler._is_compiling_flag, compiler._is_exporting_flag
    compiler._is_compiling_flag = compiler._is_exporting_flag = True
    try:
        yield
    finally:
        compiler._is_compiling_flag, compiler._is_exporting_flag = before


@contextmanager
def _keeping_nothing(model: nn.Module) -> Iterator[None]:
    """Restores every attribute in which a module keeps a traced tensor, which has no data, such as a cache.

    Raises:
        Untraceable: there was one.
    """
    before = [(vars(module), dict(vars(module)), _contents(module)) for module in model.modules()]
    try:
        yield
    finally:
        kept = [name for now, held, contents in before for name in _restored(now, held, contents)]
    if kept:
        raise Untraceable(f"the module keeps a tensor in {kept[0]} while it runs")


def _contents(module: nn.Module) -> dict[str, Any]:
    """Copies of the lists and dictionaries that a module holds."""
    return {name: value.copy() for name, value in vars(module).items() if type(value) in (dict, list)}


def _restored(now: dict[str, Any], held: dict[str, Any], contents: dict[str, Any]) -> Iterator[str]:
    """Restores the attributes that hold a tensor without data, and gives their names."""
    for name in [name for name, value in now.items() if _is_traced(value)]:
        yield name
        if name not in held:
            del now[name]
            continue
        now[name] = held[name]
        if name in contents:
            held[name].clear()
            held[name].extend(contents[name]) if isinstance(held[name], list) else held[name].update(contents[name])


def _is_traced(value: Any) -> bool:
    return any(isinstance(each, FakeTensor) for each in tree_leaves(value))

"""Writes a call that has no handler as calls that have one.

A decomposition is a function with the operator's arguments, in plain torch. It is traced on tensors without data, and
the calls that it makes are put before the call that they replace. Where slimseg has no decomposition, torch's own is
used.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, fx
from torch._ops import OpOverload
from torch._subclasses.fake_tensor import FakeTensorMode

from slimseg.frontends.aten.call import Call, Parameter
from slimseg.frontends.aten.decompositions import DECOMPOSITIONS, KEPT, MANY_STEPS, PREPARED

MOST_CALLS = 256  # that one call may become
MOST_STEPS = 8192  # that a recurrent layer may become


@dataclass(frozen=True)
class Calls:
    """Calls, in the program's graph, that compute the same as another; and its result, or its results.

    `constants` are tensors that the calls read and that the decomposition computed itself.
    """

    calls: Sequence[fx.Node]
    result: fx.Node | Sequence[fx.Node]
    constants: Mapping[fx.Node, Tensor]


# By operator, arguments and shapes: the calls that it is decomposed into; None if there is no decomposition.
KnownCalls = dict[tuple[Any, ...], fx.GraphModule | None]


def decompose(node: fx.Node, parameters: Mapping[fx.Node, Parameter], known_calls: KnownCalls) -> Calls | None:
    """The calls that compute the same as `node`; None if it has no decomposition for these arguments.

    `known_calls` keeps what was traced, which takes some 0.1 s, for later calls with equal arguments.
    """
    target = node.target
    if not isinstance(target, OpOverload):
        return None
    name = str(target).removeprefix("aten.")
    own = DECOMPOSITIONS.get(name) or DECOMPOSITIONS.get(name.replace("_.", "."))
    if own is None and (name in KEPT or not _has_decomposition(target)):
        return None
    call = Call(node, parameters)
    prepare = PREPARED.get(name)
    given = prepare(call) if prepare else call.arguments
    if given is None:
        return None
    sources = list(dict.fromkeys(_nodes(given)))
    examples = [source.meta["val"] for source in sources]

    def run(*tensors: Tensor) -> Any:
        values = dict(zip(sources, tensors, strict=True))
        known = fx.map_arg(given, values.__getitem__)
        return own(**known) if own is not None else _by_torch(target, known)

    numbered = fx.map_arg(given, lambda source: f"tensor {sources.index(source)}")
    key = (target, repr(numbered), *((tuple(each.shape), each.dtype) for each in examples))
    if key not in known_calls:
        most = MOST_STEPS if name in MANY_STEPS else MOST_CALLS
        known_calls[key] = _traced_if_possible(run, examples, most, keeps_composites=own is not None)
    found = known_calls[key]
    return None if found is None else _copied(found, node, sources)


def _traced_if_possible(
    function: Callable[..., Any], values: Sequence[Tensor], most: int, keeps_composites: bool
) -> fx.GraphModule | None:
    """The calls that a function makes; None if it cannot do it, or makes more than `most`."""
    try:
        found = traced(function, values, keeps_composites)
    except Exception:  # a decomposition, torch's or ours, does not hold for every argument
        return None
    return found if len(found.graph.nodes) <= most else None


def traced(function: Callable[..., Any], values: Sequence[Tensor], keeps_composites: bool) -> fx.GraphModule:
    """The calls that `function` makes on tensors like `values`, with tensors without data in `meta["val"]`."""
    from torch.fx.experimental.proxy_tensor import make_fx

    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        examples = [torch.empty(value.shape, dtype=value.dtype) for value in values]
        table = None if keeps_composites else _table()
        module: fx.GraphModule = make_fx(function, table, pre_dispatch=keeps_composites)(*examples)
    return module


def _copied(found: fx.GraphModule, node: fx.Node, sources: Sequence[fx.Node]) -> Calls | None:
    """The traced calls in the graph of `node`, before it."""
    made: dict[fx.Node, fx.Node] = {}
    given = iter(sources)
    calls: list[fx.Node] = []
    constants: dict[fx.Node, Tensor] = {}
    (end,) = [each for each in found.graph.nodes if each.op == "output"]
    with node.graph.inserting_before(node):
        for each in found.graph.nodes:
            if each.op == "placeholder":
                made[each] = next(given)
            elif each.op == "get_attr":
                made[each] = node.graph.node_copy(each)
                made[each].meta["val"] = constants[made[each]] = getattr(found, str(each.target)).clone()
            elif each.op == "call_function":
                made[each] = node.graph.node_copy(each, made.__getitem__)
                calls.append(made[each])
    result = fx.map_arg(end.args[0], made.__getitem__)
    return Calls(calls, result if isinstance(result, fx.Node) else tuple(result), constants)


def _nodes(value: Any) -> list[fx.Node]:
    found: list[fx.Node] = []

    def note(node: fx.Node) -> fx.Node:
        found.append(node)
        return node

    fx.map_arg(value, note)
    return found


def _has_decomposition(target: OpOverload) -> bool:
    """Whether torch has one, in its table or as the operator's definition."""
    composite = target.has_kernel_for_dispatch_key(torch._C.DispatchKey.CompositeImplicitAutograd)
    return target in _table() or (composite and torch.Tag.core not in target.tags)


def _by_torch(target: OpOverload, given: Mapping[str, Any]) -> Any:
    schema = target._schema.arguments
    positional = [given[argument.name] for argument in schema if not argument.kwarg_only]
    return target(*positional, **{argument.name: given[argument.name] for argument in schema if argument.kwarg_only})


@cache
def _table() -> Mapping[Any, Callable[..., Any]]:
    """torch's decompositions into its core operators."""
    from torch._decomp import core_aten_decompositions

    return dict(core_aten_decompositions())

"""The invariants of a legal graph: each is a function that yields a message for every violation in a module."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from torch import fx, nn

from slimseg.graph.vocabulary import operator_of

Invariant = Callable[[fx.GraphModule], Iterator[str]]


def one_input(module: fx.GraphModule) -> Iterator[str]:
    inputs = [node for node in module.graph.nodes if node.op == "placeholder"]
    if len(inputs) != 1:
        yield f"it has {len(inputs)} inputs, not 1"
    elif len(inputs[0].meta.get("shape", ())) != 4:
        yield "its input is not NCHW"


def one_output(module: fx.GraphModule) -> Iterator[str]:
    (output,) = [node for node in module.graph.nodes if node.op == "output"]
    if not isinstance(output.args[0], fx.Node):
        yield "its output is not one tensor"


def modules_are_canonical(module: fx.GraphModule) -> Iterator[str]:
    for node in module.graph.nodes:
        layer = module.get_submodule(str(node.target)) if node.op == "call_module" else None
        if layer is not None and operator_of(layer) is None:
            yield f"{node.name} calls {type(layer).__name__}, outside the vocabulary"
        if node.op == "call_method":
            yield f"{node.name} calls a method of a tensor"


def module_arguments_are_nodes(module: fx.GraphModule) -> Iterator[str]:
    for node in module.graph.nodes:
        if node.op == "call_module" and (node.kwargs or not all(isinstance(arg, fx.Node) for arg in node.args)):
            yield f"{node.name} has an argument that is not a node"


def shapes_are_known(module: fx.GraphModule) -> Iterator[str]:
    for node in module.graph.nodes:
        if node.op == "call_module" and "shape" not in node.meta:
            yield f"{node.name} has no shape"


def names_are_targets(module: fx.GraphModule) -> Iterator[str]:
    """Modules are not nested, so that profiles, files and state dicts use the same name for a layer."""
    for node in module.graph.nodes:
        if node.op == "call_module" and "." in str(node.target):
            yield f"{node.name} calls the nested module {node.target}"


def convolutions_are_zero_padded(module: fx.GraphModule) -> Iterator[str]:
    for node in module.graph.nodes:
        layer = module.get_submodule(str(node.target)) if node.op == "call_module" else None
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d) and layer.padding_mode != "zeros":
            yield f"{node.name} pads with {layer.padding_mode}"


INVARIANTS: tuple[Invariant, ...] = (
    one_input,
    one_output,
    modules_are_canonical,
    module_arguments_are_nodes,
    shapes_are_known,
    names_are_targets,
    convolutions_are_zero_padded,
)


def violations(module: fx.GraphModule) -> list[str]:
    """Everything that makes the graph illegal, in words; empty for a legal one."""
    return [problem for invariant in INVARIANTS for problem in invariant(module)]

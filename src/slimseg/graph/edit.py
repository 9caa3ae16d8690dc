"""Edits on a Graph: insert a block, extract a part, change the input size.

Every function returns a new legal Graph and does not change the one it was given.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

from torch import Tensor, fx, nn

from slimseg.errors import GraphError, Unsupported
from slimseg.graph import reshaping
from slimseg.graph.graph import Graph, needed, only_consumer, producer
from slimseg.graph.names import unused
from slimseg.graph.ops import Reshape, Resize, Slice
from slimseg.graph.orders import TO_NCHW, nhwc_shape
from slimseg.graph.propagation import shape_of
from slimseg.graph.shapes import Shape
from slimseg.graph.vocabulary import operator_of


class _BlockTracer(fx.Tracer):
    """Traces a block down to modules of the vocabulary."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return operator_of(m) is not None


def trace(block: nn.Module, input_shape: tuple[int, ...], name: str = "block") -> Graph:
    """A Graph of an nn.Module that consists of modules of the vocabulary only (one of slimseg.blocks, for example)."""
    module = fx.GraphModule(block, _BlockTracer().trace(block))
    return Graph(_flatten(module), input_shape, name=name)


def _flatten(module: fx.GraphModule) -> fx.GraphModule:
    """Give nested modules (`0.conv`) flat names (`layer_0_conv`), which the invariants require."""
    root = nn.Module()
    names: set[str] = set()
    for node in module.graph.nodes:
        if node.op == "call_module":
            flat = str(node.target).replace(".", "_")
            flat = flat if flat[0].isalpha() else f"layer_{flat}"
            root.add_module(flat, module.get_submodule(str(node.target)))
            node.target, node.name = flat, unused(flat, names)
            names.add(node.name)
    return fx.GraphModule(root, module.graph)


def replace(graph: Graph, sources: Sequence[str], target: str, block: nn.Module) -> Graph:
    """Replace the node `target`, and the nodes that only it needs, by `block`, which reads the values of `sources`.

    Each of the block's layers becomes a node, named `target`_<layer>; the last takes over the target's name, so that
    profiles, features and later edits still find it.

    Raises:
        GraphError: the shape of the block's output differs from the target's.
    """
    result = graph.copy()
    old = result.node(target)
    traced = _BlockTracer().trace(block)
    values: dict[fx.Node, fx.Node] = {}
    inserted: dict[str, str] = {}  # module in the graph by name in the block: one that is called twice is added once
    given = iter([result.node(source) for source in sources])
    with result.module.graph.inserting_before(old):
        for node in traced.nodes:
            if node.op == "placeholder":
                values[node] = next(given)
            elif node.op == "call_module":
                arguments = tuple(values[argument] for argument in node.args)
                values[node] = _insert(
                    result, block.get_submodule(str(node.target)), arguments, f"{target}_{node.target}",
                    inserted.get(str(node.target)),
                )  # fmt: skip
                inserted[str(node.target)] = str(values[node].target)
            elif node.op == "output":
                new = values[node.args[0]]
    old.replace_all_uses_with(new)
    result.module.graph.erase_node(old)
    result.module.delete_all_unused_submodules()
    _rename(result, new, target)
    result.refresh()
    if result.shape(new) != graph.shape(graph.node(target)):
        raise GraphError(f"{target} would have shape {result.shape(new)} instead of {graph.shape(graph.node(target))}")
    return result


def append(graph: Graph, layer: nn.Module, suffix: str) -> Graph:
    """Add `layer` after the output."""
    result = graph.copy()
    last = result.output
    output = next(node for node in result.module.graph.nodes if node.op == "output")
    with result.module.graph.inserting_before(output):
        output.args = (_insert(result, layer, (last,), f"{last.name}_{suffix}"),)
    result.refresh()
    return result


def bypass(graph: Graph, name: str) -> Graph:
    """Remove a layer that has one input: its readers read that input instead."""
    result = graph.copy()
    node = result.node(name)
    node.replace_all_uses_with(producer(node))
    result.refresh()
    return result


def swap(graph: Graph, first: str, second: str) -> Graph:
    """Exchange two successive layers with one input each: `second(first(x))` becomes `first(second(x))`.

    Raises:
        Unsupported: something else reads the first layer, or the second does not.
    """
    result = graph.copy()
    early, late = result.node(first), result.node(second)
    if only_consumer(early) is not late or len(late.args) != 1:
        raise Unsupported(f"{second} is not the only layer that reads {first}")
    late.replace_all_uses_with(early)
    late.args = (producer(early),)
    early.args = (late,)
    early.prepend(late)
    result.refresh()
    return result


def renamed(graph: Graph, name: str, wanted: str) -> Graph:
    """A copy in which the node `name` is called `wanted`, a name that no other node has."""
    result = graph.copy()
    _rename(result, result.node(name), wanted)
    result.refresh()
    return result


def _insert(
    graph: Graph, layer: nn.Module, arguments: tuple[fx.Node, ...], wanted: str, target: str | None = None
) -> fx.Node:
    """A new node that calls `layer`, or the module that the graph already has under the name `target`."""
    name = unused_name(graph, wanted.replace(".", "_"))
    if target is None:
        target = name
        graph.module.add_module(name, layer)
    node: fx.Node = graph.module.graph.create_node("call_module", target, arguments, name=name)
    return node


def _rename(graph: Graph, node: fx.Node, name: str) -> None:
    """Give a node and its module a name that has just become free; a shared module keeps its name."""
    if node.op == "call_module" and name not in dict(graph.module.named_children()) and not shared_with(graph, node):
        layer = graph.module.get_submodule(str(node.target))
        graph.module.delete_submodule(str(node.target))
        graph.module.add_module(name, layer)
        node.target = name
    node.name = name


def shared_with(graph: Graph, node: fx.Node) -> str | None:
    """Another node that calls the same module (shared weights), if any."""
    others = (other.name for other in graph.layers() if other is not node and other.target == node.target)
    return next(others, None)


def unused_name(graph: Graph, wanted: str) -> str:
    """`wanted`, with a number appended if a module or node of that name exists."""
    taken = {node.name for node in graph.module.graph.nodes} | {name for name, _ in graph.module.named_children()}
    return unused(wanted, taken)


def extract(graph: Graph, source: str, target: str) -> Graph:
    """The part of the network from the value of `source` to that of `target`, as a Graph with copied weights.

    Raises:
        Unsupported: the part also reads values other than its source.
    """
    start = graph.node(source)
    new = fx.Graph()
    values = {start: new.placeholder("x")}
    for node in needed(graph.node(target), {start}):
        if node.op not in ("call_module", "call_function", "get_attr"):
            raise Unsupported(f"{target} also reads {node.name}, which lies outside the part")
        values[node] = new.node_copy(node, lambda old: values[old])
    new.output(values[graph.node(target)])
    module = fx.GraphModule(_used_part(graph.module, new), new)
    part = Graph(module, graph.shape(start), graph.description, f"{graph.name}:{target}")
    part.weights = graph.weights
    return part


def ending_at(graph: Graph, name: str) -> Graph:
    """A copy of the network whose output is the value of node `name`; nodes that it does not need are removed."""
    result = graph.copy()
    (end,) = (node for node in result.module.graph.nodes if node.op == "output")
    end.args = (result.node(name),)
    result.refresh()
    return result


def _used_part(module: fx.GraphModule, part: fx.Graph) -> nn.Module:
    """Copies of the modules and constants that `part` uses; parameters that they share stay shared."""
    used = {str(node.target) for node in part.nodes if node.op in ("call_module", "get_attr")}
    root = nn.Module()
    for name, value in copy.deepcopy({name: getattr(module, name) for name in sorted(used)}).items():
        if isinstance(value, Tensor) and not isinstance(value, nn.Parameter):
            root.register_buffer(name, value)
        else:
            setattr(root, name, value)
    return root


def at_input_size(graph: Graph, size: tuple[int, int]) -> Graph:
    """The same network with the same weights, for an input of `size` (height, width) pixels.

    A resize to a fixed size scales with the input, and so do the lengths of a reshape that count pixels
    and the ends of a slice.

    Raises:
        Unsupported: the network does not accept the size; the message names the layer that prevents it.
    """
    result = graph.copy()
    result.input_shape = (*graph.input_shape[:2], *size)
    _resize_layers(graph, result)
    try:
        result.refresh()
    except GraphError as error:
        raise Unsupported(f"{graph.name} does not accept an input of {size[0]}x{size[1]}: {error}") from error
    return result


def _resize_layers(graph: Graph, result: Graph) -> None:
    """Give the layers of `result` that state a size the one for its input, in the order in which they run."""
    size, resized = result.input_size, set()
    shapes: dict[str, Shape] = {result.input.name: result.input_shape}
    for node in result.layers():
        layer = result.layer(node)
        if str(node.target) not in resized:
            resized.add(str(node.target))
            if isinstance(layer, Resize):
                layer.size = _scaled(graph, node, layer.size, size)
            elif isinstance(layer, Reshape):
                layer.shape = _reshaped(graph, node, layer, shapes[producer(node).name], size)
            elif isinstance(layer, Slice):
                lengths = graph.shape(producer(node))[layer.dim], shapes[producer(node).name][layer.dim]
                layer.start, layer.stop = (_edge(edge, *lengths) for edge in (layer.start, layer.stop))
        try:
            sources = [shapes[source.name] for source in node.args if isinstance(source, fx.Node)]
            shapes[node.name] = _in_proportion(graph, node, size) if layer is None else shape_of(layer, sources)
        except (GraphError, ValueError):
            return  # the network does not accept the size, and its check says why


def _edge(edge: int, before: int, after: int) -> int:
    """Where a slice begins or ends in another length: as far from the nearer end as before, or in the middle."""
    if 2 * edge == before:
        return after // 2
    return edge if 2 * edge < before else after - (before - edge)


def _in_proportion(graph: Graph, node: fx.Node, size: tuple[int, int]) -> Shape:
    """The shape of an opaque node's output, whose rule is unknown."""
    shape = graph.shape(node)
    return (*shape[:2], *_scaled(graph, node, (shape[2], shape[3]), size)) if len(shape) == 4 else shape


def _scaled(graph: Graph, node: fx.Node, old: tuple[int, int], size: tuple[int, int]) -> tuple[int, int]:
    new = [_scaled_side(*sides) for sides in zip(old, graph.input_size, size, strict=True)]
    if new[0] is None or new[1] is None:
        raise Unsupported(f"{node.name} resizes to {old}, which has no counterpart at {size[0]}x{size[1]}")
    return new[0], new[1]


def _scaled_side(length: int, before: int, after: int) -> int | None:
    """The side of a map at another input size; None if there is none.

    In proportion to the input's side where that is a whole number. Otherwise it is taken to come from strided layers:
    65 pixels of 513 are what layers of stride 8 give, and so become 64 of 512.
    """
    if length == 1 or length * after % before == 0:
        return max(1, length * after // before)
    strides = (2, 4, 8, 16, 32, round(before / length))
    return next((-(-after // stride) for stride in strides if -(-before // stride) == length), None)


def _reshaped(graph: Graph, node: fx.Node, layer: Reshape, source: Shape, size: tuple[int, int]) -> Shape:
    before, after = graph.shape(producer(node)), graph.shape(node)
    height, width = graph.input_size
    if layer.channels_last:
        before, after, source = (nhwc_shape(shape) for shape in (before, after, source))
    new = reshaping.at_other_size(before, after, source, (size[0] / height, size[1] / width))
    if new is None:
        raise Unsupported(f"{node.name} reshapes {before} to {after}, which has no counterpart at {size[0]}x{size[1]}")
    if layer.channels_last and len(new) == 4:
        new = tuple(new[dim] for dim in TO_NCHW)
    return tuple(-1 if old == -1 else length for old, length in zip(layer.shape, new, strict=True))

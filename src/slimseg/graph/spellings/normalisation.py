"""Normalisations that are written out as arithmetic, as in files of ONNX before opset 17, in TFLite, and in modules.

    c = x − mean(x)
    c / √(mean(c²) + ε)                                   layer or instance norm
    x·r + (t − mean(x)·r),  r = s / √(mean(c²) + ε)       the same with its scale and shift, as in TensorFlow
    x / √(mean(x²) + ε)                                   RMS norm

Group norm reshapes a map so that each group is one row, normalises the rows and reshapes them back.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, fx, nn

from slimseg.graph import ops
from slimseg.graph.graph import Graph, producer
from slimseg.graph.numbers import as_written
from slimseg.graph.rewriting import function_of, insert_before, is_read_once, number, replace, shift_of
from slimseg.graph.spellings import views

_PIXELS = (2, 3)


class Scaled(NamedTuple):
    """scale / √(spread + epsilon), where the spread is the variance or the mean square of `source` over `dims`."""

    source: fx.Node
    dims: tuple[int, ...]
    epsilon: float
    centred: bool
    scale: Tensor | None


def merge(graph: Graph) -> None:
    """Replace each written-out normalisation by its layer, in place."""
    for node in list(graph.layers()):
        _merge_plain(graph, node)
        _merge_with_scale(graph, node)
    for node in list(graph.layers()):
        _merge_groups(graph, node)


def _merge_plain(graph: Graph, node: fx.Node) -> None:
    for value, factor in _products(graph, node):
        found = _reciprocal(graph, factor) if graph.layer_as(node, ops.Multiply) else _root(graph, factor)
        if found is None or graph.shape(node) != graph.shape(value):
            continue
        centre = _centred(graph, value)
        if found.centred and centre == (found.source, found.dims):
            _normalise(graph, node, found)
            return
        if not found.centred and value is found.source:
            is_layer_norm = centre is not None and centre[1] == found.dims
            source = found._replace(source=centre[0], centred=True) if centre and is_layer_norm else found
            _normalise(graph, node, source)
            return


def _products(graph: Graph, node: fx.Node) -> list[tuple[fx.Node, fx.Node]]:
    """(x, y) for x · y in both orders, and for x / y."""
    if graph.layer_as(node, (ops.Multiply, ops.Divide)) is None or len(node.args) != 2:
        return []
    first, second = node.args
    assert isinstance(first, fx.Node)
    assert isinstance(second, fx.Node)
    return [(first, second)] if graph.layer_as(node, ops.Divide) else [(first, second), (second, first)]


def _normalise(graph: Graph, node: fx.Node, found: Scaled) -> None:
    layer = ops.Normalise(found.dims, found.epsilon, centred=found.centred)
    if found.scale is None:
        replace(graph, node, layer, (found.source,))
        return
    normal = insert_before(graph, node, layer, (found.source,), f"{node.name}_norm")
    replace(graph, node, ops.Affine(found.scale), (normal,))


def _root(graph: Graph, node: fx.Node) -> Scaled | None:
    """√(spread + ε)."""
    inner = function_of(graph, node, "sqrt")
    return _spread(graph, inner) if inner is not None else None


def _reciprocal(graph: Graph, node: fx.Node) -> Scaled | None:
    """1 / √(spread + ε), or a constant in place of 1."""
    affine = graph.layer_as(node, ops.Affine)
    scale = None
    if affine is not None and affine.shift is None and affine.scale is not None:
        node, scale = producer(node), affine.scale
    inner = function_of(graph, node, "rsqrt")
    if inner is None:
        inverted = function_of(graph, node, "reciprocal")
        inner = function_of(graph, inverted, "sqrt") if inverted is not None else None
    found = _spread(graph, inner) if inner is not None else None
    return found._replace(scale=scale) if found is not None else None


def _spread(graph: Graph, node: fx.Node) -> Scaled | None:
    """mean(x²) + ε or mean((x − mean x)²) + ε."""
    epsilon = shift_of(graph, node)
    if epsilon is None or not 0 <= epsilon < 1:
        return None
    epsilon = as_written(epsilon)
    mean = producer(node)
    dims = _mean_dims(graph, mean)
    square = producer(mean) if dims else None
    inner = _squared(graph, square) if square is not None else None
    if inner is None or not dims:
        return None
    centre = _centred(graph, inner)
    if centre is not None and centre[1] == dims:
        return Scaled(centre[0], dims, epsilon, True, None)
    return Scaled(inner, dims, epsilon, False, None)


def _squared(graph: Graph, node: fx.Node) -> fx.Node | None:
    inner = function_of(graph, node, "square")
    if inner is None and graph.layer_as(node, ops.Multiply) is not None and node.args[0] is node.args[1]:
        inner = node.all_input_nodes[0]
    return inner


def _centred(graph: Graph, node: fx.Node) -> tuple[fx.Node, tuple[int, ...]] | None:
    """(x, dims) of x − mean(x)."""
    if graph.layer_as(node, ops.Subtract) is None:
        return None
    source, mean = node.args
    assert isinstance(source, fx.Node)
    assert isinstance(mean, fx.Node)
    dims = _mean_dims(graph, mean)
    return (source, dims) if dims and producer(mean) is source else None


def _mean_dims(graph: Graph, node: fx.Node) -> tuple[int, ...]:
    """The dimensions of a mean that keeps them; empty for other layers, and for one over the batch."""
    layer = graph.layer_as(node, (ops.Reduce, nn.AdaptiveAvgPool2d))
    if isinstance(layer, ops.Reduce):
        is_mean = layer.kind == "mean" and layer.keepdim and 0 not in layer.dims
        return tuple(sorted(layer.dims)) if is_mean else ()
    if layer is None or len(graph.shape(node)) != 4 or graph.shape(node)[2:] != (1, 1):
        return ()
    return _PIXELS


def _merge_with_scale(graph: Graph, node: fx.Node) -> None:
    """x·r + (t − mean(x)·r)."""
    if graph.layer_as(node, ops.Add) is None or len(set(node.args)) != 2:
        return
    for product, offset in (node.args, node.args[::-1]):
        assert isinstance(product, fx.Node)
        assert isinstance(offset, fx.Node)
        negated = graph.layer_as(offset, ops.Affine)
        if negated is None or number(negated.scale) != -1 or negated.shift is None:
            continue
        inner = producer(offset)
        for (value, factor), (mean, other) in zip(_products(graph, product) * 2, _twice(graph, inner), strict=False):
            found = _reciprocal(graph, factor) if factor is other else None
            if found is None or not found.centred or value is not found.source or producer_or_none(mean) is not value:
                continue
            if _mean_dims(graph, mean) == found.dims and graph.shape(node) == graph.shape(value):
                normal = insert_before(
                    graph, node, ops.Normalise(found.dims, found.epsilon), (value,), f"{node.name}_norm"
                )
                replace(graph, node, ops.Affine(found.scale, negated.shift), (normal,))
                return


def producer_or_none(node: fx.Node) -> fx.Node | None:
    return node.all_input_nodes[0] if len(node.all_input_nodes) == 1 else None


def _twice(graph: Graph, node: fx.Node) -> list[tuple[fx.Node, fx.Node]]:
    """The products of a node so that they meet every order of another product's factors."""
    found = _products(graph, node)
    return [*found, *found[::-1]]


def _merge_groups(graph: Graph, node: fx.Node) -> None:
    """A map as rows of groups, each normalised, and as a map again."""
    after = views.row_to(graph, node)
    norm_node = producer(after[0]) if after else None
    norm = graph.layer_as(norm_node, ops.Normalise)
    if norm is None or norm_node is None or not is_read_once(norm_node) or norm.groups != 1:
        return
    before = views.row_to(graph, producer(norm_node))
    if not before:
        return
    source = producer(before[0])
    shape, found, both = graph.shape(source), views.followed(graph, before), views.followed(graph, [*before, *after])
    if found is None or both is None or graph.shape(node) != shape or len(shape) < 3 or not views.is_identity(both):
        return
    groups = [part for dim, parts in enumerate(found.after) if dim not in norm.dims for part in parts[dim == 0 :]]
    if groups and (len(groups) > 1 or not found.before[1] or found.before[1][0] is not groups[0]):
        return
    count = groups[0].length if groups else 1
    replace(graph, node, ops.Normalise(tuple(range(1, len(shape))), norm.epsilon, count, norm.centred), (source,))

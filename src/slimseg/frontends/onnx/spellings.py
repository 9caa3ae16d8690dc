"""Merges activations that exporters write out as arithmetic.

    Hardsigmoid   ReLU6(x + 3) / 6              also clip(x/6 + 1/2, 0, 1)
    Hardswish     x · Hardsigmoid(x)
    SiLU          x · Sigmoid(x)
    GELU          x · ½ · (1 + erf(x / √2))     in any order of the factors
    PReLU         ReLU(x) + a · ReLU(−x)        with slopes −a

All but GELU would also run unmerged, in more operators; phones have no erf.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from torch import Tensor, fx, nn

from slimseg.errors import UnknownOperator
from slimseg.frontends.onnx.activation import Erf
from slimseg.frontends.onnx.builder import Builder
from slimseg.graph import ops


def rewrite(builder: Builder) -> None:
    """Replace every written-out activation by its layer.

    Raises:
        UnknownOperator: an erf remains that belongs to no GELU.
    """
    for rule in (_hard_sigmoid, _gated, _gelu, _prelu):
        for node in list(builder.graph.nodes):
            found = rule(builder, node)
            if found is not None:
                _replace(builder, node, *found)
    builder.graph.eliminate_dead_code(lambda node: node.op in ("placeholder", "output"))
    for node in builder.graph.nodes:
        if isinstance(builder.layer(node), Erf):
            raise UnknownOperator(
                f"{builder.model.path} uses the operator Erf {node.name!r} outside of a GELU, which slimseg does not "
                "know: replace it before the export"
            )


def _replace(builder: Builder, node: fx.Node, layer: nn.Module, source: fx.Node) -> None:
    """Replace `node` by `layer` on `source`; the name stays."""
    builder.root.add_module(str(node.name), layer)
    node.target, node.args = node.name, (source,)


def _hard_sigmoid(builder: Builder, node: fx.Node) -> tuple[nn.Module, fx.Node] | None:
    layer = builder.layer(node)
    if isinstance(layer, ops.Affine) and _is(layer.scale, 1 / 6) and layer.shift is None:
        clip = node.args[0]
        line = _source(builder, clip, nn.ReLU6)
        if line is not None and (inner := _affine(builder, line)) and _is(inner.shift, 3) and inner.scale is None:
            return nn.Hardsigmoid(), _argument(line)
    if type(layer) is nn.Hardtanh and (layer.min_val, layer.max_val) == (0.0, 1.0):
        line = _argument(node)
        outer = _affine(builder, line)
        if outer and outer.shift is not None and _is(outer.shift, 0.5):
            if _is(outer.scale, 1 / 6):
                return nn.Hardsigmoid(), _argument(line)
            inner = _affine(builder, _argument(line)) if outer.scale is None else None
            if inner and inner.shift is None and _is(inner.scale, 1 / 6):
                return nn.Hardsigmoid(), _argument(_argument(line))
    return None


def _gated(builder: Builder, node: fx.Node) -> tuple[nn.Module, fx.Node] | None:
    """x · gate(x), also x · ReLU6(x + 3) / 6 where the product comes before the division."""
    layer = builder.layer(node)
    if isinstance(layer, ops.Affine) and _is(layer.scale, 1 / 6) and layer.shift is None:
        product = _argument(node)
        for x, gate in _factors(builder, product):
            line = _source(builder, gate, nn.ReLU6)
            inner = _affine(builder, line) if line is not None else None
            if line is not None and inner and inner.scale is None and _is(inner.shift, 3) and _argument(line) is x:
                return nn.Hardswish(), x
    for x, gate in _factors(builder, node):
        if _source(builder, gate, nn.Hardsigmoid) is x:
            return nn.Hardswish(), x
        if _source(builder, gate, nn.Sigmoid) is x:
            return nn.SiLU(), x
    return None


def _gelu(builder: Builder, node: fx.Node) -> tuple[nn.Module, fx.Node] | None:
    """(x · (1 + erf)) · ½, or (x · ½) · (1 + erf), or x · ((1 + erf) · ½)."""
    layer = builder.layer(node)
    if isinstance(layer, ops.Affine) and _is(layer.scale, 0.5) and layer.shift is None:
        for x, gate in _factors(builder, _argument(node)):
            if _one_plus_erf(builder, gate) is x:
                return nn.GELU(), x
    for first, second in _factors(builder, node):
        for half, other in ((first, second), (second, first)):
            scaled = _affine(builder, half)
            if scaled is None or not _is(scaled.scale, 0.5) or scaled.shift is not None:
                continue
            inner = _argument(half)
            if _one_plus_erf(builder, other) is inner:
                return nn.GELU(), inner
            if _one_plus_erf(builder, inner) is other:
                return nn.GELU(), other
    return None


def _one_plus_erf(builder: Builder, node: fx.Node) -> fx.Node | None:
    """The x in 1 + erf(x / √2)."""
    outer = _affine(builder, node)
    if outer is None or outer.scale is not None or not _is(outer.shift, 1):
        return None
    line = _source(builder, _argument(node), Erf)
    inner = _affine(builder, line) if line is not None else None
    if line is None or inner is None or inner.shift is not None or not _is(inner.scale, math.sqrt(0.5)):
        return None
    return _argument(line)


def _prelu(builder: Builder, node: fx.Node) -> tuple[nn.Module, fx.Node] | None:
    terms = node.all_input_nodes if isinstance(builder.layer(node), ops.Add) else []
    for positive, scaled in (terms, terms[::-1]) if len(terms) == 2 else ():
        x, slope = _source(builder, positive, nn.ReLU), _affine(builder, scaled)
        if x is None or slope is None or slope.scale is None or slope.shift is not None:
            continue
        minus = _source(builder, _argument(scaled), nn.ReLU)
        opposite = builder.layer(minus) if minus is not None else None
        if (
            minus is None
            or not isinstance(opposite, ops.Unary)
            or opposite.function != "neg"
            or _argument(minus) is not x
        ):
            continue
        return _with_slopes(-slope.scale.detach(), x), x
    return None


def _with_slopes(slopes: Tensor, x: fx.Node) -> nn.Module:
    """PReLU with one slope, one per channel or one per value."""
    if slopes.ndim == 3 and slopes.shape[1:] != (1, 1):
        return ops.SpatialPReLU(slopes.expand(x.meta["shape"][1:]).clone())
    layer = nn.PReLU(slopes.numel())
    layer.weight = nn.Parameter(slopes.reshape(-1))
    return layer


def _factors(builder: Builder, node: object) -> Iterator[tuple[fx.Node, fx.Node]]:
    """Both orders of a product's two factors."""
    if isinstance(node, fx.Node) and isinstance(builder.layer(node), ops.Multiply):
        a, b = node.all_input_nodes if len(node.all_input_nodes) == 2 else node.all_input_nodes * 2
        yield a, b
        yield b, a


def _source(builder: Builder, node: object, kind: type[nn.Module]) -> fx.Node | None:
    """The value that a node reads, if its layer is of that kind; else None."""
    return _argument(node) if isinstance(node, fx.Node) and type(builder.layer(node)) is kind else None


def _affine(builder: Builder, node: fx.Node | None) -> ops.Affine | None:
    layer = builder.layer(node) if node is not None else None
    return layer if isinstance(layer, ops.Affine) else None


def _argument(node: fx.Node) -> fx.Node:
    return node.all_input_nodes[0]


def _is(value: Tensor | None, number: float) -> bool:
    return value is not None and value.numel() == 1 and math.isclose(float(value), number, rel_tol=1e-3)

"""Activations that are written out as arithmetic.

    Hardsigmoid   ReLU6(x + 3) / 6              also clip(x/6 + 1/2, 0, 1)
    Hardswish     x · Hardsigmoid(x)
    SiLU          x · Sigmoid(x)
    GELU          x · ½ · (1 + erf(x / √2)), or x · ½ · (1 + tanh(√(2/π) · (x + 0.044715·x³)))
    PReLU         ReLU(x) + a · ReLU(−x)        with slopes −a

All but PReLU are a function of one number, whatever the order of its steps. So they are not recognised by their steps:
the arithmetic is computed for numbers from -100 to 100 and compared with the activations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor, fx, nn

from slimseg.graph import ops
from slimseg.graph.graph import Graph, producer
from slimseg.graph.rewriting import function_of, number, replace

_LONGEST = 32  # layers of one written-out activation; erf alone takes 20
_POINTS = torch.cat([torch.linspace(-8, 8, 257), torch.tensor([-100.0, -30.0, -12.0, 12.0, 30.0, 100.0])])
# Each activation, and how far arithmetic with rounded constants (0.1667 for 1/6) may be from it.
_ACTIVATIONS: tuple[tuple[Callable[[], nn.Module], float], ...] = (
    (nn.GELU, 1e-4),
    (lambda: nn.GELU("tanh"), 1e-4),
    (nn.SiLU, 1e-4),
    (nn.Hardswish, 1e-3),
    (nn.Hardsigmoid, 1e-3),
)
_LAST = (ops.Multiply, ops.Divide, ops.Affine, nn.Hardtanh)  # what a written-out activation ends in
_PAIRS = (ops.Add, ops.Subtract, ops.Multiply, ops.Divide)


def merge(graph: Graph) -> None:
    """Replace each written-out activation by its layer, in place."""
    wanted = [(build, build()(_POINTS), tolerance) for build, tolerance in _ACTIVATIONS]
    places = {node: place for place, node in enumerate(graph.module.graph.nodes)}
    for node in list(graph.layers()):
        if graph.layer_as(node, ops.Add) is not None:
            _merge_prelu(graph, node)
        if graph.layer_as(node, _LAST) is None:
            continue
        found = ((build, source) for source, values in _as_functions(graph, node, places) for build, expected, tolerance
                 in wanted if _close(values, expected, tolerance))  # fmt: skip
        build, source = next(found, (None, None))
        if build is not None and source is not None:
            replace(graph, node, build(), (source,))


def _close(values: Tensor, expected: Tensor, tolerance: float) -> bool:
    return bool(((values - expected).abs() <= tolerance * expected.abs().clamp_min(1)).all())


def _as_functions(graph: Graph, node: fx.Node, places: Mapping[fx.Node, int]) -> Iterator[tuple[fx.Node, Tensor]]:
    """Every value of which `node` is a function, number by number, with the function's values; the nearest first."""
    steps: list[fx.Node] = []
    frontier = {node}
    while len(steps) < _LONGEST:
        if len(frontier) == 1 and len(steps) > 1:
            (source,) = frontier
            yield source, _computed(graph, source, steps[::-1])
        latest = max(frontier, key=places.__getitem__)
        if not _is_function(graph, latest, graph.shape(node)):
            return
        steps.append(latest)
        frontier.remove(latest)
        frontier.update(latest.all_input_nodes)


def _is_function(graph: Graph, node: fx.Node, shape: tuple[int, ...]) -> bool:
    """Whether a layer computes each number of its result from the numbers at the same place."""
    layer = graph.layer(node)
    if layer is None or any(source.meta.get("shape") != shape for source in (node, *node.all_input_nodes)):
        return False
    if isinstance(layer, ops.Affine):
        return all(value is None or number(value) is not None for value in (layer.scale, layer.shift))
    return isinstance(layer, (*_PAIRS, *ops.PLAIN_ACTIVATIONS, ops.Unary))


def _computed(graph: Graph, source: fx.Node, steps: list[fx.Node]) -> Tensor:
    values = {source: _POINTS}
    with torch.no_grad():
        for step in steps:
            layer = graph.layer(step)
            assert layer is not None
            values[step] = layer(*(values[each] for each in step.args if isinstance(each, fx.Node)))
    return values[steps[-1]]


def _merge_prelu(graph: Graph, node: fx.Node) -> None:
    """ReLU(x) + a · ReLU(−x)."""
    terms = node.all_input_nodes
    for positive, scaled in (terms, terms[::-1]) if len(terms) == 2 else ():
        slope = graph.layer_as(scaled, ops.Affine)
        if graph.layer_as(positive, nn.ReLU) is None or slope is None or slope.scale is None or slope.shift is not None:
            continue
        source, minus = producer(positive), producer(scaled)
        opposite = producer(minus) if graph.layer_as(minus, nn.ReLU) is not None else None
        if opposite is not None and function_of(graph, opposite, "neg") is source:
            replace(graph, node, _with_slopes(-slope.scale.detach(), graph.shape(source)), (source,))
            return


def _with_slopes(slopes: Tensor, shape: tuple[int, ...]) -> nn.Module:
    """PReLU with one slope, one per channel or one per value."""
    if slopes.ndim == 3 and slopes.shape[1:] != (1, 1):
        return ops.SpatialPReLU(slopes.expand(shape[1:]).clone())
    layer = nn.PReLU(slopes.numel())
    layer.weight = nn.Parameter(slopes.reshape(-1))
    return layer

"""What a Graph computes, without the names of its layers: the same for the same network, whatever its source."""

from __future__ import annotations

import copy

from torch import fx, nn

from slimseg.graph.graph import Graph
from slimseg.graph.shapes import Shape, pair
from slimseg.graph.vocabulary.rules import constants

Step = tuple[str, str, tuple[int, ...], tuple[int, ...]]


def signature(graph: Graph) -> list[Step]:
    """For each layer its class, settings, output shape and the places of its inputs in this list.

    Layers follow one another as their results are needed: the order in which a source lists them does not matter.
    """
    places: dict[fx.Node, int] = {}
    steps: list[Step] = []
    waiting = [graph.output]
    while waiting:
        node = waiting[-1]
        missing = [source for source in node.all_input_nodes if source not in places]
        if node in places:
            waiting.pop()
        elif missing:
            waiting += reversed(missing)
        else:
            waiting.pop()
            places[node] = len(steps)
            inputs = tuple(places[source] for source in node.args if isinstance(source, fx.Node))
            steps.append((_kind(graph, node), _settings(graph, node), graph.shape(node), inputs))
    return steps


def _kind(graph: Graph, node: fx.Node) -> str:
    if graph.layer_as(node, nn.AdaptiveAvgPool2d) is not None:
        return "AvgPool2d"
    return type(graph.layer(node)).__name__ if node.op == "call_module" else f"{node.op} {_operator(node)}"


def _operator(node: fx.Node) -> str:
    return str(node.target) if node.op == "call_function" else ""


def _settings(graph: Graph, node: fx.Node) -> str:
    layer = graph.layer(node)
    if layer is None:
        return ""
    if isinstance(layer, nn.MaxPool2d | nn.AvgPool2d | nn.AdaptiveAvgPool2d):
        return _windows(layer, graph.shape(node.all_input_nodes[0]), graph.shape(node))
    if getattr(layer, "bias", None) is not None and not layer.bias.any():
        layer = _without_bias(layer)
    held = {name: tuple(value.shape) for name, value in constants(layer).items()}
    return f"{layer.extra_repr()} {held or ''}".strip()


def _windows(layer: nn.MaxPool2d | nn.AvgPool2d | nn.AdaptiveAvgPool2d, before: Shape, after: Shape) -> str:
    """A pooling as files state it: at this size of input, an adaptive one has windows of one size if they divide."""
    if not isinstance(layer, nn.AdaptiveAvgPool2d):
        return f"{pair(layer.kernel_size)} every {pair(layer.stride)}, padding {pair(layer.padding)}"
    if any(length % count for length, count in zip(before[2:], after[2:], strict=True)):
        return layer.extra_repr()
    kernel = tuple(length // count for length, count in zip(before[2:], after[2:], strict=True))
    return f"{kernel} every {kernel}, padding (0, 0)"


def _without_bias(layer: nn.Module) -> nn.Module:
    """Some files hold a bias of zeros where the network has none."""
    result = copy.copy(layer)
    result._parameters = {**layer._parameters, "bias": None}
    return result

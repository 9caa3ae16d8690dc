"""Output shapes (NCHW), layer by layer: arithmetic for the vocabulary, torch's own rules for opaque nodes.

Running the network on tensors without data would give the same shapes, but takes a hundred times as long, and a search
needs the shapes of hundreds of edited networks.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from slimseg.errors import GraphError
from slimseg.graph.shapes import Shape
from slimseg.graph.vocabulary import operator_of


def propagate(module: fx.GraphModule, input_shape: Shape) -> None:
    """Set `meta["shape"]` on every node whose value is a tensor.

    Raises:
        GraphError: the network cannot take an input of that shape, or calls a layer outside the vocabulary; the
            message names the layer.
    """
    if any(node.op == "call_function" for node in module.graph.nodes):
        _by_running(module, input_shape)
        return
    for node in module.graph.nodes:
        if node.op == "placeholder":
            node.meta["shape"] = tuple(input_shape)
        elif node.op == "call_module":
            layer = module.get_submodule(str(node.target))
            shapes = [source.meta["shape"] for source in node.args]
            try:
                node.meta["shape"] = shape_of(layer, shapes)
            except ValueError as error:
                raise GraphError(f"{node.name} does not fit an input of {input_shape}: {error}") from error
            except GraphError as error:
                raise GraphError(f"{node.name}: {error}") from error


def shape_of(layer: nn.Module, shapes: Sequence[Shape]) -> Shape:
    """Output shape of one layer of the vocabulary, by the rule in its record.

    Raises:
        ValueError: the inputs do not fit the layer.
        GraphError: the layer is outside the vocabulary.
    """
    operator = operator_of(layer)
    if operator is None:
        raise GraphError(f"{type(layer).__name__} is outside the vocabulary, so the shape of its output is unknown")
    result = operator.shape(layer, shapes)
    if min(result) < 1:
        raise ValueError(f"its output would have no values for an input of {shapes[0]}")
    return result


class _ShapeRecorder(fx.Interpreter):
    """Runs the graph on tensors without data and notes every output's shape."""

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if isinstance(result, Tensor):
            n.meta["shape"] = tuple(result.shape)
        return result


def _by_running(module: fx.GraphModule, input_shape: Shape) -> None:
    # torch logs a traceback for every shape that does not fit; here such a shape is an ordinary result.
    logger = logging.getLogger("torch._subclasses.fake_tensor")
    was_disabled, logger.disabled = logger.disabled, True
    try:
        with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
            _ShapeRecorder(module).run(torch.empty(input_shape))
    except Exception as error:  # an operator may raise any exception for a shape that does not fit
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise GraphError(f"an input of {input_shape} does not fit the network: {reason}") from error
    finally:
        logger.disabled = was_disabled

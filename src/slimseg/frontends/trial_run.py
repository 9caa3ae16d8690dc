"""Runs an opened network once, so that one that opens but cannot run is refused at once, not in the middle of work.

Before that, its demand follows from its shapes, since a file of a few bytes can ask for any amount of memory or work.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import fx, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from slimseg import memory_bounds
from slimseg.errors import ModelError, one_line
from slimseg.graph import costs, ops
from slimseg.graph.graph import Graph
from slimseg.graph.shapes import Shape, pair
from slimseg.memory_bounds import Step
from slimseg.runtimes import host

MOST_WORK = 10**13  # multiply-accumulates: DeepLabV3 with ResNet-101 at 2048x1024 takes 1.4e12
# A network above either limit runs on shapes only, without values: it would take too much of the machine while opening.
_TRIAL_BYTES = 1 << 29
_TRIAL_WORK = 10**11
_BYTES_PER_VALUE = 4
_MACS_PER_READ = 20  # a pooling reads one value in the time of this many multiply-accumulates of a convolution


@dataclass(frozen=True)
class Demand:
    """What one image takes in memory and work, computed from the shapes of the network's values."""

    peak_bytes: int  # memory in use at one time
    work: int  # multiply-accumulates, with other operations counted as those that take the same time
    macs: int  # multiply-accumulates alone

    @property
    def is_heavy(self) -> bool:
        """Whether the network is too heavy to run while it is opened."""
        return self.peak_bytes > _TRIAL_BYTES or self.work > _TRIAL_WORK


@dataclass(frozen=True)
class Trial:
    """What one image takes; and, unless that is too much, an image (1, channels, height, width) and its output."""

    demand: Demand
    image: torch.Tensor | None = None
    output: torch.Tensor | None = None


def run_once(graph: Graph, source: str) -> Trial:
    """Run the network on an image of random bytes; `source` is the user's name for the model.

    Raises:
        ModelError: it needs absurd amounts of memory or work, or it fails; the message names the layer.
    """
    demand = require_modest(graph, source)
    if demand.is_heavy:
        with FakeTensorMode(allow_non_fake_inputs=True):
            _run(graph, source, torch.empty(graph.input_shape))
        return Trial(demand)
    image = _random_image(graph)
    return Trial(demand, image, _run(graph, source, image))


def _random_image(graph: Graph) -> torch.Tensor:
    """Random bytes, preprocessed as the network expects; the same at every call."""
    _, channels, height, width = graph.input_shape
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, channels), np.uint8)
    if channels == 3:
        value = host.ImagePipeline(graph.description.preprocessing, graph.input_size)(pixels)
    else:
        value = (pixels / 255).astype(np.float32)
    return torch.from_numpy(value).permute(2, 0, 1)[None].contiguous()


def require_modest(graph: Graph, source: str) -> Demand:
    """The demand of one image. Raises ModelError, as `run_once` does, if it is absurd."""
    nodes = [node for node in graph.module.graph.nodes if node.op != "get_attr"]
    steps = [_step(graph, node) for node in nodes]
    there = _bytes_there(graph)
    peak, work, macs = 0, 0, 0
    for node, step, at_once in zip(nodes, steps, memory_bounds.bytes_at_once(steps), strict=True):
        if said := memory_bounds.excess(step, at_once, there, graph.input_size):
            raise ModelError(f"{source} {said}")
        peak = max(peak, at_once)
        own = costs.cost(graph, node).macs
        macs, work = macs + own, work + _work(graph, node, own)
        if work > MOST_WORK:
            raise ModelError(f"{source} takes over {MOST_WORK:.0e} operations for one image ({node.name}): refused")
    return Demand(peak, work, macs)


def _run(graph: Graph, source: str, image: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        try:
            return graph(image)
        except Exception as error:  # operators raise many kinds of errors for arguments that make no sense
            layer = _failing_layer(graph, image)
            where = f" at {layer}" if layer else ""
            raise ModelError(f"{source} opens but cannot run ({one_line(error)}){where}: export it again") from error


def _failing_layer(graph: Graph, image: torch.Tensor) -> str | None:
    """The layer that fails; None if only the network as a whole does."""
    runner = _Runner(graph.module)
    try:
        runner.run(image)
    except Exception:
        return runner.current
    return None


class _Runner(fx.Interpreter):
    """Runs node by node and remembers the current one."""

    current: str | None = None

    def run_node(self, n: fx.Node) -> object:
        self.current = n.name
        return super().run_node(n)


def _bytes_there(graph: Graph) -> int:
    """Bytes of the input and of the weights."""
    tensors = (*graph.module.parameters(), *graph.module.buffers())
    return math.prod(graph.input_shape) * _BYTES_PER_VALUE + sum(each.nbytes for each in tensors)


def _step(graph: Graph, node: fx.Node) -> Step:
    makes = {} if node.op == "output" else {node: _values(node) * _BYTES_PER_VALUE}
    extra = (_values_made(graph, node) - _values(node)) * _BYTES_PER_VALUE
    return Step(f"the layer {node.name}", makes, node.all_input_nodes, extra)


def _values(node: fx.Node) -> int:
    shape: Shape = node.meta.get("shape", (0,))
    return math.prod(shape)


def _values_made(graph: Graph, node: fx.Node) -> int:
    """Number of values in the output, with those that the layer makes and drops before it returns."""
    layer = graph.layer(node)
    if isinstance(layer, ops.Attention):
        return _values(node) + 2 * costs.inner_values(graph, node)  # scores and their softmax
    if not isinstance(layer, ops.CroppedConvTranspose2d):
        return _values(node)
    _, channels, height, width = graph.shape(node)
    left, right, top, bottom = layer.crop
    return channels * (height + top + bottom) * (width + left + right)


def _work(graph: Graph, node: fx.Node, macs: int) -> int:
    """Multiply-accumulates; reads of a pooling count as those that take the same time."""
    layer = graph.layer(node)
    if isinstance(layer, nn.MaxPool2d | nn.AvgPool2d):
        return _MACS_PER_READ * _values(node) * math.prod(pair(layer.kernel_size))
    if isinstance(layer, ops.Reduce | nn.AdaptiveAvgPool2d):
        return sum(map(_values, node.all_input_nodes))
    return macs + _values_made(graph, node)

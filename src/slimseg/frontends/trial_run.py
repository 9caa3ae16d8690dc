"""A network that was opened runs once: what opens and cannot run is refused at once, not in the middle of work.

Before that its size is read off its shapes, since a file of a few bytes can ask for any amount of memory or work.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import fx, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from slimseg import memory_bounds
from slimseg.errors import ModelError, one_line
from slimseg.graph import costs, ops
from slimseg.graph.graph import Graph
from slimseg.graph.shapes import Shape, pair

MOST_WORK = 10**13  # multiply-accumulates: DeepLabV3 with ResNet-101 at 2048x1024 takes 1.4e12
# A network above either of these is only run on shapes, without values: at load it would take too much of the machine.
_TRIAL_BYTES = 1 << 29
_TRIAL_WORK = 10**11
_BYTES_PER_VALUE = 4
_MACS_PER_READ = 20  # a pooling reads a value in the time of so many multiply-accumulates of a convolution


def run_once(graph: Graph, source: str) -> None:
    """Run the network on seeded noise of its input's shape; `source` is what the user calls the model.

    Raises:
        ModelError: it asks for absurd amounts of memory or work, or it does not run; the message names the layer.
    """
    _require_modest(graph, source)
    if is_heavy(graph):
        with FakeTensorMode(allow_non_fake_inputs=True):
            _run(graph, source, torch.empty(graph.input_shape))
    else:
        _run(graph, source, noise(graph))


def is_heavy(graph: Graph) -> bool:
    """Whether one image takes so much memory or work that the network is not to be run while it is opened."""
    *_, (_, _, peak_bytes, work) = _demands(graph)
    return peak_bytes > _TRIAL_BYTES or work > _TRIAL_WORK


def noise(graph: Graph) -> torch.Tensor:
    """Normally distributed values of the input's shape, the same at every call."""
    return torch.randn(graph.input_shape, generator=torch.Generator().manual_seed(0))


def _run(graph: Graph, source: str, image: torch.Tensor) -> None:
    with torch.no_grad():
        try:
            graph(image)
        except Exception as error:  # whatever operators raise for arguments that make no sense
            layer = _failing_layer(graph, image)
            where = f" at {layer}" if layer else ""
            raise ModelError(f"{source} opens but cannot run ({one_line(error)}){where}: export it again") from error


def _failing_layer(graph: Graph, image: torch.Tensor) -> str | None:
    """The layer at which it fails; None where only the network as a whole does."""
    runner = _Runner(graph.module)
    try:
        runner.run(image)
    except Exception:
        return runner.current
    return None


class _Runner(fx.Interpreter):
    """Runs node by node and remembers where it is."""

    current: str | None = None

    def run_node(self, n: fx.Node) -> object:
        self.current = n.name
        return super().run_node(n)


def _require_modest(graph: Graph, source: str) -> None:
    there = _bytes_there(graph)
    for node, made, peak, work in _demands(graph):
        said = memory_bounds.excess(made, peak, there, graph.input_size, f"the layer {node.name}")
        if said:
            raise ModelError(f"{source} {said}")
        if work > MOST_WORK:
            raise ModelError(f"{source} takes over {MOST_WORK:.0e} operations for one image ({node.name}): refused")


def _bytes_there(graph: Graph) -> int:
    """Of the input and of the weights."""
    tensors = (*graph.module.parameters(), *graph.module.buffers())
    return math.prod(graph.input_shape) * _BYTES_PER_VALUE + sum(each.nbytes for each in tensors)


def _demands(graph: Graph) -> Iterator[tuple[fx.Node, int, int, int]]:
    """Each value, the bytes that it takes to make, and of all up to it: bytes at once at the most, and the work."""
    last_use: dict[fx.Node, fx.Node] = {}
    for node in graph.module.graph.nodes:
        last_use.update(dict.fromkeys((node, *node.all_input_nodes), node))
    alive, peak, work = 0, 0, 0
    for node in graph.module.graph.nodes:
        if node.op in ("output", "get_attr"):
            continue
        made = _bytes_made(graph, node)
        work += _work(graph, node)
        peak = max(peak, alive + made)
        alive += _bytes(node)
        alive -= sum(_bytes(value) for value in {node, *node.all_input_nodes} if last_use[value] is node)
        yield node, made, peak, work


def _values(node: fx.Node) -> int:
    shape: Shape = node.meta.get("shape", (0,))
    return math.prod(shape)


def _bytes(node: fx.Node) -> int:
    return _values(node) * _BYTES_PER_VALUE


def _bytes_made(graph: Graph, node: fx.Node) -> int:
    """Of the output, and of what the layer makes and crops before it hands that on."""
    layer = graph.layer(node)
    if not isinstance(layer, ops.CroppedConvTranspose2d):
        return _bytes(node)
    _, channels, height, width = graph.shape(node)
    left, right, top, bottom = layer.crop
    return channels * (height + top + bottom) * (width + left + right) * _BYTES_PER_VALUE


def _work(graph: Graph, node: fx.Node) -> int:
    """Multiply-accumulates, or as many as take the time of what the windows of a pooling read."""
    layer = graph.layer(node)
    if isinstance(layer, nn.MaxPool2d | nn.AvgPool2d):
        return _MACS_PER_READ * _values(node) * math.prod(pair(layer.kernel_size))
    if isinstance(layer, ops.Reduce | nn.AdaptiveAvgPool2d):
        return sum(map(_values, node.all_input_nodes))
    return costs.cost(graph, node).macs + _bytes_made(graph, node) // _BYTES_PER_VALUE

"""The network of quantisation-aware training: a trainable Graph that computes in float32 the same as its int8 file.

    Given   Graph whose nodes have the names of the file's tensors (`file_form`), grids (`grids.probe`), ranges
    Result  the same layers with rounded weights; every value rounded as in the int8 file, with learnt ranges

The grids alone determine the shared ranges of concatenations, resizes and pools, the second rounding on the way into a
concatenation, the fixed scale of a softmax, and the layers that stay in float32: this file has no rules for them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn

from slimseg.disk import scratch
from slimseg.errors import Unsupported
from slimseg.frontends import as_written
from slimseg.graph import ops
from slimseg.graph.graph import Graph, only_consumer, producer
from slimseg.quantisation import arithmetic
from slimseg.quantisation.grids import Grid, Grids
from slimseg.quantisation.rounding import (
    HIGHEST,
    LOWEST,
    grid_of,
    rounded,
    rounded_bias,
    rounded_weights,
    weight_scales,
)
from slimseg.runtimes import deployed

Ranges = Mapping[str, tuple[float, float]]
_OUTPUT_CHANNELS = {nn.Conv2d: 0, nn.Linear: 0, nn.ConvTranspose2d: 1, ops.CroppedConvTranspose2d: 1}


def file_form(graph: Graph) -> Graph:
    """The graph in the form of its `.tflite`: batch norms folded, one node per tensor of the file, under its name.

    Raises:
        Unsupported: the graph cannot be written, or the written file cannot be read.
    """
    with scratch.folder() as folder:
        path = folder / "model.tflite"
        deployed.write_float(graph, path)
        result = as_written(path)
    result.name, result.source = graph.name, None
    return result


class QuantisedNetwork(nn.Module):
    """Computes the same as a graph's int8 file. `network` has the trained weights, `factors` the learnt ranges.

    A range is learnt as the logarithms of two factors on its ends, so that signs cannot change and steps are relative.
    """

    def __init__(
        self, graph: Graph, grids: Grids, ranges: Ranges, fixed: Collection[str] = (), weight_bits: int = 8
    ) -> None:
        """`ranges` must have every leader of the grids; the ranges of `fixed` tensors are not learnt.

        Raises:
            Unsupported: the file has tensors that are no nodes of the graph (another writer named them, for example).
            KeyError: a range is missing.
        """
        super().__init__()
        strangers = grids.leaders - {node.name for node in graph.module.graph.nodes}
        if strangers:
            raise Unsupported(
                f"{graph.name} cannot be trained in int8: it has no layer {min(strangers)}, which its file has"
            )
        self.network = graph.module
        self.grids = grids
        self.weight_bits = weight_bits
        self.operators = _operators(graph, grids)
        self.factors = nn.ParameterDict()
        for leader in sorted(grids.leaders):
            low, high = ranges[leader]
            self.register_buffer(f"range_{leader}", torch.tensor([min(low, 0.0), max(high, 0.0)], dtype=torch.float64))
            self.factors[leader] = nn.Parameter(torch.zeros(2), requires_grad=leader not in fixed)
        self._runner = _Runner(self)

    def forward(self, images: Tensor) -> Tensor:
        """Preprocessed images (N, C, H, W) to the graph's output."""
        result: Tensor = self._runner.run(images)
        return result

    def range_of(self, leader: str) -> tuple[Tensor, Tensor]:
        """The two current ends of a leader's range."""
        ends: Tensor = self.get_buffer(f"range_{leader}") * self.factors[leader].exp()
        return ends[0], ends[1]

    def ranges(self) -> dict[str, tuple[float, float]]:
        """The current range of every leader, to be given to the quantiser."""
        ends = {leader: tuple(float(end.detach()) for end in self.range_of(leader)) for leader in self.grids.leaders}
        return {leader: (low, high) for leader, (low, high) in ends.items()}

    def grid(self, grid: Grid) -> tuple[Tensor, Tensor]:
        """The current (scale, zero point) of a grid."""
        if grid.leader is not None:
            return grid_of(*self.range_of(grid.leader))
        return torch.tensor(grid.scale), torch.tensor(float(grid.zero_point))

    def on_grid(self, value: Tensor, grid: Grid | None) -> Tensor:
        if grid is None:
            return value
        if grid.leader is not None:
            return rounded(value, *self.range_of(grid.leader))
        return torch.fake_quantize_per_tensor_affine(value, grid.scale, grid.zero_point, LOWEST, HIGHEST)

    def scale(self, grid: Grid) -> Tensor:
        """The current size of a step of a grid, as a real number."""
        return torch.tensor(grid.scale) if grid.leader is None else grid_of(*self.range_of(grid.leader))[0]

    def seen_grid(self, source: fx.Node, reader: str) -> Grid | None:
        """The grid of the value of `source` as the operator that writes `reader` reads it."""
        while source.op == "call_module" and source.name not in self.grids.operators:
            source = producer(source)  # padding that is fused into the operator
        return self.grids.read.get((source.name, reader)) or self.grids.written.get(source.name)

    def seen(self, value: Tensor, source: fx.Node, reader: str) -> Tensor:
        """The value of `source` as the operator that writes `reader` reads it."""
        grid, written = self.grids.read.get((source.name, reader)), self.grids.written.get(source.name)
        if grid is not None and written is not None and not self.training:
            value = arithmetic.conversion(value, self.scale(written), self.scale(grid))
        return self.on_grid(value, grid)

    def computed(self, layer: nn.Module, node: fx.Node, reader: str, inputs: tuple[Tensor, ...]) -> Tensor:
        """A layer's output for given inputs, before it is rounded to its grid."""
        if not self.training:
            exact = self._exact(layer, node, reader, inputs)
            if exact is not None:
                return exact
        value: Tensor = torch.func.functional_call(layer, self._constants(layer, node, reader), inputs)
        return value

    def _exact(self, layer: nn.Module, node: fx.Node, reader: str, inputs: tuple[Tensor, ...]) -> Tensor | None:
        """The output as the runtime's kernel rounds it; None for layers whose exact arithmetic is not known."""
        target = self.grids.written.get(reader)
        sources = [self.seen_grid(source, reader) for source in node.args if isinstance(source, fx.Node)]
        scales = tuple(self.scale(grid) for grid in sources if grid is not None)
        if target is None or len(scales) < len(inputs):
            return None
        step = self.scale(target)
        if type(layer) in _OUTPUT_CHANNELS and reader in self.grids.per_channel:
            return arithmetic.convolution(
                layer, self._axis(layer, reader), inputs[0], scales[0], step, self.weight_bits
            )
        if isinstance(layer, ops.Add) and len(inputs) == 2:
            return arithmetic.addition(inputs[0], inputs[1], (scales[0], scales[1]), step)
        if isinstance(layer, nn.LeakyReLU):
            return arithmetic.leaky_relu(inputs[0], layer.negative_slope, scales[0], step)
        return arithmetic.resize(layer, inputs[0], step) if isinstance(layer, ops.Resize) else None

    def _axis(self, layer: nn.Module, reader: str) -> int | None:
        return _OUTPUT_CHANNELS[type(layer)] if self.grids.per_channel[reader] else None

    def _constants(self, layer: nn.Module, node: fx.Node, reader: str) -> dict[str, Tensor]:
        """The layer's constants as the int8 file stores them; empty if they stay in float32."""
        if reader not in self.grids.per_channel:
            return {}
        if type(layer) not in _OUTPUT_CHANNELS:
            named = (*layer.named_parameters(), *layer.named_buffers())
            return {name: rounded(value, value.detach().min(), value.detach().max()) for name, value in named}
        axis, weight = self._axis(layer, reader), layer.get_parameter("weight")
        found = {"weight": rounded_weights(weight, axis, self.weight_bits)}
        grid = self.seen_grid(producer(node), reader)
        if grid is not None and layer.bias is not None:
            steps = self.scale(grid).detach() * weight_scales(weight, axis, self.weight_bits)
            found["bias"] = rounded_bias(layer.get_parameter("bias"), steps)
        return found


class _Runner(fx.Interpreter):
    """Runs the network node by node with rounded weights, and rounds the values."""

    def __init__(self, owner: QuantisedNetwork) -> None:
        super().__init__(owner.network)
        self.owner = owner

    def run_node(self, n: fx.Node) -> Any:
        if n.op != "call_module":
            return super().run_node(n)
        reader = self.owner.operators[n.name]
        sources = [source for source in n.args if isinstance(source, fx.Node)]
        inputs = tuple(self.owner.seen(self.env[source], source, reader) for source in sources)
        value = self.owner.computed(self.fetch_attr(str(n.target)), n, reader, inputs)
        return self.owner.on_grid(value, self.owner.grids.written.get(n.name))


def _operators(graph: Graph, grids: Grids) -> dict[str, str]:
    """For each node the tensor that its operator writes, with padding before and an activation after it fused."""
    found: dict[str, str] = {}
    for node in graph.layers():
        last: fx.Node | None = node
        while last is not None and last.name not in grids.operators:
            last = only_consumer(last)
        found[node.name] = node.name if last is None else last.name
    return found

"""How much each layer loses by 8 bits: the network runs in float32, with one operator quantised at a time.

    Given   a network that computes the same as its int8 file
    Result  for every operator the percentage of pixels that change class if only its inputs, constants and result are
            rounded as in the file

(Nagel et al., "A White Paper on Neural Network Quantization", 2021, section 3.7.) Values that do not depend on the
operator are computed once for all operators, so the total cost is about half a pass of the network per layer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, fx

from slimseg.graph.features import Features
from slimseg.graph.graph import Graph
from slimseg.planning.choosing.sensitivity import classes
from slimseg.progress import Progress
from slimseg.quantisation.network import QuantisedNetwork
from slimseg.training import device


@torch.no_grad()
def layer_sensitivity(graph: Graph, network: QuantisedNetwork, images: Tensor, progress: Progress) -> dict[str, float]:
    """Percent of pixels (0-100) that change class, by operator, the worst first.

    Args:
        graph: the float32 network, in its `file_form`.
        network: the same network in 8 bits.
        images: (N, 3, H, W), preprocessed for the graph; memory holds all layers' values of all images.
    """
    with device.on_best(graph.module, network) as where:
        return _measured(graph, network, images.to(where), progress)


def _measured(graph: Graph, network: QuantisedNetwork, images: Tensor, progress: Progress) -> dict[str, float]:
    names = [node.name for node in graph.layers()]
    output, known = Features(graph.module, names)(images)
    known[graph.input.name] = images
    before = classes(graph, output)
    network.train()  # only rounding, without the kernels' exact arithmetic: faster, and good enough for a comparison
    operators = [name for name in dict.fromkeys(network.operators.values()) if name in network.grids.written]
    found = {}
    for operator in progress.track(operators, "quantising one layer at a time"):
        after = _OneOperator(network, operator, known).run(images)
        found[operator] = 100 * float((before != classes(graph, after)).float().mean())
    network.eval()
    return dict(sorted(found.items(), key=lambda item: -item[1]))


class _OneOperator(fx.Interpreter):
    """Runs the network with one operator rounded to its grids; `known` are the values of the network in float32."""

    def __init__(self, network: QuantisedNetwork, operator: str, known: Mapping[str, Tensor]) -> None:
        super().__init__(network.network)
        self.quantised = network
        self.operator = operator
        self.known = known
        self.reached: set[fx.Node] = set()

    def run_node(self, n: fx.Node) -> Any:
        inside = self.quantised.operators.get(n.name) == self.operator
        if not inside and n.name in self.known and not any(node in self.reached for node in n.all_input_nodes):
            return self.known[n.name]
        self.reached.add(n)
        if not inside or n.op != "call_module":
            return super().run_node(n)
        inputs = tuple(self._seen(source) for source in n.args if isinstance(source, fx.Node))
        layer = self.fetch_attr(str(n.target))
        value = self.quantised.computed(layer, n, self.operator, inputs)
        return self.quantised.on_grid(value, self.quantised.grids.written.get(n.name))

    def _seen(self, source: fx.Node) -> Tensor:
        """An input of a layer: rounded to its grid if it comes from outside the operator, else as just computed."""
        value: Tensor = self.env[source]
        if self.quantised.operators.get(source.name) == self.operator:
            return value
        return self.quantised.on_grid(value, self.quantised.seen_grid(source, self.operator))

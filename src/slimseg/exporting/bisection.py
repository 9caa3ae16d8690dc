"""Finds the first layer of a file whose values differ from the network's.

    for every layer of the graph, in order, whose value the file has under the same name
        difference = max |file − graph| / max |graph|
    the first layer with a difference above the tolerance departs; all before it agree

Writers name every tensor or blob after the node whose value it holds. Scales and shifts are folded and activations
fused, so only the values that both have are compared. The departing layer is reported under the name of its operator:
the convolution, not the activation fused with it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from slimseg.errors import Unsupported
from slimseg.graph.fold import fold_scales
from slimseg.graph.graph import Graph
from slimseg.graph.orders import nchw, nhwc
from slimseg.results import Departure
from slimseg.runtimes import host, registry
from slimseg.training.data import Pixels

TOLERANCE = 0.02  # relative to the layer's largest value: rounding weights to 16 bits changes values by about 0.01
Array = np.ndarray[Any, Any]
Values = Callable[[Sequence[str]], Mapping[str, Array]]


def first_departure(graph: Graph, path: Path, image: Pixels, tolerance: float = TOLERANCE) -> Departure | None:
    """The first layer of a float file that departs from the network on an RGB image; None if all agree.

    Args:
        graph: the network that the file was written from.
        path: a file of slimseg that runs on this machine.
        image: RGB (height, width, 3), of any size.
        tolerance: the largest difference that counts as agreement, relative to the layer's largest value.

    Raises:
        Unsupported: no layer has the same name in file and network, or the file does not run on this machine.
        ModelError: the file is damaged.
        RuntimeFailure: the runtime refused the file.
    """
    folded = fold_scales(graph)
    names, values = _of_file(folded, path, image)
    shared = [node.name for node in folded.layers() if node.name in names]
    if not shared:
        raise Unsupported(
            f"{path} and {graph.name} have no layer name in common: give a file that was written from this network"
        )
    truth = _of_graph(folded, image, set(shared))
    before, found = "", values(shared)
    for name in shared:
        difference = _difference(found.get(name), truth[name])
        if difference is None:
            continue
        if difference > tolerance:
            return Departure(names[name], difference, before)
        before = names[name]
    return None


def _difference(value: Array | None, truth: Array) -> float | None:
    """The relative difference of a layer's values; None if the file has no value, or one of another size."""
    if value is None or value.size != truth.size:
        return None
    aligned = value.reshape(truth.shape)
    scale = max(float(np.abs(truth).max()), 1e-6)
    largest = float(np.abs(aligned - truth).max()) / scale
    return largest if np.isfinite(largest) else float("inf")


def _of_graph(graph: Graph, image: Pixels, wanted: set[str]) -> dict[str, Array]:
    """The network's own values of the `wanted` nodes, channels last."""
    watched = _Kept(graph.module, wanted)
    pipeline = host.ImagePipeline(graph.description.preprocessing, graph.input_size)
    with torch.inference_mode():
        watched.run(nchw(pipeline(image)[None]))
    return watched.values


class _Kept(fx.Interpreter):
    """Runs a network and keeps the values of the `wanted` nodes."""

    def __init__(self, module: fx.GraphModule, wanted: set[str]) -> None:
        super().__init__(module)
        self.wanted = wanted
        self.values: dict[str, Array] = {}

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if n.name in self.wanted and isinstance(value, Tensor):
            last = nhwc(value)
            self.values[n.name] = last.float().numpy().copy()
        return value


def _of_file(graph: Graph, path: Path, image: Pixels) -> tuple[Mapping[str, str], Values]:
    """Names of the file's layers, by the node whose value they compute, and a function that returns these values."""
    its = registry.running(path)
    sample = host.App(its.read(path), graph.description).prepare(image)
    return its.layer_names(path), lambda wanted: its.layer_values(path, sample, wanted)

"""The user's own deployed file, where that is what a Graph was opened from: the baseline of everything."""

from __future__ import annotations

from pathlib import Path

from slimseg.graph.graph import Graph
from slimseg.runtimes import registry


def own_file(graph: Graph) -> Path | None:
    """The user's file, if it is still the network: not where that was brought to another input size."""
    if graph.source is None:
        return None
    shape = registry.of(graph.source).read(graph.source).inputs[0].shape
    return graph.source if graph.input_size in (shape[1:3], shape[2:4]) else None


def own_file_for(graph: Graph, runtime: str) -> Path | None:
    """The same, where the file is one of that runtime."""
    own = own_file(graph)
    return own if own is not None and registry.of(own).name == runtime else None

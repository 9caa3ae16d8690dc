"""The user's own deployed file, if a Graph was opened from one: all results are compared with it."""

from __future__ import annotations

from pathlib import Path

from slimseg.graph.graph import Graph
from slimseg.runtimes import registry


def own_file(graph: Graph) -> Path | None:
    """The user's file; None if there is none, or if the network was changed to another input size since."""
    if graph.source is None:
        return None
    shape = registry.of(graph.source).read(graph.source).inputs[0].shape
    return graph.source if graph.input_size in (shape[1:3], shape[2:4]) else None


def own_file_for(graph: Graph, runtime: str) -> Path | None:
    """The user's file if it is a file of that runtime, else None."""
    own = own_file(graph)
    return own if own is not None and registry.of(own).name == runtime else None

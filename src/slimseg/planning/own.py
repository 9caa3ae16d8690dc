"""The user's own `.tflite`, where that is what a Graph was opened from: the baseline of everything."""

from __future__ import annotations

from pathlib import Path

from slimseg.graph.graph import Graph
from slimseg.planning.whatif import Precision
from slimseg.runtimes.litert import file


def own_file(graph: Graph) -> Path | None:
    """The user's file, if it is still the network: not where that was brought to another input size."""
    if graph.source is None:
        return None
    shape = file.read(graph.source).inputs[0].shape
    return graph.source if graph.input_size in (shape[1:3], shape[2:4]) else None


def file_precision(path: Path) -> Precision:
    """What the convolutions of a `.tflite` compute in."""
    return "int8" if any("int8" in each.dtype for each in file.operators(path) if each.macs) else "float32"

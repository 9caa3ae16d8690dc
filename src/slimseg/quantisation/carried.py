"""Quantised files of the default runtime as files of another one, with the same ranges.

Ranges are measured, and schemes applied, on files of the default runtime. A runtime that has its schemes in another
format gets each file in its own; that file is what is timed and judged.
"""

from __future__ import annotations

from pathlib import Path

from slimseg.frontends import as_written
from slimseg.graph.graph import Graph
from slimseg.runtimes import registry
from slimseg.runtimes.quantiser import Scheme
from slimseg.runtimes.runtime import Runtime


def carried(quantised: Path, float_path: Path, scheme: Scheme, its: Runtime) -> Path:
    """The file of runtime `its` that belongs to a quantised file; that file itself if it is one of `its`.

    Args:
        float_path: the float file that `quantised` was made from.

    Raises:
        Unsupported: the runtime does not have the scheme, or cannot express the network.
        ModelError: the float file has an operator that slimseg does not know.
    """
    if registry.of(quantised) is its:
        return quantised
    path = quantised.with_suffix(its.suffix)
    its.carry(network(float_path), quantised, path, scheme)
    return path


def network(float_path: Path) -> Graph:
    """The network of a float file, with the names of its values."""
    graph = as_written(float_path)
    graph.description = registry.of(float_path).read(float_path).description or graph.description
    return graph

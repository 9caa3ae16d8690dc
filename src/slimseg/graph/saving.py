"""A Graph as a `.pt2` for PyTorch, with the description inside."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from slimseg.disk import atomic

if TYPE_CHECKING:
    from slimseg.graph.graph import Graph

DESCRIPTION_FILE = "slimseg.json"  # within the archive


def save(graph: Graph, path: Path) -> None:
    """Write atomically a `.pt2` that `slimseg.load` opens.

    Raises:
        OutputError: `path` cannot be written.
    """
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        example = torch.zeros(graph.input_shape)
        program = torch.export.export(graph.module.eval(), (example,))
        buffer = io.BytesIO()
        torch.export.save(program, buffer, extra_files={DESCRIPTION_FILE: graph.description.to_json()})
    atomic.write(buffer.getbuffer(), path)

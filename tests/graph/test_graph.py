"""What a Graph says of itself, and how it is saved."""

from __future__ import annotations

from pathlib import Path

from torch import nn

import slimseg


def test_a_graph_says_what_it_is(tmp_path: Path) -> None:
    graph = slimseg.load(nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 2, 1)), (16, 24), name="small")
    assert repr(graph) == "<Graph small: 16x24, 2 layers, 0.000242 million parameters, logits>"
    graph.save(tmp_path / "small.pt2")
    assert repr(slimseg.load(tmp_path / "small.pt2")) == repr(graph)

"""Values of a map at positions that the network itself computes, as in deformable attention."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from slimseg.graph.shapes import Shape
from slimseg.graph.vocabulary.operator import Operator

Outside = Literal["zeros", "border"]


class GridSample(nn.Module):
    """Bilinear values of maps (N, C, H, W) at the positions (N, h, w, 2), as (N, C, h, w).

    A position is (x, y) from -1 to 1: from the first pixel's centre to the last one's with `align_corners`, else from
    edge to edge. Positions outside the map read zeros, or its border.
    """

    def __init__(self, outside: Outside = "zeros", align_corners: bool = False) -> None:
        super().__init__()
        self.outside = outside
        self.align_corners = align_corners

    def forward(self, x: Tensor, positions: Tensor) -> Tensor:
        return F.grid_sample(x, positions, padding_mode=self.outside, align_corners=self.align_corners)

    def extra_repr(self) -> str:
        return f"outside={self.outside!r}, align_corners={self.align_corners}"


def _shape(layer: GridSample, shapes: Sequence[Shape]) -> Shape:
    maps, positions = shapes
    if len(maps) != 4 or len(positions) != 4 or positions[0] != maps[0] or positions[3] != 2:
        raise ValueError(f"{positions} are no positions in {maps}")
    return (*maps[:2], *positions[1:3])


OPERATORS = (Operator(GridSample, _shape),)

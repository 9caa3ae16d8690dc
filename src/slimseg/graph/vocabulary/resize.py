"""Resizing of maps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from slimseg.graph.shapes import Shape
from slimseg.graph.vocabulary.operator import Operator
from slimseg.graph.vocabulary.rules import same_channels

ResizeMode = Literal["bilinear", "nearest", "nearest-exact"]
Coordinates = Literal["half_pixel", "align_corners", "asymmetric"]


class Resize(nn.Module):
    """Resize of NCHW to `size` (height, width) pixels.

    `coordinates` gives the position that a bilinear resize reads for pixel y of a side resized from h to H pixels:
    (y + ½)·h/H − ½ ("half_pixel"), y·(h−1)/(H−1) ("align_corners") or y·h/H ("asymmetric", TFLite's old default).
    The nearest modes are torch's and ignore `coordinates`: "nearest-exact" has half_pixel, "nearest" asymmetric. The
    exception is "align_corners", which reads the pixel at the position above, rounded half up.
    """

    def __init__(
        self, size: tuple[int, int], mode: ResizeMode = "bilinear", coordinates: Coordinates = "half_pixel"
    ) -> None:
        super().__init__()
        self.size = size
        self.mode = mode
        own: Coordinates = "half_pixel" if mode == "nearest-exact" else "asymmetric"
        self.coordinates = coordinates if mode == "bilinear" or coordinates == "align_corners" else own

    def forward(self, x: Tensor) -> Tensor:
        if self.mode != "bilinear":
            if self.coordinates == "align_corners":
                return _nearest_align_corners(x, self.size)
            return F.interpolate(x, self.size, mode=self.mode)
        if self.coordinates == "asymmetric":
            return _bilinear_asymmetric(x, self.size)
        return F.interpolate(x, self.size, mode="bilinear", align_corners=self.coordinates == "align_corners")

    def extra_repr(self) -> str:
        return f"{self.size}, mode={self.mode!r}, coordinates={self.coordinates!r}"


def _nearest_align_corners(x: Tensor, size: tuple[int, int]) -> Tensor:
    for dim, length in zip((2, 3), size, strict=True):
        scale = (x.shape[dim] - 1) / max(length - 1, 1)
        index = torch.floor(torch.arange(length, device=x.device) * scale + 0.5).long()
        x = x.index_select(dim, index.clamp(max=x.shape[dim] - 1))
    return x


def _bilinear_asymmetric(x: Tensor, size: tuple[int, int]) -> Tensor:
    for dim, length in zip((2, 3), size, strict=True):
        position = torch.arange(length, device=x.device, dtype=x.dtype) * (x.shape[dim] / length)
        low = position.floor().long()
        high = (low + 1).clamp(max=x.shape[dim] - 1)
        share = (position - low).reshape((-1, 1) if dim == 2 else (-1,))
        below = x.index_select(dim, low)
        x = below + (x.index_select(dim, high) - below) * share
    return x


def _resize_shape(layer: Resize, shapes: Sequence[Shape]) -> Shape:
    return (*shapes[0][:2], *layer.size)


OPERATORS = (Operator(Resize, _resize_shape, channels=same_channels, scales=same_channels),)

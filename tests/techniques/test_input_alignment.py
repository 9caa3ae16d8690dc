"""Odd input sizes have even neighbours, and networks made for 513 take 512."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from slimseg.frontends import load
from slimseg.techniques import named
from slimseg.techniques.input_alignment import neighbours

NAME = "input size in multiples of 8"


@pytest.mark.parametrize(
    ("size", "wanted"),
    [
        ((513, 513), [(512, 512)]),
        ((225, 225), [(224, 224)]),
        ((257, 321), [(256, 320)]),
        ((300, 300), [(288, 288), (304, 304)]),
        ((512, 512), []),
        ((360, 480), [(352, 480)]),  # a multiple of 8 whose maps are 45 and 23 high
        ((240, 320), []),
        ((353, 480), [(352, 480)]),
        ((20, 20), []),  # both neighbours are too far
    ],
)
def test_neighbours(size: tuple[int, int], wanted: list[tuple[int, int]]) -> None:
    assert neighbours(size) == wanted


class Lab(nn.Module):
    """Strides to an eighth, a pooled branch resized back, and a resize to the input's size: a DeepLab in small."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.side = side
        self.encoder = nn.Sequential(*(nn.Conv2d(inputs, 8, 3, 2, 1) for inputs in (3, 8, 8)))
        self.pool, self.last = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 8, 1)), nn.Conv2d(16, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.encoder(x)
        pooled = F.interpolate(self.pool(y), size=y.shape[2:], mode="bilinear", align_corners=True)
        y = self.last(torch.cat((y, pooled), 1))
        return F.interpolate(y, size=(self.side, self.side), mode="bilinear", align_corners=True)


@pytest.mark.parametrize(("side", "wanted"), [(129, 128), (65, 64), (161, 160)])
def test_resizes_follow_the_strides(side: int, wanted: int) -> None:
    graph = load(Lab(side).eval(), (side, side))
    sites = named(NAME).find(graph).sites
    site = next(site for site in sites if site.variant == f"{wanted}x{wanted}")
    even = named(NAME).apply(graph, site)
    assert even.input_size == (wanted, wanted)
    assert even.shape(even.output) == (1, 4, wanted, wanted)
    x = torch.randn(1, 3, wanted, wanted)
    assert even(x).shape == (1, 4, wanted, wanted)
    assert str(side) in site.reason


def test_what_fits_no_other_size_says_why() -> None:
    class Fixed(Lab):
        def forward(self, x: Tensor) -> Tensor:
            y = self.encoder(x)
            return F.interpolate(y, size=(100, 100), mode="bilinear")

    found = named(NAME).find(load(Fixed(129).eval(), (129, 129)))
    assert found.sites == ()
    assert "no counterpart" in found.refusals[0].reason

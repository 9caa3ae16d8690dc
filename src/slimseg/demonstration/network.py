"""A small but heavy network, not designed for phones: a U-Net of full and transposed convolutions.

    192x256 ─ 24 ──────────────────────────────── 24 ─ head
                96x128 ─ 48 ───────────── 48 ┘
                           48x64 ─ 80 ─ 80 ┘
                                24x32 ─ 128 ┘

Ronneberger et al., "U-Net", 2015, with batch norm. Trained on `scenes` by `train.py`; the weights ship as float16.
"""

from __future__ import annotations

from importlib import resources
from itertools import pairwise

import torch
from safetensors.torch import load
from torch import Tensor, nn

from slimseg.demonstration.classes import CLASSES

INPUT_SIZE = (192, 256)
MEAN = STD = 127.5
WIDTHS = (24, 48, 80, 128)
WEIGHTS = "weights.safetensors"


class ConvBlock(nn.Sequential):
    """3x3 convolution, batch norm, ReLU."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(
            nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False), nn.BatchNorm2d(out_channels), nn.ReLU()
        )


class StreetUNet(nn.Module):
    """(N, 3, H, W) to logits (N, classes, H, W); height and width must be multiples of 8."""

    def __init__(self, classes: int = len(CLASSES), widths: tuple[int, ...] = WIDTHS) -> None:
        super().__init__()
        self.stem = ConvBlock(3, widths[0])
        steps = list(pairwise(widths))
        self.encoder = nn.ModuleList(nn.Sequential(ConvBlock(a, b), ConvBlock(b, b)) for a, b in steps)
        self.pool = nn.MaxPool2d(2)
        self.ups = nn.ModuleList(nn.ConvTranspose2d(b, a, 4, stride=2, padding=1) for a, b in reversed(steps))
        self.decoder = nn.ModuleList(ConvBlock(2 * a, a) for a, _ in reversed(steps))
        self.relu = nn.ReLU()
        self.head = nn.Conv2d(widths[0], classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        skips = [self.stem(x)]
        for block in self.encoder:
            skips.append(block(self.pool(skips[-1])))
        x = skips.pop()
        for up, block in zip(self.ups, self.decoder, strict=True):
            x = block(torch.cat((self.relu(up(x)), skips.pop()), 1))
        return self.head(x)  # type: ignore[no-any-return]


def build() -> nn.Module:
    """The network with random weights."""
    return StreetUNet()


def load_trained() -> nn.Module:
    """The network with the weights that ship in the package, in eval mode."""
    data = resources.files("slimseg.demonstration").joinpath(WEIGHTS).read_bytes()
    model = build()
    model.load_state_dict(load(data))  # converts the file's values to float32 and int64
    return model.eval()

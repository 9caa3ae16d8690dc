"""Your own network and slimseg: a function that builds it is all that is needed.

slimseg diagnose examples/own_network.py:build --input-size 192x256
slimseg slim examples/own_network.py:build --input-size 192x256 --weights mine.safetensors --data images/ --out run/
"""

from torch import Tensor, nn
from torch.nn import functional as F


class TinySegmenter(nn.Module):
    """Two strided convolutions down, one transposed convolution up: (N, 3, H, W) to (N, 5, H, W)."""

    def __init__(self, width: int = 32, classes: int = 5) -> None:
        super().__init__()
        self.down1 = nn.Conv2d(3, width, 3, stride=2, padding=1)
        self.down2 = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1)
        self.middle = nn.Conv2d(2 * width, 2 * width, 3, padding=1)
        self.up = nn.ConvTranspose2d(2 * width, width, 4, stride=2, padding=1)
        self.head = nn.Conv2d(width, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.down1(x))
        x = F.relu(self.middle(F.relu(self.down2(x))))
        x = self.head(F.relu(self.up(x)))
        return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)


def build() -> nn.Module:
    """Called by slimseg; load your weights here, or give them with --weights."""
    return TinySegmenter()

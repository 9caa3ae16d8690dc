"""TopFormer (Zhang et al., "TopFormer: Token Pyramid Transformer for Mobile Semantic Segmentation", 2022).

The variant Tiny with 150 classes at 512x512: 1.4 million parameters.
"""

from __future__ import annotations

import torch
from architectures._convolutions import ConvBN
from architectures._mobilenet import InvertedResidual
from torch import Tensor, nn
from torch.nn import functional as F

SIZE = (512, 512)
CONFIGURATION = [  # kernel, expansion, channels, stride
    (3, 1, 16, 1),
    (3, 4, 16, 2),
    (3, 3, 16, 1),
    (5, 3, 32, 2),
    (5, 3, 32, 1),
    (3, 3, 64, 2),
    (3, 3, 64, 1),
    (5, 6, 96, 2),
    (5, 6, 96, 1),
]
WIDTHS = [16, 32, 64, 96]


class TokenPyramid(nn.Module):
    """Mobile convolutions; the maps at strides 4, 8, 16 and 32 are kept."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(ConvBN(3, 16, 3, 2), nn.ReLU6())
        self.layers, width = nn.ModuleList(), 16
        for kernel, expansion, outputs, stride in CONFIGURATION:
            self.layers.append(InvertedResidual(width, outputs, kernel, stride, expansion, nn.ReLU6))
            width = outputs

    def forward(self, x: Tensor) -> list[Tensor]:
        x, found = self.stem(x), []
        for index, layer in enumerate(self.layers):
            x = layer(x)
            if index in (2, 4, 6, 8):
                found.append(x)
        return found


class Attention(nn.Module):
    def __init__(self, width: int, key: int = 16, heads: int = 4, ratio: int = 2) -> None:
        super().__init__()
        self.heads, self.key, self.value = heads, key, key * ratio
        self.to_q, self.to_k = ConvBN(width, key * heads, 1), ConvBN(width, key * heads, 1)
        self.to_v = ConvBN(width, self.value * heads, 1)
        self.proj = nn.Sequential(nn.ReLU6(), ConvBN(self.value * heads, width, 1))

    def forward(self, x: Tensor) -> Tensor:
        batch, _, height, width = x.shape
        q = self.to_q(x).reshape(batch, self.heads, self.key, height * width).permute(0, 1, 3, 2)
        k = self.to_k(x).reshape(batch, self.heads, self.key, height * width)
        v = self.to_v(x).reshape(batch, self.heads, self.value, height * width).permute(0, 1, 3, 2)
        attention = torch.matmul(q, k).softmax(dim=-1)
        found = torch.matmul(attention, v).permute(0, 1, 3, 2)
        return self.proj(found.reshape(batch, self.value * self.heads, height, width))


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.attn = Attention(width)
        self.mlp = nn.Sequential(
            ConvBN(width, width * 2, 1),
            nn.Conv2d(width * 2, width * 2, 3, 1, 1, groups=width * 2),
            nn.ReLU6(),
            ConvBN(width * 2, width, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(x)
        return x + self.mlp(x)


class Injection(nn.Module):
    """Multiplies a local map by gates from the transformer's output, and adds the transformer's output."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.local, self.glob, self.gate = (ConvBN(inputs, outputs, 1) for _ in range(3))

    def forward(self, local: Tensor, glob: Tensor) -> Tensor:
        size = local.shape[2:]
        gate = F.interpolate(F.hardsigmoid(self.gate(glob)), size=size, mode="bilinear", align_corners=False)
        added = F.interpolate(self.glob(glob), size=size, mode="bilinear", align_corners=False)
        return self.local(local) * gate + added


class TopFormer(nn.Module):
    def __init__(self, classes: int = 150, width: int = 128) -> None:
        super().__init__()
        self.tpm = TokenPyramid()
        self.trans = nn.Sequential(*(Block(sum(WIDTHS)) for _ in range(4)))
        self.injections = nn.ModuleList(Injection(each, width) for each in WIDTHS[1:])
        self.linear_fuse = nn.Sequential(ConvBN(width, width, 1), nn.ReLU())
        self.conv_seg = nn.Sequential(nn.Dropout2d(0.1), nn.Conv2d(width, classes, 1))

    def forward(self, x: Tensor) -> Tensor:
        maps = self.tpm(x)
        size = [(maps[-1].shape[2] - 1) // 2 + 1, (maps[-1].shape[3] - 1) // 2 + 1]
        tokens = self.trans(torch.cat([F.adaptive_avg_pool2d(each, size) for each in maps], dim=1))
        parts = tokens.split(WIDTHS, dim=1)
        found = [injection(*pair) for injection, *pair in zip(self.injections, maps[1:], parts[1:], strict=True)]
        fused = found[0]
        for each in found[1:]:
            fused = fused + F.interpolate(each, size=fused.shape[2:], mode="bilinear", align_corners=False)
        return F.interpolate(self.conv_seg(self.linear_fuse(fused)), size=x.shape[2:], mode="bilinear")


def build() -> nn.Module:
    return TopFormer()

"""PVT v2 (Wang et al., "PVT v2: Improved Baselines with Pyramid Vision Transformer", 2022) with Semantic FPN
(Kirillov et al., "Panoptic Feature Pyramid Networks", 2019).

The variant B0 with 150 classes at 256x256, whose spatial reduction is a strided convolution: 7.6 million parameters.
"""

from __future__ import annotations

import torch
from architectures._encoder_decoder import EncoderDecoder
from torch import Tensor, nn
from torch.nn import functional as F

SIZE = (256, 256)
WIDTHS, HEADS, REDUCTIONS, RATIOS = (32, 64, 160, 256), (1, 2, 5, 8), (8, 4, 2, 1), (8, 8, 4, 4)


class Attention(nn.Module):
    def __init__(self, width: int, heads: int, reduction: int) -> None:
        super().__init__()
        self.num_heads, self.scale, self.sr_ratio = heads, (width // heads) ** -0.5, reduction
        self.q, self.kv, self.proj = nn.Linear(width, width), nn.Linear(width, 2 * width), nn.Linear(width, width)
        if reduction > 1:
            self.sr, self.norm = nn.Conv2d(width, width, reduction, reduction), nn.LayerNorm(width)

    def forward(self, x: Tensor, height: int, width: int) -> Tensor:
        b, n, c = x.shape
        q = self.q(x).reshape(b, n, self.num_heads, c // self.num_heads).permute(0, 2, 1, 3)
        if self.sr_ratio > 1:
            reduced = x.permute(0, 2, 1).reshape(b, c, height, width)
            x = self.norm(self.sr(reduced).reshape(b, c, -1).permute(0, 2, 1))
        kv = self.kv(x).reshape(b, -1, 2, self.num_heads, c // self.num_heads).permute(2, 0, 3, 1, 4)
        k, v = kv[0], kv[1]
        attention = ((q @ k.transpose(-2, -1)) * self.scale).softmax(dim=-1)
        return self.proj((attention @ v).transpose(1, 2).reshape(b, n, c))


class FeedForward(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1, self.fc2, self.act = nn.Linear(width, hidden), nn.Linear(hidden, width), nn.GELU()
        self.dwconv = nn.Conv2d(hidden, hidden, 3, 1, 1, groups=hidden)

    def forward(self, x: Tensor, height: int, width: int) -> Tensor:
        x = self.fc1(x)
        x = x.transpose(1, 2).view(x.shape[0], x.shape[2], height, width).contiguous()
        return self.fc2(self.act(self.dwconv(x).flatten(2).transpose(1, 2)))


class Block(nn.Module):
    def __init__(self, width: int, heads: int, reduction: int, ratio: int) -> None:
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(width, eps=1e-6), Attention(width, heads, reduction)
        self.norm2, self.mlp = nn.LayerNorm(width, eps=1e-6), FeedForward(width, width * ratio)
        self.drop_path = nn.Identity()

    def forward(self, x: Tensor, height: int, width: int) -> Tensor:
        x = x + self.drop_path(self.attn(self.norm1(x), height, width))
        return x + self.drop_path(self.mlp(self.norm2(x), height, width))


class OverlapPatchEmbed(nn.Module):
    def __init__(self, inputs: int, width: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.proj, self.norm = nn.Conv2d(inputs, width, kernel, stride, kernel // 2), nn.LayerNorm(width)

    def forward(self, x: Tensor) -> tuple[Tensor, int, int]:
        x = self.proj(x)
        height, width = x.shape[2:]
        return self.norm(x.flatten(2).transpose(1, 2)), height, width


class PVTv2(nn.Module):
    def __init__(self, depth: int = 2) -> None:
        super().__init__()
        inputs = 3
        for stage, (width, heads, reduction, ratio) in enumerate(
            zip(WIDTHS, HEADS, REDUCTIONS, RATIOS, strict=True), 1
        ):
            embed = OverlapPatchEmbed(inputs, width, 7 if stage == 1 else 3, 4 if stage == 1 else 2)
            setattr(self, f"patch_embed{stage}", embed)
            blocks = nn.ModuleList(Block(width, heads, reduction, ratio) for _ in range(depth))
            setattr(self, f"block{stage}", blocks)
            setattr(self, f"norm{stage}", nn.LayerNorm(width, eps=1e-6))
            inputs = width

    def forward(self, x: Tensor) -> list[Tensor]:
        found = []
        for stage in range(1, 5):
            tokens, height, width = getattr(self, f"patch_embed{stage}")(x)
            for block in getattr(self, f"block{stage}"):
                tokens = block(tokens, height, width)
            tokens = getattr(self, f"norm{stage}")(tokens)
            x = tokens.reshape(x.shape[0], height, width, -1).permute(0, 3, 1, 2).contiguous()
            found.append(x)
        return found


class SemanticFPN(nn.Module):
    """A feature pyramid whose levels are enlarged to stride 4 step by step and added."""

    def __init__(self, inputs: tuple[int, ...], classes: int, pyramid: int = 256, width: int = 128) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(each, pyramid, 1) for each in inputs)
        self.smooth = nn.ModuleList(nn.Conv2d(pyramid, pyramid, 3, padding=1) for _ in inputs)
        self.scale_heads = nn.ModuleList(self._scale_head(pyramid, width, level) for level in range(len(inputs)))
        self.conv_seg = nn.Conv2d(width, classes, 1)

    @staticmethod
    def _scale_head(inputs: int, width: int, level: int) -> nn.Sequential:
        layers: list[nn.Module] = []
        for index in range(max(1, level)):
            channels = inputs if index == 0 else width
            layers += [nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
            if level:
                layers.append(nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False))
        return nn.Sequential(*layers)

    def forward(self, maps: list[Tensor]) -> Tensor:
        laterals = [conv(each) for conv, each in zip(self.lateral, maps, strict=True)]
        for level in range(len(laterals) - 1, 0, -1):
            size = laterals[level - 1].shape[2:]
            laterals[level - 1] = laterals[level - 1] + F.interpolate(laterals[level], size=size, mode="nearest")
        heads = zip(self.scale_heads, self.smooth, laterals, strict=True)
        scaled = [head(smooth(each)) for head, smooth, each in heads]
        return self.conv_seg(torch.stack(scaled).sum(dim=0))


def build() -> nn.Module:
    return EncoderDecoder(PVTv2(), SemanticFPN(WIDTHS, 150))

"""EfficientFormer (Li et al., "EfficientFormer: Vision Transformers at MobileNet Speed", 2022) with Semantic FPN
(Kirillov et al., "Panoptic Feature Pyramid Networks", 2019).

The variant L1 with 150 classes at 256x256: 15.6 million parameters, 11.4 million of them in the backbone.
"""

from __future__ import annotations

import itertools

import torch
from architectures._encoder_decoder import EncoderDecoder
from architectures._fpn import SemanticFPN
from torch import Tensor, nn

SIZE = (256, 256)
WIDTHS, DEPTHS = (48, 96, 224, 448), (3, 2, 6, 4)


class Attention(nn.Module):
    """Attention with a learned bias for each distance between two places, read from a table by index."""

    def __init__(self, dim: int, resolution: int, key_dim: int = 32, heads: int = 8, ratio: int = 4) -> None:
        super().__init__()
        self.num_heads, self.scale, self.key_dim, self.d = heads, key_dim**-0.5, key_dim, ratio * key_dim
        self.N = resolution**2
        self.qkv = nn.Linear(dim, heads * (2 * key_dim + self.d))
        self.proj = nn.Linear(self.d * heads, dim)
        offsets: dict[tuple[int, int], int] = {}
        indices = []
        points = list(itertools.product(range(resolution), range(resolution)))
        for p1 in points:
            for p2 in points:
                offset = (abs(p1[0] - p2[0]), abs(p1[1] - p2[1]))
                indices.append(offsets.setdefault(offset, len(offsets)))
        self.attention_biases = nn.Parameter(torch.zeros(heads, len(offsets)))
        self.register_buffer("attention_bias_idxs", torch.LongTensor(indices).view(self.N, self.N))

    def forward(self, x: Tensor) -> Tensor:
        b, n, _ = x.shape
        qkv = self.qkv(x).reshape(b, n, self.num_heads, -1)
        q, k, v = qkv.split([self.key_dim, self.key_dim, self.d], dim=-1)
        q, k, v = q.permute(0, 2, 1, 3), k.permute(0, 2, 1, 3), v.permute(0, 2, 1, 3)
        attention = (q @ k.transpose(-2, -1)) * self.scale + self.attention_biases[:, self.attention_bias_idxs]
        x = (attention.softmax(dim=-1) @ v).transpose(1, 2).reshape(b, n, self.num_heads * self.d)
        return self.proj(x)


class Meta3D(nn.Module):
    def __init__(self, dim: int, resolution: int) -> None:
        super().__init__()
        self.norm1, self.token_mixer, self.norm2 = nn.LayerNorm(dim), Attention(dim, resolution), nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))
        self.layer_scale_1 = nn.Parameter(1e-5 * torch.ones(dim))
        self.layer_scale_2 = nn.Parameter(1e-5 * torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.layer_scale_1.unsqueeze(0).unsqueeze(0) * self.token_mixer(self.norm1(x))
        return x + self.layer_scale_2.unsqueeze(0).unsqueeze(0) * self.mlp(self.norm2(x))


class Meta4D(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.pool = nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False)
        self.fc1, self.norm1, self.act = nn.Conv2d(dim, 4 * dim, 1), nn.BatchNorm2d(4 * dim), nn.GELU()
        self.fc2, self.norm2 = nn.Conv2d(4 * dim, dim, 1), nn.BatchNorm2d(dim)
        self.layer_scale_1 = nn.Parameter(1e-5 * torch.ones(dim))
        self.layer_scale_2 = nn.Parameter(1e-5 * torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.layer_scale_1.unsqueeze(-1).unsqueeze(-1) * (self.pool(x) - x)
        mixed = self.norm2(self.fc2(self.act(self.norm1(self.fc1(x)))))
        return x + self.layer_scale_2.unsqueeze(-1).unsqueeze(-1) * mixed


class EfficientFormer(nn.Module):
    """Convolutions and pooling in four stages; the last block is a transformer."""

    def __init__(self) -> None:
        super().__init__()
        half = WIDTHS[0] // 2
        stem = [nn.Conv2d(3, half, 3, 2, 1), nn.BatchNorm2d(half), nn.ReLU()]
        stem += [nn.Conv2d(half, WIDTHS[0], 3, 2, 1), nn.BatchNorm2d(WIDTHS[0]), nn.ReLU()]
        self.downs = nn.ModuleList([nn.Sequential(*stem)])
        for before, width in itertools.pairwise(WIDTHS):
            self.downs.append(nn.Sequential(nn.Conv2d(before, width, 3, 2, 1), nn.BatchNorm2d(width)))
        self.stages = nn.ModuleList()
        for width, depth in zip(WIDTHS, DEPTHS, strict=True):
            self.stages.append(nn.Sequential(*(Meta4D(width) for _ in range(depth - (width == WIDTHS[-1])))))
        self.transformer = Meta3D(WIDTHS[-1], SIZE[0] // 32)
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for width in WIDTHS)

    def forward(self, x: Tensor) -> list[Tensor]:
        found = []
        for down, stage in zip(self.downs, self.stages, strict=True):
            x = stage(down(x))
            found.append(x)
        tokens = self.transformer(x.flatten(2).transpose(1, 2))
        found[-1] = tokens.transpose(1, 2).reshape(x.shape)
        return [norm(each) for norm, each in zip(self.norms, found, strict=True)]


def build() -> nn.Module:
    return EncoderDecoder(EfficientFormer(), SemanticFPN(WIDTHS, 150))

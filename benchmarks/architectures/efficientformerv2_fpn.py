"""EfficientFormerV2 (Li et al., "Rethinking Vision Transformers for MobileNet Size and Speed", 2023) with Semantic FPN
(Kirillov et al., "Panoptic Feature Pyramid Networks", 2019).

The variant S0 with 150 classes at 256x256: 7.3 million parameters, 3.2 million of them in the backbone. Heads exchange
values before and after softmax ("talking heads"), and attention at stride 16 runs on a map of half the size.
"""

from __future__ import annotations

import itertools

import torch
from architectures._encoder_decoder import EncoderDecoder
from architectures._fpn import SemanticFPN
from torch import Tensor, nn

SIZE = (256, 256)
WIDTHS, DEPTHS, ATTENTION = (32, 48, 96, 176), (2, 2, 6, 4), (0, 0, 2, 2)
RATIOS = ((4, 4), (4, 4), (4, 3, 3, 3, 4, 4), (4, 3, 3, 4))


def conv_bn(inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> nn.Sequential:
    layer = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups)
    return nn.Sequential(layer, nn.BatchNorm2d(outputs))


def bias_index(queries: int, keys: int) -> tuple[Tensor, int]:
    """For each pair of a query's and a key's place, the number of their distance; and the count of distances."""
    step = -(-keys // queries)
    offsets: dict[tuple[int, int], int] = {}
    found = []
    for p1 in itertools.product(range(queries), range(queries)):
        for p2 in itertools.product(range(keys), range(keys)):
            offset = (abs(p1[0] * step - p2[0]), abs(p1[1] * step - p2[1]))
            found.append(offsets.setdefault(offset, len(offsets)))
    return torch.LongTensor(found).view(queries**2, keys**2), len(offsets)


class Attention(nn.Module):
    """Attention with talking heads and a depthwise convolution of the values."""

    def __init__(self, dim: int, resolution: int, stride: int | None, key: int = 32, heads: int = 8) -> None:
        super().__init__()
        self.num_heads, self.scale, self.key_dim, self.d = heads, key**-0.5, key, 4 * key
        self.stride_conv, self.upsample = None, None
        if stride is not None:
            resolution //= stride
            self.stride_conv = conv_bn(dim, dim, 3, stride, dim)
            self.upsample = nn.Upsample(scale_factor=stride, mode="bilinear")
        self.N, self.resolution, self.dh = resolution**2, resolution, self.d * heads
        self.q, self.k, self.v = conv_bn(dim, key * heads), conv_bn(dim, key * heads), conv_bn(dim, self.dh)
        self.v_local = conv_bn(self.dh, self.dh, 3, 1, self.dh)
        self.talking_head1, self.talking_head2 = nn.Conv2d(heads, heads, 1), nn.Conv2d(heads, heads, 1)
        self.proj = nn.Sequential(nn.GELU(), conv_bn(self.dh, dim))
        index, count = bias_index(resolution, resolution)
        self.attention_biases = nn.Parameter(torch.zeros(heads, count))
        self.register_buffer("attention_bias_idxs", index)

    def forward(self, x: Tensor) -> Tensor:
        b = x.shape[0]
        if self.stride_conv is not None:
            x = self.stride_conv(x)
        q = self.q(x).flatten(2).reshape(b, self.num_heads, -1, self.N).permute(0, 1, 3, 2)
        k = self.k(x).flatten(2).reshape(b, self.num_heads, -1, self.N).permute(0, 1, 2, 3)
        v = self.v(x)
        v_local = self.v_local(v)
        v = v.flatten(2).reshape(b, self.num_heads, -1, self.N).permute(0, 1, 3, 2)
        attention = (q @ k) * self.scale + self.attention_biases[:, self.attention_bias_idxs]
        attention = self.talking_head2(self.talking_head1(attention).softmax(dim=-1))
        out = (attention @ v).transpose(2, 3).reshape(b, self.dh, self.resolution, self.resolution) + v_local
        if self.upsample is not None:
            out = self.upsample(out)
        return self.proj(out)


class AttentionDownsample(nn.Module):
    """Halves the map by attention: queries come from pooled places and a strided convolution; plus a convolution."""

    def __init__(self, dim: int, outputs: int, resolution: int, key: int = 16, heads: int = 8) -> None:
        super().__init__()
        self.num_heads, self.scale, self.half, self.dh = heads, key**-0.5, -(-resolution // 2), 4 * key * heads
        self.local, self.pool = nn.Conv2d(dim, dim, 3, 2, 1, groups=dim), nn.AvgPool2d(1, 2, 0)
        self.q, self.k, self.v = conv_bn(dim, key * heads), conv_bn(dim, key * heads), conv_bn(dim, self.dh)
        self.v_local = conv_bn(self.dh, self.dh, 3, 2, self.dh)
        self.proj, self.conv = nn.Sequential(nn.GELU(), conv_bn(self.dh, outputs)), conv_bn(dim, outputs, 3, 2)
        index, count = bias_index(self.half, resolution)
        self.attention_biases = nn.Parameter(torch.zeros(heads, count))
        self.register_buffer("attention_bias_idxs", index)

    def forward(self, x: Tensor) -> Tensor:
        b, _, height, width = x.shape
        q = self.q(self.local(x) + self.pool(x))
        q = q.flatten(2).reshape(b, self.num_heads, -1, self.half**2).permute(0, 1, 3, 2)
        k = self.k(x).flatten(2).reshape(b, self.num_heads, -1, height * width)
        v = self.v(x)
        v_local = self.v_local(v)
        v = v.flatten(2).reshape(b, self.num_heads, -1, height * width).permute(0, 1, 3, 2)
        attention = (q @ k) * self.scale + self.attention_biases[:, self.attention_bias_idxs]
        out = (attention.softmax(dim=-1) @ v).transpose(2, 3).reshape(b, self.dh, self.half, self.half)
        return self.proj(out + v_local) + self.conv(x)


class Block(nn.Module):
    def __init__(self, dim: int, ratio: int, mixer: nn.Module | None) -> None:
        super().__init__()
        hidden = dim * ratio
        self.token_mixer, self.act = mixer, nn.GELU()
        self.fc1, self.mid, self.fc2 = conv_bn(dim, hidden), conv_bn(hidden, hidden, 3, 1, hidden), conv_bn(hidden, dim)
        self.layer_scale_1 = nn.Parameter(1e-5 * torch.ones(dim).unsqueeze(-1).unsqueeze(-1))
        self.layer_scale_2 = nn.Parameter(1e-5 * torch.ones(dim).unsqueeze(-1).unsqueeze(-1))

    def forward(self, x: Tensor) -> Tensor:
        if self.token_mixer is not None:
            x = x + self.layer_scale_1 * self.token_mixer(x)
        mixed = self.fc2(self.act(self.mid(self.act(self.fc1(x)))))
        return x + self.layer_scale_2 * mixed


class EfficientFormerV2(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        first = WIDTHS[0]
        self.patch_embed = nn.Sequential(
            conv_bn(3, first // 2, 3, 2), nn.GELU(), conv_bn(first // 2, first, 3, 2), nn.GELU()
        )
        self.downs, self.stages, before = nn.ModuleList(), nn.ModuleList(), first
        for level, width in enumerate(WIDTHS):
            side = SIZE[0] // 4 // 2**level
            if level == 0:
                self.downs.append(nn.Identity())
            else:
                last = level == len(WIDTHS) - 1
                self.downs.append(
                    AttentionDownsample(before, width, 2 * side) if last else conv_bn(before, width, 3, 2)
                )
            blocks = []
            for index in range(DEPTHS[level]):
                attends = index >= DEPTHS[level] - ATTENTION[level]
                mixer = Attention(width, side, 2 if level == 2 else None) if attends else None
                blocks.append(Block(width, RATIOS[level][index], mixer))
            self.stages.append(nn.Sequential(*blocks))
            before = width
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for width in WIDTHS)

    def forward(self, x: Tensor) -> list[Tensor]:
        x, found = self.patch_embed(x), []
        for down, stage, norm in zip(self.downs, self.stages, self.norms, strict=True):
            x = stage(down(x))
            found.append(norm(x))
        return found


def build() -> nn.Module:
    return EncoderDecoder(EfficientFormerV2(), SemanticFPN(WIDTHS, 150))

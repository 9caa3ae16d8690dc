"""Twins-SVT (Chu et al., "Twins: Revisiting the Design of Spatial Attention in Vision Transformers", 2021) with
Semantic FPN (Kirillov et al., "Panoptic Feature Pyramid Networks", 2019).

The variant Small with 150 classes at 256x256: 28 million parameters.
"""

from __future__ import annotations

from architectures._encoder_decoder import EncoderDecoder
from architectures._fpn import SemanticFPN
from torch import Tensor, nn
from torch.nn import functional as F

SIZE = (256, 256)
WIDTHS, HEADS, DEPTHS, REDUCTIONS, WINDOW = (64, 128, 256, 512), (2, 4, 8, 16), (2, 2, 10, 4), (8, 4, 2, 1), 7


class GroupAttention(nn.Module):
    """Attention within 7x7 windows; a map that does not fill whole windows is padded."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.num_heads, self.scale = heads, (dim // heads) ** -0.5
        self.qkv, self.proj = nn.Linear(dim, dim * 3), nn.Linear(dim, dim)

    def forward(self, x: Tensor, height: int, width: int) -> Tensor:
        b, n, c = x.shape
        x = x.view(b, height, width, c)
        right, bottom = (WINDOW - width % WINDOW) % WINDOW, (WINDOW - height % WINDOW) % WINDOW
        x = F.pad(x, (0, 0, 0, right, 0, bottom))
        rows, columns = (height + bottom) // WINDOW, (width + right) // WINDOW
        x = x.reshape(b, rows, WINDOW, columns, WINDOW, c).transpose(2, 3)
        qkv = self.qkv(x).reshape(b, rows * columns, WINDOW * WINDOW, 3, self.num_heads, c // self.num_heads)
        q, k, v = qkv.permute(3, 0, 1, 4, 2, 5)
        attention = ((q @ k.transpose(-2, -1)) * self.scale).softmax(dim=-1)
        x = (attention @ v).transpose(2, 3).reshape(b, rows, columns, WINDOW, WINDOW, c)
        x = x.transpose(2, 3).reshape(b, rows * WINDOW, columns * WINDOW, c)
        if right > 0 or bottom > 0:
            x = x[:, :height, :width, :].contiguous()
        return self.proj(x.reshape(b, n, c))


class GlobalAttention(nn.Module):
    """Attention of all places to a smaller map."""

    def __init__(self, dim: int, heads: int, reduction: int) -> None:
        super().__init__()
        self.num_heads, self.scale, self.sr_ratio = heads, (dim // heads) ** -0.5, reduction
        self.q, self.kv, self.proj = nn.Linear(dim, dim), nn.Linear(dim, dim * 2), nn.Linear(dim, dim)
        if reduction > 1:
            self.sr, self.norm = nn.Conv2d(dim, dim, reduction, reduction), nn.LayerNorm(dim)

    def forward(self, x: Tensor, height: int, width: int) -> Tensor:
        b, n, c = x.shape
        q = self.q(x).reshape(b, n, self.num_heads, c // self.num_heads).permute(0, 2, 1, 3)
        if self.sr_ratio > 1:
            x = self.sr(x.permute(0, 2, 1).reshape(b, c, height, width)).reshape(b, c, -1).permute(0, 2, 1)
            x = self.norm(x)
        k, v = self.kv(x).reshape(b, -1, 2, self.num_heads, c // self.num_heads).permute(2, 0, 3, 1, 4)
        attention = ((q @ k.transpose(-2, -1)) * self.scale).softmax(dim=-1)
        return self.proj((attention @ v).transpose(1, 2).reshape(b, n, c))


class Block(nn.Module):
    def __init__(self, dim: int, attention: nn.Module) -> None:
        super().__init__()
        self.norm1, self.attn, self.norm2 = nn.LayerNorm(dim, eps=1e-6), attention, nn.LayerNorm(dim, eps=1e-6)
        self.mlp = nn.Sequential(nn.Linear(dim, dim * 4), nn.GELU(), nn.Linear(dim * 4, dim))

    def forward(self, x: Tensor, height: int, width: int) -> Tensor:
        x = x + self.attn(self.norm1(x), height, width)
        return x + self.mlp(self.norm2(x))


class PositionEncoding(nn.Module):
    """A depthwise convolution stands for positions."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)

    def forward(self, x: Tensor, height: int, width: int) -> Tensor:
        b, _, c = x.shape
        features = x.transpose(1, 2).view(b, c, height, width)
        return (self.proj(features) + features).flatten(2).transpose(1, 2)


class Twins(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patch_embeds, self.embed_norms, self.blocks = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        self.pos_block, inputs = nn.ModuleList(PositionEncoding(width) for width in WIDTHS), 3
        for width, heads, depth, reduction in zip(WIDTHS, HEADS, DEPTHS, REDUCTIONS, strict=True):
            patch = 4 if inputs == 3 else 2
            self.patch_embeds.append(nn.Conv2d(inputs, width, patch, patch))
            self.embed_norms.append(nn.LayerNorm(width))
            blocks = []
            for index in range(depth):
                local = index % 2 == 0
                attention = GroupAttention(width, heads) if local else GlobalAttention(width, heads, reduction)
                blocks.append(Block(width, attention))
            self.blocks.append(nn.ModuleList(blocks))
            inputs = width
        self.norms = nn.ModuleList(nn.LayerNorm(width, eps=1e-6) for width in WIDTHS)

    def forward(self, x: Tensor) -> list[Tensor]:
        found, b = [], x.shape[0]
        for stage in range(4):
            x = self.patch_embeds[stage](x)
            height, width = x.shape[2:]
            x = self.embed_norms[stage](x.flatten(2).transpose(1, 2))
            for index, block in enumerate(self.blocks[stage]):
                x = block(x, height, width)
                if index == 0:
                    x = self.pos_block[stage](x, height, width)
            x = self.norms[stage](x).reshape(b, height, width, -1).permute(0, 3, 1, 2).contiguous()
            found.append(x)
        return found


def build() -> nn.Module:
    return EncoderDecoder(Twins(), SemanticFPN(WIDTHS, 150))

"""Parts of vision transformers (Dosovitskiy et al., "An Image Is Worth 16x16 Words", 2020)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Attention(nn.Module):
    """Self-attention by torch's own function, as in newer versions of timm."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.num_heads, self.head_dim = heads, width // heads
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        b, n, c = x.shape
        qkv = self.qkv(x).reshape(b, n, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, c))


class LayerScale(nn.Module):
    """A learned factor for each channel."""

    def __init__(self, width: int, initial: float) -> None:
        super().__init__()
        self.gamma = nn.Parameter(initial * torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


def feed_forward(width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))


class Block(nn.Module):
    """Attention and a feed-forward layer, each behind a normalisation and added to what it was given."""

    def __init__(self, width: int, attention: nn.Module, eps: float = 1e-5) -> None:
        super().__init__()
        self.norm1, self.attn, self.norm2 = nn.LayerNorm(width, eps), attention, nn.LayerNorm(width, eps)
        self.mlp = feed_forward(width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class ScaledBlock(nn.Module):
    """The same with a layer scale before each addition."""

    def __init__(self, width: int, attention: nn.Module, initial: float, eps: float = 1e-5) -> None:
        super().__init__()
        self.norm1, self.attn, self.ls1 = nn.LayerNorm(width, eps), attention, LayerScale(width, initial)
        self.norm2, self.ls2 = nn.LayerNorm(width, eps), LayerScale(width, initial)
        self.mlp = feed_forward(width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.ls1(self.attn(self.norm1(x)))
        return x + self.ls2(self.mlp(self.norm2(x)))

"""XCiT (El-Nouby et al., "XCiT: Cross-Covariance Image Transformers", 2021) with Semantic FPN (Kirillov et al.,
"Panoptic Feature Pyramid Networks", 2019).

The variant Tiny-12/16 with 150 classes at 256x256: 10.3 million parameters. Four maps are made from the tokens of
layers 4, 6, 8 and 12 by transposed convolutions and pooling.
"""

from __future__ import annotations

import math

import torch
from architectures._encoder_decoder import EncoderDecoder
from architectures._fpn import SemanticFPN
from torch import Tensor, nn
from torch.nn import functional as F

SIZE = (256, 256)


class FourierPosition(nn.Module):
    """Sines and cosines of rows and columns, projected to the tokens' channels."""

    def __init__(self, dim: int, hidden: int = 32, temperature: float = 10000) -> None:
        super().__init__()
        self.token_projection = nn.Conv2d(hidden * 2, dim, 1)
        self.hidden_dim, self.temperature, self.eps = hidden, temperature, 1e-6

    def forward(self, b: int, height: int, width: int) -> Tensor:
        y = torch.arange(1, height + 1, dtype=torch.float32).unsqueeze(1).repeat(1, 1, width)
        x = torch.arange(1, width + 1, dtype=torch.float32).repeat(1, height, 1)
        y = y / (y[:, -1:, :] + self.eps) * 2 * math.pi
        x = x / (x[:, :, -1:] + self.eps) * 2 * math.pi
        powers = torch.arange(self.hidden_dim, dtype=torch.float32)
        powers = self.temperature ** (2 * torch.div(powers, 2, rounding_mode="floor") / self.hidden_dim)
        pos_x, pos_y = x[:, :, :, None] / powers, y[:, :, :, None] / powers
        pos_x = torch.stack([pos_x[:, :, :, 0::2].sin(), pos_x[:, :, :, 1::2].cos()], dim=4).flatten(3)
        pos_y = torch.stack([pos_y[:, :, :, 0::2].sin(), pos_y[:, :, :, 1::2].cos()], dim=4).flatten(3)
        pos = self.token_projection(torch.cat((pos_y, pos_x), dim=3).permute(0, 3, 1, 2))
        return pos.repeat(b, 1, 1, 1)


class XCA(nn.Module):
    """Cross-covariance attention: among channels instead of places."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.num_heads, self.temperature = heads, nn.Parameter(torch.ones(heads, 1, 1))
        self.qkv, self.proj = nn.Linear(dim, dim * 3), nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        b, n, c = x.shape
        qkv = self.qkv(x).reshape(b, n, 3, self.num_heads, c // self.num_heads).permute(2, 0, 3, 4, 1)
        q, k, v = qkv.unbind(0)
        attention = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-2, -1) * self.temperature
        return self.proj((attention.softmax(dim=-1) @ v).permute(0, 3, 1, 2).reshape(b, n, c))


class LocalPatchInteraction(nn.Module):
    """Two depthwise convolutions on the tokens' map."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = (nn.Conv2d(dim, dim, 3, padding=1, groups=dim) for _ in range(2))
        self.act, self.bn = nn.GELU(), nn.BatchNorm2d(dim)

    def forward(self, x: Tensor, height: int, width: int) -> Tensor:
        b, n, c = x.shape
        x = x.permute(0, 2, 1).reshape(b, c, height, width)
        return self.conv2(self.bn(self.act(self.conv1(x)))).reshape(b, c, n).permute(0, 2, 1)


class Block(nn.Module):
    def __init__(self, dim: int, heads: int, eta: float = 1.0) -> None:
        super().__init__()
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(dim, eps=1e-6) for _ in range(3))
        self.attn, self.local_mp = XCA(dim, heads), LocalPatchInteraction(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, dim * 4), nn.GELU(), nn.Linear(dim * 4, dim))
        self.gamma1, self.gamma2, self.gamma3 = (nn.Parameter(eta * torch.ones(dim)) for _ in range(3))

    def forward(self, x: Tensor, height: int, width: int) -> Tensor:
        x = x + self.gamma1 * self.attn(self.norm1(x))
        x = x + self.gamma3 * self.local_mp(self.norm3(x), height, width)
        return x + self.gamma2 * self.mlp(self.norm2(x))


class XCiT(nn.Module):
    def __init__(self, dim: int = 192, depth: int = 12, heads: int = 4) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, outputs in ((3, dim // 8), (dim // 8, dim // 4), (dim // 4, dim // 2), (dim // 2, dim)):
            layers += [nn.Conv2d(inputs, outputs, 3, 2, 1, bias=False), nn.BatchNorm2d(outputs), nn.GELU()]
        self.patch_embed, self.pos_embeder = nn.Sequential(*layers[:-1]), FourierPosition(dim)
        self.blocks, self.out_indices = nn.ModuleList(Block(dim, heads) for _ in range(depth)), (3, 5, 7, 11)
        self.fpn1 = nn.Sequential(
            nn.ConvTranspose2d(dim, dim, 2, 2), nn.BatchNorm2d(dim), nn.GELU(), nn.ConvTranspose2d(dim, dim, 2, 2)
        )
        self.fpn2, self.fpn3 = nn.ConvTranspose2d(dim, dim, 2, 2), nn.Identity()
        self.fpn4 = nn.MaxPool2d(kernel_size=2, stride=2)

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.patch_embed(x)
        b, c, height, width = x.shape
        x = x.flatten(2).transpose(1, 2)
        x = x + self.pos_embeder(b, height, width).reshape(b, -1, x.shape[1]).permute(0, 2, 1)
        features = []
        for index, block in enumerate(self.blocks):
            x = block(x, height, width)
            if index in self.out_indices:
                features.append(x.permute(0, 2, 1).reshape(b, c, height, width).contiguous())
        ops = (self.fpn1, self.fpn2, self.fpn3, self.fpn4)
        return [op(each) for op, each in zip(ops, features, strict=True)]


def build() -> nn.Module:
    return EncoderDecoder(XCiT(), SemanticFPN((192, 192, 192, 192), 150))

"""Segmenter (Strudel et al., "Segmenter: Transformer for Semantic Segmentation", 2021) with its mask transformer.

ViT-Tiny/16 with 150 classes at 512x512: 6.7 million parameters. One token for each class joins the image's tokens in
two more layers; the masks are products of normalised patch and class tokens.
"""

from __future__ import annotations

import torch
from architectures._vit import Block
from torch import Tensor, nn
from torch.nn import functional as F

SIZE = (512, 512)
PATCH = 16


class Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.scale = heads, (width // heads) ** -0.5
        self.qkv, self.proj = nn.Linear(width, width * 3), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        b, n, c = x.shape
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        q, k, v = (each.view(b, n, self.heads, -1).transpose(1, 2) for each in (q, k, v))
        attention = torch.softmax(torch.einsum("bhid,bhjd->bhij", q, k) * self.scale, dim=-1)
        return self.proj(torch.einsum("bhij,bhjd->bhid", attention, v).transpose(1, 2).reshape(b, n, c))


class Encoder(nn.Module):
    def __init__(self, width: int, depth: int, heads: int) -> None:
        super().__init__()
        self.proj, self.cls_token = nn.Conv2d(3, width, PATCH, PATCH), nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, SIZE[0] // PATCH * (SIZE[1] // PATCH) + 1, width))
        self.blocks = nn.Sequential(*(Block(width, Attention(width, heads)) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        x = self.proj(x).flatten(2).transpose(1, 2)
        x = torch.cat((self.cls_token.expand(x.shape[0], -1, -1), x), dim=1) + self.pos_embed
        return self.norm(self.blocks(x))[:, 1:]


class MaskTransformer(nn.Module):
    def __init__(self, classes: int, width: int, depth: int = 2, heads: int = 3) -> None:
        super().__init__()
        self.n_cls = classes
        self.cls_emb = nn.Parameter(torch.randn(1, classes, width))
        self.proj_dec = nn.Linear(width, width)
        self.blocks = nn.ModuleList(Block(width, Attention(width, heads)) for _ in range(depth))
        self.proj_patch = nn.Parameter(width**-0.5 * torch.randn(width, width))
        self.proj_classes = nn.Parameter(width**-0.5 * torch.randn(width, width))
        self.decoder_norm, self.mask_norm = nn.LayerNorm(width), nn.LayerNorm(classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.proj_dec(x)
        x = torch.cat((x, self.cls_emb.expand(x.size(0), -1, -1)), 1)
        for block in self.blocks:
            x = block(x)
        x = self.decoder_norm(x)
        patches, class_features = x[:, : -self.n_cls], x[:, -self.n_cls :]
        patches, class_features = patches @ self.proj_patch, class_features @ self.proj_classes
        patches = patches / patches.norm(dim=-1, keepdim=True)
        class_features = class_features / class_features.norm(dim=-1, keepdim=True)
        return self.mask_norm(patches @ class_features.transpose(1, 2))


class SegmenterMask(nn.Module):
    def __init__(self, classes: int = 150, width: int = 192) -> None:
        super().__init__()
        self.encoder, self.decoder = Encoder(width, depth=12, heads=3), MaskTransformer(classes, width)

    def forward(self, x: Tensor) -> Tensor:
        b, _, height, width = x.shape
        masks = self.decoder(self.encoder(x))
        masks = masks.transpose(1, 2).reshape(b, -1, height // PATCH, width // PATCH)
        return F.interpolate(masks, size=(height, width), mode="bilinear")


def build() -> nn.Module:
    return SegmenterMask()

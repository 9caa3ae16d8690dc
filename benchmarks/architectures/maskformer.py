"""MaskFormer (Cheng et al., "Per-Pixel Classification is Not All You Need for Semantic Segmentation", 2021).

A small variant: ResNet-18 and a pixel decoder, 20 queries and three decoder layers of torch's nn.MultiheadAttention
(the paper has ResNet-50, 100 queries and six layers): 150 classes at 256x256, 13.7 million parameters. As in the paper,
the masks of all queries are weighted by their class probabilities, with the class "nothing" left out.
"""

from __future__ import annotations

import math

import torch
from architectures._resnet import ResNet18
from torch import Tensor, nn
from torch.nn import functional as F

SIZE = (256, 256)


class SinePosition(nn.Module):
    """Sines and cosines of the row and the column."""

    def __init__(self, features: int, temperature: int = 10000) -> None:
        super().__init__()
        self.features, self.temperature, self.scale = features, temperature, 2 * math.pi

    def forward(self, x: Tensor) -> Tensor:
        mask = torch.zeros((x.size(0), x.size(2), x.size(3)), device=x.device, dtype=torch.bool)
        y = (~mask).cumsum(1, dtype=torch.float32)
        across = (~mask).cumsum(2, dtype=torch.float32)
        y, across = y / (y[:, -1:, :] + 1e-6) * self.scale, across / (across[:, :, -1:] + 1e-6) * self.scale
        powers = torch.arange(self.features, dtype=torch.float32, device=x.device)
        powers = self.temperature ** (2 * (powers // 2) / self.features)
        pos_y, pos_x = y[:, :, :, None] / powers, across[:, :, :, None] / powers
        pos_y = torch.stack((pos_y[:, :, :, 0::2].sin(), pos_y[:, :, :, 1::2].cos()), dim=4).flatten(3)
        pos_x = torch.stack((pos_x[:, :, :, 0::2].sin(), pos_x[:, :, :, 1::2].cos()), dim=4).flatten(3)
        return torch.cat((pos_y, pos_x), dim=3).permute(0, 3, 1, 2)


class DecoderLayer(nn.Module):
    """Queries attend to themselves, then to the image; tensors are (positions, batch, channels)."""

    def __init__(self, width: int, heads: int = 8, hidden: int = 1024) -> None:
        super().__init__()
        self.self_attn = nn.MultiheadAttention(width, heads, dropout=0.1)
        self.multihead_attn = nn.MultiheadAttention(width, heads, dropout=0.1)
        self.linear1, self.linear2, self.dropout = nn.Linear(width, hidden), nn.Linear(hidden, width), nn.Dropout(0.1)
        self.norm1, self.norm2, self.norm3 = nn.LayerNorm(width), nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, tgt: Tensor, memory: Tensor, pos: Tensor, query_pos: Tensor) -> Tensor:
        q = k = tgt + query_pos
        tgt = self.norm1(tgt + self.dropout(self.self_attn(q, k, value=tgt)[0]))
        attended = self.multihead_attn(query=tgt + query_pos, key=memory + pos, value=memory)[0]
        tgt = self.norm2(tgt + self.dropout(attended))
        mixed = self.linear2(self.dropout(F.relu(self.linear1(tgt))))
        return self.norm3(tgt + self.dropout(mixed))


class PixelDecoder(nn.Module):
    """A feature pyramid with group normalisation; the finest level becomes the embedding of every pixel."""

    def __init__(self, inputs: tuple[int, ...], width: int) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(
            nn.Sequential(nn.Conv2d(each, width, 1, bias=False), nn.GroupNorm(32, width)) for each in inputs[:-1]
        )
        self.output = nn.ModuleList(
            nn.Sequential(nn.Conv2d(each, width, 3, padding=1, bias=False), nn.GroupNorm(32, width), nn.ReLU())
            for each in (*(width for _ in inputs[:-1]), inputs[-1])
        )
        self.mask_features = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, maps: list[Tensor]) -> Tensor:
        y = self.output[-1](maps[-1])
        for level in range(len(maps) - 2, -1, -1):
            current = self.lateral[level](maps[level])
            y = self.output[level](current + F.interpolate(y, size=current.shape[-2:], mode="nearest"))
        return self.mask_features(y)


class MaskFormer(nn.Module):
    def __init__(self, classes: int = 150, queries: int = 20, width: int = 128) -> None:
        super().__init__()
        self.backbone, self.pixel_decoder = ResNet18(), PixelDecoder((64, 128, 256, 512), width)
        self.input_proj, self.pe_layer = nn.Conv2d(512, width, 1), SinePosition(width // 2)
        self.query_embed = nn.Embedding(queries, width)
        self.decoder, self.norm = nn.ModuleList(DecoderLayer(width) for _ in range(3)), nn.LayerNorm(width)
        self.class_embed = nn.Linear(width, classes + 1)
        self.mask_embed = nn.Sequential(
            nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        maps = self.backbone(x)
        b = x.shape[0]
        src, pos = self.input_proj(maps[-1]), self.pe_layer(maps[-1])
        memory, pos = src.flatten(2).permute(2, 0, 1), pos.flatten(2).permute(2, 0, 1)
        query_pos = self.query_embed.weight.unsqueeze(1).repeat(1, b, 1)
        queries = torch.zeros_like(query_pos)
        for layer in self.decoder:
            queries = layer(queries, memory, pos, query_pos)
        queries = self.norm(queries).transpose(0, 1)
        classes, embedding = self.class_embed(queries), self.mask_embed(queries)
        masks = torch.einsum("bqc,bchw->bqhw", embedding, self.pixel_decoder(maps))
        masks = F.interpolate(masks, size=x.shape[-2:], mode="bilinear", align_corners=False)
        return torch.einsum("bqc,bqhw->bchw", F.softmax(classes, dim=-1)[..., :-1], masks.sigmoid())


def build() -> nn.Module:
    return MaskFormer()

"""EoMT (Kerssies et al., "Your ViT is Secretly an Image Segmentation Model", 2025).

ViT-S/16, whose last four layers also see 100 queries; masks without masked attention, as in the paper's inference:
150 classes at 256x256, 23.5 million parameters.
"""

from __future__ import annotations

import torch
from architectures._layer_norm import LayerNorm2d
from architectures._vit import Attention, ScaledBlock
from torch import Tensor, nn
from torch.nn import functional as F

SIZE = (256, 256)
PATCH = 16


class ScaleBlock(nn.Module):
    """Doubles height and width."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1, self.act = nn.ConvTranspose2d(width, width, kernel_size=2, stride=2), nn.GELU()
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False)
        self.norm = LayerNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv2(self.act(self.conv1(x))))


class EoMT(nn.Module):
    def __init__(self, classes: int = 150, queries: int = 100, width: int = 384, depth: int = 12) -> None:
        super().__init__()
        self.num_q, self.num_blocks = queries, 4
        self.patch_embed, self.q = nn.Conv2d(3, width, PATCH, PATCH), nn.Embedding(queries, width)
        self.pos_embed = nn.Parameter(torch.zeros(1, SIZE[0] // PATCH * (SIZE[1] // PATCH), width))
        self.cls_token, self.reg_token = nn.Parameter(torch.zeros(1, 1, width)), nn.Parameter(torch.zeros(1, 4, width))
        self.blocks = nn.ModuleList(ScaledBlock(width, Attention(width, 6), 1e-5) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.class_head = nn.Linear(width, classes + 1)
        self.mask_head = nn.Sequential(
            nn.Linear(width, width), nn.GELU(), nn.Linear(width, width), nn.GELU(), nn.Linear(width, width)
        )
        self.upscale = nn.Sequential(ScaleBlock(width), ScaleBlock(width))

    def _predict(self, x: Tensor, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
        q = x[:, : self.num_q, :]
        x = x[:, self.num_q + 5 :, :].transpose(1, 2)
        x = x.reshape(x.shape[0], -1, *grid)
        masks = torch.einsum("bqc, bchw -> bqhw", self.mask_head(q), self.upscale(x))
        return masks, self.class_head(q)

    def forward(self, image: Tensor) -> Tensor:
        x = self.patch_embed(image)
        grid = x.shape[2], x.shape[3]
        x = x.flatten(2).transpose(1, 2) + self.pos_embed
        b = x.shape[0]
        x = torch.cat([self.cls_token.expand(b, -1, -1), self.reg_token.expand(b, -1, -1), x], dim=1)
        for index, block in enumerate(self.blocks):
            if index == len(self.blocks) - self.num_blocks:
                x = torch.cat((self.q.weight[None, :, :].expand(b, -1, -1), x), dim=1)
            x = block(x)
        masks, classes = self._predict(self.norm(x), grid)
        masks = F.interpolate(masks, image.shape[2:], mode="bilinear")
        return torch.einsum("bqhw, bqc -> bchw", masks.sigmoid(), classes.softmax(dim=-1)[..., :-1])


def build() -> nn.Module:
    return EoMT()

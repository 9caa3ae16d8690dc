"""UNETR (Hatamizadeh et al., "UNETR: Transformers for 3D Medical Image Segmentation", 2022), for two dimensions.

ViT-S/16 (384 channels, 12 layers), whose outputs after 4, 7, 10 and 12 layers are enlarged by transposed convolutions
and joined in a decoder with residual blocks: 14 classes at 224x224, 23 million parameters (the paper's 92 million are
those of ViT-B with 3D convolutions).
"""

from __future__ import annotations

import torch
from architectures._vit import Block
from torch import Tensor, nn
from torch.nn import functional as F

SIZE = (224, 224)
PATCH = 16


class SelfAttention(nn.Module):
    """Attention spelled as contractions."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.num_heads, self.scale = heads, (width // heads) ** -0.5
        self.qkv, self.out_proj = nn.Linear(width, width * 3, bias=False), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        b, n, c = x.shape
        q, k, v = self.qkv(x).view(b, n, 3, self.num_heads, c // self.num_heads).permute(2, 0, 3, 1, 4).unbind(0)
        attention = (torch.einsum("blxd,blyd->blxy", q, k) * self.scale).softmax(dim=-1)
        x = torch.einsum("bhxy,bhyd->bhxd", attention, v)
        return self.out_proj(x.transpose(1, 2).flatten(2))


class ViT(nn.Module):
    def __init__(self, width: int, depth: int = 12, heads: int = 6) -> None:
        super().__init__()
        self.patch_embeddings = nn.Linear(3 * PATCH * PATCH, width)
        self.position_embeddings = nn.Parameter(torch.zeros(1, SIZE[0] // PATCH * (SIZE[1] // PATCH), width))
        self.blocks = nn.ModuleList(Block(width, SelfAttention(width, heads)) for _ in range(depth))
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        x = F.unfold(x, kernel_size=PATCH, stride=PATCH).transpose(1, 2)
        x, hidden = self.patch_embeddings(x) + self.position_embeddings, []
        for block in self.blocks:
            x = block(x)
            hidden.append(x)
        return self.norm(x), hidden


class ResidualBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm1, self.norm2 = nn.InstanceNorm2d(outputs), nn.InstanceNorm2d(outputs)
        self.lrelu = nn.LeakyReLU(0.01, inplace=True)
        self.project = inputs != outputs
        if self.project:
            self.conv3, self.norm3 = nn.Conv2d(inputs, outputs, 1, bias=False), nn.InstanceNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        residual = self.norm3(self.conv3(x)) if self.project else x
        out = self.norm2(self.conv2(self.lrelu(self.norm1(self.conv1(x)))))
        out += residual
        return self.lrelu(out)


def enlarging(inputs: int, outputs: int, steps: int) -> nn.Sequential:
    """Transposed convolutions, each but the first followed by a residual block."""
    layers: list[nn.Module] = [nn.ConvTranspose2d(inputs, outputs, 2, 2, bias=False)]
    for _ in range(steps - 1):
        layers += [nn.ConvTranspose2d(outputs, outputs, 2, 2, bias=False), ResidualBlock(outputs, outputs)]
    return nn.Sequential(*layers)


class UpBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.up, self.block = nn.ConvTranspose2d(inputs, outputs, 2, 2, bias=False), ResidualBlock(2 * outputs, outputs)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        return self.block(torch.cat((self.up(x), skip), dim=1))


class UNETR(nn.Module):
    def __init__(self, classes: int = 14, width: int = 384, feature: int = 16) -> None:
        super().__init__()
        self.vit = ViT(width)
        self.encoder1 = ResidualBlock(3, feature)
        self.encoder2 = enlarging(width, feature * 2, 3)
        self.encoder3 = enlarging(width, feature * 4, 2)
        self.encoder4 = enlarging(width, feature * 8, 1)
        self.decoder5 = UpBlock(width, feature * 8)
        self.decoder4, self.decoder3 = UpBlock(feature * 8, feature * 4), UpBlock(feature * 4, feature * 2)
        self.decoder2, self.out = UpBlock(feature * 2, feature), nn.Conv2d(feature, classes, 1)

    @staticmethod
    def as_map(x: Tensor) -> Tensor:
        x = x.view(x.size(0), SIZE[0] // PATCH, SIZE[1] // PATCH, x.size(-1))
        return x.permute(0, 3, 1, 2).contiguous()

    def forward(self, x: Tensor) -> Tensor:
        last, hidden = self.vit(x)
        enc1 = self.encoder1(x)
        enc2 = self.encoder2(self.as_map(hidden[3]))
        enc3 = self.encoder3(self.as_map(hidden[6]))
        enc4 = self.encoder4(self.as_map(hidden[9]))
        dec3 = self.decoder5(self.as_map(last), enc4)
        dec2 = self.decoder4(dec3, enc3)
        dec1 = self.decoder3(dec2, enc2)
        return self.out(self.decoder2(dec1, enc1))


def build() -> nn.Module:
    return UNETR()

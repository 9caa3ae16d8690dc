"""SeaFormer (Wan et al., "SeaFormer: Squeeze-Enhanced Axial Transformer for Mobile Semantic Segmentation", 2023).

The variant Tiny with 150 classes at 512x512: 1.7 million parameters.
"""

from __future__ import annotations

import torch
from architectures._convolutions import ConvBN
from architectures._mobilenet import InvertedResidual
from torch import Tensor, nn
from torch.nn import functional as F

SIZE = (512, 512)
STAGES = [  # kernel, expansion, channels, stride of each block
    [(3, 1, 16, 1), (3, 4, 16, 2), (3, 3, 16, 1)],
    [(5, 3, 32, 2), (5, 3, 32, 1)],
    [(3, 3, 64, 2), (3, 3, 64, 1)],
    [(5, 3, 128, 2)],
    [(3, 6, 160, 2)],
]


class HSigmoid(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.relu = nn.ReLU6(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(x + 3) / 6


class AxialPosition(nn.Module):
    """Adds a learned position to each row or column."""

    def __init__(self, dim: int, length: int = 16) -> None:
        super().__init__()
        self.pos_embed = nn.Parameter(torch.randn([1, dim, length]))

    def forward(self, x: Tensor) -> Tensor:
        return x + F.interpolate(self.pos_embed, size=x.shape[2], mode="linear", align_corners=False)


class SeaAttention(nn.Module):
    """Attention among rows and among columns, each averaged to one token; a depthwise convolution keeps details."""

    def __init__(self, dim: int, key: int, heads: int = 4, ratio: int = 2) -> None:
        super().__init__()
        self.num_heads, self.scale, self.dh = heads, key**-0.5, ratio * key * heads
        self.to_q, self.to_k = ConvBN(dim, key * heads, 1), ConvBN(dim, key * heads, 1)
        self.to_v = ConvBN(dim, self.dh, 1)
        self.proj = nn.Sequential(nn.ReLU6(), ConvBN(self.dh, dim, 1))
        self.proj_encode_row = nn.Sequential(nn.ReLU6(), ConvBN(self.dh, self.dh, 1))
        self.proj_encode_column = nn.Sequential(nn.ReLU6(), ConvBN(self.dh, self.dh, 1))
        self.pos_emb_rowq, self.pos_emb_rowk = AxialPosition(key * heads), AxialPosition(key * heads)
        self.pos_emb_columnq, self.pos_emb_columnk = AxialPosition(key * heads), AxialPosition(key * heads)
        self.dwconv, self.act = ConvBN(2 * self.dh, 2 * self.dh, 3, groups=2 * self.dh), nn.ReLU6()
        self.pwconv, self.sigmoid = ConvBN(2 * self.dh, dim, 1), HSigmoid()

    def _attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attention among the positions of (batch, channels, positions) tensors."""
        b, _, n = q.shape
        q = q.reshape(b, self.num_heads, -1, n).permute(0, 1, 3, 2)
        k = k.reshape(b, self.num_heads, -1, n)
        v = v.reshape(b, self.num_heads, -1, n).permute(0, 1, 3, 2)
        weights = (torch.matmul(q, k) * self.scale).softmax(dim=-1)
        return torch.matmul(weights, v).permute(0, 1, 3, 2)

    def forward(self, x: Tensor) -> Tensor:
        b, _, height, width = x.shape
        q, k, v = self.to_q(x), self.to_k(x), self.to_v(x)
        details = self.pwconv(self.act(self.dwconv(torch.cat([q, k, v], dim=1))))
        rows = self._attend(self.pos_emb_rowq(q.mean(-1)), self.pos_emb_rowk(k.mean(-1)), v.mean(-1))
        rows = self.proj_encode_row(rows.reshape(b, self.dh, height, 1))
        columns = self._attend(self.pos_emb_columnq(q.mean(-2)), self.pos_emb_columnk(k.mean(-2)), v.mean(-2))
        columns = self.proj_encode_column(columns.reshape(b, self.dh, 1, width))
        return self.sigmoid(self.proj(v.add(rows.add(columns)))) * details


class Block(nn.Module):
    def __init__(self, dim: int, key: int, ratio: int) -> None:
        super().__init__()
        hidden = dim * ratio
        self.attn = SeaAttention(dim, key)
        self.mlp = nn.Sequential(
            ConvBN(dim, hidden, 1),
            nn.Conv2d(hidden, hidden, 3, 1, 1, groups=hidden),
            nn.ReLU6(),
            ConvBN(hidden, dim, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(x)
        return x + self.mlp(x)


class Backbone(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.stages, width = nn.Sequential(ConvBN(3, 16, 3, 2), nn.ReLU()), nn.ModuleList(), 16
        for stage in STAGES:
            blocks = []
            for kernel, expansion, outputs, stride in stage:
                blocks.append(InvertedResidual(width, outputs, kernel, stride, expansion, nn.ReLU))
                width = outputs
            self.stages.append(nn.Sequential(*blocks))
        self.trans1 = nn.Sequential(*(Block(128, 16, 2) for _ in range(2)))
        self.trans2 = nn.Sequential(*(Block(160, 24, 4) for _ in range(2)))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        details = self.stages[1](self.stages[0](self.stem(x)))
        middle = self.trans1(self.stages[3](self.stages[2](details)))
        return details, middle, self.trans2(self.stages[4](middle))


class Fusion(nn.Module):
    """Multiplies a local map by gates from a deeper one."""

    def __init__(self, local: int, deep: int, width: int) -> None:
        super().__init__()
        self.local_embedding, self.global_act, self.act = ConvBN(local, width, 1), ConvBN(deep, width, 1), HSigmoid()

    def forward(self, local: Tensor, deep: Tensor) -> Tensor:
        gate = self.act(self.global_act(deep))
        gate = F.interpolate(gate, size=local.shape[2:], mode="bilinear", align_corners=False)
        return self.local_embedding(local) * gate


class SeaFormer(nn.Module):
    def __init__(self, classes: int = 150) -> None:
        super().__init__()
        self.backbone, self.fuse1, self.fuse2 = Backbone(), Fusion(32, 128, 64), Fusion(64, 160, 96)
        self.linear_fuse = nn.Sequential(ConvBN(96, 96, 1, groups=96), nn.ReLU())
        self.conv_seg = nn.Conv2d(96, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        details, middle, deep = self.backbone(x)
        logits = self.conv_seg(self.linear_fuse(self.fuse2(self.fuse1(details, middle), deep)))
        return F.interpolate(logits, size=x.shape[2:], mode="bilinear", align_corners=False)


def build() -> nn.Module:
    return SeaFormer()

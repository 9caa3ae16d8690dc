"""UNetFormer (Wang et al., "UNetFormer: A UNet-like Transformer for Efficient Semantic Segmentation of Remote Sensing
Urban Scene Imagery", 2022).

ResNet-18 and a decoder with attention in 8x8 windows: 6 classes at 512x512, 11.7 million parameters.
"""

from __future__ import annotations

import torch
from architectures._convolutions import ConvBN
from architectures._resnet import ResNet18
from torch import Tensor, nn
from torch.nn import functional as F

SIZE = (512, 512)


class SeparableConvBN(nn.Sequential):
    def __init__(self, width: int, kernel: int) -> None:
        depthwise = nn.Conv2d(width, width, kernel, padding=(kernel - 1) // 2, groups=width, bias=False)
        super().__init__(depthwise, nn.BatchNorm2d(width), nn.Conv2d(width, width, 1, bias=False))


class GlobalLocalAttention(nn.Module):
    """Attention in windows, averaged along rows and columns so that windows exchange values; and two convolutions."""

    def __init__(self, dim: int, heads: int = 8, window: int = 8) -> None:
        super().__init__()
        self.num_heads, self.scale, self.ws = heads, (dim // heads) ** -0.5, window
        self.qkv = nn.Conv2d(dim, 3 * dim, 1, bias=False)
        self.local1, self.local2, self.proj = ConvBN(dim, dim, 3), ConvBN(dim, dim, 1), SeparableConvBN(dim, window)
        self.attn_x = nn.AvgPool2d(kernel_size=(window, 1), stride=1, padding=(window // 2 - 1, 0))
        self.attn_y = nn.AvgPool2d(kernel_size=(1, window), stride=1, padding=(0, window // 2 - 1))
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * window - 1) ** 2, heads))
        coords = torch.stack(torch.meshgrid([torch.arange(window)] * 2, indexing="ij")).flatten(1)
        relative = (coords[:, :, None] - coords[:, None, :]).permute(1, 2, 0).contiguous() + window - 1
        index = relative[:, :, 0] * (2 * window - 1) + relative[:, :, 1]
        self.register_buffer("relative_position_index", index)

    def _padded(self, x: Tensor) -> Tensor:
        _, _, height, width = x.size()
        if width % self.ws != 0:
            x = F.pad(x, (0, self.ws - width % self.ws), mode="reflect")
        if height % self.ws != 0:
            x = F.pad(x, (0, 0, 0, self.ws - height % self.ws), mode="reflect")
        return x

    def forward(self, x: Tensor) -> Tensor:
        b, c, height, width = x.shape
        local = self.local2(x) + self.local1(x)
        qkv = self.qkv(self._padded(x))
        rows, columns, ws, area = qkv.shape[2] // self.ws, qkv.shape[3] // self.ws, self.ws, self.ws**2
        qkv = qkv.reshape(b, 3, self.num_heads, c // self.num_heads, rows, ws, columns, ws)
        qkv = qkv.permute(1, 0, 4, 6, 2, 5, 7, 3).reshape(3, b * rows * columns, self.num_heads, area, -1)
        q, k, v = qkv[0], qkv[1], qkv[2]
        dots = (q @ k.transpose(-2, -1)) * self.scale
        bias = self.relative_position_bias_table[self.relative_position_index.view(-1)].view(area, area, -1)
        dots += bias.permute(2, 0, 1).contiguous().unsqueeze(0)
        attn = (dots.softmax(dim=-1) @ v).reshape(b, rows, columns, self.num_heads, ws, ws, -1)
        attn = attn.permute(0, 3, 6, 1, 4, 2, 5).reshape(b, c, rows * ws, columns * ws)[:, :, :height, :width]
        out = self.attn_x(F.pad(attn, pad=(0, 0, 0, 1), mode="reflect"))
        out = out + self.attn_y(F.pad(attn, pad=(0, 1, 0, 0), mode="reflect"))
        out = self.proj(F.pad(out + local, pad=(0, 1, 0, 1), mode="reflect"))
        return out[:, :, :height, :width]


class Block(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm1, self.attn, self.norm2 = nn.BatchNorm2d(dim), GlobalLocalAttention(dim), nn.BatchNorm2d(dim)
        self.mlp = nn.Sequential(nn.Conv2d(dim, 4 * dim, 1), nn.ReLU6(inplace=True), nn.Conv2d(4 * dim, dim, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class WeightedFusion(nn.Module):
    """Learned, normalised weights of the skip connection and the enlarged map."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.pre_conv, self.weights = nn.Conv2d(inputs, width, 1, bias=False), nn.Parameter(torch.ones(2))
        self.post_conv = nn.Sequential(*ConvBN(width, width, 3), nn.ReLU6())

    def forward(self, x: Tensor, res: Tensor) -> Tensor:
        x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
        weights = F.relu(self.weights)
        fuse_weights = weights / (torch.sum(weights, dim=0) + 1e-8)
        return self.post_conv(fuse_weights[0] * self.pre_conv(res) + fuse_weights[1] * x)


class RefinementHead(nn.Module):
    """Gates of places and of channels refine the finest map."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fusion = WeightedFusion(64, width)
        self.pa = nn.Sequential(nn.Conv2d(width, width, 3, padding=1, groups=width), nn.Sigmoid())
        self.ca = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(width, width // 16, 1),
            nn.ReLU6(),
            nn.Conv2d(width // 16, width, 1),
            nn.Sigmoid(),
        )
        self.shortcut, self.proj, self.act = ConvBN(width, width, 1), SeparableConvBN(width, 3), nn.ReLU6()

    def forward(self, x: Tensor, res: Tensor) -> Tensor:
        x = self.fusion(x, res)
        shortcut = self.shortcut(x)
        x = self.pa(x) * x + self.ca(x) * x
        return self.act(self.proj(x) + shortcut)


class UNetFormer(nn.Module):
    def __init__(self, classes: int = 6, width: int = 64) -> None:
        super().__init__()
        self.backbone, self.pre_conv = ResNet18(), ConvBN(512, width, 1)
        self.b4, self.b3, self.b2 = Block(width), Block(width), Block(width)
        self.p3, self.p2, self.p1 = WeightedFusion(256, width), WeightedFusion(128, width), RefinementHead(width)
        self.segmentation_head = nn.Sequential(
            *ConvBN(width, width), nn.ReLU6(), nn.Dropout2d(0.1, inplace=True), nn.Conv2d(width, classes, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        res1, res2, res3, res4 = self.backbone(x)
        y = self.b4(self.pre_conv(res4))
        y = self.b3(self.p3(y, res3))
        y = self.b2(self.p2(y, res2))
        y = self.segmentation_head(self.p1(y, res1))
        return F.interpolate(y, size=x.shape[2:], mode="bilinear", align_corners=False)


def build() -> nn.Module:
    return UNetFormer()

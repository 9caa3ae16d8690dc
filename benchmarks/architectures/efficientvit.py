"""EfficientViT (Cai et al., "EfficientViT: Multi-Scale Linear Attention for High-Resolution Dense Prediction", 2023).

The variant B0 with the segmentation head for Cityscapes: 19 classes at 512x512, 0.7 million parameters.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SIZE = (512, 512)


class ConvLayer(nn.Module):
    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int = 1,
        stride: int = 1,
        groups: int = 1,
        bias: bool = False,
        norm: bool = True,
        act: bool = True,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=bias)
        self.norm = nn.BatchNorm2d(outputs) if norm else None
        self.act = nn.Hardswish() if act else None

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        if self.norm:
            x = self.norm(x)
        return self.act(x) if self.act else x


def depthwise_separable(inputs: int, outputs: int, stride: int = 1) -> nn.Module:
    return nn.Sequential(ConvLayer(inputs, inputs, 3, stride, groups=inputs), ConvLayer(inputs, outputs, act=False))


def inverted(inputs: int, outputs: int, stride: int = 1, plain: bool = False) -> nn.Module:
    """MBConv with four times as many channels inside; `plain` leaves the first two normalisations out."""
    hidden = inputs * 4
    return nn.Sequential(
        ConvLayer(inputs, hidden, bias=plain, norm=not plain),
        ConvLayer(hidden, hidden, 3, stride, hidden, bias=plain, norm=not plain),
        ConvLayer(hidden, outputs, act=False),
    )


class Residual(nn.Module):
    def __init__(self, main: nn.Module) -> None:
        super().__init__()
        self.main = main

    def forward(self, x: Tensor) -> Tensor:
        return self.main(x) + x


class LiteMLA(nn.Module):
    """Multi-scale linear attention: ReLU replaces softmax, so keys and values are multiplied first."""

    def __init__(self, width: int, dim: int = 16, scale: int = 5, eps: float = 1e-15) -> None:
        super().__init__()
        total, self.dim, self.eps = 3 * width, dim, eps
        self.qkv = ConvLayer(width, total, norm=False, act=False)
        self.aggreg = nn.ModuleList(
            [
                nn.Sequential(
                    nn.Conv2d(total, total, scale, padding=scale // 2, groups=total, bias=False),
                    nn.Conv2d(total, total, 1, groups=total // dim, bias=False),
                )
            ]
        )
        self.kernel_func = nn.ReLU()
        self.proj = ConvLayer(2 * width, width, act=False)

    def forward(self, x: Tensor) -> Tensor:
        qkv = self.qkv(x)
        scales = [qkv]
        for op in self.aggreg:
            scales.append(op(qkv))
        qkv = torch.cat(scales, dim=1)
        batch, _, height, width = qkv.size()
        qkv = torch.reshape(qkv, (batch, -1, 3 * self.dim, height * width))
        q, k, v = qkv[:, :, : self.dim], qkv[:, :, self.dim : 2 * self.dim], qkv[:, :, 2 * self.dim :]
        q, k = self.kernel_func(q), self.kernel_func(k)
        v = F.pad(v, (0, 0, 0, 1), mode="constant", value=1)
        out = torch.matmul(torch.matmul(v, k.transpose(-1, -2)), q)
        out = out[:, :, :-1] / (out[:, :, -1:] + self.eps)
        return self.proj(torch.reshape(out, (batch, -1, height, width)))


def attention_block(width: int) -> nn.Module:
    return nn.Sequential(Residual(LiteMLA(width)), Residual(inverted(width, width, plain=True)))


class Backbone(nn.Module):
    def __init__(
        self, widths: tuple[int, ...] = (8, 16, 32, 64, 128), depths: tuple[int, ...] = (1, 2, 2, 2, 2)
    ) -> None:
        super().__init__()
        stem = [Residual(depthwise_separable(widths[0], widths[0])) for _ in range(depths[0])]
        self.input_stem = nn.Sequential(ConvLayer(3, widths[0], 3, 2), *stem)
        self.stages, width = nn.ModuleList(), widths[0]
        for outputs, depth in zip(widths[1:3], depths[1:3], strict=True):
            rest = [Residual(inverted(outputs, outputs)) for _ in range(depth - 1)]
            self.stages.append(nn.Sequential(inverted(width, outputs, 2), *rest))
            width = outputs
        for outputs, depth in zip(widths[3:], depths[3:], strict=True):
            blocks = [attention_block(outputs) for _ in range(depth)]
            self.stages.append(nn.Sequential(inverted(width, outputs, 2, plain=True), *blocks))
            width = outputs

    def forward(self, x: Tensor) -> list[Tensor]:
        x, found = self.input_stem(x), []
        for stage in self.stages:
            x = stage(x)
            found.append(x)
        return found


class Head(nn.Module):
    """The last three maps are added at stride 8."""

    def __init__(self, inputs: tuple[int, ...], width: int, classes: int) -> None:
        super().__init__()
        self.inputs = nn.ModuleList(ConvLayer(each, width, act=False) for each in inputs)
        self.upsample = nn.ModuleList(nn.Upsample(scale_factor=s, mode="bicubic", align_corners=False) for s in (4, 2))
        self.middle = Residual(inverted(width, width))
        self.classify = nn.Sequential(ConvLayer(width, width * 4), nn.Conv2d(width * 4, classes, 1))

    def forward(self, maps: list[Tensor]) -> Tensor:
        small, middle, large = (conv(each) for conv, each in zip(self.inputs, maps, strict=True))
        return self.classify(self.middle(self.upsample[0](small) + self.upsample[1](middle) + large))


class EfficientViTSeg(nn.Module):
    def __init__(self, classes: int = 19) -> None:
        super().__init__()
        self.backbone, self.head = Backbone(), Head((128, 64, 32), 32, classes)

    def forward(self, x: Tensor) -> Tensor:
        logits = self.head(self.backbone(x)[:0:-1])
        return F.interpolate(logits, size=x.shape[2:], mode="bilinear", align_corners=False)


def build() -> nn.Module:
    return EfficientViTSeg()

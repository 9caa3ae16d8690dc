"""Small networks of the kinds that people bring, exported by torch."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Fire(nn.Module):
    def __init__(self, inputs: int, squeezed: int, expanded: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(inputs, squeezed, 1)
        self.expand1 = nn.Conv2d(squeezed, expanded, 1)
        self.expand3 = nn.Conv2d(squeezed, expanded, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.squeeze(x))
        return torch.cat([F.relu(self.expand1(x)), F.relu(self.expand3(x))], 1)


class SqueezeNet(nn.Module):
    """Fire modules, transposed convolutions, softmax over the image's own size."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, 2)
        self.fire1, self.fire2 = Fire(16, 8, 16), Fire(32, 8, 16)
        self.up1 = nn.ConvTranspose2d(32, 16, 4, 2, 1)
        self.up2 = nn.ConvTranspose2d(32, 2, 3, 2, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        early = F.relu(self.stem(x))
        late = self.fire2(self.fire1(F.max_pool2d(early, 3, 2, ceil_mode=True)))
        up = F.interpolate(self.up1(late), size=early.shape[2:], mode="nearest")
        return F.softmax(self.up2(torch.cat([up, early], 1)), 1)


class MobileNetV3(nn.Module):
    """Hard-swish, squeeze and excite by linear layers, the lite decoder's gate, bilinear logits."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.Hardswish())
        self.body = nn.Sequential(
            nn.Conv2d(16, 32, 1), nn.BatchNorm2d(32), nn.Hardswish(), nn.Conv2d(32, 32, 5, 2, 2, groups=32)
        )
        self.gate = nn.Sequential(nn.Linear(32, 8), nn.ReLU(), nn.Linear(8, 32), nn.Hardsigmoid())
        self.features, self.scale = nn.Conv2d(32, 24, 1), nn.Conv2d(32, 24, 1)
        self.low, self.high = nn.Conv2d(16, 5, 1), nn.Conv2d(24, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        low = self.stem(x)
        high = self.body(low)
        high = high * self.gate(high.mean((2, 3))).view(high.shape[0], -1, 1, 1)
        gate = torch.sigmoid(self.scale(F.adaptive_avg_pool2d(high, 1)))
        features = F.relu(self.features(high))
        features = features * F.interpolate(gate, size=features.shape[2:], mode="bilinear", align_corners=False)
        features = F.interpolate(features, size=low.shape[2:], mode="bilinear", align_corners=False)
        logits = self.low(low) + self.high(features)
        return F.interpolate(logits, size=x.shape[2:], mode="bilinear", align_corners=False)


class DeepLab(nn.Module):
    """Atrous pyramid at odd sizes, pooled branch, align_corners; gives a mask."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, 2, 1)
        self.branches = nn.ModuleList(
            nn.Sequential(nn.Conv2d(16, 8, 3, padding=rate, dilation=rate, bias=False), nn.BatchNorm2d(8), nn.ReLU())
            for rate in (2, 4, 6)
        )
        self.pooled = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(16, 8, 1), nn.ReLU())
        self.classify = nn.Conv2d(32, 7, 1)

    def forward(self, x: Tensor) -> Tensor:
        maps = F.relu6(self.stem(x))
        branches = [branch(maps) for branch in self.branches]
        pooled = F.interpolate(self.pooled(maps), size=maps.shape[2:], mode="bilinear", align_corners=False)
        logits = self.classify(torch.cat([*branches, pooled], 1))
        return F.interpolate(logits, size=x.shape[2:], mode="bilinear", align_corners=True).argmax(1)


class UNet(nn.Module):
    """PReLU, transposed and pixel-shuffled upsampling, skips, a sigmoid whose channel is squeezed away."""

    def __init__(self) -> None:
        super().__init__()
        self.down1, self.down2, self.down3 = self._block(3, 8), self._block(8, 16), self._block(16, 32)
        self.up1, self.join1 = nn.ConvTranspose2d(32, 16, 2, 2), self._block(32, 16)
        self.up2, self.join2 = nn.Conv2d(16, 32, 1), self._block(16, 8)
        self.classify = nn.Conv2d(8, 1, 1)

    @staticmethod
    def _block(inputs: int, outputs: int) -> nn.Sequential:
        convolution = nn.Conv2d(inputs, outputs, 3, padding=1)
        return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.PReLU(outputs), nn.Dropout2d(0.1))

    def forward(self, x: Tensor) -> Tensor:
        one = self.down1(x)
        two = self.down2(F.max_pool2d(one, 2))
        three = self.down3(F.avg_pool2d(two, 2))
        x = self.join1(torch.cat([self.up1(three), two], 1))
        x = self.join2(torch.cat([F.pixel_shuffle(self.up2(x), 2), one], 1))
        return torch.sigmoid(self.classify(F.gelu(x) + F.silu(one))).squeeze(1)


NETWORKS: dict[str, tuple[type[nn.Module], tuple[int, int]]] = {
    "squeeze": (SqueezeNet, (64, 64)),
    "mobilenet": (MobileNetV3, (64, 96)),
    "deeplab": (DeepLab, (65, 65)),
    "unet": (UNet, (64, 64)),
}


def export(name: str, path: Path, opset: int, free_size: bool = False) -> nn.Module:
    """Write one of NETWORKS, with statistics that are not the identity, and return it."""
    torch.manual_seed(0)
    kind, size = NETWORKS[name]
    model = kind().eval()
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.normal_()
            layer.running_var.uniform_(0.5, 2)
    axes = {"image": {0: "batch", 2: "height", 3: "width"}} if free_size else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter without onnxscript is called old, and says so
        torch.onnx.export(
            model,
            (torch.randn(1, 3, *size),),
            path,
            opset_version=opset,
            dynamo=False,
            input_names=["image"],
            dynamic_axes=axes,
        )
    return model

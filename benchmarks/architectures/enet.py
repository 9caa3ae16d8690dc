"""ENet (Paszke et al., "ENet: A Deep Neural Network Architecture for Real-Time Semantic Segmentation", 2016), 512x512.

Max pooling keeps its indices, unpooling uses them; a bottleneck that adds channels pads its shortcut with zeros.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

SIZE = (512, 512)


class Initial(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.main_branch = nn.Conv2d(3, 13, 3, stride=2, padding=1, bias=False)
        self.ext_branch = nn.MaxPool2d(3, stride=2, padding=1)
        self.batch_norm = nn.BatchNorm2d(16)
        self.out_activation = nn.PReLU()

    def forward(self, x: Tensor) -> Tensor:
        out = torch.cat((self.main_branch(x), self.ext_branch(x)), 1)
        return self.out_activation(self.batch_norm(out))


def unit(conv: nn.Module, channels: int, activation: type[nn.Module]) -> list[nn.Module]:
    return [conv, nn.BatchNorm2d(channels), activation()]


class Regular(nn.Module):
    """Reduce, convolve (dilated, or 5x1 then 1x5), expand; added to the input."""

    def __init__(
        self,
        channels: int,
        dilation: int = 1,
        asymmetric: bool = False,
        dropout: float = 0.1,
        activation: type[nn.Module] = nn.PReLU,
    ) -> None:
        super().__init__()
        middle = channels // 4
        self.ext_conv1 = nn.Sequential(*unit(nn.Conv2d(channels, middle, 1, bias=False), middle, activation))
        if asymmetric:
            self.ext_conv2 = nn.Sequential(
                *unit(nn.Conv2d(middle, middle, (5, 1), padding=(2, 0), bias=False), middle, activation),
                *unit(nn.Conv2d(middle, middle, (1, 5), padding=(0, 2), bias=False), middle, activation),
            )
        else:
            conv = nn.Conv2d(middle, middle, 3, padding=dilation, dilation=dilation, bias=False)
            self.ext_conv2 = nn.Sequential(*unit(conv, middle, activation))
        self.ext_conv3 = nn.Sequential(*unit(nn.Conv2d(middle, channels, 1, bias=False), channels, activation))
        self.ext_regul = nn.Dropout2d(p=dropout)
        self.out_activation = activation()

    def forward(self, x: Tensor) -> Tensor:
        ext = self.ext_regul(self.ext_conv3(self.ext_conv2(self.ext_conv1(x))))
        return self.out_activation(x + ext)


class Downsampling(nn.Module):
    def __init__(self, inputs: int, outputs: int, dropout: float) -> None:
        super().__init__()
        middle = inputs // 4
        self.main_max1 = nn.MaxPool2d(2, stride=2, return_indices=True)
        self.ext_conv1 = nn.Sequential(*unit(nn.Conv2d(inputs, middle, 2, stride=2, bias=False), middle, nn.PReLU))
        self.ext_conv2 = nn.Sequential(*unit(nn.Conv2d(middle, middle, 3, padding=1, bias=False), middle, nn.PReLU))
        self.ext_conv3 = nn.Sequential(*unit(nn.Conv2d(middle, outputs, 1, bias=False), outputs, nn.PReLU))
        self.ext_regul = nn.Dropout2d(p=dropout)
        self.out_activation = nn.PReLU()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        main, max_indices = self.main_max1(x)
        ext = self.ext_regul(self.ext_conv3(self.ext_conv2(self.ext_conv1(x))))
        n, ch_ext, h, w = ext.size()
        padding = torch.zeros(n, ch_ext - main.size()[1], h, w, device=ext.device)
        return self.out_activation(torch.cat((main, padding), 1) + ext), max_indices


class Upsampling(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        middle = inputs // 4
        self.main_conv1 = nn.Sequential(nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs))
        self.main_unpool1 = nn.MaxUnpool2d(kernel_size=2)
        self.ext_conv1 = nn.Sequential(*unit(nn.Conv2d(inputs, middle, 1, bias=False), middle, nn.ReLU))
        self.ext_tconv1 = nn.ConvTranspose2d(middle, middle, 2, stride=2, bias=False)
        self.ext_tconv1_bnorm = nn.BatchNorm2d(middle)
        self.ext_tconv1_activation = nn.ReLU()
        self.ext_conv2 = nn.Sequential(nn.Conv2d(middle, outputs, 1, bias=False), nn.BatchNorm2d(outputs))
        self.ext_regul = nn.Dropout2d(p=0.1)
        self.out_activation = nn.ReLU()

    def forward(self, x: Tensor, max_indices: Tensor, output_size: torch.Size) -> Tensor:
        main = self.main_unpool1(self.main_conv1(x), max_indices, output_size=output_size)
        ext = self.ext_tconv1(self.ext_conv1(x), output_size=output_size)
        ext = self.ext_tconv1_activation(self.ext_tconv1_bnorm(ext))
        return self.out_activation(main + self.ext_regul(self.ext_conv2(ext)))


def context() -> list[nn.Module]:
    """The eight bottlenecks of stages 2 and 3."""
    blocks: list[nn.Module] = []
    for dilations in ((2, 4), (8, 16)):
        for asymmetric, dilation in zip((False, True), dilations, strict=True):
            blocks += [Regular(128, asymmetric=asymmetric), Regular(128, dilation=dilation)]
    return blocks


class ENet(nn.Module):
    def __init__(self, classes: int = 19) -> None:
        super().__init__()
        self.initial_block = Initial()
        self.downsample1_0 = Downsampling(16, 64, 0.01)
        self.stage1 = nn.Sequential(*(Regular(64, dropout=0.01) for _ in range(4)))
        self.downsample2_0 = Downsampling(64, 128, 0.1)
        self.stage2 = nn.Sequential(*context())
        self.stage3 = nn.Sequential(*context())
        self.upsample4_0 = Upsampling(128, 64)
        self.stage4 = nn.Sequential(*(Regular(64, activation=nn.ReLU) for _ in range(2)))
        self.upsample5_0 = Upsampling(64, 16)
        self.stage5 = Regular(16, activation=nn.ReLU)
        self.transposed_conv = nn.ConvTranspose2d(16, classes, 3, stride=2, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        input_size = x.size()
        x = self.initial_block(x)
        stage1_input_size = x.size()
        x, max_indices1_0 = self.downsample1_0(x)
        x = self.stage1(x)
        stage2_input_size = x.size()
        x, max_indices2_0 = self.downsample2_0(x)
        x = self.stage3(self.stage2(x))
        x = self.stage4(self.upsample4_0(x, max_indices2_0, stage2_input_size))
        x = self.stage5(self.upsample5_0(x, max_indices1_0, stage1_input_size))
        return self.transposed_conv(x, output_size=input_size[2:])


def build() -> nn.Module:
    return ENet()

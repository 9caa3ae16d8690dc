"""ResNet-18 (He et al., "Deep Residual Learning for Image Recognition", 2015), with and without dilation."""

from __future__ import annotations

from architectures._convolutions import ConvBN, ConvBNReLU
from torch import Tensor, nn


class BasicBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int = 1, dilation: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, dilation, dilation, bias=False)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, dilation, dilation, bias=False)
        self.bn1, self.bn2, self.relu = nn.BatchNorm2d(outputs), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
        keeps_shape = stride == 1 and inputs == outputs
        self.downsample = None if keeps_shape else ConvBN(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        identity = x if self.downsample is None else self.downsample(x)
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        out += identity
        return self.relu(out)


class ResNet18(nn.Module):
    """Returns the maps of its four stages, at strides 4, 8, 16 and 32."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.maxpool = ConvBNReLU(3, 64, 7, 2), nn.MaxPool2d(3, 2, 1)
        self.layers, inputs = nn.ModuleList(), 64
        for outputs in (64, 128, 256, 512):
            first = BasicBlock(inputs, outputs, 1 if outputs == 64 else 2)
            self.layers.append(nn.Sequential(first, BasicBlock(outputs, outputs)))
            inputs = outputs

    def forward(self, x: Tensor) -> list[Tensor]:
        x, found = self.maxpool(self.stem(x)), []
        for layer in self.layers:
            x = layer(x)
            found.append(x)
        return found


def dilated_resnet18() -> nn.Sequential:
    """ResNet-18 with dilated last stages: output stride 8."""
    layers: list[nn.Module] = [*ConvBNReLU(3, 64, 7, 2), nn.MaxPool2d(3, 2, 1)]
    inputs = 64
    for outputs, stride, dilation in ((64, 1, 1), (128, 2, 1), (256, 1, 2), (512, 1, 4)):
        layers += [BasicBlock(inputs, outputs, stride, dilation), BasicBlock(outputs, outputs, 1, dilation)]
        inputs = outputs
    return nn.Sequential(*layers)

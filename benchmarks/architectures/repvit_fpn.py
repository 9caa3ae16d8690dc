"""RepViT (Wang et al., "RepViT: Revisiting Mobile CNN From ViT Perspective", 2024) with Semantic FPN (Kirillov et al.,
"Panoptic Feature Pyramid Networks", 2019).

The variant M0.9 with 150 classes at 256x256, as it is stored after training: the branches of a token mixer are not
merged. 8.9 million parameters, 4.7 million of them in the backbone.
"""

from __future__ import annotations

from architectures._convolutions import ConvBN
from architectures._encoder_decoder import EncoderDecoder
from architectures._fpn import SemanticFPN
from torch import Tensor, nn

SIZE = (256, 256)
WIDTHS = (48, 96, 192, 384)
DEPTHS = (3, 4, 16, 3)


class SqueezeExcite(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        hidden = max(8, int(width * 0.25 + 4) // 8 * 8)
        self.fc1, self.act, self.fc2 = nn.Conv2d(width, hidden, 1), nn.ReLU(inplace=True), nn.Conv2d(hidden, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        gates = self.fc2(self.act(self.fc1(x.mean((2, 3), keepdim=True))))
        return x * gates.sigmoid()


class Residual(nn.Module):
    def __init__(self, m: nn.Module) -> None:
        super().__init__()
        self.m = m

    def forward(self, x: Tensor) -> Tensor:
        return x + self.m(x)


class RepVGGDW(nn.Module):
    """A depthwise convolution in three branches."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv, self.conv1 = ConvBN(width, width, 3, groups=width), nn.Conv2d(width, width, 1, groups=width)
        self.bn = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn((self.conv(x) + self.conv1(x)) + x)


class Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int, squeeze: bool) -> None:
        super().__init__()
        excite = SqueezeExcite(inputs) if squeeze else nn.Identity()
        if stride == 2:
            down = ConvBN(inputs, inputs, 3, 2, inputs)
            self.token_mixer = nn.Sequential(down, excite, ConvBN(inputs, outputs, 1))
        else:
            self.token_mixer = nn.Sequential(RepVGGDW(inputs), excite)
        mixer = nn.Sequential(ConvBN(outputs, 2 * outputs, 1), nn.GELU(), ConvBN(2 * outputs, outputs, 1))
        self.channel_mixer = Residual(mixer)

    def forward(self, x: Tensor) -> Tensor:
        return self.channel_mixer(self.token_mixer(x))


class RepViT(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(ConvBN(3, WIDTHS[0] // 2, 3, 2), nn.GELU(), ConvBN(WIDTHS[0] // 2, WIDTHS[0], 3, 2))
        self.stages, inputs = nn.ModuleList(), WIDTHS[0]
        for stage, (width, depth) in enumerate(zip(WIDTHS, DEPTHS, strict=True)):
            blocks = []
            for index in range(depth):
                stride = 2 if stage and index == 0 else 1
                place = index - (stage > 0)  # squeeze and excitation in every other block of stride 1
                squeeze = place >= 0 and place % 2 == 0 and index < max(depth - 1, 2)
                blocks.append(Block(inputs, width, stride, squeeze))
                inputs = width
            self.stages.append(nn.Sequential(*blocks))

    def forward(self, x: Tensor) -> list[Tensor]:
        x, found = self.stem(x), []
        for stage in self.stages:
            x = stage(x)
            found.append(x)
        return found


def build() -> nn.Module:
    return EncoderDecoder(RepViT(), SemanticFPN(WIDTHS, 150))

"""TransUNet (Chen et al., "TransUNet: Transformers Make Strong Encoders for Medical Image Segmentation", 2021).

ResNet-50 (without its last stage, with group normalisation and standardised weights), a transformer on its map at
stride 16, and a cascaded upsampler with skip connections: 9 classes at 224x224, as in the paper. A small variant, with
the transformer of ViT-S (384 channels, 12 layers) where the paper has ViT-B: 39 million parameters.
"""

from __future__ import annotations

import torch
from architectures._convolutions import ConvBNReLU
from torch import Tensor, nn
from torch.nn import functional as F

SIZE = (224, 224)


class StdConv2d(nn.Conv2d):
    """A convolution whose weights are standardised whenever it runs."""

    def forward(self, x: Tensor) -> Tensor:
        w = self.weight
        v, m = torch.var_mean(w, dim=[1, 2, 3], keepdim=True, unbiased=False)
        w = (w - m) / torch.sqrt(v + 1e-5)
        return F.conv2d(x, w, self.bias, self.stride, self.padding, self.dilation, self.groups)


class Bottleneck(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        middle = outputs // 4
        self.conv1, self.gn1 = StdConv2d(inputs, middle, 1, bias=False), nn.GroupNorm(32, middle, eps=1e-6)
        self.conv2 = StdConv2d(middle, middle, 3, stride, 1, bias=False)
        self.gn2 = nn.GroupNorm(32, middle, eps=1e-6)
        self.conv3, self.gn3 = StdConv2d(middle, outputs, 1, bias=False), nn.GroupNorm(32, outputs, eps=1e-6)
        self.relu = nn.ReLU(inplace=True)
        self.projects = stride != 1 or inputs != outputs
        if self.projects:
            self.downsample = StdConv2d(inputs, outputs, 1, stride, bias=False)
            self.gn_proj = nn.GroupNorm(outputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        residual = self.gn_proj(self.downsample(x)) if self.projects else x
        y = self.relu(self.gn1(self.conv1(x)))
        y = self.relu(self.gn2(self.conv2(y)))
        return self.relu(residual + self.gn3(self.conv3(y)))


class ResNetV2(nn.Module):
    """The maps at strides 16, 8, 4 and 2."""

    def __init__(self, width: int = 64, depths: tuple[int, ...] = (3, 4, 9)) -> None:
        super().__init__()
        self.root = nn.Sequential(
            StdConv2d(3, width, 7, 2, 3, bias=False), nn.GroupNorm(32, width, eps=1e-6), nn.ReLU(inplace=True)
        )
        self.body, inputs = nn.ModuleList(), width
        for index, depth in enumerate(depths):
            outputs = width * 4 * 2**index
            rest = [Bottleneck(outputs, outputs) for _ in range(depth - 1)]
            self.body.append(nn.Sequential(Bottleneck(inputs, outputs, 2 if index else 1), *rest))
            inputs = outputs

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        in_size = x.size(2)
        x = self.root(x)
        features = [x]
        x = nn.MaxPool2d(kernel_size=3, stride=2, padding=0)(x)
        for index, stage in enumerate(self.body[:-1]):
            x = stage(x)
            right_size = in_size // 4 // (index + 1)
            if x.size(2) == right_size:
                features.append(x)
            else:  # the pooling leaves out the last row and column: zeros fill the map
                pad = right_size - x.size(2)
                filled = torch.zeros((x.shape[0], x.shape[1], right_size, right_size), device=x.device)
                filled[:, :, 0 : right_size - pad, 0 : right_size - pad] = x[:]
                features.append(filled)
        return self.body[-1](x), features[::-1]


class Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.size = heads, width // heads
        self.query, self.key, self.value = nn.Linear(width, width), nn.Linear(width, width), nn.Linear(width, width)
        self.out, self.softmax = nn.Linear(width, width), nn.Softmax(dim=-1)

    def _split(self, x: Tensor) -> Tensor:
        return x.view(*x.size()[:-1], self.heads, self.size).permute(0, 2, 1, 3)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self._split(self.query(x)), self._split(self.key(x)), self._split(self.value(x))
        scores = torch.matmul(query, key.transpose(-1, -2)) / self.size**0.5
        context = torch.matmul(self.softmax(scores), value).permute(0, 2, 1, 3).contiguous()
        return self.out(context.view(*context.size()[:-2], self.heads * self.size))


class Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention_norm, self.attn = nn.LayerNorm(width, eps=1e-6), Attention(width, heads)
        self.ffn_norm = nn.LayerNorm(width, eps=1e-6)
        self.ffn = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width), nn.Dropout(0.1))

    def forward(self, x: Tensor) -> Tensor:
        h = x
        x = self.attn(self.attention_norm(x)) + h
        h = x
        return self.ffn(self.ffn_norm(x)) + h


class Transformer(nn.Module):
    def __init__(self, inputs: int = 1024, width: int = 384, depth: int = 12, heads: int = 6) -> None:
        super().__init__()
        self.patch_embeddings = nn.Conv2d(inputs, width, 1)
        self.position_embeddings = nn.Parameter(torch.zeros(1, SIZE[0] // 16 * (SIZE[1] // 16), width))
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.encoder_norm = nn.LayerNorm(width, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch_embeddings(x).flatten(2).transpose(-1, -2) + self.position_embeddings
        for block in self.blocks:
            x = block(x)
        return self.encoder_norm(x)


class DecoderBlock(nn.Module):
    def __init__(self, inputs: int, skip: int, outputs: int) -> None:
        super().__init__()
        self.up = nn.UpsamplingBilinear2d(scale_factor=2)
        self.conv1, self.conv2 = ConvBNReLU(inputs + skip, outputs), ConvBNReLU(outputs, outputs)

    def forward(self, x: Tensor, skip: Tensor | None) -> Tensor:
        x = self.up(x)
        if skip is not None:
            x = torch.cat([x, skip], dim=1)
        return self.conv2(self.conv1(x))


class TransUNet(nn.Module):
    def __init__(self, classes: int = 9, width: int = 384) -> None:
        super().__init__()
        self.hybrid, self.transformer = ResNetV2(), Transformer(width=width)
        self.conv_more = ConvBNReLU(width, 512)
        shapes = [(512, 512, 256), (256, 256, 128), (128, 64, 64), (64, 0, 16)]
        self.decoder = nn.ModuleList(DecoderBlock(*shape) for shape in shapes)
        self.segmentation_head = nn.Conv2d(16, classes, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x, features = self.hybrid(x)
        batch, _, height, width = x.shape
        hidden = self.transformer(x)
        x = self.conv_more(hidden.permute(0, 2, 1).contiguous().view(batch, hidden.shape[-1], height, width))
        for index, block in enumerate(self.decoder):
            x = block(x, features[index] if index < 3 else None)
        return self.segmentation_head(x)


def build() -> nn.Module:
    return TransUNet()

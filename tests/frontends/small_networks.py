"""What segmentation networks of today consist of, one small network for each construction."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SIZE = (32, 32)
WIDTH, HEADS = 16, 2


def tokens_of(x: Tensor) -> Tensor:
    return x.flatten(2).transpose(1, 2)


def map_of(tokens: Tensor, like: Tensor) -> Tensor:
    return tokens.transpose(1, 2).reshape(like.shape[0], -1, like.shape[2], like.shape[3])


class SelfAttention(nn.Module):
    """Queries, keys and values from one linear layer (ViT, timm)."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        n, length, channels = x.shape
        q, k, v = self.qkv(x).reshape(n, length, 3, HEADS, channels // HEADS).permute(2, 0, 3, 1, 4).unbind(0)
        scores = (q @ k.transpose(-2, -1)) * (channels // HEADS) ** -0.5
        return self.out((scores.softmax(-1) @ v).transpose(1, 2).reshape(n, length, channels))


class SeparateAttention(nn.Module):
    """Queries, keys and values from three linear layers, keys and values of a smaller map (SegFormer, PVT)."""

    def __init__(self, ratio: int = 1) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.out = nn.Linear(WIDTH, WIDTH)
        self.reduction = nn.Conv2d(WIDTH, WIDTH, ratio, ratio) if ratio > 1 else None
        self.norm = nn.LayerNorm(WIDTH)

    def _heads(self, x: Tensor) -> Tensor:
        return x.view(1, -1, HEADS, WIDTH // HEADS).transpose(1, 2)

    def forward(self, x: Tensor, like: Tensor) -> Tensor:
        source = x if self.reduction is None else self.norm(tokens_of(self.reduction(map_of(x, like))))
        q, k, v = self._heads(self.query(x)), self._heads(self.key(source)), self._heads(self.value(source))
        scores = torch.matmul(q, k.transpose(-1, -2)) / math.sqrt(WIDTH // HEADS)
        mixed = torch.matmul(F.softmax(scores, dim=-1), v)
        return self.out(mixed.permute(0, 2, 1, 3).contiguous().view(1, -1, WIDTH))


class Network(nn.Module):
    """A stem that halves the picture twice, something in the middle, and scores of five classes."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, WIDTH, 4, 4), nn.Conv2d(WIDTH, 5, 1)

    def middle(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.middle(self.stem(x)))


class TransformerBlock(Network):
    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.attention = SelfAttention()
        self.wide, self.narrow = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(2 * WIDTH, WIDTH)

    def middle(self, x: Tensor) -> Tensor:
        tokens = tokens_of(x)
        tokens = tokens + self.attention(self.norm1(tokens))
        tokens = tokens + self.narrow(F.gelu(self.wide(self.norm2(tokens))))
        return map_of(tokens, x)


class ThreeLinearLayers(Network):
    def __init__(self) -> None:
        super().__init__()
        self.attention = SeparateAttention()

    def middle(self, x: Tensor) -> Tensor:
        return x + map_of(self.attention(tokens_of(x), x), x)


class ScaledDotProduct(Network):
    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)

    def middle(self, x: Tensor) -> Tensor:
        tokens = tokens_of(x)
        q, k, v = (
            part.reshape(1, -1, HEADS, WIDTH // HEADS).transpose(1, 2) for part in self.qkv(tokens).chunk(3, dim=-1)
        )
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(1, -1, WIDTH)
        return map_of(tokens + self.out(mixed), x)


class SegFormerStage(Network):
    """Attention with reduced keys, and a depthwise convolution between the layers of the feed-forward part."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.attention = SeparateAttention(ratio=2)
        self.wide, self.narrow = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(2 * WIDTH, WIDTH)
        self.depthwise = nn.Conv2d(2 * WIDTH, 2 * WIDTH, 3, padding=1, groups=2 * WIDTH)

    def middle(self, x: Tensor) -> Tensor:
        tokens = tokens_of(x)
        tokens = tokens + self.attention(self.norm1(tokens), x)
        wide = tokens_of(self.depthwise(map_of(self.wide(self.norm2(tokens)), x)))
        return map_of(tokens + self.narrow(F.gelu(wide)), x)


class Gelus(Network):
    def middle(self, x: Tensor) -> Tensor:
        return F.gelu(x) + F.gelu(x, approximate="tanh")


class GroupNorm(Network):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(4, WIDTH, 1e-6)

    def middle(self, x: Tensor) -> Tensor:
        return self.norm(x).relu()


class InstanceNorm(Network):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.plain = nn.InstanceNorm2d(WIDTH, affine=True), nn.InstanceNorm2d(WIDTH)

    def middle(self, x: Tensor) -> Tensor:
        return self.plain(self.norm(x).relu())


class RmsNorm(Network):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.linear = nn.RMSNorm(WIDTH, 1e-6), nn.Linear(WIDTH, WIDTH)

    def middle(self, x: Tensor) -> Tensor:
        return map_of(self.linear(self.norm(tokens_of(x))), x)


class ConvNextBlock(Network):
    """Layer norm and linear layers on (N, H, W, C), with a learnt scale of each channel."""

    def __init__(self) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(WIDTH, WIDTH, 7, padding=3, groups=WIDTH)
        self.norm, self.scale = nn.LayerNorm(WIDTH, 1e-6), nn.Parameter(torch.rand(WIDTH))
        self.wide, self.narrow = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def middle(self, x: Tensor) -> Tensor:
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        y = self.scale * self.narrow(F.gelu(self.wide(y)))
        return x + y.permute(0, 3, 1, 2)


class ChannelsFirstNorm(Network):
    """Layer norm over the channels of a map, written out as in ConvNeXt's and SAM's code."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.rand(WIDTH)), nn.Parameter(torch.rand(WIDTH))

    def middle(self, x: Tensor) -> Tensor:
        mean = x.mean(1, keepdim=True)
        variance = (x - mean).pow(2).mean(1, keepdim=True)
        x = (x - mean) / torch.sqrt(variance + 1e-6)
        return self.weight[:, None, None] * x + self.bias[:, None, None]


class WindowAttention(Network):
    """Swin's attention within windows, with a bias for each pair of relative positions."""

    def __init__(self, window: int = 4) -> None:
        super().__init__()
        self.window, self.norm = window, nn.LayerNorm(WIDTH)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.table = nn.Parameter(torch.randn((2 * window - 1) ** 2, HEADS))
        places = torch.stack(torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij")).flatten(1)
        apart = (places[:, :, None] - places[:, None, :]).permute(1, 2, 0) + window - 1
        self.register_buffer("index", apart[..., 0] * (2 * window - 1) + apart[..., 1])

    def middle(self, x: Tensor) -> Tensor:
        n, channels, height, width = x.shape
        side, area = self.window, self.window**2
        y = self.norm(x.permute(0, 2, 3, 1))
        y = y.view(n, height // side, side, width // side, side, channels).permute(0, 1, 3, 2, 4, 5)
        y = y.reshape(-1, area, channels)
        q, k, v = self.qkv(y).reshape(-1, area, 3, HEADS, channels // HEADS).permute(2, 0, 3, 1, 4).unbind(0)
        scores = (q * (channels // HEADS) ** -0.5) @ k.transpose(-2, -1)
        bias = self.table[self.index.view(-1)].view(area, area, HEADS).permute(2, 0, 1)
        scores = (scores + bias.unsqueeze(0)).softmax(-1)
        y = self.out((scores @ v).transpose(1, 2).reshape(-1, area, channels))
        y = y.view(n, height // side, width // side, side, side, channels).permute(0, 1, 3, 2, 4, 5)
        return x + y.reshape(n, height, width, channels).permute(0, 3, 1, 2)


class SqueezeAndExcite(Network):
    def __init__(self) -> None:
        super().__init__()
        self.less, self.more = nn.Conv2d(WIDTH, 4, 1), nn.Conv2d(4, WIDTH, 1)
        self.fc1, self.fc2 = nn.Linear(WIDTH, 4), nn.Linear(4, WIDTH)

    def middle(self, x: Tensor) -> Tensor:
        x = x * self.more(self.less(F.adaptive_avg_pool2d(x, 1)).relu()).sigmoid()
        gate = F.hardsigmoid(self.fc2(self.fc1(x.mean((2, 3))).relu()))
        return F.hardswish(x * gate[:, :, None, None])


class UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = (
            nn.Sequential(nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU())
            for before, after in ((3, 8), (8, 16))
        )
        self.up = nn.ConvTranspose2d(16, 8, 2, 2)
        self.up_wide = nn.ConvTranspose2d(8, 8, 3, 2, 1, 1)
        self.last, self.head = nn.Conv2d(16, 8, 3, padding=1), nn.Conv2d(8, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        fine = self.first(x)
        coarse = self.second(F.max_pool2d(fine, 2))
        y = self.last(torch.cat([self.up(coarse), fine], 1)).relu()
        y = self.up_wide(F.max_pool2d(y, 2)) + F.interpolate(F.avg_pool2d(y, 2), scale_factor=2, mode="bilinear")
        return F.interpolate(self.head(y), scale_factor=2, mode="bilinear", align_corners=False)


class PixelShuffle(Network):
    def __init__(self) -> None:
        super().__init__()
        self.wide = nn.Conv2d(WIDTH, 4 * WIDTH, 3, padding=1)

    def middle(self, x: Tensor) -> Tensor:
        return F.pixel_shuffle(self.wide(x).relu(), 2)


class LinearAttention(Network):
    """EfficientViT's attention: ReLU in place of softmax, and a column of ones that gathers the sums."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Conv2d(WIDTH, 3 * WIDTH, 1, bias=False), nn.Conv2d(WIDTH, WIDTH, 1)

    def middle(self, x: Tensor) -> Tensor:
        n, _, height, width = x.shape
        qkv = self.qkv(x).reshape(n, HEADS, 3 * WIDTH // HEADS, height * width).transpose(-1, -2)
        q, k, v = qkv.chunk(3, -1)
        q, k = q.relu(), k.relu()
        v = F.pad(v, (0, 1), mode="constant", value=1.0)
        mixed = q @ (k.transpose(-1, -2) @ v)
        mixed = mixed[..., :-1] / (mixed[..., -1:] + 1e-5)
        return x + self.out(mixed.transpose(-1, -2).reshape(n, WIDTH, height, width))


class PoolingPyramid(Network):
    def __init__(self) -> None:
        super().__init__()
        self.branches = nn.ModuleList(nn.Conv2d(WIDTH, 4, 1) for _ in range(3))
        self.after = nn.Conv2d(WIDTH + 12, WIDTH, 3, padding=1)

    def middle(self, x: Tensor) -> Tensor:
        parts = [x]
        for side, branch in zip((1, 2, 4), self.branches, strict=True):
            pooled = branch(F.adaptive_avg_pool2d(x, side)).relu()
            parts.append(F.interpolate(pooled, x.shape[2:], mode="bilinear", align_corners=False))
        return self.after(torch.cat(parts, 1)).relu()


class ClassToken(Network):
    """A learnt token before the tokens of the picture, and a table of positions (ViT, DINOv2)."""

    def __init__(self) -> None:
        super().__init__()
        self.token, self.positions = nn.Parameter(torch.randn(1, 1, WIDTH)), nn.Parameter(torch.randn(1, 65, WIDTH))
        self.norm, self.attention = nn.LayerNorm(WIDTH), SelfAttention()

    def middle(self, x: Tensor) -> Tensor:
        tokens = torch.cat([self.token.expand(x.shape[0], -1, -1), tokens_of(x)], 1) + self.positions
        tokens = tokens + self.attention(self.norm(tokens))
        return map_of(tokens[:, 1:], x)


class LearntPositions(Network):
    def __init__(self) -> None:
        super().__init__()
        self.positions, self.norm = nn.Parameter(torch.randn(1, 64, WIDTH)), nn.LayerNorm(WIDTH)
        self.attention = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)

    def middle(self, x: Tensor) -> Tensor:
        tokens = tokens_of(x) + self.positions
        y = self.norm(tokens)
        return map_of(tokens + self.attention(y, y, y, need_weights=False)[0], x)


NETWORKS: tuple[type[nn.Module], ...] = (
    TransformerBlock,
    ThreeLinearLayers,
    ScaledDotProduct,
    SegFormerStage,
    Gelus,
    GroupNorm,
    InstanceNorm,
    RmsNorm,
    ConvNextBlock,
    ChannelsFirstNorm,
    WindowAttention,
    SqueezeAndExcite,
    UNet,
    PixelShuffle,
    LinearAttention,
    PoolingPyramid,
    ClassToken,
    LearntPositions,
)


def built(network: type[nn.Module]) -> nn.Module:
    """With random weights and statistics, the same ones each time."""
    torch.manual_seed(0)
    result = network().eval()
    for layer in result.modules():
        for name, value in (*layer.named_parameters(recurse=False), *layer.named_buffers(recurse=False)):
            if value.ndim == 1 and value.is_floating_point():
                (nn.init.uniform_ if name == "running_var" else nn.init.normal_)(value)
    return result

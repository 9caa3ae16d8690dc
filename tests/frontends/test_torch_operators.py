"""Every spelling that PyTorch networks use computes what it computes in eager mode: small random modules, odd sizes."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import slimseg

Function = Callable[[Tensor], Tensor]


class Between(nn.Module):
    """Functions of what a convolution gives; the results of several stand one after another, as one row."""

    def __init__(self, *functions: Function) -> None:
        super().__init__()
        self.functions = functions
        self.layers = nn.ModuleList(function for function in functions if isinstance(function, nn.Module))
        self.before = nn.Conv2d(3, 8, 3, padding=1)

    def results(self, x: Tensor) -> list[Tensor]:
        return [function(self.before(x)) for function in self.functions]

    def forward(self, x: Tensor) -> Tensor:
        if len(self.functions) == 1:
            return self.results(x)[0]
        return torch.cat([result.float().reshape(1, 1, 1, -1) for result in self.results(x)], 3)


def scaled(scale: object, mode: str = "bilinear", **more: object) -> Function:
    return lambda x: F.interpolate(x, scale_factor=scale, mode=mode, **more)


def grid(reach: float) -> Tensor:
    return torch.linspace(-reach, reach, 126).reshape(1, 9, 7, 2)


def filled_in_place(x: Tensor) -> Tensor:
    """Swin's mask: a constant that is filled part by part."""
    mask = torch.zeros(1, 1, x.shape[2], x.shape[3])
    mask[:, :, :3] = 1.0
    mask[:, :, 3:, 2:] = -2.0
    return x + mask


def attention(x: Tensor) -> Tensor:
    tokens = x.flatten(2).transpose(1, 2)
    weights = torch.softmax(torch.einsum("bqc,bkc->bqk", tokens, tokens) / 8, -1)
    return (weights @ tokens).transpose(1, 2).reshape(x.shape)


RESIZES: dict[str, Function] = {
    f"{mode} x{scale}{' recomputed' if recompute else ''}": scaled(scale, mode, recompute_scale_factor=recompute)
    for mode in ("bilinear", "nearest", "nearest-exact", "bicubic", "area")
    for scale in (0.5, 1.7, 2, (0.4, 2.3), 1 / 3, 0.77)
    for recompute in (None, True)
    if mode != "area" or recompute is None
}
CASES: dict[str, Function] = {
    "align corners x1.7": scaled(1.7, align_corners=True),
    "align corners x0.5": scaled(0.5, align_corners=True),
    "antialias": lambda x: F.interpolate(x, (9, 7), mode="bilinear", antialias=True),
    "antialias x0.5": scaled(0.5, antialias=True),
    "bicubic corners": lambda x: F.interpolate(x, (31, 17), mode="bicubic", align_corners=True),
    "Upsample x1.3": nn.Upsample(scale_factor=1.3, mode="bilinear"),
    "Upsample size": nn.Upsample((40, 30), mode="nearest"),
    "UpsamplingBilinear2d": nn.UpsamplingBilinear2d(scale_factor=1.5),
    "adaptive average pool": nn.AdaptiveAvgPool2d((5, 7)),
    "adaptive average pool open": nn.AdaptiveAvgPool2d((None, 3)),
    "adaptive max pool": nn.AdaptiveMaxPool2d((5, 7)),
    "average pool ceil": nn.AvgPool2d(3, 2, 1, ceil_mode=True),
    "average pool ceil, only real": nn.AvgPool2d(3, 2, 1, ceil_mode=True, count_include_pad=False),
    "average pool only real": nn.AvgPool2d((3, 2), (2, 1), (1, 0), count_include_pad=False),
    "average pool divisor": nn.AvgPool2d(3, 2, 1, divisor_override=4),
    "max pool ceil": nn.MaxPool2d(3, 2, 1, ceil_mode=True),
    "max pool dilated": nn.MaxPool2d(3, 1, 1, dilation=2),
    "max pool and unpool": lambda x: F.max_unpool2d(*F.max_pool2d(x, 2, return_indices=True), 2),
    "lp pool": nn.LPPool2d(2, 3, 2),
    "pixel shuffle": nn.PixelShuffle(2),
    "pixel unshuffle": lambda x: F.pixel_unshuffle(x[:, :, :20, :16], 4),
    "channel shuffle": nn.ChannelShuffle(4),
    "reflect": nn.ReflectionPad2d((1, 2, 3, 4)),
    "replicate": nn.ReplicationPad2d((1, 2, 3, 4)),
    "circular": nn.CircularPad2d((1, 2, 3, 4)),
    "constant": nn.ConstantPad2d((1, 2, 3, 4), 0.7),
    "negative pad": lambda x: F.pad(x, (-1, 2, 0, -3)),
    "pad channels": lambda x: F.pad(x, (0, 0, 0, 0, 1, 2)),
    "conv circular": nn.Conv2d(8, 4, 3, padding=1, padding_mode="circular"),
    "conv reflect": nn.Conv2d(8, 4, 3, padding=1, padding_mode="reflect"),
    "conv same": nn.Conv2d(8, 4, 5, padding="same", dilation=2),
    "conv same even": nn.Conv2d(8, 4, (4, 2), padding="same"),
    "conv same even dilated": nn.Conv2d(8, 4, 4, padding="same", dilation=3),
    "conv even": nn.Conv2d(8, 4, 4, 3, 1),
    "conv groups": nn.Conv2d(8, 4, 3, groups=2, dilation=(1, 2)),
    "transposed": nn.ConvTranspose2d(8, 4, 3, 2, 1, output_padding=1),
    "transposed dilated": nn.ConvTranspose2d(8, 4, 3, 3, 2, output_padding=(2, 1), groups=2, dilation=2),
    "batch norm": nn.BatchNorm2d(8, eps=0.1),
    "batch norm of the batch": nn.BatchNorm2d(8, track_running_stats=False),
    "instance norm": nn.InstanceNorm2d(8, eps=0.1, affine=True),
    "group norm": nn.GroupNorm(4, 8, eps=0.1),
    "layer norm": lambda x: F.layer_norm(x, x.shape[1:], eps=0.1),
    "local response norm": nn.LocalResponseNorm(3),
    "normalise": lambda x: F.normalize(x, dim=1),
    "softmax -3": lambda x: torch.softmax(x, -3),
    "softmax -1": lambda x: torch.softmax(x, -1),
    "log softmax": lambda x: torch.log_softmax(x, 1),
    "hardsigmoid": nn.Hardsigmoid(),
    "hardswish by hand": lambda x: x * F.relu6(x + 3) / 6,
    "hardtanh": nn.Hardtanh(-0.3, 0.2),
    "clamp above": lambda x: x.clamp(max=0.1),
    "clamp below": lambda x: x.clamp(min=-0.1),
    "relu6": nn.ReLU6(),
    "softplus": nn.Softplus(2.0, 1.0),
    "mish": nn.Mish(),
    "celu": nn.CELU(0.3),
    "elu": nn.ELU(0.3),
    "selu": nn.SELU(),
    "glu": nn.GLU(1),
    "leaky": nn.LeakyReLU(0.3),
    "prelu": nn.PReLU(8, 0.3),
    "rrelu": nn.RReLU(),
    "threshold": nn.Threshold(0.1, -2.0),
    "hardshrink": nn.Hardshrink(0.1),
    "gelu tanh": nn.GELU("tanh"),
    "dropout": nn.Dropout(0.5),
    "dropout 2d": nn.Dropout2d(0.5),
    "alpha dropout": nn.AlphaDropout(0.5),
    "flip": lambda x: torch.flip(x, (3,)) + x,
    "roll": lambda x: torch.roll(x, (1, -2), (2, 3)) + x,
    "rot90": lambda x: torch.rot90(x, 1, (2, 3)),
    "slice to the end": lambda x: x[:, 2:, 3:-2, ::2],
    "slice beyond the end": lambda x: x[:, -100:100, 1:999],
    "negative start": lambda x: x[:, -3:, -5:-1],
    "index": lambda x: x[:, [0, 2, 1]],
    "select": lambda x: x[:, 1:2] + x[:, -1].unsqueeze(1),
    "chunk": lambda x: torch.cat(x.chunk(3, 1)[::-1], 1),
    "split": lambda x: torch.cat(x.split([1, 5, 2], 1)[::-1], 1),
    "unbind": lambda x: torch.stack(x.unbind(1)[::-1], 1),
    "narrow": lambda x: x.narrow(1, -3, 2),
    "linear on channels last": lambda x: F.linear(x.permute(0, 2, 3, 1), torch.ones(4, 8) / 8).permute(0, 3, 1, 2),
    "attention": attention,
    "scaled dot product": lambda x: F.scaled_dot_product_attention(x, x, x * 2),
    "layer scale": lambda x: x + 0.1 * torch.relu(x) * torch.arange(8.0).reshape(8, 1, 1),
    "subtract with alpha": lambda x: torch.sub(x, torch.relu(x), alpha=0.3),
    "add with alpha": lambda x: torch.add(x, torch.relu(x), alpha=2),
    "number minus map": lambda x: 1 - x,
    "number over map": lambda x: 2 / (x.abs() + 1),
    "integer division": lambda x: torch.div(x, 0.1, rounding_mode="floor"),
    "power": lambda x: x.abs() ** 1.5,
    "mean over channels": lambda x: x.mean(1, keepdim=True) + x.amax(1, keepdim=True),
    "mean over all": lambda x: x - x.mean((1, 2, 3), keepdim=True),
    "variance": lambda x: x / (x.var((2, 3), keepdim=True, correction=0) + 1),
    "grid sample": lambda x: F.grid_sample(
        x, torch.linspace(-1.1, 1.1, 126).reshape(1, 9, 7, 2), "bilinear", "border", True
    ),
    "grid sample reflected": lambda x: F.grid_sample(
        x, torch.linspace(-2, 2, 126).reshape(1, 9, 7, 2), "nearest", "reflection"
    ),
    "in place": lambda x: F.relu_(x.mul_(2)).add_(1),
    "filled in place": filled_in_place,
    "max of dim": lambda x: x.max(1, keepdim=True)[0] + x.min(1, keepdim=True)[0] + x.max(2, keepdim=True)[0],
    "unfold": lambda x: F.fold(F.unfold(x, 3, padding=1), x.shape[2:], 3, padding=1),
    "where": lambda x: torch.where(x > 0, x, x.exp() - 1),
    "masked": lambda x: x.masked_fill(x < 0, 0.5),
    "cumulated": lambda x: x.cumsum(2),
    "stack of maps": lambda x: torch.stack((x, x + 1), 2).flatten(1, 2),
    "repeat": lambda x: x.repeat(1, 2, 1, 1) + x.repeat_interleave(2, 1),
    "double inside": lambda x: (x.double() * 2).float(),
}
ALL = CASES | RESIZES
TOGETHER = 12  # networks are traced, so many functions in one


@pytest.mark.parametrize("first", range(0, len(ALL), TOGETHER))
def test_a_graph_computes_what_the_module_computes(tmp_path, first):
    torch.manual_seed(first)
    names = list(ALL)[first : first + TOGETHER]
    module, x = Between(*(ALL[name] for name in names)).eval(), torch.randn(1, 3, 21, 18)
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d) and layer.running_mean is not None:
            layer.running_mean.normal_()
            layer.running_var.uniform_(0.5, 2)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # torch's own, about scales and constants
        torch.export.save(torch.export.export(module, (x,)), tmp_path / "net.pt2")
        found = slimseg.load(tmp_path / "net.pt2")(x)
        results = module.results(x)
    parts = found.flatten().split([result.numel() for result in results])
    for name, part, wanted in zip(names, parts, results, strict=True):
        torch.testing.assert_close(
            part, wanted.flatten(), rtol=1e-4, atol=1e-4, msg=lambda said, name=name: f"{name}: {said}"
        )


@pytest.mark.parametrize(("scale", "size"), [(0.5, (65, 81)), (1.7, (64, 48)), (1.7, (51, 33)), (0.6, (57, 41))])
@pytest.mark.parametrize("mode", ["bilinear", "nearest", "nearest-exact"])
def test_resizes_by_a_scale_are_canonical(mode, scale, size):
    """None of them is left to torch, so every runtime can have them."""
    module = Between(scaled(scale, mode)).eval()
    graph = slimseg.load(module, size)
    assert graph.opaque() == []
    x = torch.randn(1, 3, *size)
    torch.testing.assert_close(graph(x), module(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.argmax(1),
        lambda x: x.argmax(1, keepdim=True),
        lambda x: torch.max(x, 1)[1],
        lambda x: torch.max(x, -3, keepdim=True)[1],
        lambda x: x.topk(1, 1)[1],
        lambda x: torch.softmax(x, 1).topk(1, 1).indices.squeeze(1),
        lambda x: x.permute(0, 2, 3, 1).argmax(-1),
        lambda x: x.argmax(1, keepdim=True).float(),
        lambda x: x.argmax(1).to(torch.uint8),
    ],
)
def test_a_mask_is_a_mask_however_it_is_written(function):
    module = Between(function).eval()
    graph = slimseg.load(module, (21, 18))
    assert graph.description.output_kind == "mask"
    assert graph.shape(graph.output) == (1, 21, 18)
    assert graph.opaque() == []
    x = torch.randn(1, 3, 21, 18)
    assert torch.equal(graph(x).long(), module(x).reshape(1, 21, 18).long())


def tokens(x: Tensor) -> Tensor:
    return x.flatten(2).transpose(1, 2)


class Heads(nn.Module):
    """Self-attention of two heads as vision transformers spell it: query, key and value from one linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(8, 24), nn.Linear(8, 8)
        self.register_buffer("mask", torch.rand(378, 378) > 0.2)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(tokens(x)).reshape(len(x), 378, 3, 2, 4).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=self.mask).transpose(1, 2)
        return self.out(y.reshape(len(x), 378, 8))


CANONICAL: dict[str, Function] = {
    "layer norm of channels": lambda x: F.layer_norm(x.permute(0, 2, 3, 1), (8,), torch.arange(8.0)),
    "layer norm of tokens": lambda x: F.layer_norm(tokens(x), (8,), torch.arange(8.0), torch.arange(8.0) - 3),
    "layer norm of maps": lambda x: F.layer_norm(x, x.shape[1:], eps=0.1),
    "instance norm": lambda x: F.instance_norm(x, weight=torch.arange(8.0), bias=torch.arange(8.0)),
    "group norm": nn.GroupNorm(4, 8, eps=0.1),
    "group norm of tokens": lambda x: F.group_norm(x.flatten(2), 2, torch.arange(8.0)),
    "RMS norm": nn.RMSNorm((18,)),
    "positions": lambda x: tokens(x) + torch.linspace(0, 1, 378 * 8).reshape(1, 378, 8),
    "row minus map": lambda x: torch.arange(18.0) - x,
    "map minus map, reversed": lambda x: torch.rsub(x, x * 2),
    "number over no map": lambda x: x / torch.arange(1.0, 9.0).reshape(1, 8, 1, 1),
    "expand as": lambda x: x * x.mean((2, 3), keepdim=True).expand_as(x),
    "select": lambda x: x[:, 2] + x.select(1, -1),
    "stack": lambda x: torch.stack((x[:, :4], x[:, 4:]), 2).flatten(1, 2),
    "unbind": lambda x: torch.stack(x.unbind(1)[::-1], 1),
    "bmm": lambda x: torch.bmm(tokens(x).transpose(1, 2), tokens(x)),
    "product with a constant": lambda x: tokens(x) @ torch.linspace(-1, 1, 24).reshape(8, 3),
    "einsum": lambda x: torch.einsum("bqc,bkc->bqk", tokens(x), tokens(x)),
    "einsum of maps": lambda x: torch.einsum("bcd,bdhw->bchw", torch.einsum("bchw,bdhw->bcd", x, x) / 99, x),
    "einsum that turns": lambda x: torch.einsum("bchw,bchv->bvwc", x, x),
    "heads": Heads(),
    "the only image of a batch": lambda x: (x[0] * 2).unsqueeze(0),
}


@pytest.mark.parametrize("name", CANONICAL)
def test_transformers_are_canonical(name):
    """Nothing of it is left to torch, and several images at once give what each gives alone."""
    module = Between(CANONICAL[name]).eval()
    graph = slimseg.load(module, (21, 18))
    assert graph.opaque() == []
    x = torch.randn(2, 3, 21, 18)
    for image in x.split(1):
        torch.testing.assert_close(graph(image), module(image), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(graph(x), torch.cat([module(image) for image in x.split(1)]), rtol=1e-4, atol=1e-4)


def test_what_is_drawn_at_every_call_is_not_followed_silently():
    graph = slimseg.load(Between(lambda x: F.dropout(x, 0.5, training=True)).eval(), (21, 18))
    x = torch.randn(1, 3, 21, 18)
    assert not torch.equal(graph(x), graph(x))


def test_a_part_of_a_constant_that_is_overwritten_by_values_is_followed():
    def function(x: Tensor) -> Tensor:
        canvas = torch.zeros_like(x[:, :, :4])
        kept = canvas[:, 1:2]
        kept.copy_(x[:, :1, :4])
        return canvas

    module = Between(function).eval()
    graph = slimseg.load(module, (21, 18))
    assert graph.opaque() == []
    x = torch.randn(1, 3, 21, 18)
    torch.testing.assert_close(graph(x), module(x))

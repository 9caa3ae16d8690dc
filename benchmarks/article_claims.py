"""The article's claims about layers, each with the networks that test it, on a range of shapes.

A case is a pair of small networks; the claim says how many times faster the second is. Weights are random: latency
does not depend on them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from slimseg.blocks.residual import Bottleneck
from slimseg.blocks.separable import SeparableConv2d
from slimseg.blocks.shuffle import ShuffleUnit
from slimseg.graph import ops
from slimseg.graph.edit import trace
from slimseg.graph.graph import Graph

Build = Callable[[], Graph]
FASTER = (1.05, math.inf)  # less than 5% is within what another process on the machine can do
SIMILAR = (0.8, 1.25)


@dataclass(frozen=True)
class Case:
    """Two networks; the claim holds here if the first takes `claimed` (low, high) times as long as the second.

    `per_mac`: time per multiply-accumulate is compared, for pairs of (slightly) different size.
    `quantised`: the first is float32 and the second its int8 form, whatever `after` is.
    """

    label: str
    before: Build
    after: Build
    claimed: tuple[float, float]
    per_mac: bool = False
    quantised: bool = False


@dataclass(frozen=True)
class Claim:
    """`sometimes`: the article says "in some cases", so one case is enough."""

    name: str
    section: str
    sentence: str
    claimed: str
    cases: tuple[Case, ...]
    sometimes: bool = False


def net(channels: int, size: int, *layers: nn.Module) -> Build:
    """A Graph of layers in a row on a (1, channels, size, size) input, built when it is asked for."""
    return lambda: trace(nn.Sequential(*layers), (1, channels, size, size))


def conv(inputs: int, outputs: int, kernel: int = 3, **settings: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, padding=settings.get("dilation", 1) * (kernel // 2), **settings)


def separable(inputs: int, outputs: int) -> nn.Module:
    return SeparableConv2d(inputs, outputs, (3, 3), padding=(1, 1))


def plain_pair(channels: int) -> nn.Module:
    """Two full 3x3 convolutions, what such a block stands for."""
    return nn.Sequential(conv(channels, channels), nn.ReLU(), conv(channels, channels), nn.ReLU())


def halved_input() -> Claim:
    def pair(label: str, c: int, size: int, layer: Callable[[int], nn.Module]) -> Case:
        after = net(c, size // 2, layer(size // 2))
        return Case(f"{label}, {size}² × {c}", net(c, size, layer(size)), after, (1 / 0.3, 1 / 0.2))

    shapes = ((16, 256), (32, 128), (64, 64), (128, 32), (256, 16))
    cases = [pair("3x3", c, size, lambda _, c=c: conv(c, c)) for c, size in shapes]
    cases += [pair("separable", c, size, lambda _, c=c: separable(c, c)) for c, size in shapes[::2]]
    cases += [pair("resize 2x", 32, 64, lambda size: ops.Resize((2 * size, 2 * size)))]
    return Claim(
        "input_halved", "2", "Half the height and half the width take about a quarter of the time.",
        "20% to 30% of the time: 3.3x to 5x", tuple(cases),
    )  # fmt: skip


def sides_of_8() -> Claim:
    def pair(label: str, c: int, side: int, good: int, layer: Callable[[], nn.Module]) -> Case:
        return Case(f"{label} × {c}, {side} → {good}", net(c, side, layer()), net(c, good, layer()), FASTER, True)

    sides = ((15, 16), (17, 16), (31, 32), (33, 32), (60, 64), (63, 64), (65, 64), (225, 224))
    cases = [pair("3x3", 32, side, good, lambda: conv(32, 32)) for side, good in sides]
    cases += [pair("1x1", 64, side, good, lambda: conv(64, 64, 1)) for side, good in sides[:7:2]]
    cases += [pair("depthwise", 64, side, good, lambda: conv(64, 64, groups=64)) for side, good in sides[1:7:2]]
    return Claim(
        "sides_multiple_of_8", "2", "Convolutions run best where height and width are multiples of 8.",
        "less time per MAC", tuple(cases),
    )  # fmt: skip


def channels_of_8() -> Claim:
    pairs = ((7, 8), (9, 8), (12, 16), (15, 16), (17, 16), (20, 24), (31, 32), (33, 32), (60, 64), (63, 64), (65, 64))
    cases = tuple(
        Case(f"3x3, 64², {c} → {good} channels", net(c, 64, conv(c, c)), net(good, 64, conv(good, good)), FASTER, True)
        for c, good in pairs
    )
    return Claim(
        "channels_multiple_of_8", "2 (ours)", "The same of channels, of which the article says nothing.",
        "less time per MAC", cases,
    )  # fmt: skip


def separable_convolution() -> Claim:
    shapes = ((3, 128), (8, 128), (16, 128), (32, 64), (64, 64), (128, 32), (256, 16))
    cases = tuple(
        Case(f"{size}² × {c}", net(c, size, conv(c, c)), net(c, size, separable(c, c)), (c / 1.5, c * 1.5))
        for c, size in shapes
    )
    return Claim(
        "separable", "3.1", "A separable convolution is about as many times faster as there are channels.",
        "(channels / 1.5) to (channels × 1.5)", cases,
    )  # fmt: skip


def _transposed(c: int, kernel: int) -> nn.Module:
    if kernel == 3:
        return nn.ConvTranspose2d(c, c, 3, 2, padding=1, output_padding=1)
    return nn.ConvTranspose2d(c, c, kernel, 2, padding=kernel // 2 - 1)


UPSAMPLED = ((2, 64), (16, 64), (32, 64), (64, 32), (128, 16))  # channels, side before


def bilinear() -> Claim:
    cases = tuple(
        Case(f"{k}x{k} transposed, {size}² × {c}", net(c, size, _transposed(c, k)),
             net(c, size, ops.Resize((2 * size, 2 * size))), FASTER)
        for k in (2, 3, 4) for c, size in UPSAMPLED
    )  # fmt: skip
    return Claim("bilinear", "3.2", "Bilinear upsampling is faster than a transposed convolution.", "faster", cases)


def bilinear_and_convolution() -> Claim:
    cases = tuple(
        Case(f"{k}x{k} transposed, {size}² × {c}", net(c, size, _transposed(c, k)),
             net(c, size, conv(c, c), ops.Resize((2 * size, 2 * size))), FASTER)
        for k in (2, 4) for c, size in UPSAMPLED
    )  # fmt: skip
    return Claim(
        "bilinear_and_convolution", "3.2 (ours)",
        "So it is where a 3x3 convolution before the resize keeps the mixing of channels.", "faster", cases,
    )  # fmt: skip


def nearest() -> Claim:
    def resized(c: int, size: int, mode: ops.ResizeMode) -> Build:
        return net(c, size, ops.Resize((2 * size, 2 * size), mode))

    cases = tuple(
        Case(f"{size}² × {c}", resized(c, size, "bilinear"), resized(c, size, "nearest"), SIMILAR)
        for c, size in UPSAMPLED
    )
    return Claim(
        "nearest_time", "3.2", "Nearest upsampling is much as bilinear is: here its time.", "0.8x to 1.25x", cases
    )


def blocks() -> Claim:
    shapes = ((32, 64), (64, 64), (128, 32), (256, 16))
    cases = [
        Case(f"bottleneck, {size}² × {c}", net(c, size, plain_pair(c)), net(c, size, Bottleneck(c, c)), FASTER)
        for c, size in shapes
    ]
    cases += [
        Case(f"shuffle unit, {size}² × {c}", net(c, size, plain_pair(c)), net(c, size, ShuffleUnit(c)), FASTER)
        for c, size in shapes
    ]
    return Claim(
        "blocks", "3.3", "ResNet and ShuffleNetV2 blocks are efficient: faster than two full 3x3 convolutions.",
        "faster", tuple(cases),
    )  # fmt: skip


def memory() -> Claim:
    """Pairs of (about) equal MACs, the second moving less memory: ShuffleNetV2's guidelines 1, 2 and 4."""
    cases = [
        Case(f"1x1 {a} → {b} against {m} → {m}, {size}²", net(a, size, conv(a, b, 1)), net(m, size, conv(m, m, 1)),
             FASTER, True)
        for a, b, m, size in ((16, 64, 32, 64), (8, 128, 32, 64), (32, 512, 128, 32), (512, 32, 128, 32))
    ]  # fmt: skip
    cases += [
        Case(f"3x3, {g} groups × {wide} against 1 × {c}, {size}²", net(wide, size, conv(wide, wide, groups=g)),
             net(c, size, conv(c, c)), FASTER, True)
        for g, wide, c, size in ((4, 64, 32, 64), (4, 128, 64, 32))
    ]  # fmt: skip
    cases += [
        Case(f"depthwise × {c} against 3x3 × {k}, {size}²", net(c, size, conv(c, c, groups=c)),
             net(k, size, conv(k, k)), FASTER, True)
        for c, k, size in ((64, 8, 128), (256, 16, 64))
    ]  # fmt: skip
    return Claim(
        "memory_access", "3.4.1", "MACs are not all: of two layers of equal MACs the one that moves less is faster.",
        "less time per MAC", tuple(cases),
    )  # fmt: skip


def fewer_channels() -> Claim:
    shapes = ((16, 128), (32, 128), (64, 64), (128, 32), (256, 16))
    cases = [
        Case(f"3x3, {size}², {c} → {c // 2}", net(c, size, conv(c, c)), net(c // 2, size, conv(c // 2, c // 2)), FASTER)
        for c, size in shapes
    ]
    cases += [
        Case(f"separable, {size}², {c} → {c // 2}", net(c, size, separable(c, c)),
             net(c // 2, size, separable(c // 2, c // 2)), FASTER)
        for c, size in shapes
    ]  # fmt: skip
    return Claim("channels_halved", "3.4.2", "Fewer channels are faster: here half of them.", "faster", tuple(cases))


def linear_activations() -> Claim:
    curved: tuple[tuple[str, Callable[[], nn.Module]], ...] = (
        ("swish", nn.SiLU), ("hard-swish", nn.Hardswish), ("sigmoid", nn.Sigmoid), ("tanh", nn.Tanh),
        ("GELU", nn.GELU), ("ELU", nn.ELU),
    )  # fmt: skip
    cases = tuple(
        Case(f"{name}, {label}", net(c, size, layer(), act()), net(c, size, layer(), nn.ReLU()), FASTER)
        for label, c, size, layer in (
            ("3x3, 64² × 32", 32, 64, lambda: conv(32, 32)),
            ("1x1, 128² × 16", 16, 128, lambda: conv(16, 16, 1)),
        )
        for name, act in curved
    )
    return Claim(
        "linear_activations", "3.4.3", "Activations of linear pieces (ReLU) are faster than curved ones.",
        "faster", cases,
    )  # fmt: skip


def dilation() -> Claim:
    cases = tuple(
        Case(f"rate {rate}, {label}", net(c, size, layer(rate)), net(c, size, layer(1)), FASTER)
        for label, c, size, layer in (
            ("3x3, 64² × 32", 32, 64, lambda rate: conv(32, 32, dilation=rate)),
            ("3x3, 32² × 128", 128, 32, lambda rate: conv(128, 128, dilation=rate)),
            ("depthwise, 64² × 64", 64, 64, lambda rate: conv(64, 64, groups=64, dilation=rate)),
            ("depthwise, 32² × 256", 256, 32, lambda rate: conv(256, 256, groups=256, dilation=rate)),
        )
        for rate in (2, 4, 12)
    )
    return Claim("dilation", "3.4.4", "A dilated convolution is slower than an undilated one.", "slower", cases)


def softmax() -> Claim:
    def head(classes: int, size: int, *last: nn.Module) -> Build:
        return net(32, size // 4, conv(32, classes, 1), ops.Resize((size, size)), *last)

    cases = tuple(
        Case(f"{classes} classes, {size}²", head(classes, size, nn.Softmax(1)), head(classes, size), FASTER)
        for classes in (2, 12, 21, 150)
        for size in ((256,) if classes == 150 else (128, 256, 512))
    )
    return Claim(
        "softmax", "3.4.5", "Softmax is a pitfall: a head (classifier, resize) without it is faster.", "faster", cases
    )


def quantisation() -> Claim:
    layers: tuple[tuple[str, int, int, nn.Module], ...] = (
        ("3x3", 32, 64, conv(32, 32)), ("3x3", 128, 32, conv(128, 128)), ("1x1", 64, 64, conv(64, 64, 1)),
        ("depthwise", 64, 64, conv(64, 64, groups=64)), ("4x4 transposed", 32, 32, _transposed(32, 4)),
        ("bilinear 2x", 32, 64, ops.Resize((128, 128))), ("nearest 2x", 32, 64, ops.Resize((128, 128), "nearest")),
        ("softmax", 12, 128, nn.Softmax(1)), ("swish", 32, 64, nn.SiLU()), ("hard-swish", 32, 64, nn.Hardswish()),
        ("PReLU", 32, 64, nn.PReLU(32)), ("dilated 3x3", 32, 64, conv(32, 32, dilation=2)),
        ("global average", 256, 16, nn.AdaptiveAvgPool2d(1)),
    )  # fmt: skip
    cases = []
    for label, c, size, layer in layers:
        same = net(c, size, layer)
        cases.append(Case(f"{label}, {size}² × {c}", same, same, (0.0, 1 / 1.05), quantised=True))
    return Claim(
        "quantised", "4.1", "Post-training quantisation can make a network slower in some cases: here static int8.",
        "slower in some cases", tuple(cases), sometimes=True,
    )  # fmt: skip


def layer_claims() -> tuple[Claim, ...]:
    torch.manual_seed(0)
    makers = (
        halved_input, sides_of_8, channels_of_8, separable_convolution, bilinear, bilinear_and_convolution, nearest,
        blocks, memory, fewer_channels, linear_activations, dilation, softmax, quantisation,
    )  # fmt: skip
    return tuple(make() for make in makers)

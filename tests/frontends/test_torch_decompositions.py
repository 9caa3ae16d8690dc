"""Operators without a handler are written as others: nothing is left to torch, and a `.tflite` is written directly."""

from __future__ import annotations

import sys
import warnings
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

import pytest
import torch
from decomposed import SIZE, After, Function, check
from torch import Tensor, nn
from torch.nn import functional as F

import slimseg
from slimseg.frontends.aten import decompositions


class ClassToken(nn.Module):
    """Tokens behind one that is learnt, as in ViT, and one in front of them that is not."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.randn(1, 1, 8))
        self.register_buffer("last", torch.randn(1, 2, 8))

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2)
        return torch.cat((self.token.expand(len(x), -1, -1), tokens, self.last.expand(len(x), -1, -1)), 1)


class Strides(nn.Module):
    """A buffer whose values become numbers while the network runs, as those of YOLO's anchors."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("strides", torch.tensor([8.0, 16.0]))

    def forward(self, x: Tensor) -> Tensor:
        columns = [torch.full((6, 10), stride, dtype=x.dtype) for stride in self.strides]
        return x * torch.cat(columns) + self.strides[0].item()


class Queries(nn.Module):
    """Cross-attention of learnt queries, as mask transformers have it."""

    def __init__(self) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(1, 2, 5, 4))

    def forward(self, x: Tensor) -> Tensor:
        keys = x.flatten(2).reshape(len(x), 2, 4, -1).transpose(2, 3)
        return F.scaled_dot_product_attention(self.queries.expand(len(x), -1, -1, -1), keys, keys)


class Windows(nn.Module):
    """Swin's shifted windows with a table of relative positions."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(9, 2))
        places = torch.stack(torch.meshgrid(torch.arange(2), torch.arange(2), indexing="ij")).flatten(1)
        apart = (places[:, :, None] - places[:, None]).permute(1, 2, 0) + 1
        self.register_buffer("places", apart[..., 0] * 3 + apart[..., 1])

    def forward(self, x: Tensor) -> Tensor:
        x = F.pad(x.permute(0, 2, 3, 1), (0, 0, 0, 0, 0, 2)).roll((-1, -1), (1, 2))
        batch, height, width, channels = x.shape
        windows = x.view(batch, height // 2, 2, width // 2, 2, channels).permute(0, 1, 3, 2, 4, 5)
        q = windows.reshape(-1, 4, 2, channels // 2).transpose(1, 2)
        bias = self.table[self.places.view(-1)].view(4, 4, 2).permute(2, 0, 1)
        y = torch.softmax(q @ q.mT / 2 + bias.unsqueeze(0), -1) @ q
        y = y.transpose(1, 2).reshape(batch, height // 2, width // 2, 2, 2, channels)
        y = y.permute(0, 1, 3, 2, 4, 5).reshape(batch, height, width, channels)
        return y.roll((1, 1), (1, 2))[:, :12].permute(0, 3, 1, 2)


def filled_by_a_mask(x: Tensor) -> Tensor:
    x = x.clone()
    x[x > 0.3] = 0.1
    return x


def filled_at_positions(x: Tensor) -> Tensor:
    """As in Mask2Former, whose queries that may look at nothing look at everything."""
    mask = (x > 0).flatten(2)
    mask[torch.where(mask.sum(-1) >= 60)] = False
    return x.masked_fill(mask.reshape(x.shape), 0.5)


def filled(x: Tensor) -> Tensor:
    """Values in a larger map of zeros, as TransUNet pads its features."""
    canvas = torch.zeros(len(x), 8, 14, 12)
    canvas[:, :, 0:12, 0:10] = x[:]
    return canvas


def heads_before_the_batch(x: Tensor) -> Tensor:
    """Query and key as SAM takes them apart: the dimension that is unbound lies before the batch."""
    apart = x.flatten(2).mT.reshape(len(x), -1, 2, 2, 2).permute(2, 0, 3, 1, 4).reshape(2, 2 * len(x), -1, 2)
    query, key = apart.unbind(0)
    return (query @ key.mT).reshape(len(x), 2, -1)


def unpooled(x: Tensor) -> Tensor:
    """Of a map with many equal values, as after a ReLU, the first of which is the maximum."""
    x = F.relu((x * 3).floor())
    pooled, places = F.max_pool2d(x, 2, return_indices=True)
    return F.max_unpool2d(pooled + 1, places, 2, output_size=x.shape[2:])


def sampled(outside: str, corners: bool) -> Function:
    """At positions that the network computes, some of them outside the map."""

    def function(x: Tensor) -> Tensor:
        positions = (x[:, :2, 2:] * 3).permute(0, 2, 3, 1)
        return F.grid_sample(x, positions, padding_mode=outside, align_corners=corners)

    return function


def deformable_attention(x: Tensor) -> Tensor:
    """Two heads before the batch, each with 3 positions for every query, as Deformable DETR has it."""
    value = x.reshape(2 * len(x), 4, *x.shape[2:])
    positions = x[:, :6, 3:7, :4].reshape(len(x), 8, 2, 3, 2).transpose(1, 2).flatten(0, 1)
    weights = torch.softmax(x[:, 6:, 3:7, :6].reshape(2 * len(x), 1, 8, 3), -1)
    read = F.grid_sample(value, positions, align_corners=False)
    return (read * weights).sum(-1).reshape(len(x), 8, 8)


def attention_under_masks(x: Tensor) -> Tensor:
    """A mask that the network computes, as Mask2Former has it, then a causal one."""
    tokens = x.reshape(len(x), 2, 4, -1).mT
    counts = (x.flatten(2).mean(1) > -0.2)[:, None, None]
    once = F.scaled_dot_product_attention(tokens, tokens, tokens, counts)
    return F.scaled_dot_product_attention(once, tokens[:, :1], tokens[:, :1], is_causal=True, enable_gqa=True)


def in_place(x: Tensor) -> Tensor:
    first, second = x.chunk(2, 1)
    first.add_(second)
    return x.relu_() + 1


def with_autocast(x: Tensor) -> Tensor:
    with torch.autocast("cpu", enabled=False), torch.no_grad():
        return x.float() * 2


def batched(x: Tensor) -> Tensor:
    return x.flatten(2)


CASES: dict[str, Function] = {
    "class token": ClassToken(),
    "queries": Queries(),
    "strides": Strides(),
    "windows": Windows(),
    "channels of ones": lambda x: torch.cat((torch.ones(len(x), 2, *x.shape[2:]), x), 1),
    "channels of zeros": lambda x: torch.cat((x, torch.zeros(len(x), 2, *x.shape[2:])), 1),
    "coordinates": lambda x: torch.cat(
        (x, torch.linspace(0, 1, 120).reshape(1, 1, 12, 10).expand(len(x), -1, -1, -1)), 1
    ),
    "roll": lambda x: torch.roll(x, (1, -2), (2, 3)),
    "flip": lambda x: torch.flip(x, (2, 3)),
    "reflect": nn.ReflectionPad2d((1, 2, 3, 4)),
    "replicate": nn.ReplicationPad2d((1, 2, 3, 4)),
    "circular": nn.CircularPad2d((1, 2, 3, 4)),
    "convolution, reflected": nn.Conv2d(8, 4, 3, padding=1, padding_mode="reflect"),
    "pad of tokens": lambda x: F.pad(x.flatten(2).mT, (0, 1, 2, 0), value=0.5),
    "pad that crops": lambda x: F.pad(x.flatten(2), (-3, 0)),
    "index": lambda x: x[:, [0, 2, 1, 7]],
    "index select": lambda x: x.index_select(2, torch.tensor([0, 3, 6, 11])),
    "repeat": lambda x: x.repeat(1, 2, 1, 2),
    "repeat interleave": lambda x: x.repeat_interleave(2, 1),
    "tile": lambda x: torch.tile(x, (1, 1, 2)),
    "expand": lambda x: batched(x).mean(2, keepdim=True).expand(-1, -1, 5),
    "pixel shuffle": nn.PixelShuffle(2),
    "pixel unshuffle": nn.PixelUnshuffle(2),
    "channel shuffle": nn.ChannelShuffle(4),
    "unfold": lambda x: F.unfold(x, 3, padding=1, dilation=2),
    "unfold with gaps": lambda x: F.unfold(x, 3, stride=2),
    "unfold to few windows": lambda x: F.unfold(x, 8, stride=2),
    "unfold to windows and back": lambda x: F.fold(F.unfold(x, 2, stride=2) * 2, x.shape[2:], 2, stride=2),
    "unfold with a rest, and back": lambda x: F.fold(F.unfold(x, 4, stride=4), x.shape[2:], 4, stride=4),
    "fold": lambda x: F.fold(F.unfold(x, 3, padding=1), x.shape[2:], 3, padding=1),
    "max pool and unpool": unpooled,
    "adaptive max pool": nn.AdaptiveMaxPool2d((3, 4)),
    "max pool with positions": lambda x: F.max_pool2d(x, 2, return_indices=True)[0],
    "max pool dilated": nn.MaxPool2d(3, 2, 1, dilation=2),
    "average pool, not counted": nn.AvgPool2d(3, 2, 1, ceil_mode=True, count_include_pad=False),
    "average pool, counted": nn.AvgPool2d((3, 2), 2, 1, ceil_mode=True),
    "transposed convolution of groups": nn.ConvTranspose2d(8, 8, 4, 2, 1, groups=8),
    "transposed convolution, dilated": nn.ConvTranspose2d(8, 4, 3, 3, 2, (2, 1), groups=2, dilation=2),
    "average pool divisor": nn.AvgPool2d(3, 2, 1, divisor_override=4),
    "sampled, zeros outside": sampled("zeros", False),
    "sampled, border outside": sampled("border", True),
    "sampled by heads": deformable_attention,
    "attention under masks": attention_under_masks,
    "convolution of rows": lambda x: F.conv1d(batched(x), torch.linspace(-1, 1, 120).reshape(5, 8, 3), padding=1),
    "pool of rows": lambda x: F.avg_pool1d(batched(x), 3) + F.max_pool1d(batched(x), 3),
    "bicubic": lambda x: F.interpolate(x, (31, 17), mode="bicubic"),
    "bicubic corners": lambda x: F.interpolate(x, scale_factor=2, mode="bicubic", align_corners=True),
    "antialias": lambda x: F.interpolate(x, (7, 4), mode="bilinear", antialias=True),
    "bilinear x0.77": lambda x: F.interpolate(x, scale_factor=0.77, mode="bilinear"),
    "local response norm": nn.LocalResponseNorm(3),
    "batch norm of one image": nn.BatchNorm2d(8, track_running_stats=False),
    "batch norm of tokens": lambda x: F.batch_norm(batched(x), torch.arange(8.0), torch.arange(1.0, 9.0)),
    "normalise": lambda x: F.normalize(x, dim=1),
    "norm": lambda x: torch.linalg.vector_norm(x, 1, (2, 3), keepdim=True) + torch.norm(x, dim=1, keepdim=True),
    "variance": lambda x: x.var((2, 3), keepdim=True) + x.std(1, keepdim=True, correction=0),
    "log softmax": lambda x: torch.log_softmax(x, 1),
    "logarithm of a sum": lambda x: torch.logsumexp(x, (2, 3), keepdim=True),
    "cosine": lambda x: F.cosine_similarity(x, x.roll(1, 2), 1).unsqueeze(1),
    "softplus": nn.Softplus(2.0, 1.0),
    "mish": nn.Mish(),
    "finite": lambda x: torch.nan_to_num(x, 1.0) + 1,
    "elu": nn.ELU(0.3),
    "selu": nn.SELU(),
    "glu": nn.GLU(1),
    "log sigmoid": nn.LogSigmoid(),
    "shrinks": lambda x: F.softshrink(x, 0.1) + F.hardshrink(x, 0.1),
    "threshold": nn.Threshold(0.1, -2.0),
    "clamps": lambda x: x.clamp(max=0.1) * x.clamp(min=-0.1) + torch.maximum(x, torch.tensor(0.2)),
    "clamp to a map": lambda x: torch.minimum(x, torch.linspace(-1, 1, 120).reshape(1, 1, 12, 10)),
    "powers": lambda x: x**3 + x.abs() ** 1.5 + x.abs() ** 0.75 + (x.abs() + 1) ** -1 + x**2 + 2.0**x,
    "fractions": lambda x: 2 / (x.abs() + 1) + torch.reciprocal(x.exp()),
    "sine": lambda x: torch.sin(x) + torch.cos(x) + torch.div(x, 0.3, rounding_mode="floor"),
    "sums with factors": lambda x: (
        torch.sub(x, x * x, alpha=0.3) + torch.addcmul(x, x, x, value=0.1) + x.lerp(x * x, 0.3)
    ),
    "where": lambda x: torch.where(x > 0, x, x.exp() - 1) + torch.where(x.floor() == 0, 2.0, -1.0),
    "masked": lambda x: x.masked_fill(x <= 0.1, 0.5),
    "masked by a constant": lambda x: torch.softmax(x.masked_fill(torch.arange(10) > 6, -torch.inf), -1),
    "constant on the left": lambda x: torch.linspace(-1, 1, 36).reshape(3, 12) @ x,
    "broadcast product": lambda x: x @ torch.linspace(-1, 1, 20).reshape(1, 1, 10, 2),
    "sum and product": lambda x: torch.baddbmm(torch.ones(1, 8, 8), batched(x), batched(x).mT, alpha=0.1),
    "einsum without batch": lambda x: torch.einsum("bchw,ck->bkhw", x, torch.linspace(-1, 1, 24).reshape(8, 3)),
    "sum of a stack": lambda x: torch.stack((x, x + 1, x * 2)).sum(0) + torch.stack((x, x * x)).mean(0),
    "one of a stack of one": lambda x: torch.relu(torch.stack([x.flatten(2)]))[-1].reshape(x.shape),
    "expected value": lambda x: x * F.linear(torch.softmax(x.mT, -1), torch.linspace(0, 1, 12)).unsqueeze(2),
    "largest of a stack": lambda x: torch.stack((x, x * x)).amax(0),
    "axes": lambda x: x.movedim(1, 3).swapaxes(1, 2).mT.unflatten(3, (2, 6)).flatten(2, 3),
    "splits": lambda x: torch.cat(x.tensor_split(3, 1)[::-1] + x.split([1, 5, 2], 1), 1),
    "unbound before the batch": heads_before_the_batch,
    "dropout in place": nn.Sequential(nn.ReLU(), nn.Dropout2d(0.1, inplace=True)),
    "unbound": lambda x: sum(x.unbind(2)),
    "part replaced": lambda x: torch.slice_scatter(x, x[:, :2] * 2, 1, 3, 5),
    "in place": in_place,
    "filled": filled,
    "filled by a mask": filled_by_a_mask,
    "filled at the mask's positions": filled_at_positions,
    "autocast": with_autocast,
    "half inside": lambda x: (x.double() * 2).float(),
    "dropout": lambda x: F.alpha_dropout(x, 0.5, False),
}


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the package that could write what slimseg cannot."""
    monkeypatch.setitem(sys.modules, "litert_torch", None)


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("name", CASES)
def test_it_is_opened_and_written_directly(tmp_path: Path, name: str):
    check(CASES[name], tmp_path)


def test_what_has_no_decomposition_stays_and_runs():
    module = After(lambda x: torch.erfinv(x.clamp(-0.5, 0.5)).relu()).eval()
    graph = slimseg.load(module, SIZE)
    assert [str(node.target) for node in graph.opaque()] == ["aten.erfinv.default"]
    x = torch.randn(1, 3, *SIZE)
    torch.testing.assert_close(graph(x), module(x))


def test_constants_that_are_learnt_stay_parameters():
    graph = slimseg.load(After(ClassToken()).eval(), SIZE)
    learnt = {name for name, _ in graph.module.named_parameters()}
    assert {"function_token.value", "before.weight"} <= learnt
    assert "function_last.value" not in learnt


def test_a_file_with_core_operators_only_is_read(tmp_path: Path):
    """As torch.export writes it after run_decompositions()."""
    layers = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.GELU(), nn.GroupNorm(2, 8), nn.ConvTranspose2d(8, 4, 2, 2),
        nn.Hardswish(), nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(4), nn.Softmax(1), nn.Flatten(2), nn.LayerNorm(16),
        nn.Linear(16, 16), nn.Unflatten(2, (4, 4)),
    ).eval()  # fmt: skip
    x = torch.randn(1, 3, *SIZE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own
        torch.export.save(torch.export.export(layers, (x,)).run_decompositions(), tmp_path / "net.pt2")
    graph = slimseg.load(tmp_path / "net.pt2")
    assert graph.opaque() == []
    torch.testing.assert_close(graph(x), layers(x), rtol=1e-4, atol=1e-4)


class RelativePositions(nn.Module):
    """SAM's scores of positions: queries of windows, which lie in the batch, and a table for each row."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.table = nn.Conv2d(3, 8, 2, 2), nn.Parameter(torch.randn(4, 4, 8))

    def forward(self, x: Tensor) -> Tensor:
        y = self.patches(x)
        n, channels, height, width = y.shape
        windows = y.reshape(n, channels, height // 4, 4, width // 4, 4).permute(0, 2, 4, 3, 5, 1)
        scores = torch.einsum("bhwc,hkc->bhwk", windows.reshape(-1, 4, 4, channels), self.table)
        apart = scores.reshape(n, height // 4, width // 4, 4, 4, 4)
        return apart.permute(0, 5, 1, 3, 2, 4).reshape(n, 4, height, width)


def test_a_constant_for_each_window() -> None:
    torch.manual_seed(0)
    network = RelativePositions().eval()
    graph = slimseg.load(network, (16, 32))
    assert not graph.opaque()
    images = torch.randn(2, 3, 16, 32)
    with torch.no_grad():
        torch.testing.assert_close(graph(images), network(images), rtol=1e-4, atol=1e-5)


def test_every_operator_has_one_decomposition():
    rooms = [import_module(f"{decompositions.__name__}.{room.name}") for room in iter_modules(decompositions.__path__)]
    names = [name for room in rooms for name in room.TABLE]
    assert len(names) == len(set(names)) == len(decompositions.DECOMPOSITIONS)

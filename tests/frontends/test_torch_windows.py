"""Windows, weights and masks that are computed, as backbones of `timm` and `monai` have them, open without torch's own
operators and are written directly."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import slimseg
from slimseg.runtimes.litert.session import Session
from slimseg.runtimes.litert.writing import writer

SIZE = (12, 8)


class After(nn.Module):
    """A function of what a convolution gives."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.before = nn.Conv2d(3, 8, 3, padding=1)
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.before(x))


class Lambda(nn.Module):
    """The positions of a lambda layer: the same filters for the map of every channel."""

    def __init__(self) -> None:
        super().__init__()
        self.filters = nn.Conv3d(1, 4, (3, 3, 1), padding=(1, 1, 0))

    def forward(self, x: Tensor) -> Tensor:
        return self.filters(x.movedim(1, -1).unsqueeze(1)).sum(1).movedim(-1, 1)


class Experts(nn.Module):
    """A conditional convolution: its weights are a mixture, by what is in the image (CondConv)."""

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.groups = groups
        self.route = nn.Linear(8, 3)
        self.weights = nn.Parameter(torch.randn(3, 8 * 8 // groups * 9))

    def forward(self, x: Tensor) -> Tensor:
        n, channels, height, width = x.shape
        mixed = torch.sigmoid(self.route(x.mean((2, 3)))) @ self.weights
        weight = mixed.view(n * 8, 8 // self.groups, 3, 3)
        y = F.conv2d(x.reshape(1, n * channels, height, width), weight, None, 2, 1, groups=n * self.groups)
        return y.view(n, 8, *y.shape[2:])


def halo(x: Tensor) -> Tensor:
    """HaloNet's blocks of 4x4 pixels, and around each two more pixels on every side."""
    blocks = F.pad(x, (2, 2, 2, 2)).unfold(2, 8, 4).unfold(3, 8, 4)
    return blocks.reshape(len(x), 8, 6, 64).mean(3, keepdim=True) * x.reshape(len(x), 8, 6, 16)


def heads(x: Tensor) -> Tensor:
    return x.flatten(2).mT.unflatten(2, (4, 2)).transpose(1, 2)


def alternating(x: Tensor) -> Tensor:
    result = torch.zeros_like(x)
    result[:, ::2] = x[:, 1::2]
    result[:, 1::2] = x[:, ::2]
    return result


def unrolled(x: Tensor) -> Tensor:
    """Hiera's order of tokens: those of a window of windows follow one another."""
    n, channels, height, width = x.shape
    y = x.permute(0, 2, 3, 1)
    for _ in range(2):
        height, width = height // 2, width // 2
        y = y.reshape(-1, height, 2, width, 2, channels).permute(0, 2, 4, 1, 3, 5)
        y = y.reshape(-1, height, width, channels)
    return y.reshape(n, -1, channels)


def written_to(x: Tensor) -> Tensor:
    y = x.clone()
    y[:, [0, 3]] = 0.5
    return y


def decomposed(x: Tensor) -> Tensor:
    """SegNeXt's matrix decomposition begins with random bases."""
    values = x.flatten(2).relu()
    return (values.mT @ F.normalize(torch.rand(len(x), 8, 4), dim=1)).softmax(-1)


def test_random_numbers_are_drawn_once():
    graph = slimseg.load(After(decomposed).eval(), SIZE)
    assert graph.opaque() == []
    assert any("random numbers" in note for note in graph.notes)
    x = torch.randn(1, 3, *SIZE)
    torch.testing.assert_close(graph(x), graph(x), rtol=0, atol=0)


CASES: dict[str, Callable[[Tensor], Tensor]] = {
    "windows of a tensor": halo,
    "columns back, with gaps": lambda x: F.fold(F.unfold(x, 3, padding=1, stride=2), SIZE, 3, padding=1, stride=2),
    "columns back, with wide gaps": lambda x: F.fold(F.unfold(x, 2, stride=3), SIZE, 2, stride=3),
    "conditional convolution": Experts(1),
    "conditional convolution of each channel": Experts(8),
    "convolution of three dimensions": Lambda(),
    "causal": lambda x: F.scaled_dot_product_attention(heads(x), heads(x), heads(x), is_causal=True),
    "one key": lambda x: F.scaled_dot_product_attention(heads(x), heads(x)[:, :1], heads(x)[:, :1]),
    "masked by itself": lambda x: F.scaled_dot_product_attention(
        heads(x), heads(x), heads(x), heads(x).mean(3)[:, :, None] > 0.0
    ),
    "every other channel": alternating,
    "some channels written to": written_to,
    "a diagonal": lambda x: x[:, :, torch.arange(8), torch.arange(8)].unsqueeze(3),
    "the largest channel": lambda x: torch.zeros_like(x).scatter_(1, x.argmax(1, keepdim=True), 1.0) * x,
    "its value": lambda x: x.flip(2).gather(1, x.argmax(1, keepdim=True)),
    "gathered by constants": lambda x: x.gather(3, torch.tensor([7, 0, 2]).expand(len(x), 8, 12, 3)),
    "one hot": lambda x: F.one_hot(x.argmax(1), 8).movedim(3, 1) * x,
    "error function": lambda x: torch.erf(x) + (x * 0.5 * (1.0 + torch.erf(x / 2**0.5))),
    "product": lambda x: x.nan_to_num()[:, :3].prod(1, keepdim=True) + x.isnan(),
    "windows of windows": unrolled,
    "sums of rows": lambda x: x.cumsum(2),
    "any and all": lambda x: (x > 0).any(1, keepdim=True) + (x > -1).all(1, keepdim=True) * x,
    "remainders": lambda x: x % 0.7 + torch.fmod(x, 0.3) + x.ceil() + x.trunc() + x.frac(),
    "without gradients": lambda x: torch.cat((x.data, torch.zeros(len(x), 2, *SIZE)), 1),
    "nothing beside it": lambda x: torch.cat((torch.empty(len(x), 0, *SIZE), x), 1) * 2,
}


@pytest.mark.parametrize("name", CASES)
def test_it_is_opened_and_written_directly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str):
    monkeypatch.setitem(sys.modules, "litert_torch", None)
    torch.manual_seed(0)
    module = After(CASES[name]).eval()
    graph = slimseg.load(module, SIZE, verify=False)
    assert graph.opaque() == []
    images = torch.randn(2, 3, *SIZE)
    with torch.no_grad():
        each = [module(image) for image in images.split(1)]
        torch.testing.assert_close(graph(images), torch.cat(each), rtol=1e-4, atol=1e-4)
    writer.write(graph, tmp_path / "model.tflite")
    found = torch.from_numpy(Session(tmp_path / "model.tflite").run(images[:1].permute(0, 2, 3, 1).numpy()))
    found = found.permute(0, 3, 1, 2) if found.ndim == 4 else found
    torch.testing.assert_close(found, each[0], rtol=1e-4, atol=1e-4)

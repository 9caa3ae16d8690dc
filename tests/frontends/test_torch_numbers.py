"""Rarer operators of PyTorch, as others: angles, rounding, orders, whole reductions, sampling, recurrent layers."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from decomposed import SIZE, After, Function, check
from torch import Tensor, nn
from torch.nn import functional as F

import slimseg


class Rows(nn.Module):
    """A recurrent layer over the rows of a map, as ReNet has it."""

    def __init__(self, kind: type[nn.RNNBase], **settings: bool) -> None:
        super().__init__()
        self.layer = kind(8, 3, batch_first=True, **settings)

    def forward(self, x: Tensor) -> Tensor:
        x = x[:, :, :3, :4]
        batch, channels, height, width = x.shape
        rows = x.permute(0, 2, 3, 1).reshape(batch * height, width, channels)
        return self.layer(rows)[0].reshape(batch, height, width, -1).permute(0, 3, 1, 2)


def sampled(mode: str, outside: str, corners: bool = False) -> Function:
    """At positions that the network computes, some of them outside the map."""

    def function(x: Tensor) -> Tensor:
        positions = (torch.tanh(x[:, :2, 2:]) * 1.7).permute(0, 2, 3, 1)
        return F.grid_sample(x, positions, mode=mode, padding_mode=outside, align_corners=corners)

    return function


def volume(x: Tensor) -> Tensor:
    """(N, 2, 4, H, W)."""
    return x.reshape(len(x), 2, 4, *x.shape[2:])


def ramp(*shape: int) -> Tensor:
    return torch.linspace(-1, 1, math.prod(shape)).reshape(shape)


CASES: dict[str, Function] = {
    "angles": lambda x: torch.atan(x * 3) + torch.asin(x.tanh()) + torch.acos(x.tanh()) + torch.tan(x.tanh()),
    "angle of a point": lambda x: torch.atan2(x[:, :4], x[:, 4:]) + torch.hypot(x[:, :4], x[:, 4:]),
    "hyperbolic functions": lambda x: (
        x.sinh() + x.cosh() + x.asinh() + (x.cosh() + 1).acosh() + (x.tanh() * 0.9).atanh()
    ),
    "rounded": lambda x: torch.round((x * 4).floor() / 2) + torch.round(x * 2) + torch.round(x, decimals=1),
    "cut": lambda x: torch.trunc(x * 3) + torch.frac(x) + torch.ceil(x) + torch.sign(x),
    "signs": lambda x: torch.copysign(x[:, :4], x[:, 4:]) + torch.signbit(x[:, :4]) + torch.isinf(x[:, :4]),
    "one of both": lambda x: torch.where(torch.logical_xor(x > 0, x > 0.3) ^ (x < 0.1), x, x * 2),
    "logarithms": lambda x: torch.xlogy(x.sigmoid(), x.sigmoid()) + torch.erfc(x) + x.sigmoid() ** x.tanh(),
    "mean of all": lambda x: x - x.mean() + x.flatten(2).sum().unsqueeze(0).reshape(-1, 1, 1, 1) * 0.01,
    "extremes of all": lambda x: (x - x.min()) / (x.max() - x.min()) + x.amax(),
    "deviation of all": lambda x: x / x.std() + x.var() + x.norm() * 0.01,
    "over the batch": lambda x: x - x.mean((0, 2, 3), keepdim=True) + x.amax((0, 1), keepdim=True),
    "sort": lambda x: torch.cat((x.sort(1)[0], x.sort(2, descending=True)[0]), 1),
    "sort equal values": lambda x: (x * 2).round().argsort(dim=1, stable=True).float(),
    "top 3": lambda x: torch.cat([*x.topk(3, 1), x.topk(1, 1, largest=False)[0]], 1),
    "top of each map": lambda x: x - x.flatten(2).topk(1, 2)[0].unsqueeze(-1),
    "medians": lambda x: torch.cat((x.median(1, True)[0], x.kthvalue(2, 1, True)[0], x.quantile(0.3, 1, True)), 1),
    "argmin": lambda x: x.argmin(1, keepdim=True).float() + x.flatten(2).argmax(2)[..., None, None].float(),
    "running": lambda x: torch.cat((x.cummax(1)[0], x.cumprod(1)), 1),
    "buckets": lambda x: torch.bucketize(x, torch.linspace(-1, 1, 4)).float(),
    "rows of a table": lambda x: F.embedding(x.argmax(1), ramp(8, 3)).permute(0, 3, 1, 2),
    "nearest of samples": sampled("nearest", "zeros"),
    "reflected samples": sampled("bilinear", "reflection"),
    "reflected samples, corners": sampled("bilinear", "reflection", corners=True),
    "bicubic samples": sampled("bicubic", "border"),
    "trilinear": lambda x: F.interpolate(volume(x), scale_factor=(2, 1, 0.5), mode="trilinear").flatten(1, 2),
    "lines": lambda x: F.interpolate(x.flatten(2), 30, mode="linear") + F.interpolate(x.flatten(2), scale_factor=0.25),
    "volumes": lambda x: F.conv3d(volume(x), ramp(2, 2, 3, 3, 3), padding=1).flatten(1, 2),
    "pooled volumes": lambda x: (F.max_pool3d(volume(x), (2, 1, 2)) + F.avg_pool3d(volume(x), (2, 1, 2))).flatten(1, 2),
    "transposed lines": lambda x: F.conv_transpose1d(x.flatten(2), ramp(8, 4, 2), stride=2),
    "LSTM": Rows(nn.LSTM, bidirectional=True),
    "GRU": Rows(nn.GRU),
    "RNN": Rows(nn.RNN, bias=False),
}


@pytest.mark.parametrize("name", CASES)
def test_it_is_opened_and_written_directly(tmp_path: Path, name: str):
    check(CASES[name], tmp_path)


def test_a_decomposition_that_leads_back_to_itself_stays_opaque():
    module = After(lambda x: F.conv_transpose3d(volume(x), torch.ones(2, 1, 2, 2, 2), stride=2)[:, 0]).eval()
    assert [str(node.target) for node in slimseg.load(module, SIZE).opaque()] == ["aten.conv_transpose3d.input"]

"""The faster arithmetic is taken, where it is clearly faster."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from slimseg.training import precision
from slimseg.training.precision import FULL, MIXED, fastest


@pytest.fixture(autouse=True)
def _no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.fixture(autouse=True)
def _bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "_has_quick_bfloat16", lambda: True)


@pytest.mark.parametrize(("full_s", "mixed_s", "expected"), [(0.02, 0.005, MIXED), (0.005, 0.02, FULL)])
def test_the_faster_one_is_taken(full_s: float, mixed_s: float, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen, now_s = [], 0.0
    monkeypatch.setattr(precision.time, "perf_counter", lambda: now_s)

    def loss(batch: Tensor) -> Tensor:
        nonlocal now_s
        mixed = torch.is_autocast_enabled("cpu")
        seen.append(mixed)
        now_s += mixed_s if mixed else full_s
        return batch.sum()

    assert fastest(loss, torch.ones(2)) == expected
    assert seen == [False, False, True, True]
    assert not torch.is_autocast_enabled("cpu")


def test_what_is_a_little_faster_is_not_worth_it(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 1.10, 0.0, 1.10, 0.0, 1.0, 0.0, 1.0])
    monkeypatch.setattr(precision.time, "perf_counter", lambda: next(clock))
    assert fastest(lambda batch: batch.sum(), torch.ones(2)) == FULL


def test_one_slow_step_does_not_decide(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 1.0, 0.0, 1.0, 0.0, 9.0, 0.0, 0.5])  # the first in bfloat16 is slow, as first steps are
    monkeypatch.setattr(precision.time, "perf_counter", lambda: next(clock))
    assert fastest(lambda batch: batch.sum(), torch.ones(2)) == MIXED


def test_no_step_is_tried_in_arithmetic_that_is_slow_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "_has_quick_bfloat16", lambda: False)
    seen = []

    def loss(batch: Tensor) -> Tensor:
        seen.append(torch.is_autocast_enabled("cpu"))
        return batch.sum()

    assert fastest(loss, torch.ones(2)) == FULL
    assert seen == [False, False]


def test_a_real_step_goes_through_the_weights_and_leaves_them() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 2, 1))
    before = [parameter.detach().clone() for parameter in model.parameters()]
    assert fastest(lambda batch: model(batch).float().square().mean(), torch.randn(2, 3, 16, 16)) in (FULL, MIXED)
    assert all(parameter.grad is not None for parameter in model.parameters())  # the whole step was timed
    for parameter, was in zip(model.parameters(), before, strict=True):
        torch.testing.assert_close(parameter.detach(), was, atol=0, rtol=0)

"""The precision that trains fastest here: float32, or bfloat16 with float32 weights if the processor supports it."""

from __future__ import annotations

import functools
import time
import timeit
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from slimseg.training import memory

FULL, MIXED = "32-true", "bf16-mixed"  # lightning-fabric's names
WORTH = 1.15  # least speed-up for which bfloat16 is used


@dataclass(frozen=True)
class Pace:
    """The precision to train in, and the time of a step in it."""

    precision: str  # lightning-fabric's name
    step_s: float | None  # in seconds; None on a GPU, where it is not measured


def pace(loss: Callable[[Any], Tensor], batch: Any) -> Pace:
    """The fastest precision and its time per step: measured on the CPU; on a GPU bfloat16 if it supports it.

    Args:
        loss: takes `batch` and returns a scalar.
        batch: a batch like those of training.
    """
    if torch.cuda.is_available():
        return Pace(MIXED if torch.cuda.is_bf16_supported() else FULL, None)
    memory.keep_freed()  # as training does, so that the times are the same
    full_s = min(_step_s(loss, batch, mixed=False) for _ in range(2))
    if not _has_quick_bfloat16():
        return Pace(FULL, full_s)
    mixed_s = min(_step_s(loss, batch, mixed=True) for _ in range(2))
    return Pace(MIXED, mixed_s) if full_s > WORTH * mixed_s else Pace(FULL, full_s)


@functools.cache
def _has_quick_bfloat16() -> bool:
    """Whether a convolution in bfloat16 is not slower than one in float32.

    This avoids a slow measurement: on a processor without bfloat16, a training step in it takes as long as six in
    float32 (measured on the demo's network), and it would be measured twice for each phase of training.
    """
    images = torch.zeros(1, 32, 64, 64)

    def seconds(dtype: torch.dtype) -> float:
        layer, values = nn.Conv2d(32, 32, 3).to(dtype), images.to(dtype)
        with torch.inference_mode():
            return min(timeit.repeat(lambda: layer(values), number=2, repeat=4)[1:])

    return seconds(torch.bfloat16) <= seconds(torch.float32)


def fastest(loss: Callable[[Any], Tensor], batch: Any) -> str:
    """The precision that `pace` finds."""
    return pace(loss, batch).precision


def _step_s(loss: Callable[[Any], Tensor], batch: Any, mixed: bool) -> float:
    started = time.perf_counter()
    with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
        value = loss(batch)
    if value.requires_grad:
        torch.autograd.backward(value)
    return time.perf_counter() - started

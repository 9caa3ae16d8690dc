"""Which arithmetic trains fastest here: float32, or bfloat16 with float32 weights where the processor has it."""

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
WORTH = 1.15  # times faster


@dataclass(frozen=True)
class Pace:
    """The arithmetic to train in, and how long a step takes in it."""

    precision: str  # lightning-fabric's name
    step_s: float | None  # None on a GPU: nothing is there yet that could be timed


def pace(loss: Callable[[Any], Tensor], batch: Any) -> Pace:
    """Measured on steps of training on the CPU; a GPU that knows bfloat16 is faster with it."""
    if torch.cuda.is_available():
        return Pace(MIXED if torch.cuda.is_bf16_supported() else FULL, None)
    memory.keep_freed()  # as training does, which is what is timed
    full_s = min(_step_s(loss, batch, mixed=False) for _ in range(2))
    if not _has_quick_bfloat16():
        return Pace(FULL, full_s)
    mixed_s = min(_step_s(loss, batch, mixed=True) for _ in range(2))
    return Pace(MIXED, mixed_s) if full_s > WORTH * mixed_s else Pace(FULL, full_s)


@functools.cache
def _has_quick_bfloat16() -> bool:
    """Whether a convolution in bfloat16 is at least not slower than one in float32.

    Where the processor has no such arithmetic, a step of training that tries it takes as long as six without (measured
    on the demo's network), and it would be tried twice for each phase of training.
    """
    images = torch.zeros(1, 32, 64, 64)

    def seconds(dtype: torch.dtype) -> float:
        layer, values = nn.Conv2d(32, 32, 3).to(dtype), images.to(dtype)
        with torch.inference_mode():
            return min(timeit.repeat(lambda: layer(values), number=2, repeat=4)[1:])

    return seconds(torch.bfloat16) <= seconds(torch.float32)


def fastest(loss: Callable[[Any], Tensor], batch: Any) -> str:
    """The arithmetic of `pace` alone."""
    return pace(loss, batch).precision


def _step_s(loss: Callable[[Any], Tensor], batch: Any, mixed: bool) -> float:
    started = time.perf_counter()
    with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
        value = loss(batch)
    if value.requires_grad:
        torch.autograd.backward(value)
    return time.perf_counter() - started

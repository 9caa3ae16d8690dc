"""Which arithmetic trains fastest here: float32, or bfloat16 with float32 weights where the processor has it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

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
    full_s, mixed_s = (min(_step_s(loss, batch, mixed) for _ in range(2)) for mixed in (False, True))
    return Pace(MIXED, mixed_s) if full_s > WORTH * mixed_s else Pace(FULL, full_s)


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

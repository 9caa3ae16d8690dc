"""Limits on the memory that a model may use, since a file of a few kilobytes can require any amount.

One image is subject to two kinds of limit: absolute ones, and one in proportion to the bytes of input and weights.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

LARGEST_VALUE_BYTES = 1 << 30  # limit for the output of one layer: 64 channels at 2048x2048
MOST_BYTES_AT_ONCE = 4 << 30  # limit for all values that are alive at the same time
MODEST_BYTES = 1 << 28  # values alive at the same time may use so much, however small input and weights are
MOST_TIMES_WHAT_IS_THERE = 256  # beyond: limit as a multiple of input and weights; attention needs about 20 times them
_SPARED = 0.25  # share of the machine's memory, as a file is loaded twice and its inputs need memory, too


@dataclass(frozen=True)
class Step:
    """One layer or operator, with the values that it writes and reads; values are identified by keys of the caller."""

    where: str  # name for messages, such as "the layer conv_3"
    makes: Mapping[Any, int]  # sizes in bytes of the values that it writes, by key
    reads: Collection[Hashable]  # keys of the values that it reads
    extra_bytes: int = 0  # working memory beside the values

    @property
    def made_bytes(self) -> int:
        """Bytes of the largest value that it writes, including its working memory."""
        return max(self.makes.values(), default=0) + self.extra_bytes


def bytes_at_once(steps: Sequence[Step]) -> list[int]:
    """For each step, the bytes of all values that are alive while it runs; `steps` are in order of execution."""
    last_use = {value: number for number, step in enumerate(steps) for value in (*step.makes, *step.reads)}
    alive: dict[Hashable, int] = {}
    found, total = [], 0
    for number, step in enumerate(steps):
        total += sum(step.makes.values()) - sum(alive.get(value, 0) for value in step.makes)
        alive.update(step.makes)
        found.append(total + step.extra_bytes)
        total -= sum(alive.pop(value, 0) for value in {*step.makes, *step.reads} if last_use[value] == number)
    return found


def excess(step: Step, at_once_bytes: int, there_bytes: int, size: tuple[int, int]) -> str:
    """Which limit a step exceeds, as the end of a sentence about the file; empty if it exceeds none.

    Args:
        at_once_bytes: bytes of the values that are alive while the step runs.
        there_bytes: bytes of the input and the weights together.
        size: height and width of the input in pixels.
    """
    if step.made_bytes > LARGEST_VALUE_BYTES or at_once_bytes > MOST_BYTES_AT_ONCE:
        return f"needs {_gigabytes(at_once_bytes)} of memory for one image at {step.where}: use a smaller input"
    if at_once_bytes > max(MODEST_BYTES, MOST_TIMES_WHAT_IS_THERE * there_bytes):
        said = f"{_gigabytes(at_once_bytes)} of memory for an image of {size[0]}x{size[1]} pixels at {step.where}"
        return f"needs {said}: it is damaged, or built to exhaust memory"
    return ""


def spared_bytes() -> float:
    """Bytes of this machine's memory that the tensors of one operator may use."""
    return _SPARED * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def limit_process(limit: Literal["RLIMIT_AS", "RLIMIT_DATA"], most_bytes: int) -> None:
    """Limit this process to `most_bytes` of address space or of data; has no effect on Windows."""
    with contextlib.suppress(ImportError, AttributeError, ValueError, OSError):  # not every system supports it
        import resource

        kind = getattr(resource, limit)
        _, hard = resource.getrlimit(kind)
        resource.setrlimit(kind, (most_bytes if hard == resource.RLIM_INFINITY else min(hard, most_bytes), hard))


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB"

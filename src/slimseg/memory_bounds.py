"""How much memory may be taken: a file of a few kilobytes can ask for any amount.

The bounds for one image are absolute, and in proportion to what is really there: the input and the weights.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

LARGEST_VALUE_BYTES = 1 << 30  # the output of one layer: 64 channels at 2048x2048
MOST_BYTES_AT_ONCE = 4 << 30  # of all values that are alive together
MODEST_BYTES = 1 << 28  # at once: what takes more has an input or weights that explain it
MOST_TIMES_WHAT_IS_THERE = 256  # the bytes of its input and weights; attention over an image takes about 20 times those
_SPARED = 0.25  # of the machine's memory: a file is loaded twice, and inputs are made beside it


@dataclass(frozen=True)
class Step:
    """One layer or operator, and its values, which are known by whatever keys the caller has for them."""

    where: str  # for people: "the layer conv_3"
    makes: Mapping[Any, int]  # bytes by value
    reads: Collection[Hashable]
    extra_bytes: int = 0  # beside the values, while it works

    @property
    def made_bytes(self) -> int:
        """Of the largest value, before anything of it is dropped."""
        return max(self.makes.values(), default=0) + self.extra_bytes


def bytes_at_once(steps: Sequence[Step]) -> list[int]:
    """Of all values that are alive together while each of the steps works, which are in the order in which they run."""
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
    """What is too much, as the end of a sentence about the file; empty where nothing is.

    Args:
        at_once_bytes: of the values that are alive while the step works.
        there_bytes: of the input and of the weights.
        size: height and width of the input in pixels.
    """
    if step.made_bytes > LARGEST_VALUE_BYTES or at_once_bytes > MOST_BYTES_AT_ONCE:
        return f"needs {_gigabytes(at_once_bytes)} for one image by {step.where}: use a smaller input"
    if at_once_bytes > max(MODEST_BYTES, MOST_TIMES_WHAT_IS_THERE * there_bytes):
        said = f"{_gigabytes(at_once_bytes)} for an image of {size[0]}x{size[1]} pixels by {step.where}"
        return f"needs {said}: it is damaged, or made to take memory"
    return ""


def spared_bytes() -> float:
    """How much of this machine's memory the tensors of one operator may take."""
    return _SPARED * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def limit_process(limit: Literal["RLIMIT_AS", "RLIMIT_DATA"], most_bytes: int) -> None:
    """Have the system refuse this process more than `most_bytes`, of addresses or of data; on Windows it does not."""
    with contextlib.suppress(ImportError, AttributeError, ValueError, OSError):  # not on every system
        import resource

        kind = getattr(resource, limit)
        _, hard = resource.getrlimit(kind)
        resource.setrlimit(kind, (most_bytes if hard == resource.RLIM_INFINITY else min(hard, most_bytes), hard))


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB"

"""What a file takes in an app: from the bytes of an image to its mask, all files in turns, in the child process."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from slimseg import ratios
from slimseg.graph.description import Description
from slimseg.runtimes import calm, child, host, registry
from slimseg.runtimes.host import Pixels
from slimseg.runtimes.runtime import Runtime

ROUNDS = 15
_FEWEST_ROUNDS = 3
_REPEATS, _TURN_MS = 5, 20.0  # of a quick file within a round


@dataclass(frozen=True)
class EndToEnd:
    """What one file takes in an app: medians in milliseconds."""

    runtime_ms: float  # from the prepared input to the output
    whole_ms: float  # from the image's bytes to its mask
    network_ms: float  # of the runtime's, the network alone

    def at_latency(self, latency_ms: float) -> float:
        """From the image's bytes to its mask, where the network alone takes `latency_ms`.

        What is done around a network slows down with the machine as the network does, and is never less than nothing.
        """
        return latency_ms * max(1.0, ratios.share(self.whole_ms, self.network_ms))


def time_end_to_end(
    paths: Sequence[str | Path],
    image_size: tuple[int, int],
    mask_size: tuple[int, int],
    threads: int = 1,
    description: Description | None = None,
    image: Pixels | None = None,
    latencies_ms: Sequence[float] | None = None,
    seconds: float = math.inf,
) -> tuple[float, ...]:
    """Median ms from RGB bytes of `image_size` to a class mask of `mask_size`, all files in turns, in the child.

    `image`, RGB of any size, should be one of the user's: how long a mask takes depends on how many class borders it
    has. With `latencies_ms`, what the networks take beside one another, the result is at the pace of those. All else is
    as for `time_in_app`.
    """
    pixels = host.resize_image(_blurred() if image is None else image, image_size)
    found = time_in_app(paths, pixels, mask_size, threads, description, seconds=seconds)
    if latencies_ms is None:
        return tuple(each.whole_ms for each in found)
    return tuple(each.at_latency(ms) for each, ms in zip(found, latencies_ms, strict=True))


def time_in_app(
    paths: Sequence[str | Path],
    image: Pixels,
    mask_size: tuple[int, int],
    threads: int = 1,
    description: Description | None = None,
    rounds: int = ROUNDS,
    seconds: float = math.inf,
) -> tuple[EndToEnd, ...]:
    """From the bytes of an RGB `image` (h, w, 3) to a class mask of `mask_size`, all files in turns, in the child.

    `paths` are files of any runtimes, in any mixture. What numpy takes to make the input stands in for what an app does
    in C++ (0.13 ms for 256x320 here, 0.09 there). Scores are read where the runtime left them, as in an app. After
    `seconds` no round begins, but for the first few.

    `description` is what a file from elsewhere wants and gives; those of slimseg say so themselves.

    Raises:
        ModelError: a file is damaged or does not say what its output means.
        RuntimeFailure: a runtime is not installed, refused its file or crashed.
    """
    target = "slimseg.runtimes.end_to_end:measure"
    names = [str(path) for path in paths]
    files = [(name, registry.of(name)) for name in names]
    arguments = files, image, mask_size, threads, description, rounds, seconds
    result: tuple[EndToEnd, ...] = child.shared().call(target, *arguments, about=names[-1])
    return result


def _blurred() -> Pixels:
    """A picture of soft spots, for want of a photograph: noise alone would be nothing but borders."""
    return np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)


def measure(
    files: Sequence[tuple[str, Runtime]],
    image: Pixels,
    mask_size: tuple[int, int],
    threads: int,
    other: Description | None,
    rounds: int = ROUNDS,
    seconds: float = math.inf,
) -> tuple[EndToEnd, ...]:
    """What `time_in_app` runs in the child."""
    import torch

    torch.set_num_threads(threads)
    sessions = [runtime.open(name, threads) for name, runtime in files]
    apps = [host.App(loaded.file, loaded.file.description or other) for loaded in sessions]
    samples = [_Samples([], []) for _ in apps]
    everyone, order = list(zip(sessions, apps, samples, strict=True)), random.Random(0)
    until = time.monotonic() + seconds
    for number in range(rounds + 2):
        if number >= 2 + _FEWEST_ROUNDS and time.monotonic() >= until:
            break
        # A runtime may be 5% slower just after another, warmed up or not: that must not always be the same file.
        for loaded, app, own in order.sample(everyone, len(everyone)):
            # A video finds its caches as the last frame left them.
            warm_up = _once(loaded, app, image, mask_size, threads)
            if number >= 2:
                repeats = min(_REPEATS, 1 + int(_TURN_MS / warm_up.whole_ms))
                own.images.extend(_once(loaded, app, image, mask_size, threads) for _ in range(repeats))
                own.networks_ms.append(calm.timed(loaded.invoke, threads)[1:])
    return tuple(own.end_to_end() for own in samples)


@dataclass(frozen=True)
class _Image:
    """Milliseconds of one image."""

    parts_ms: tuple[float, float, float]  # to the prepared input, from there to the output, from there to the mask
    taken_ms: float  # of all three, by other work

    @property
    def whole_ms(self) -> float:
        return sum(self.parts_ms)


@dataclass(frozen=True)
class _Samples:
    """Of one file."""

    images: list[_Image]
    networks_ms: list[tuple[float, float]]  # and what other work took

    def end_to_end(self) -> EndToEnd:
        """Medians over what nothing disturbed."""
        parts, taken = (np.array([getattr(each, name) for each in self.images]) for name in ("parts_ms", "taken_ms"))
        counting, _ = calm.undisturbed_rows(parts, np.zeros(len(parts)), taken, -(-len(parts) // 2))
        network = calm.values(*np.array(self.networks_ms).T)
        middle = (np.median(counting[:, 1]), np.median(counting.sum(1)), np.median(network))
        return EndToEnd(*(float(value) for value in middle))


def _once(loaded: host.Runnable, app: host.App, image: Pixels, mask_size: tuple[int, int], threads: int) -> _Image:
    """From an image to its mask."""
    value, *prepared = calm.timed(lambda: app.prepare(image)[None], threads)
    output, *computed = calm.timed(lambda: loaded.run_raw(value), threads)
    _, *resized = calm.timed(lambda: app.mask(output, mask_size), threads)
    (first, then, last), taken = zip(prepared, computed, resized, strict=True)
    return _Image((first, then, last), sum(taken))

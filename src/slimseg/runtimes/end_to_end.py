"""Latency of files in an app, from the bytes of an image to its mask: all files in one child process, round-robin."""

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
_FEWEST_ROUNDS = 1
_REPEATS, _TURN_MS = 5, 20.0  # a quick file is repeated within a round: at most 5 times, for about 20 ms


@dataclass(frozen=True)
class EndToEnd:
    """Latency of one file in an app: medians in milliseconds."""

    runtime_ms: float  # from the prepared input to the output
    whole_ms: float  # from the image's bytes to its mask
    network_ms: float  # the network alone, as part of `runtime_ms`

    def at_latency(self, latency_ms: float) -> float:
        """Milliseconds from the image's bytes to its mask on a machine where the network alone takes `latency_ms`.

        The work around the network is assumed to slow down with the machine as much as the network, and to take at
        least 0 ms.
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
    """Median ms from RGB bytes of `image_size` to a class mask of `mask_size`, all files round-robin in the child.

    Args:
        image: RGB of any size, one of the user's if possible: the time of a mask depends on how many class borders
            it has.
        latencies_ms: latencies of the networks alone, timed side by side; the result is scaled to them.

    All other arguments, and the errors, are those of `time_in_app`; sizes are (height, width).
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
    rounds: int | None = None,
    seconds: float = math.inf,
) -> tuple[EndToEnd, ...]:
    """Latency from an RGB `image` (h, w, 3) to a class mask of `mask_size`, all files round-robin in the child.

    The input is made with numpy, in place of the C++ of an app (0.13 ms for 256x320 in numpy, 0.09 ms in C++). Scores
    are read from the runtime's own memory without a copy, as in an app.

    Args:
        paths: files of any runtimes, in any mixture.
        mask_size: (height, width) of the mask.
        description: preprocessing and meaning of the output, for files that slimseg did not write; its own state them.
        rounds: number of rounds that are timed; None for the usual number.
        seconds: time after which no further round starts; at least 3 rounds are timed.

    Raises:
        ModelError: a file is damaged, or neither it nor `description` states what its output means.
        RuntimeFailure: a runtime is not installed, refused its file or crashed.
    """
    target = "slimseg.runtimes.end_to_end:measure"
    names = [str(path) for path in paths]
    files = [(name, registry.of(name)) for name in names]
    arguments = files, image, mask_size, threads, description, rounds, seconds
    result: tuple[EndToEnd, ...] = child.shared().call(target, *arguments, about=names[-1])
    return result


def _blurred() -> Pixels:
    """A small random image that becomes soft spots when enlarged, for want of a photograph.

    Noise at full size would make every pixel a class border.
    """
    return np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)


def measure(
    files: Sequence[tuple[str, Runtime]],
    image: Pixels,
    mask_size: tuple[int, int],
    threads: int,
    other: Description | None,
    rounds: int | None = None,
    seconds: float = math.inf,
) -> tuple[EndToEnd, ...]:
    """The part of `time_in_app` that runs in the child."""
    import torch

    torch.set_num_threads(threads)
    sessions = [runtime.open(name, threads) for name, runtime in files]
    apps = [host.App(loaded.file, loaded.file.description or other) for loaded in sessions]
    samples = [_Samples([], []) for _ in apps]
    everyone, order = list(zip(sessions, apps, samples, strict=True)), random.Random(0)
    until = time.monotonic() + seconds
    for number in range((rounds or ROUNDS) + 2):
        if number >= 2 + _FEWEST_ROUNDS and time.monotonic() >= until:
            break
        # A runtime may be 5% slower just after another one, even if warmed up. The order is random, so that this does
        # not always hit the same file.
        for loaded, app, own in order.sample(everyone, len(everyone)):
            # In a video the previous frame has filled the caches: one run as warm-up does the same.
            warm_up = _once(loaded, app, image, mask_size, threads)
            if number >= 2:
                repeats = min(_REPEATS, 1 + int(_TURN_MS / warm_up.whole_ms))
                own.images.extend(_once(loaded, app, image, mask_size, threads) for _ in range(repeats))
                own.networks_ms.append(calm.timed(loaded.invoke, threads)[1:])
    return tuple(own.end_to_end() for own in samples)


@dataclass(frozen=True)
class _Image:
    """Times of one image, from its bytes to its mask, in milliseconds."""

    parts_ms: tuple[float, float, float]  # preprocessing, network, and making the mask
    taken_ms: float  # time in which other work had the processor, over all three parts

    @property
    def whole_ms(self) -> float:
        return sum(self.parts_ms)


@dataclass(frozen=True)
class _Samples:
    """All timings of one file."""

    images: list[_Image]
    networks_ms: list[tuple[float, float]]  # latency of the network, and the part of it that other work took

    def end_to_end(self) -> EndToEnd:
        """Medians over the undisturbed timings."""
        parts, taken = (np.array([getattr(each, name) for each in self.images]) for name in ("parts_ms", "taken_ms"))
        counting, _ = calm.undisturbed_rows(parts, np.zeros(len(parts)), taken, -(-len(parts) // 2))
        network = calm.values(*np.array(self.networks_ms).T)
        middle = (np.median(counting[:, 1]), np.median(counting.sum(1)), np.median(network))
        return EndToEnd(*(float(value) for value in middle))


def _once(loaded: host.Runnable, app: host.App, image: Pixels, mask_size: tuple[int, int], threads: int) -> _Image:
    """Time one pass from an image to its mask."""
    value, *prepared = calm.timed(lambda: app.prepare(image)[None], threads)
    output, *computed = calm.timed(lambda: loaded.run_raw(value), threads)
    _, *resized = calm.timed(lambda: app.mask(output, mask_size), threads)
    (first, then, last), taken = zip(prepared, computed, resized, strict=True)
    return _Image((first, then, last), sum(taken))

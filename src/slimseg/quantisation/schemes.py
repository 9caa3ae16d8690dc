"""The post-training quantisation schemes as candidates, and the choice of the best file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median

from slimseg.errors import UserError
from slimseg.planning.choosing.budget import Budget
from slimseg.quantisation.calibration import METHODS, Method
from slimseg.results import QuantisedFile
from slimseg.runtimes.quantiser import SCHEMES, STATIC, Ends, Scheme

AUTO = "auto"
TRAINED = "trained"  # the correction of a file from quantisation-aware training
FASTER = 1.03  # least speed-up that counts as faster: smaller ones are measurement noise
ALIKE = 0.95  # share of the fastest file's speed from which accuracy decides, 0-1
_METHOD_OF_16_BITS: Method = "minmax"  # with 65536 steps there is no reason to clip


@dataclass(frozen=True)
class Attempt:
    """One file to make: a scheme, and for a static scheme the method of finding ranges."""

    scheme: Scheme
    ranges: Method | None = None
    corrected: str = ""  # the correction applied to the network first; empty: none
    keep_float: tuple[str, ...] = ()  # layers that are not quantised

    def obstacle(self, io: Ends, has_images: bool) -> str:
        """Why the file cannot be made; empty if it can."""
        if io != "float32" and self.scheme != "int8":
            return "has float32 input and output only: give `io` float"
        if self.ranges is not None and not has_images:
            return "needs images for the ranges of activations"
        return ""


def attempts(scheme: str, ranges: str) -> tuple[Attempt, ...]:
    """The files to try for the user's choice; "auto" means all schemes, or all methods of finding ranges.

    Raises:
        UserError: a name is unknown, or `ranges` are given for a scheme without ranges.
    """
    if scheme not in (AUTO, *SCHEMES):
        raise UserError(f"`scheme` {scheme!r} must be one of {', '.join((AUTO, *SCHEMES))}")
    if ranges not in (AUTO, *METHODS):
        raise UserError(f"`ranges` {ranges!r} must be one of {', '.join((AUTO, *METHODS))}")
    if ranges != AUTO and scheme in SCHEMES and scheme not in STATIC:
        raise UserError(f"`ranges` {ranges} does not apply to `scheme` {scheme}, which needs no ranges: leave it out")
    wanted = SCHEMES if scheme == AUTO else [each for each in SCHEMES if each == scheme]
    return tuple(attempt for each in wanted for attempt in _attempts(each, ranges))


def _attempts(scheme: Scheme, ranges: str) -> Iterator[Attempt]:
    if scheme not in STATIC:
        yield Attempt(scheme)
        return
    for method in METHODS:
        default = method == _METHOD_OF_16_BITS if scheme == "int16x8" else True
        if ranges == method or (ranges == AUTO and default):
            yield Attempt(scheme, method)


def drop(baseline: QuantisedFile, candidate: QuantisedFile) -> float | None:
    """Points of mIoU lost, or without labels percent of pixels that change class; None if nothing was measured."""
    if baseline.miou is not None and candidate.miou is not None:
        return baseline.miou - candidate.miou
    return None if candidate.agreement is None else 100 - candidate.agreement


def holds(baseline: QuantisedFile, candidate: QuantisedFile, budget: Budget) -> bool:
    """Whether a file is within the budget; without images its accuracy is not checked."""
    return (
        (baseline.agreement is None or _lost(baseline, candidate) <= budget.max_drop)
        and (budget.max_size_bytes is None or candidate.size_bytes <= budget.max_size_bytes)
        and (budget.min_speedup is None or candidate.speedup >= budget.min_speedup)
    )


def choose(baseline: QuantisedFile, candidates: Sequence[QuantisedFile], budget: Budget) -> QuantisedFile:
    """The best of the files that were made.

    Among those within the budget it is the fastest; if several are about as fast, the most accurate of them. If none is
    faster than float32, it is the smallest of those that are not slower, or else the fastest. If none is within the
    budget, it is the one that loses least.
    """
    made = [each for each in candidates if each.was_made]
    held = [each for each in made if holds(baseline, each, budget)]
    if not held:
        small = [each for each in made if budget.max_size_bytes is None or each.size_bytes <= budget.max_size_bytes]
        return min(small or made, key=lambda each: (_lost(baseline, each), each.size_bytes))
    speed = _speeds(made)
    fastest = max(speed[_kind(each)] for each in held)
    if fastest >= FASTER:
        alike = [each for each in held if speed[_kind(each)] >= ALIKE * fastest]
        return min(alike, key=lambda each: (_lost(baseline, each), each.size_bytes))
    level = [each for each in held if speed[_kind(each)] >= 1 / FASTER]
    return min(
        level or held, key=lambda each: (each.size_bytes if level else -speed[_kind(each)], _lost(baseline, each))
    )


def _speeds(made: Sequence[QuantisedFile]) -> dict[tuple[object, ...], float]:
    """Median speed-up by kind: files that differ only in their ranges have the same operators and are equally fast."""
    kinds = {_kind(each) for each in made}
    return {kind: median(each.speedup for each in made if _kind(each) == kind) for kind in kinds}


def _kind(row: QuantisedFile) -> tuple[object, ...]:
    """Files of one kind have the same operators.

    slimseg writes a corrected network anew, so its operators may differ from those of the user's file.
    """
    return row.scheme, bool(row.corrected), row.kept_float


def _lost(baseline: QuantisedFile, candidate: QuantisedFile) -> float:
    lost = drop(baseline, candidate)
    return float("inf") if lost is None else lost


def verdict(baseline: QuantisedFile, candidates: Sequence[QuantisedFile], chosen: QuantisedFile) -> str:
    """The choice in a sentence, with its speed and size."""
    original = baseline.scheme
    others = _slower(baseline, candidates, chosen) + _failed(candidates)
    if chosen.scheme == original:
        return f"the unchanged file, in {original}: no other scheme is better here{others}"
    if chosen.speedup >= FASTER:
        speed = f"{chosen.speedup:.2f}x as fast as {original} on this runtime"
    elif chosen.speedup >= 1 / FASTER:
        speed = f"no faster than {original} on this runtime"
    else:
        speed = f"slower than {original} on this runtime ({1 / chosen.speedup:.2f}x the time)"
    size = f"{100 * chosen.size_bytes / max(1, baseline.size_bytes):.0f}% of its size"
    how = [f"ranges by {chosen.ranges}"] if chosen.ranges else []
    how += [_corrected(chosen)] if chosen.corrected else []
    made = f" ({', '.join(how)})" if how else ""
    return f"{_name(chosen)}{made} is {speed}, and {size}{others}"


def _slower(baseline: QuantisedFile, candidates: Sequence[QuantisedFile], chosen: QuantisedFile) -> str:
    slower = {_name(each) for each in candidates if each.was_made and each.speedup < 1 / FASTER} - {_name(chosen)}
    return f"; slower than {baseline.scheme}: {', '.join(sorted(slower))}" if slower else ""


def _failed(candidates: Sequence[QuantisedFile]) -> str:
    """The schemes without any file, in words; the reason of each is in its row."""
    made = {each.scheme for each in candidates if each.was_made}
    failed = dict.fromkeys(each.scheme for each in candidates if each.scheme not in made)
    return f"; could not be made: {', '.join(failed)}" if failed else ""


def _corrected(row: QuantisedFile) -> str:
    return "trained in int8" if row.corrected == TRAINED else f"corrected by {row.corrected}"


def _name(row: QuantisedFile) -> str:
    count = len(row.kept_float)
    return f"{row.scheme} with {count} layer{'s' if count > 1 else ''} in float32" if count else row.scheme

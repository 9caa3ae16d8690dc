"""Scales the times of a profile to the machine's pace in another measurement of the same file."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

from slimseg.results import Profile, Result, Roof

_BEFORE_THE_RUNS = ("load_ms", "prepare_ms", "first_run_ms")


def at_latency(profile: Profile, latency_ms: float) -> Profile:
    """The profile with its times scaled so that its latency is `latency_ms`, which was measured separately.

    Disturbances lengthen a run at arbitrary layers, so each layer's share of the latency stays about the same. Times
    before the runs (loading, preparing, first run) are not scaled.
    """
    pace = latency_ms / profile.latency_ms if profile.latency_ms else 1.0
    paced: Profile = replace(_at_pace(profile, pace), latency_ms=latency_ms)
    return paced


def _at_pace(told: Any, pace: float) -> Any:
    """A copy of a result with all times of its runs scaled, also in results inside it; times are fields named `..._ms`.

    Rates of a `Roof` are divided by `pace`.
    """
    if isinstance(told, Roof):
        bandwidth = tuple((size, rate / pace) for size, rate in told.bandwidth)
        return replace(told, gmac_per_s=told.gmac_per_s / pace, bandwidth=bandwidth)
    changed = {}
    for name in (field.name for field in fields(told)):
        value = getattr(told, name)
        if name.endswith("_ms") and name not in _BEFORE_THE_RUNS:
            changed[name] = value * pace
        elif isinstance(value, Result):
            changed[name] = _at_pace(value, pace)
        elif isinstance(value, tuple) and value and isinstance(value[0], Result):
            changed[name] = tuple(_at_pace(each, pace) for each in value)
    return replace(told, **changed)

"""A profile at the pace of another measurement of the same file."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

from slimseg.results import Profile, Result, Roof

_BEFORE_THE_RUNS = ("load_ms", "prepare_ms", "first_run_ms")


def at_latency(profile: Profile, latency_ms: float) -> Profile:
    """The profile with all its times in proportion to a latency that was measured beside others.

    What disturbs a run takes its milliseconds anywhere, so the layers' shares stay about what they are.
    """
    pace = latency_ms / profile.latency_ms if profile.latency_ms else 1.0
    paced: Profile = replace(_at_pace(profile, pace), latency_ms=latency_ms)
    return paced


def _at_pace(told: Any, pace: float) -> Any:
    """Every time of the runs, by its name, that a result and the results within it have."""
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

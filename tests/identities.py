"""What must hold of every result, whatever the machine did while it was timed: `contradictions` lists what does not.

Results are checked as JSON, which is what everything that is printed comes from and what other programs read.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any

CLOSE = 1e-6
_NUMBER = r"[−+-]?\d+(?:\.\d+)?"
_UNITS = {"ms": 1.0, "s": 1000.0}


def contradictions(told: dict[str, Any]) -> list[str]:
    """Of a result as JSON, or as its `as_dict`."""
    return list(_of(told, ""))


def _of(told: Any, where: str) -> Iterator[str]:
    if isinstance(told, list | tuple):
        for index, each in enumerate(told):
            yield from _of(each, f"{where}[{index}]")
    if not isinstance(told, dict):
        return
    for check in (_times, _shares, _profile, _finding, _diagnosis, _slim, _quantised, _head):
        yield from (f"{where}: {wrong}" for wrong in check(told))
    for name, each in told.items():
        yield from _of(each, f"{where}.{name}")


def same(a: float, b: float) -> bool:
    return math.isclose(a, b, rel_tol=CLOSE, abs_tol=CLOSE)


def _times(told: dict[str, Any]) -> Iterator[str]:
    """Nothing takes less than no time; differences alone may be negative."""
    for name, value in told.items():
        is_time = name.endswith("_ms") and isinstance(value, float | int)
        is_difference = "saving" in name or "cost" in name
        if is_time and not is_difference and not (math.isfinite(value) and value >= 0):
            yield f"{name} is {value}"


def _shares(told: dict[str, Any]) -> Iterator[str]:
    for name in ("share", "cumulative", "taken_share", "disturbed_share"):
        if name in told and not (told[name] <= 1 + CLOSE and (told[name] >= -CLOSE or "saving_ms" in told)):
            yield f"{name} is {told[name]}"
    whole = told.get("whole_ms")
    if whole and "saving_ms" in told and not same(told["share"], told["saving_ms"] / whole):
        yield f"{told['saving_ms']} ms of {whole} are called {told['share']:.1%}"
    if whole and "kernel_ms" in told and not same(told["share"], (told["kernel_ms"] + told["conversion_ms"]) / whole):
        yield f"a fallback of {told['kernel_ms']} ms of {whole} is called {told['share']:.1%}"
    if whole and "op" in told and "latency_ms" in told and not same(told["share"], told["latency_ms"] / whole):
        yield f"a layer of {told['latency_ms']} ms of {whole} is called {told['share']:.1%}"


def _profile(told: dict[str, Any]) -> Iterator[str]:
    if "unattributed_ms" not in told:
        return
    latency, layers = told["latency_ms"], told["layers"]
    if not told["latency_p10_ms"] <= latency * (1 + CLOSE) <= told["latency_p90_ms"] * (1 + 2 * CLOSE):
        yield f"the latency {latency} lies outside {told['latency_p10_ms']} to {told['latency_p90_ms']}"
    if not same(sum(each["latency_ms"] for each in layers) + told["unattributed_ms"], latency):
        yield f"layers and the unattributed do not add up to {latency}"
    if any(not same(each["whole_ms"], latency) for part in ("layers", "fallbacks", "islands") for each in told[part]):
        yield "shares are of something else than the latency"
    kernels = sum(each["statistics"]["average_ms"] for each in told["kernels"])
    types = sum(each["total_ms"] for each in told["node_types"])
    owned = sum(each["latency_ms"] for each in layers)
    if told["node_types"] and not same(types, kernels or owned):
        yield f"kernels take {kernels} ms one by one and {types} by kind"
    fit_none = sum(each["statistics"]["average_ms"] for each in told["kernels"] if each["layer"] is None)
    if told["node_types"] and not (same(types, owned + fit_none) and types <= latency * (1 + CLOSE)):
        yield f"kernels take {types} ms, their layers {owned}, the network {latency}"
    if told["node_types"] and not same(sum(each["share"] for each in told["node_types"]), 1.0):
        yield "shares of the kinds of kernels do not add up"
    for kind in told["node_types"]:
        if not same(kind["total_ms"], kind["count"] * kind["average_ms"]):
            yield f"{kind['count']} calls of {kind['average_ms']} ms are {kind['total_ms']} ms"
        if types and not same(kind["share"], kind["total_ms"] / types):
            yield f"{kind['total_ms']} ms of {types} are called {kind['share']:.1%}"
    for layer in layers:
        if not same(layer["latency_ms"], layer["statistics"]["average_ms"]) and layer["statistics"]["times_called"]:
            yield f"{layer['name']} takes {layer['latency_ms']} ms in one table and {layer['statistics']['average_ms']}"


def _finding(told: dict[str, Any]) -> Iterator[str]:
    if "saving_ms" not in told:
        return
    if not same(told["saving_ms"], told["before_ms"] - told["after_ms"]):
        yield f"from {told['before_ms']} to {told['after_ms']} ms is no saving of {told['saving_ms']}"
    if told["before_ms"] > told["whole_ms"] * (1 + CLOSE):
        yield f"a part of {told['before_ms']} ms in a network of {told['whole_ms']}"


def _diagnosis(told: dict[str, Any]) -> Iterator[str]:
    if "findings" in told and any(not same(each["whole_ms"], told["latency_ms"]) for each in told["findings"]):
        yield "findings are shares of something else than the latency"


def _slim(told: dict[str, Any]) -> Iterator[str]:
    if "baseline" not in told or "edits" not in told:
        return
    before, after, int8 = told["baseline"], told["result"], told["plain_int8"]
    ratios = [
        ("speedup", before["latency_ms"], after["latency_ms"]),
        ("end_to_end_speedup", before["end_to_end_ms"], after["end_to_end_ms"]),
    ]
    ratios += [("speedup_over_int8", int8["latency_ms"], after["latency_ms"])] if int8 else []
    for name, old, new in ratios:
        if not same(told[name], old / new):
            yield f"{name} is {told[name]}, from {old} to {new} ms"
    for each in filter(None, (before, after, int8)):
        if each["end_to_end_ms"] < each["latency_ms"] * (1 - CLOSE):
            yield f"end to end {each['end_to_end_ms']} ms with a network of {each['latency_ms']}"
    saved, largest = sum(each["realised_saving_ms"] for each in told["edits"]), before["latency_ms"]
    if told["edits"] and not same(saved, before["latency_ms"] - after["latency_ms"]):
        yield f"edits save {saved} ms on the way from {before['latency_ms']} to {after['latency_ms']}"
    for each in told["edits"]:
        if each["realised_saving_ms"] > largest:
            yield f"{each['technique']} saves {each['realised_saving_ms']} of {largest} ms"
        largest -= each["realised_saving_ms"]


def _quantised(told: dict[str, Any]) -> Iterator[str]:
    rows = [*told["candidates"], told["chosen"]] if "candidates" in told else []
    for row in rows:
        if row["latency_ms"] and not same(row["speedup"], told["baseline"]["latency_ms"] / row["latency_ms"]):
            yield f"{row['scheme']}: {row['speedup']}x from {told['baseline']['latency_ms']} to {row['latency_ms']} ms"
    if rows and any(not same(each["whole_ms"], told["chosen"]["latency_ms"]) for each in told["fallbacks"]):
        yield "fallbacks are shares of something else than the chosen file's latency"


def _head(told: dict[str, Any]) -> Iterator[str]:
    if "form" in told and "end_to_end_ms" in told and told["latency_ms"] > told["end_to_end_ms"] * (1 + CLOSE):
        yield f"{told['form']}: {told['latency_ms']} ms of {told['end_to_end_ms']}"


Interval = tuple[float, float]


def between(number: str) -> Interval:
    """What a printed number may have been before it was rounded."""
    digits = number.replace("−", "-").lstrip("+")
    half = 0.5 * 10.0 ** -len(digits.partition(".")[2])
    return float(digits) - half, float(digits) + half


def milliseconds(text: str) -> list[Interval]:
    """Every time of a line of text, in order."""
    return [
        (low * _UNITS[unit], high * _UNITS[unit])
        for (low, high), unit in (
            (between(number), unit) for number, unit in re.findall(rf"({_NUMBER}) (ms|s)\b", text)
        )
    ]


def quotient(above: Interval, below: Interval) -> Interval:
    return above[0] / below[1], above[1] / below[0]


def meet(a: Interval, b: Interval) -> bool:
    return a[0] <= b[1] + 1e-9 and b[0] <= a[1] + 1e-9


def of_text(text: str, whole: str) -> list[str]:
    """Contradictions of what a person reads of a profile or a diagnosis: "0.92 ms  39.6%" beside "2.4 ms"."""
    (network,) = milliseconds(whole)
    found = []
    for number, percent in re.findall(rf"({_NUMBER}) ms\s+(\d+\.\d)%", text):
        part = between(number.lstrip("−+-"))
        low, high = quotient(part, network)
        if not meet((100 * low, 100 * high), between(percent)):
            found.append(f"{number} ms of {whole} are printed as {percent}%")
    return found

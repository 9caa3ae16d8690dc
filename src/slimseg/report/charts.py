"""The numbers that the report's charts show; the template draws them in CSS.

The charts are HTML rather than a charting library: this saves 5 MB per report, is sharp in print, legible on a phone,
and follows the reader's light or dark theme.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from slimseg.report import units, wording
from slimseg.results import LayerProfile, Profile, SlimResult

OTHER = 8  # the colour slot that all less frequent operators share; the style sheet defines 0 to OTHER


@dataclass(frozen=True)
class Bar:
    """One operator of one file; `hint` is the text shown while hovering."""

    name: str
    slot: int
    ms: float
    hint: str


@dataclass(frozen=True)
class TimeChart:
    """One file's layers in network order; layers fused into others have no time and are only counted."""

    title: str
    latency_ms: float
    slowest_ms: float
    unattributed_ms: float
    bars: tuple[Bar, ...]
    fused: int


@dataclass(frozen=True)
class OperatorTotal:
    op: str
    slot: int
    before_ms: float
    after_ms: float


@dataclass(frozen=True)
class Step:
    """One row of the waterfall, from `start_ms` to `end_ms`; `predicted_ms` is the saving predicted by the plan."""

    label: str
    layers: str
    kind: str  # "total", "saving", "loss" or "rest"
    start_ms: float
    end_ms: float
    predicted_ms: float | None
    hint: str

    @property
    def low_ms(self) -> float:
        return max(0.0, min(self.start_ms, self.end_ms))

    @property
    def length_ms(self) -> float:
        return abs(self.start_ms - self.end_ms)

    @property
    def saving_ms(self) -> float:
        return self.start_ms - self.end_ms


def operator_totals(before: Profile, after: Profile) -> list[OperatorTotal]:
    """Time per operator type in both files, largest first; the first eight have a colour of their own."""
    old, new = _by_operator(before), _by_operator(after)
    # An operator ranks by its share in its own file; by milliseconds, the faster file's would all be "other".
    weight = {op: max(old[op] / (before.latency_ms or 1), new[op] / (after.latency_ms or 1)) for op in {**old, **new}}
    ranked = sorted(weight, key=lambda op: (-weight[op], op))
    slots = {op: min(rank, OTHER) for rank, op in enumerate(ranked)}
    totals = [OperatorTotal(op, slots[op], old[op], new[op]) for op in ranked]
    return sorted(totals, key=lambda total: (-total.before_ms, -total.after_ms))


def time_chart(title: str, profile: Profile, slots: Mapping[str, int]) -> TimeChart:
    timed = [layer for layer in profile.layers if layer.latency_ms > 0]
    return TimeChart(
        title,
        profile.latency_ms,
        max((layer.latency_ms for layer in timed), default=0.0),
        profile.unattributed_ms,
        tuple(Bar(layer.name, slots[layer.op], layer.latency_ms, _hint(layer)) for layer in timed),
        len(profile.layers) - len(timed),
    )


def waterfall(result: SlimResult) -> list[Step]:
    """The way from the original's latency to the result's, one step per edit.

    The remaining difference (quantisation, and edits that affect each other's savings) is a step of its own.
    """
    now = result.before.latency_ms
    steps = [Step(f"Original, {result.before.weights}", "", "total", now, 0.0, None, "")]
    for edit in result.edits:
        after = now - edit.realised_saving_ms
        kind = "saving" if edit.realised_saving_ms >= 0 else "loss"
        label = wording.technique_name(edit.technique)
        layers = wording.few(edit.layers)
        hint = f"{edit.reason} Layers: {', '.join(edit.layers)}"
        steps.append(Step(label, layers, kind, now, after, edit.predicted_saving_ms, hint))
        now = after
    final = result.after.latency_ms
    if abs(now - final) > 0.005 * result.before.latency_ms:
        hint = "The difference that no single edit explains: interaction of edits, and variation of the machine."
        steps.append(Step("interaction", "whole network", "rest", now, final, None, hint))
    return [*steps, Step("Slimmed", "", "total", final, 0.0, None, "")]


def _by_operator(profile: Profile) -> defaultdict[str, float]:
    totals: defaultdict[str, float] = defaultdict(float)
    for layer in profile.layers:
        totals[layer.op] += layer.latency_ms
    return totals


def _hint(layer: LayerProfile) -> str:
    facts = [
        f"with {', '.join(layer.also_computes)}" if layer.also_computes else "",
        layer.op,
        f"{units.milliseconds(layer.latency_ms)} ({units.share(layer.share)})",
        f"output {units.shape(layer.output_shape)}",
        f"{units.count(layer.macs)} MACs" if layer.macs else "",
        f"{units.count(layer.params)} parameters" if layer.params else "",
        f"{units.size(layer.memory_bytes)} moved",
        layer.kernel,
    ]
    return "\n".join([layer.name, *(fact for fact in facts if fact)])

"""Sentences and groupings that the terminal and the HTML report share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from slimseg.report import units
from slimseg.results import BudgetCheck, ModelSummary, Needs, Placement, Refusal, SlimResult

NEEDS_WORDS: dict[Needs, str] = {
    "nothing": "exact, needs nothing",
    "images": "needs images, no labels",
    "labels": "needs labels",
}

SAME_SIZE = 0.02  # a ratio that is closer to 1 is not mentioned
EQUAL = 1e-4  # outputs that differ by less are equal within float error

_BUDGET_WORDS = {
    "max_difference": "Difference to the original's outputs",
    "max_size": "Size",
    "min_speedup": "Speed-up",
    "max_drop": "mIoU drop",
    "max_latency": "Latency",
    "needs": "Needs",
    "time_limit": "Time spent",
}


@dataclass(frozen=True)
class RefusalGroup:
    """All layers that one technique refused for one reason."""

    technique: str
    reason: str
    layers: tuple[str, ...]


def compiled(placement: Placement) -> str:
    """What a file that is compiled for one processor is, in sentences."""
    taken, count, found = placement.taken, len(placement.layers), placement.compilation
    where = "its whole network" if placement.is_whole else f"{taken} of its {count} layers"
    parts = "" if placement.partitions == 1 else f" in {placement.partitions} parts"
    said = f"Compiled for {placement.processor}, which runs {where}{parts}; it runs on phones with this processor only."
    if found is not None and found.ddr_read_bytes is not None and found.ddr_write_bytes is not None:
        said += (
            f" Its compiler counts {units.size(found.ddr_read_bytes)} read from main memory in one inference, and "
            f"{units.size(found.ddr_write_bytes)} written."
        )
    return said


def group_refusals(refusals: Iterable[Refusal]) -> list[RefusalGroup]:
    """One group per technique and reason, the most frequent first."""
    layers: dict[tuple[str, str], list[str]] = {}
    for refusal in refusals:
        layers.setdefault((refusal.technique, refusal.reason), []).append(refusal.layer)
    groups = [RefusalGroup(technique, reason, tuple(names)) for (technique, reason), names in layers.items()]
    return sorted(groups, key=lambda group: -len(group.layers))


def few(names: Sequence[str], shown: int = 1) -> str:
    """The first names and how many more there are: "enc1_conv + 3 more"."""
    rest = len(names) - shown
    head = ", ".join(names[:shown])
    return f"{head} + {rest} more" if rest > 0 else head


def technique_name(technique: str) -> str:
    """`separable_convolution` as words."""
    return technique.replace("_", " ")


def headline(result: SlimResult) -> str:
    """The whole result in one line: speed, size, accuracy."""
    size_ratio = units.quotient(result.before.size_bytes, result.after.size_bytes)
    parts = [_ratio(result.speedup, "faster", "slower")]
    if abs(size_ratio - 1) > SAME_SIZE:
        parts.append(_ratio(size_ratio, "smaller", "larger"))
    if accuracy := accuracy_change(result.before, result.after):
        parts.append(accuracy)
    elif result.max_difference is not None:
        parts.append("equal outputs" if result.max_difference <= EQUAL else "outputs that differ")
    return ", ".join(parts)


def size_change(before: ModelSummary, after: ModelSummary) -> str:
    """How many times smaller, or larger, a file is than another: "3.92× smaller"."""
    return _ratio(units.quotient(before.size_bytes, after.size_bytes), "smaller", "larger")


def size_gain(before: ModelSummary, after: ModelSummary) -> str:
    """The same for a column of gains, where only a loss is named: "3.92×", "1.96× larger", "1.00×" for equal sizes."""
    change = size_change(before, after)
    return "1.00×" if change.startswith("1.00×") else change.removesuffix(" smaller")


def weights_change(result: SlimResult) -> str:
    """How the weights are stored before and after: "weights in float16", "weights in float16 → int8"."""
    before, after = result.before.weights, result.after.weights
    return f"weights in {before}" if before == after else f"weights in {before} → {after}"


def accuracy_change(before: ModelSummary, after: ModelSummary) -> str:
    """mIoU before -> after, without labels the agreement, or nothing."""
    if before.miou is not None and after.miou is not None:
        return f"mIoU {units.percent(before.miou)} → {units.percent(after.miou)}"
    if after.agreement is not None:
        return f"{units.percent(after.agreement)}% agreement with the original"
    return ""


def budget_name(check: BudgetCheck) -> str:
    return _BUDGET_WORDS.get(check.name, check.name.replace("_", " "))


def budget_sentence(check: BudgetCheck) -> str:
    verdict = "met" if check.met else "missed"
    return f"{budget_name(check)} {verdict}: wanted {check.wanted}, got {check.got}"


def verdict(checks: Sequence[BudgetCheck]) -> str:
    """A sentence on the whole budget: met, or which bounds are missed."""
    told = missed(checks)
    return f"The budget is not met: {told}." if told else "The budget is met."


def missed(checks: Sequence[BudgetCheck]) -> str:
    """The bounds that are missed, with the values wanted and reached; empty if none is."""
    return "; ".join(f"{budget_name(check)} {check.got}, wanted {check.wanted}" for check in checks if not check.met)


def _ratio(ratio: float, gain: str, loss: str) -> str:
    return f"{units.times(ratio)} {gain}" if ratio >= 1 or ratio <= 0 else f"{units.times(1 / ratio)} {loss}"

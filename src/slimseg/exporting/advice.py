"""Recommends one of the exported files for each system, in a few sentences with reasons.

The recommendation follows the measurements on this computer; its sentences state that a phone's processor differs.
"""

from __future__ import annotations

from collections.abc import Sequence

from slimseg.exporting import heads
from slimseg.report import head_choice
from slimseg.results import UNKNOWN, Artefact, HeadTrial, Provenance
from slimseg.runtimes import registry

CLEARLY = 1.1  # ratio of latencies; a smaller gain is not worth another library in the app
MOST_LOST = 1.0  # percentage points of mIoU that a recommended file may lose against its network
MOST_DIFFERENT = 5.0  # without labels, percentage of pixels that may differ: rounding to 8 bits moves class borders


def recommend(artefacts: Sequence[Artefact], provenance: Provenance = UNKNOWN) -> str:
    """A recommendation for each system that has several timed runtimes or a single exporter; empty if there is none.

    Nothing is recommended for a network that missed its budget, and no file whose masks are clearly worse than the
    network's own.
    """
    if provenance.budget_met is False:
        return ""
    made = [each for each in artefacts if each.files and not _is_worse(each, provenance)]
    systems = dict.fromkeys(registry.EXPORTERS[each.target].system for each in made)
    return " ".join(sentence for sentence in (_on(system, made) for system in sorted(systems)) if sentence)


def _is_worse(artefact: Artefact, provenance: Provenance) -> bool:
    """Whether a file's masks are clearly worse than the network's: by mIoU, or without labels by differing pixels."""
    slimmed = provenance.slimmed
    before = provenance.original_miou if slimmed is None else slimmed.miou
    if artefact.miou is not None and before is not None:
        return before - artefact.miou > MOST_LOST
    return (artefact.disagreement or 0.0) > MOST_DIFFERENT


def on_heads(trials: Sequence[HeadTrial], targets: Sequence[str]) -> tuple[str, ...]:
    """The fastest form of the output for each runtime, in sentences.

    For runtimes of this machine it was measured; for other targets it is what is known about them.
    """
    measured = [f"{_named(runtime)}: {sentence}." for runtime, sentence in head_choice.recommend(trials).items()]
    known = [each for target, each in registry.EXPORTERS.items() if target in targets and each.on_outputs and trials]
    return (*measured, *(f"{each.brand}: {heads.stated(each.target)}." for each in known))


def _named(trial: str) -> str:
    """The name of a runtime or deployment in messages: its brand, or its brand "in int8"."""
    name, _, precision = trial.partition(" ")
    return f"{registry.known(name).brand} in {precision}" if precision else registry.known(name).brand


def _on(system: str, made: Sequence[Artefact]) -> str:
    """The recommendation for apps on one system: its only exporter, or the fastest of the runtimes that were timed."""
    own = [each for each in made if registry.EXPORTERS[each.target].system == system]
    exporter = registry.EXPORTERS[own[0].target]
    if exporter.unrun:
        files = " or ".join(f"`{each.files[0]}`" for each in own)
        return f"{system}: {exporter.brand} ({files}), {exporter.reason}; it was not timed here."
    fastest = [quickest for target in registry.EXPORTERS if (quickest := _fastest(own, target)) is not None]
    if len(fastest) < 2:
        return ""
    usual, *others = fastest
    return _quicker(system, usual, min(others, key=lambda pair: pair[1]))


def _fastest(made: Sequence[Artefact], target: str) -> tuple[Artefact, float] | None:
    """The fastest timed file of a target, with its latency in milliseconds; None if no file was timed."""
    timed = [(each, each.latency_ms) for each in made if each.target == target and each.latency_ms is not None]
    return min(timed, key=lambda pair: pair[1], default=None)


def _quicker(system: str, usual: tuple[Artefact, float], other: tuple[Artefact, float]) -> str:
    """The sentence for two runtimes: it recommends the default one's file, unless the other one's is clearly faster."""
    (own, own_ms), (its, its_ms) = usual, other
    own_brand, its_brand = (registry.EXPORTERS[each.target].brand for each in (own, its))
    told = f"`{own.files[0]}` took {own_ms:.2f} ms and `{its.files[0]}` {its_ms:.2f} ms"
    if own_ms > CLEARLY * its_ms:
        advice = "time both on the phone, whose processor differs"
        return f"{system}: {its_brand} ({told} in one run on this computer); {advice}."
    why = "MediaPipe Tasks runs its file without changes" if own.for_mediapipe else "it needs less code around it"
    closer = "both are about equally fast" if its_ms < CLEARLY * own_ms else f"{own_brand} was faster"
    return f"{system}: {own_brand} ({told} in one run on this computer: {closer}, and {why})."

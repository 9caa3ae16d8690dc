"""Which of the exported files to take where, and why, in a few sentences. What was measured here decides, as far as it
can: a computer's processor is not a phone's, which the sentences say."""

from __future__ import annotations

from collections.abc import Sequence

from slimseg.exporting import heads
from slimseg.report import head_choice
from slimseg.results import UNKNOWN, Artefact, HeadTrial, Provenance
from slimseg.runtimes import registry

CLEARLY = 1.1  # times: less is not worth another library in the app
MOST_LOST = 1.0  # points of mIoU that a file may lose to its network and still be recommended
MOST_DIFFERENT = 5.0  # percent of pixels, without labels: rounding to 8 bits moves the borders between classes


def recommend(artefacts: Sequence[Artefact], provenance: Provenance = UNKNOWN) -> str:
    """For each system, as far as there is something to choose.

    Nothing is recommended of a network that missed its budget, nor a file whose masks are clearly worse than the
    network's own.
    """
    if provenance.budget_met is False:
        return ""
    made = [each for each in artefacts if each.files and not _is_worse(each, provenance)]
    systems = dict.fromkeys(registry.EXPORTERS[each.target].system for each in made)
    return " ".join(sentence for sentence in (_on(system, made) for system in sorted(systems)) if sentence)


def _is_worse(artefact: Artefact, provenance: Provenance) -> bool:
    """By labels where there are some, else by the pixels that differ."""
    slimmed = provenance.slimmed
    before = provenance.original_miou if slimmed is None else slimmed.miou
    if artefact.miou is not None and before is not None:
        return before - artefact.miou > MOST_LOST
    return (artefact.disagreement or 0.0) > MOST_DIFFERENT


def on_heads(trials: Sequence[HeadTrial], targets: Sequence[str]) -> tuple[str, ...]:
    """Which form of the output each runtime is quickest with: measured, or stated of what cannot run here."""
    measured = [f"{_named(runtime)}: {sentence}." for runtime, sentence in head_choice.recommend(trials).items()]
    known = [each for target, each in registry.EXPORTERS.items() if target in targets and each.on_outputs and trials]
    return (*measured, *(f"{each.brand}: {heads.stated(each.target)}." for each in known))


def _named(trial: str) -> str:
    """Of a runtime or a deployment, for people: its brand, and "in int8"."""
    name, _, precision = trial.partition(" ")
    return f"{registry.known(name).brand} in {precision}" if precision else registry.known(name).brand


def _on(system: str, made: Sequence[Artefact]) -> str:
    """For apps on one system: the only exporter that it has, or the quickest runtime of those that were timed."""
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
    """Of a target's files that were timed, with its milliseconds."""
    timed = [(each, each.latency_ms) for each in made if each.target == target and each.latency_ms is not None]
    return min(timed, key=lambda pair: pair[1], default=None)


def _quicker(system: str, usual: tuple[Artefact, float], other: tuple[Artefact, float]) -> str:
    """The usual runtime's file, unless another one's is clearly quicker."""
    (own, own_ms), (its, its_ms) = usual, other
    own_brand, its_brand = (registry.EXPORTERS[each.target].brand for each in (own, its))
    told = f"`{own.files[0]}` took {own_ms:.2f} ms and `{its.files[0]}` {its_ms:.2f} ms"
    if own_ms > CLEARLY * its_ms:
        advice = "time both on the phone, its processor is another"
        return f"{system}: {its_brand} ({told} in one run on this computer); {advice}."
    why = "MediaPipe Tasks takes its file as it is" if own.for_mediapipe else "it needs less code around it"
    closer = "they are about as fast" if its_ms < CLEARLY * own_ms else f"{own_brand} was faster"
    return f"{system}: {own_brand} ({told} in one run on this computer: {closer}, and {why})."

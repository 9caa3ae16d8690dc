"""Which of the exported files to take where, and why, in a few sentences. What was measured here decides, as far as it
can: a computer's processor is not a phone's, which the sentences say."""

from __future__ import annotations

from collections.abc import Sequence

from slimseg.exporting import heads
from slimseg.results import UNKNOWN, Artefact, HeadTrial, Provenance

_NAMES = {"litert": "LiteRT", heads.INT8: "LiteRT in int8", "ncnn": "ncnn"}
CLEARLY = 1.1  # times: less is not worth another library in the app
MOST_LOST = 1.0  # points of mIoU that a file may lose to its network and still be recommended
MOST_DIFFERENT = 5.0  # percent of pixels, without labels: rounding to 8 bits moves the borders between classes


def recommend(artefacts: Sequence[Artefact], provenance: Provenance = UNKNOWN) -> str:
    """For Android and for iOS, as far as there is something to choose.

    Nothing is recommended of a network that missed its budget, nor a file whose masks are clearly worse than the
    network's own.
    """
    if provenance.budget_met is False:
        return ""
    made = [each for each in artefacts if each.files and not _is_worse(each, provenance)]
    return " ".join(sentence for sentence in (_android(made), _ios(made)) if sentence)


def _is_worse(artefact: Artefact, provenance: Provenance) -> bool:
    """By labels where there are some, else by the pixels that differ."""
    slimmed = provenance.slimmed
    before = provenance.original_miou if slimmed is None else slimmed.miou
    if artefact.miou is not None and before is not None:
        return before - artefact.miou > MOST_LOST
    return (artefact.disagreement or 0.0) > MOST_DIFFERENT


def on_heads(trials: Sequence[HeadTrial], targets: Sequence[str]) -> tuple[str, ...]:
    """Which form of the output each runtime is quickest with: measured, or stated for Core ML."""
    measured = [f"{_NAMES[runtime]}: {sentence}." for runtime, sentence in heads.recommend(trials).items()]
    stated = [f"Core ML: {heads.stated('coreml')}."] if trials and "coreml" in targets else []
    return (*measured, *stated)


def _android(made: Sequence[Artefact]) -> str:
    litert, ncnn = (_fastest(made, target) for target in ("tflite", "ncnn"))
    if litert is None or ncnn is None:
        return ""
    assert litert.latency_ms is not None
    assert ncnn.latency_ms is not None
    told = f"`{litert.files[0]}` took {litert.latency_ms:.2f} ms and `{ncnn.files[0]}` {ncnn.latency_ms:.2f} ms"
    if litert.latency_ms > CLEARLY * ncnn.latency_ms:
        return f"Android: ncnn ({told} in one run on this computer); time both on the phone, its processor is another."
    why = "MediaPipe Tasks takes its file as it is" if litert.for_mediapipe else "it needs less code around it"
    closer = "they are about as fast" if ncnn.latency_ms < CLEARLY * litert.latency_ms else "LiteRT was faster"
    return f"Android: LiteRT ({told} in one run on this computer: {closer}, and {why})."


def _fastest(made: Sequence[Artefact], target: str) -> Artefact | None:
    timed = [each for each in made if each.target == target and each.latency_ms is not None]
    return min(timed, key=lambda each: each.latency_ms or 0.0, default=None)


def _ios(made: Sequence[Artefact]) -> str:
    packages = [each for each in made if each.target == "coreml"]
    if not packages:
        return ""
    files = " or ".join(f"`{each.files[0]}`" for each in packages)
    return f"iOS: Core ML ({files}), the only one that reaches the Neural Engine; it was not timed here."

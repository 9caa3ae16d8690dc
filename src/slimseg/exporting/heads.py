"""What is cheapest for an app that wants a class mask differs between runtimes: every form of the output, timed.

Logits have to be read by the app, and resized and compared there; a mask in the file is small, but the runtime's
argmax may be slow, and ncnn has none for pixels. So each form (`head_forms.py`) is written for each runtime, and all
are run in turns from the image's bytes to its mask.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np

from slimseg.disk import scratch
from slimseg.errors import RuntimeFailure, Unsupported, UserError
from slimseg.exporting import head_forms
from slimseg.graph.graph import Graph
from slimseg.planning import deploy
from slimseg.progress import Progress, Silent
from slimseg.results import HeadTrial
from slimseg.runtimes import child, host
from slimseg.runtimes.host import Pixels
from slimseg.runtimes.ncnn import writer as ncnn_writer

CHANGED_AT_MOST = 0.1  # percent of pixels that a form may change, and be recommended
EQUAL = 0.02  # share of the time within which forms are equally fast
INT8 = "litert int8"
ROUNDS = 9
RANGES = 8  # images at most, as every form is quantised
_NO_ARGMAX = "ncnn has no argmax of every pixel: its files end with the scores, and the app compares them"
_STATED = {
    "coreml": (
        "Core ML runs on Apple's systems only, so nothing is timed here: by what is known of its operations "
        "(docs/coreml.md) argmax runs on the Neural Engine but the M1 hands its integers to the CPU, and a last resize "
        "is software on the M1, so take the mask where the network gives it without a last resize, else the scores "
        "before that resize, and let Xcode's performance report decide"
    )
}
Write = Callable[[Graph, Path], Path]


def measured(
    graph: Graph,
    runtimes: Sequence[str],
    image: Pixels,
    threads: int = 1,
    images: Sequence[Pixels] = (),
    progress: Progress | None = None,
) -> tuple[HeadTrial, ...]:
    """Every form of the output on every runtime, timed in turns in one run, from `image` to its mask.

    Args:
        runtimes: "litert" and "ncnn", one or both.
        image: RGB (h, w, 3); the mask has its size. One of the user's: borders between classes take time.
        images: RGB, for the ranges of int8, the first few are taken; without any int8 is not tried.

    Returns:
        By runtime ("litert int8" with `images`), the network as it is first. What cannot be had has the reason.

    Raises:
        UserError: an unknown runtime.
        RuntimeFailure: ncnn is not installed, or a runtime refused a file.
    """
    progress = progress or Silent()
    with scratch.folder() as folder:
        made = []
        for number, (runtime, write) in enumerate(_writers(runtimes, images).items()):
            made += _made(graph, runtime, write, folder / str(number), progress)
        paths = [each.path for each in made if each.path is not None]
        progress.say("Timing every form of the output side by side")
        times = dict(zip(paths, host.time_in_app(paths, image, image.shape[:2], threads, rounds=ROUNDS), strict=True))
        looked = child.call("slimseg.exporting.heads:seen", paths, image, about=f"a form of {graph.name}")
        outputs = dict(zip(paths, looked, strict=True))
    result = []
    for _, group in groupby(made, key=lambda each: each.runtime):
        own = list(group)
        result += [_trial(each, own[0], times, outputs) for each in own]
    return tuple(result)


def stated(runtime: str) -> str:
    """One sentence on a runtime that cannot be run here.

    Raises:
        UserError: nothing is known of it, or it is one to be measured.
    """
    if runtime not in _STATED:
        raise UserError(f"nothing is stated of the output on {runtime!r}, only of {', '.join(_STATED)}: measure it")
    return _STATED[runtime]


def best(trials: Sequence[HeadTrial]) -> dict[str, HeadTrial]:
    """Of each runtime the form with the shortest way to the mask that changes at most 0.1% of its pixels.

    The network as it is stays where nothing is more than 2% faster. A runtime without any file is left out.
    """
    result = {}
    for runtime, (own, *others) in _by_runtime(trials).items():
        faithful = [trial for trial in others if trial.changed_percent <= CHANGED_AT_MOST]
        fastest = min((own, *faithful), key=lambda trial: trial.end_to_end_ms)
        result[runtime] = fastest if fastest.end_to_end_ms < (1 - EQUAL) * own.end_to_end_ms else own
    return result


def recommend(trials: Sequence[HeadTrial]) -> dict[str, str]:
    """One sentence for each runtime: which form, what it gains, and what would be faster but changes the mask."""
    groups = _by_runtime(trials)
    return {runtime: _sentence(chosen, groups[runtime]) for runtime, chosen in best(trials).items()}


def _by_runtime(trials: Sequence[HeadTrial]) -> dict[str, list[HeadTrial]]:
    """Those that there are."""
    made = [trial for trial in trials if not trial.reason]
    return {runtime: list(own) for runtime, own in groupby(made, key=lambda trial: trial.runtime)}


def _sentence(chosen: HeadTrial, trials: Sequence[HeadTrial]) -> str:
    own = trials[0]
    if chosen is own:
        text = f"leave the output {own.form}: {_ms(own)} from image to mask, "
        text += f"and no form that keeps the mask is more than {EQUAL:.0%} faster"
    else:
        text = f"give {chosen.form}: {_ms(chosen)} from image to mask in place of {_ms(own)} {own.form}"
        text += f", {_changes(chosen)}"
    faster = min(trials, key=lambda trial: trial.end_to_end_ms)
    if faster.changed_percent > CHANGED_AT_MOST and faster.end_to_end_ms < (1 - EQUAL) * chosen.end_to_end_ms:
        text += f"; {faster.form} takes {_ms(faster)}, but {_changes(faster)}"
    return text


def _changes(trial: HeadTrial) -> str:
    if not trial.changed_percent:
        return "the mask is the same"
    percent = f"{trial.changed_percent:.2f}%" if trial.changed_percent >= 0.01 else "less than 0.01%"
    return f"{percent} of its pixels change"


def _ms(trial: HeadTrial) -> str:
    return f"{trial.end_to_end_ms:.3g} ms"


@dataclass(frozen=True)
class _Made:
    """A form's file, or why there is none."""

    runtime: str
    form: str
    path: Path | None = None
    reason: str = ""


def _writers(runtimes: Sequence[str], images: Sequence[Pixels]) -> Mapping[str, Write]:
    """By runtime; LiteRT counts twice where images give int8 its ranges."""

    def litert(graph: Graph, stem: Path) -> Path:
        path = stem.with_suffix(".tflite")
        deploy.write_deployed(graph, path, (), "float32")
        return path

    def int8(graph: Graph, stem: Path) -> Path:
        path = stem.with_suffix(".tflite")
        deploy.write_deployed(graph, path, images[:RANGES], "int8")
        return path

    def ncnn(graph: Graph, stem: Path) -> Path:
        return ncnn_writer.write(graph, stem.parent, name=stem.name).param

    both: dict[str, Write] = {"litert": litert, INT8: int8}
    known: dict[str, dict[str, Write]] = {"litert": both if images else {"litert": litert}, "ncnn": {"ncnn": ncnn}}
    unknown = [runtime for runtime in runtimes if runtime not in known]
    if unknown:
        raise UserError(f"the output's forms are measured on {' and '.join(known)}, not on {unknown[0]!r}")
    return {name: write for runtime in runtimes for name, write in known[runtime].items()}


def _made(graph: Graph, runtime: str, write: Write, folder: Path, progress: Progress) -> list[_Made]:
    """Every form as a file; where the network as it is cannot be written, only that."""
    folder.mkdir()
    if runtime == "ncnn":
        graph = ncnn_writer.without_argmax(graph)
    forms, refused = head_forms.forms(graph)
    if runtime == "ncnn":
        forms = {name: form for name, form in forms.items() if form.description.output_kind != "mask"}
        refused["mask"] = _NO_ARGMAX
    result: list[_Made] = []
    for number, (name, form) in enumerate(progress.track(list(forms.items()), f"writing forms for {runtime}")):
        try:
            result.append(_Made(runtime, name, write(form, folder / f"form{number}")))
        except (Unsupported, RuntimeFailure) as error:
            result.append(_Made(runtime, name, reason=str(error)))
            if not number:
                return result
    return result + [_Made(runtime, kind, reason=reason) for kind, reason in refused.items()]


def seen(paths: Sequence[Path], image: Pixels) -> list[tuple[Pixels, int]]:
    """The mask of `image` that an app makes of each file, and the bytes that the runtime hands it. For the child."""
    sessions = [host.session(path) for path in paths]  # kept: outputs lie in their memory
    return [_seen(loaded, image) for loaded in sessions]


def _seen(loaded: host.Runnable, image: Pixels) -> tuple[Pixels, int]:
    app = host.App(loaded.file)
    output = loaded.run_raw(app.prepare(image)[None])
    return app.mask(output, image.shape[:2]), output.nbytes


def _trial(
    made: _Made,
    own: _Made,
    times: Mapping[Path, host.EndToEnd],
    outputs: Mapping[Path, tuple[Pixels, int]],
) -> HeadTrial:
    """One form against its runtime's `own`, the network as it is."""
    if made.path is None or own.path is None:
        return HeadTrial(made.runtime, made.form, reason=made.reason)
    (mask, output_bytes), (wanted, _) = outputs[made.path], outputs[own.path]
    return HeadTrial(
        runtime=made.runtime,
        form=made.form,
        latency_ms=times[made.path].runtime_ms,
        end_to_end_ms=times[made.path].whole_ms,
        output_bytes=output_bytes,
        changed_percent=100 * float(np.mean(mask != wanted)),
    )

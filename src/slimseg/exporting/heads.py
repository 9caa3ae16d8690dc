"""What is cheapest for an app that wants a class mask differs between runtimes: every form of the output, timed.

Logits have to be read by the app, and resized and compared there; a mask in the file is small, but the runtime's
argmax may be slow, or it has none of every pixel. So each form (`head_forms.py`) is written for each runtime, and all
are run in turns from the image's bytes to its mask.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np

from slimseg.deployment import Deployment
from slimseg.disk import scratch
from slimseg.errors import RuntimeFailure, Unsupported, UserError
from slimseg.exporting import head_forms
from slimseg.graph.description import OUTPUT_KINDS
from slimseg.graph.graph import Graph
from slimseg.progress import Progress, Silent
from slimseg.results import HeadTrial
from slimseg.runtimes import child, deployed, end_to_end, host, registry
from slimseg.runtimes.host import Pixels
from slimseg.runtimes.runtime import Runtime

ROUNDS = 9
INT8 = str(Deployment(precision="int8"))
RANGES = 8  # images at most, as every form is quantised


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
        runtimes: names of runtimes that run here.
        image: RGB (h, w, 3); the mask has its size. One of the user's: borders between classes take time.
        images: RGB, for the ranges of int8, the first few are taken; without any int8 is not tried.

    Returns:
        By deployment (int8, too, with `images`), the network as it is first. What cannot be had has the reason.

    Raises:
        UserError: an unknown runtime, or one that is not installed.
        RuntimeFailure: a runtime refused a file.
    """
    progress = progress or Silent()
    with scratch.folder() as folder:
        made = []
        for number, deployment in enumerate(_deployments(runtimes, bool(images))):
            made += _made(graph, deployment, images[:RANGES], folder / str(number), progress)
        paths = [each.path for each in made if each.path is not None]
        progress.say("Timing every form of the output side by side")
        times = dict(
            zip(paths, end_to_end.time_in_app(paths, image, image.shape[:2], threads, rounds=ROUNDS), strict=True)
        )
        files = [(path, registry.of(path)) for path in paths]
        looked = child.call("slimseg.exporting.heads:seen", files, image, about=f"a form of {graph.name}")
        outputs = dict(zip(paths, looked, strict=True))
    result = []
    for _, group in groupby(made, key=lambda each: each.runtime):
        own = list(group)
        result += [_trial(each, own[0], times, outputs) for each in own]
    return tuple(result)


def stated(target: str) -> str:
    """One sentence on a target whose files cannot be run here.

    Raises:
        UserError: nothing is known of it, or it is one to be measured.
    """
    known = {name: each.on_outputs for name, each in registry.EXPORTERS.items() if each.on_outputs}
    if target not in known:
        raise UserError(f"nothing is stated of the output on {target!r}, only of {', '.join(known)}: measure it")
    return known[target]


@dataclass(frozen=True)
class _Made:
    """A form's file, or why there is none."""

    runtime: str
    form: str
    path: Path | None = None
    reason: str = ""


def _deployments(runtimes: Sequence[str], in_int8: bool) -> list[Deployment]:
    """Of each runtime its float files, and those in int8 where they are wanted and it has them."""
    unknown = [name for name in runtimes if name not in registry.RUNTIMES]
    if unknown:
        raise UserError(f"the output's forms are measured on {' and '.join(registry.RUNTIMES)}, not on {unknown[0]!r}")
    found = [registry.named(name) for name in runtimes]
    precisions = [
        [each.float_precision, *(["int8"] if in_int8 and "int8" in each.precisions else [])] for each in found
    ]
    return [registry.deployment(its.name, each) for its, own in zip(found, precisions, strict=True) for each in own]


def _made(
    graph: Graph, deployment: Deployment, images: Sequence[Pixels], folder: Path, progress: Progress
) -> list[_Made]:
    """Every form as a file; where the network as it is cannot be written, only that."""
    folder.mkdir()
    its, name = registry.named(deployment.runtime), str(deployment)
    forms, refused = head_forms.forms(its.said(graph))
    for kind in OUTPUT_KINDS:
        if kind not in its.output_kinds:
            forms = {form: made for form, made in forms.items() if made.description.output_kind != kind}
            refused[kind] = its.without_kind
    result: list[_Made] = []
    for number, (form, made) in enumerate(progress.track(list(forms.items()), f"writing forms for {name}")):
        try:
            path = deployed.write_deployed(made, folder / f"form{number}", images, deployment)
            result.append(_Made(name, form, path))
        except (Unsupported, RuntimeFailure) as error:
            result.append(_Made(name, form, reason=str(error)))
            if not number:
                return result
    return result + [_Made(name, kind, reason=reason) for kind, reason in refused.items()]


def seen(files: Sequence[tuple[Path, Runtime]], image: Pixels) -> list[tuple[Pixels, int]]:
    """The mask of `image` that an app makes of each file, and the bytes that the runtime hands it. For the child."""
    sessions = [runtime.open(path) for path, runtime in files]  # kept: outputs lie in their memory
    return [_seen(loaded, image) for loaded in sessions]


def _seen(loaded: host.Runnable, image: Pixels) -> tuple[Pixels, int]:
    app = host.App(loaded.file)
    output = loaded.run_raw(app.prepare(image)[None])
    return app.mask(output, image.shape[:2]), output.nbytes


def _trial(
    made: _Made,
    own: _Made,
    times: Mapping[Path, end_to_end.EndToEnd],
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

"""Times every form of the output on every runtime: which is fastest for an app that needs a class mask differs.

The app has to read logits, resize them and take the argmax. A mask is small to read, but the runtime's argmax may be
slow or missing. So each form (`head_forms.py`) is written for each runtime, and all are timed round-robin from the
image's bytes to its mask.
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
RANGES = 8  # most images for calibration: few, since every form is quantised


def measured(
    graph: Graph,
    runtimes: Sequence[str],
    image: Pixels,
    threads: int = 1,
    images: Sequence[Pixels] = (),
    progress: Progress | None = None,
) -> tuple[HeadTrial, ...]:
    """Time every form of the output on every runtime, round-robin in one run, from `image` to its mask.

    Args:
        runtimes: names of runtimes that run on this machine.
        image: RGB (h, w, 3), one of the user's, since class borders take time; the mask has its size.
        threads: number of threads of every runtime.
        images: RGB (height, width, 3); int8 is calibrated on the first few. If there are none, int8 is not timed.

    Returns:
        The trials, grouped by deployment (with `images` int8, too), the unchanged network first in each group. For a
        form that is not possible a trial has the reason instead of times.

    Raises:
        UserError: a runtime is unknown or not installed.
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
    """What is known about forms of the output on a target whose files cannot run on this machine, in a sentence.

    Raises:
        UserError: nothing is stated about the target, for example because it can be measured.
    """
    known = {name: each.on_outputs for name, each in registry.EXPORTERS.items() if each.on_outputs}
    if target not in known:
        raise UserError(f"no advice about the output is stored for {target!r}, only for {', '.join(known)}: measure it")
    return known[target]


@dataclass(frozen=True)
class _Made:
    """A form's file, or the reason why there is none."""

    runtime: str
    form: str
    path: Path | None = None
    reason: str = ""


def _deployments(runtimes: Sequence[str], in_int8: bool) -> list[Deployment]:
    """For each runtime its deployment in float, and in int8 if that is asked for and the runtime has it."""
    unknown = [name for name in runtimes if name not in registry.RUNTIMES]
    if unknown:
        raise UserError(f"forms of the output are measured on {', '.join(registry.RUNTIMES)}, not on {unknown[0]!r}")
    found = [registry.named(name) for name in runtimes]
    precisions = [
        [each.float_precision, *(["int8"] if in_int8 and "int8" in each.precisions else [])] for each in found
    ]
    return [registry.deployment(its.name, each) for its, own in zip(found, precisions, strict=True) for each in own]


def _made(
    graph: Graph, deployment: Deployment, images: Sequence[Pixels], folder: Path, progress: Progress
) -> list[_Made]:
    """Every form as a file; if the unchanged network cannot be written, only the reason for that."""
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
    """For each file, an app's mask of `image` and the size in bytes of the runtime's output. Runs in the child."""
    sessions = [runtime.open(path) for path, runtime in files]  # kept, since outputs may be in their memory
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
    """The trial of one form, whose mask is compared with that of `own`, the unchanged network on the same runtime."""
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

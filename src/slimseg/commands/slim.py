"""`slimseg slim`: edits a network, recovers its accuracy by distillation, quantises it, and measures the result.

original ──> float32 and int8 files (the baselines)
   ├─ untrained forms: exact edits, int8, both, a smaller input; the result is never worse than these
   └─ plan: head, input size, approximations, channels, each edit timed on the runtime
        └─ rewrite: exact edits of the planned network that make it faster on the runtime; every edit timed in place
             └─ recover: new blocks mimic the old ones, then the whole network is distilled
                  └─ int8 file ──> compared with the budget
                       └─ if it lost too much: quantisation-aware training if rounding causes the loss, more training,
                          or a milder plan

A run keeps a journal: if it was killed, the same command resumes it. slim_trained.py has these steps. With `needs`
nothing, slim_exact.py does the work: it makes exact edits only.
"""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path

from slimseg.commands.evaluate import Evaluator
from slimseg.commands.slim_exact import slim_exact
from slimseg.commands.slim_trained import JUDGED, LEGS, TrainedSlim, is_bounded
from slimseg.errors import BudgetError, DataError, Unsupported
from slimseg.frontends import load, source_check
from slimseg.graph.graph import Graph
from slimseg.planning.choosing.budget import Budget
from slimseg.planning.running import run_folder
from slimseg.planning.running.journal import fingerprint, listed
from slimseg.planning.running.run_folder import RunFolder
from slimseg.planning.running.time_plan import FEWEST_IMAGES, TimePlan
from slimseg.progress import Progress, Silent
from slimseg.results import SlimResult
from slimseg.runtimes import registry
from slimseg.stopping import keeping
from slimseg.techniques.head import with_output
from slimseg.training import memory, separate_images
from slimseg.training.data import Folder, check_split, open_folder, say_notes
from slimseg.training.doubts import ENOUGH as ENOUGH_TO_DOUBT

CHECKED_IMAGES = 4  # images on which the network is compared with its source's own runtime


def slim(
    model: Graph | str | Path,
    *,
    out: str | Path,
    images: str | Path | Folder | None = None,
    budget: Budget | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> SlimResult:
    """Make a network small and fast within a budget, and measure the result beside the original.

    Args:
        model: an opened Graph (with its preprocessing), or the path of any file that `load` opens.
        images: a folder with train/val x images/masks, or with images only, or the result of `open_folder`; None only
            if the budget has `needs` nothing.
        out: folder for `model.tflite` (int8; float32 if the budget has `needs` nothing), or the files of another
            runtime; also for `model_float.tflite`, `model.pt2`, `result.json`, `report.html` and the profiles. It must
            be new or empty, or hold this same run: a stopped run resumes, a finished run returns its result again.
        budget: bounds on size, speed and accuracy, and on the time to spend.
        seed: seed of everything random.
        progress: where to show progress; silent by default.

    Returns:
        The result. If the budget could not be met, it is the best file found, with the bounds that it misses.

    Raises:
        ModelError, DataError, BudgetError, OutputError: an argument cannot be used; the message says why.
        UserError: the runtime is not installed, or there is no such runtime.
        Unsupported: the network mixes the images of a batch, and the budget's `needs` is not "nothing".
    """
    began = time.monotonic()
    budget = budget or Budget()
    if images is None and budget.needs != "nothing":
        raise DataError(f"`needs` {budget.needs} requires a folder of images: give `images`, or `needs` nothing")
    graph = model if isinstance(model, Graph) else load(model)
    _check_head(graph, budget)
    registry.named(budget.runtime)
    progress = progress or Silent()
    folder = None if images is None else open_folder(images)
    evaluator = None if folder is None else _evaluator(folder, graph, progress)
    if folder is not None:
        graph.source_check = source_check.on_images(graph, folder.sample_images(CHECKED_IMAGES))
    asked = {
        "network": fingerprint(graph),
        "data": None if folder is None else [str(folder.path.absolute()), listed(folder)],
        "foreground": None if folder is None else folder.val.meaning.foreground,
        "budget": asdict(budget),
        "seed": seed,
    }
    prepared_s = time.monotonic() - began
    with run_folder.opened(Path(out), graph, asked) as run:
        if run.result is not None:
            progress.say(
                f"{out} already holds the finished run with these settings: its result is shown, and nothing runs again"
            )
            return run.result
        if budget.needs != "nothing":
            _check_training(graph)
        with keeping(lambda: _kept(run, budget)):
            clock = TimePlan(run.journal.started - prepared_s, budget.time_limit_s)
            if evaluator is not None:
                image_s = evaluator.look_at_original(budget.runtime, clock.some(ENOUGH_TO_DOUBT))
                evaluator.judge_by(_judged(run, clock, image_s))
            if folder is None or evaluator is None or budget.needs == "nothing":
                result = slim_exact(graph, run.folder, budget, evaluator, progress, clock.ends)
            else:
                memory.keep_freed()  # sensitivities and importance run in torch before the training does
                result = TrainedSlim(graph, folder, run, budget, seed, evaluator, clock).run()
            run.finish()
    return result


def _judged(run: RunFolder, clock: TimePlan, image_s: float) -> int:
    """Number of images for measuring accuracy: as many as the time limit allows; a resumed run keeps the number."""
    if JUDGED in run.journal:
        return int(run.journal[JUDGED])
    return max(FEWEST_IMAGES, clock.judged(image_s))


def _kept(run: RunFolder, budget: Budget) -> str:
    """A sentence for the user on what a stopped run keeps, and from where the same command will resume."""
    if run.claim.is_finished:
        return f"{run.folder} holds the finished run."
    entries = [name.partition(" ")[0] for name in run.journal.entries]
    parts = ["the baselines"] if entries else []
    if "untrained" in entries:
        parts.append("the candidates without training")
    plans, legs = entries.count("plan"), entries.count("distilled")
    if plans:
        parts.append("the plan" if plans == 1 else f"{plans} plans")
    if legs:
        planned = plans * (LEGS if is_bounded(budget) else 1)
        parts.append(f"{legs} of {planned} leg{'s' * (planned > 1)} of training")
    elif "mimicked" in entries:
        parts.append("the blocks that were trained")
    if not parts:
        return f"Nothing of it is kept in {run.folder}: the same command starts over."
    listed = " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)
    return f"{run.folder} keeps {listed}: the same command continues from there."


def _evaluator(folder: Folder, graph: Graph, progress: Progress) -> Evaluator:
    """The evaluator for a folder whose images and masks have been checked.

    Raises:
        DataError: an image or mask cannot be used.
    """
    say_notes(folder, progress)
    evaluator = Evaluator(folder, graph, progress)
    for split in (folder.train, folder.val):
        check_split(split, evaluator.count)
    return evaluator


def _check_training(graph: Graph) -> None:
    try:
        separate_images.check(graph)
    except Unsupported as error:
        raise Unsupported(
            f"{error}, so it cannot be trained: give `needs` nothing, for edits without training"
        ) from error


def _check_head(graph: Graph, budget: Budget) -> None:
    try:
        with_output(graph, budget.head or graph.description.output_kind)
    except Unsupported as error:
        raise BudgetError(f"`head` {budget.head} is not possible: {error}") from error

"""How long to train what: the recipe that brings an edited network back to its accuracy within the time there is."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from slimseg.deployment import Deployment
from slimseg.errors import ModelError
from slimseg.graph import edit
from slimseg.graph.graph import Graph
from slimseg.planning.choosing.budget import Budget
from slimseg.planning.choosing.plan import Plan
from slimseg.planning.choosing.scores import logits_of
from slimseg.planning.pricing.whatif import end_of_part
from slimseg.progress import Progress
from slimseg.techniques import Site
from slimseg.training import distil
from slimseg.training.batches import BATCH_SIZE, Batches
from slimseg.training.data import Folder
from slimseg.training.loop import Schedule, train
from slimseg.training.normalisation import recalibrate
from slimseg.training.precision import Pace, pace

MIMIC_STEPS, DISTIL_STEPS = 150, 700
MIMIC_SHARE = 0.2  # of the time, at most
RECALIBRATION_BATCHES = 12
_WITH_GRADIENTS = 3.0  # times as long as forward alone: about two more for the gradients
Loss = Callable[[distil.Batch], Tensor]


class Recovery:
    """Trains one student in place: new blocks mimic the old ones, then all that follows the first edit is distilled.

    What comes before the first edit stays frozen, and is computed once for teacher and student.
    """

    def __init__(
        self,
        original: Graph,
        student: Graph,
        plan: Plan,
        folder: Folder,
        budget: Budget,
        seed: int,
        progress: Progress,
        checkpoints: Path | None = None,
        large_teacher: bool = False,
    ) -> None:
        """`checkpoints` is a folder for the state of training: a recovery that finds one there goes on from it.

        With `large_teacher` the student of another input size learns the classes that the original sees at its own.
        """
        torch.manual_seed(seed)
        self.teacher = _teacher(original, student.input_size)
        self.student = logits_of(student)  # the caller's student shares the layers
        self.student.module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.large = _teacher(original, original.input_size) if large_teacher else None
        self.plan = plan
        self.pairs = _pairs(self.teacher, self.student, plan, budget.deployment)
        self.changed = _changed(self.teacher, self.student)
        self.seed = seed
        self.progress = progress
        self.paces: dict[str, Pace] = {}  # by phase of training
        self.checkpoints = checkpoints
        with_labels = budget.allows("labels") and folder.train.masks is not None
        size = original.input_size if large_teacher else self.student.input_size
        self.batches = iter(Batches(self.student, folder, with_labels, seed, size))

    def leg_s(self) -> float:
        """About how long mimicry and a first leg take in full, from steps of it; 0 where that cannot be told."""
        distil.freeze_except(self.student, lambda layer: layer in self.changed)
        step_s = self._pace(self._distil_loss(), "distil").step_s
        self.student.module.zero_grad(set_to_none=True)
        return (MIMIC_STEPS + DISTIL_STEPS) * (step_s or 0.0)

    def mimic_blocks(self, until: float) -> int:
        """Each new block alone learns what the old one gave; `until` is a `time.monotonic()`.

        Returns:
            How many steps were made.
        """
        self.recalibrate()
        if not self.pairs:
            return 0
        new = {node.name for node in self.student.layers()} - {node.name for node in self.teacher.layers()}
        new |= {layer for planned in self.plan.edits for layer in planned.site.layers}
        distil.freeze_except(self.student, lambda layer: layer in new)
        loss = distil.mimic_loss(self.teacher, self.student, self.pairs)
        steps = self._train(loss, "mimicking blocks", "mimic", MIMIC_STEPS, MIMIC_SHARE * (until - time.monotonic()))
        self.recalibrate()
        return steps

    def distil_whole(self, until: float, leg: int = 0) -> int:
        """The whole learns what the original thinks: `leg` after leg, each twice as long as the one before.

        A leg is a cosine of the learning rate of its own, which ends at the latest at `until`.

        Returns:
            How many steps were made.
        """
        distil.freeze_except(self.student, lambda layer: layer in self.changed)
        return self._train(
            self._distil_loss(), "distilling", f"distil{leg}", DISTIL_STEPS << leg, until - time.monotonic()
        )

    def _distil_loss(self) -> Loss:
        features = [pair.target for pair in self.pairs]
        return distil.distil_loss(self.teacher, self.student, features, distil.Weights(), self.large)

    def _train(self, loss: Loss, what: str, name: str, steps: int, seconds: float) -> int:
        if seconds <= 0 or not any(each.requires_grad for each in self.student.module.parameters()):
            return 0
        schedule = Schedule(
            steps, time_limit_s=seconds, precision=self._pace(loss, name.rstrip("0123456789")).precision
        )
        self.student.module.zero_grad(set_to_none=True)
        checkpoint = self.checkpoints / f"{name}.ckpt" if self.checkpoints else None
        learn = partial(train, self.student.module, loss, self.batches, schedule, self.progress, what)
        try:
            log = learn(checkpoint, self.seed)
        except ModelError:
            if checkpoint is None or not checkpoint.is_file():
                raise
            self.progress.say(f"{what}: {checkpoint} is damaged, so that this part of the training starts over")
            checkpoint.unlink()
            log = learn(checkpoint, self.seed)
        return max(log.steps, int(checkpoint is not None and checkpoint.is_file()))  # those before a kill count

    def _pace(self, loss: Loss, phase: str) -> Pace:
        """Measured once for all legs."""
        if phase not in self.paces:
            self.paces[phase] = pace(loss, next(self.batches))
        return self.paces[phase]

    def recalibrate(self) -> None:
        """Measure the statistics of batch norm anew: where an edit changed what comes before, they are others."""
        images = (batch.images for batch in islice(self.batches, RECALIBRATION_BATCHES))
        recalibrate(self.student.module, images, lambda layer: layer in self.changed)


def expected_leg_s(original: Graph, images: Tensor, pixels: float, kept: float) -> float:
    """About how long mimicry and a first leg will take, before there is a plan.

    Args:
        images: a few preprocessed images (N, 3, H, W) for the original.
        pixels: the share of them that the student's input will have.
        kept: the share of the computation for one pixel that the student will have kept.
    """
    with torch.inference_mode():
        original(images[:1])
        started = time.perf_counter()
        original(images)
    forward_s = (time.perf_counter() - started) / len(images)
    step_s = BATCH_SIZE * forward_s * pixels * (1 + _WITH_GRADIENTS * kept)
    return (MIMIC_STEPS + DISTIL_STEPS) * step_s


def _teacher(original: Graph, size: tuple[int, int]) -> Graph:
    """The original's logits for images of that size, never trained."""
    teacher = original.copy() if size == original.input_size else edit.at_input_size(original, size)
    for parameter in teacher.module.parameters():
        parameter.requires_grad_(False)
    teacher.module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return logits_of(teacher)


def _pairs(teacher: Graph, student: Graph, plan: Plan, deployment: Deployment) -> list[distil.BlockPair]:
    """One per approximated block; exact edits have nothing to learn.

    A block whose result a later exact edit moved (a resize put behind the classifier) has no counterpart any more
    and learns with the whole, as does one whose ends lost channels themselves.
    """
    old, new = ({node.name for node in graph.module.graph.nodes} for graph in (teacher, student))
    known = (site for site in _approximated(plan) if site.source in old & new and site.target in old)
    pairs = [distil.BlockPair(site.source, end_of_part(teacher, site.target, deployment)) for site in known]
    inner = [pair for pair in dict.fromkeys(pairs) if pair.target in new and pair.target != student.output.name]
    return [pair for pair in inner if _same_width(teacher, student, pair)]


def _approximated(plan: Plan) -> list[Site]:
    return [planned.site for planned in plan.edits if planned.site.needs != "nothing" and not planned.site.whole]


def _same_width(teacher: Graph, student: Graph, pair: distil.BlockPair) -> bool:
    """Whether both ends of a block have the channels that they had."""
    return all(
        teacher.shape(teacher.node(name))[1] == student.shape(student.node(name))[1]
        for name in (pair.source, pair.target)
    )


def _changed(teacher: Graph, student: Graph) -> set[str]:
    """Names of layers whose values an edit changed; every layer where only the input or the head did."""
    distil.freeze_except(student, lambda _: False)
    shared = distil.shared_values(teacher, student)
    changed = {str(node.target) for node in student.layers() if node.name not in shared}
    learns = any(name.partition(".")[0] in changed for name, _ in student.module.named_parameters())
    return changed if learns else {str(node.target) for node in student.layers()}

"""The training recipe that recovers the accuracy of an edited network within the available time."""

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
MIMIC_SHARE = 0.2  # largest share of the training time that mimicry may take
RECALIBRATION_BATCHES = 12
_WITH_GRADIENTS = 3.0  # time of a forward and backward pass, over that of a forward pass
Loss = Callable[[distil.Batch], Tensor]


class Recovery:
    """Trains one student network in place, with the original as its teacher.

    First each new block learns to mimic the block that it replaces; then all layers from the first edit on are
    distilled together. Layers before the first edit stay frozen, and are computed once for teacher and student.
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
        """Prepare the recovery of `student`, which `plan` made from `original`.

        `checkpoints` is a folder for the state of training; a recovery resumes from a checkpoint that it finds there.
        With `large_teacher`, a student of another input size learns from the original at the original's input size.
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
        """Estimated seconds for mimicry and the first leg of distillation, from a few timed steps; 0 if unknown."""
        distil.freeze_except(self.student, lambda layer: layer in self.changed)
        step_s = self._pace(self._distil_loss(), "distil").step_s
        self.student.module.zero_grad(set_to_none=True)
        return (MIMIC_STEPS + DISTIL_STEPS) * (step_s or 0.0)

    def mimic_blocks(self, until: float) -> int:
        """Train each new block to give the output of the block that it replaces; `until` is a `time.monotonic()`.

        Returns:
            Number of training steps.
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
        """Distil the whole network in one `leg` (0, 1, ...), each leg twice as long as the one before.

        Every leg has its own cosine schedule of the learning rate, and ends at `until` at the latest, a
        `time.monotonic()`.

        Returns:
            Number of training steps.
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
            self.progress.say(f"{what}: {checkpoint} is damaged, so this part of the training starts over")
            checkpoint.unlink()
            log = learn(checkpoint, self.seed)
        return max(log.steps, int(checkpoint is not None and checkpoint.is_file()))  # earlier processes count

    def _pace(self, loss: Loss, phase: str) -> Pace:
        """Time per step and precision of a phase of training, measured once for all legs."""
        if phase not in self.paces:
            self.paces[phase] = pace(loss, next(self.batches))
        return self.paces[phase]

    def recalibrate(self) -> None:
        """Measure the statistics of batch norm again in all changed layers, since edits change their inputs."""
        images = (batch.images for batch in islice(self.batches, RECALIBRATION_BATCHES))
        recalibrate(self.student.module, images, lambda layer: layer in self.changed)


def expected_leg_s(original: Graph, images: Tensor, pixels: float, kept: float) -> float:
    """Estimated seconds for mimicry and the first leg of distillation, before there is a plan.

    Args:
        images: a few preprocessed images (N, 3, H, W) for the original.
        pixels: pixels of the student's input, as a share of those of the original's input, 0-1.
        kept: computation per pixel in the student, as a share of that in the original, 0-1.
    """
    with torch.inference_mode():
        original(images[:1])
        started = time.perf_counter()
        original(images)
    forward_s = (time.perf_counter() - started) / len(images)
    step_s = BATCH_SIZE * forward_s * pixels * (1 + _WITH_GRADIENTS * kept)
    return (MIMIC_STEPS + DISTIL_STEPS) * step_s


def _teacher(original: Graph, size: tuple[int, int]) -> Graph:
    """A frozen copy of the original that gives logits for images of this size (height, width)."""
    teacher = original.copy() if size == original.input_size else edit.at_input_size(original, size)
    for parameter in teacher.module.parameters():
        parameter.requires_grad_(False)
    teacher.module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return logits_of(teacher)


def _pairs(teacher: Graph, student: Graph, plan: Plan, deployment: Deployment) -> list[distil.BlockPair]:
    """One pair of old and new block for each approximation; exact edits need no training.

    Two kinds of block have no pair, and are only trained with the whole network: a block whose output was moved by a
    later exact edit (a resize put behind the classifier), and a block whose own input or output lost channels.
    """
    old, new = ({node.name for node in graph.module.graph.nodes} for graph in (teacher, student))
    known = (site for site in _approximated(plan) if site.source in old & new and site.target in old)
    pairs = [distil.BlockPair(site.source, end_of_part(teacher, site.target, deployment)) for site in known]
    inner = [pair for pair in dict.fromkeys(pairs) if pair.target in new and pair.target != student.output.name]
    return [pair for pair in inner if _same_width(teacher, student, pair)]


def _approximated(plan: Plan) -> list[Site]:
    return [planned.site for planned in plan.edits if planned.site.needs != "nothing" and not planned.site.whole]


def _same_width(teacher: Graph, student: Graph, pair: distil.BlockPair) -> bool:
    """Whether input and output of a block still have as many channels as in the teacher."""
    return all(
        teacher.shape(teacher.node(name))[1] == student.shape(student.node(name))[1]
        for name in (pair.source, pair.target)
    )


def _changed(teacher: Graph, student: Graph) -> set[str]:
    """Names of layers whose values an edit changed; all layers if none of these has weights."""
    distil.freeze_except(student, lambda _: False)
    shared = distil.shared_values(teacher, student)
    changed = {str(node.target) for node in student.layers() if node.name not in shared}
    learns = any(name.partition(".")[0] in changed for name, _ in student.module.named_parameters())
    return changed if learns else {str(node.target) for node in student.layers()}

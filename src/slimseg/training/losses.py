"""Losses for training. Logits are (N, classes, h, w), masks (N, H, W) with 255 ignored."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from slimseg.training.data import IGNORED

QUIET_SHARE = 0.1  # share of the channels' mean variance, 0-1: smaller variances are raised to it
SURE = 0.8  # least probability of the teacher's class for which it counts as a label
GRID_PIXELS = 2000  # about the number of pixels of a map that are compared


def cross_entropy(logits: Tensor, masks: Tensor) -> Tensor:
    """Mean over labelled pixels, 0 if there are none; logits are resized to the masks' size."""
    total = F.cross_entropy(at_size(logits, masks.shape[1:]), masks, ignore_index=IGNORED, reduction="sum")
    return total / (masks != IGNORED).sum().clamp(min=1)


def lovasz_softmax(logits: Tensor, masks: Tensor) -> Tensor:
    """A convex surrogate of 1 - mIoU (Berman et al., "The Lovász-Softmax loss", 2018, eq. 9 and algorithm 1).

    It is computed on a random grid of pixels, as sorting all of them takes longer than the network.
    """
    logits, sampled = _grid(at_size(logits, masks.shape[1:]), masks[:, None])
    probabilities, masks = logits.softmax(1).movedim(1, -1), sampled[:, 0]
    known = masks != IGNORED
    probabilities, labels = probabilities[known], masks[known]
    losses = []
    for index in torch.unique(labels):
        truth = (labels == index).float()
        errors, order = (truth - probabilities[:, index]).abs().sort(descending=True)
        losses.append(errors @ _jaccard_gradient(truth[order]))
    return torch.stack(losses).mean() if losses else logits.sum() * 0


def _jaccard_gradient(sorted_truth: Tensor) -> Tensor:
    total = sorted_truth.sum()
    intersection = total - sorted_truth.cumsum(0)
    union = total + (1 - sorted_truth).cumsum(0)
    jaccard = 1 - intersection / union
    return torch.cat((jaccard[:1], jaccard[1:] - jaccard[:-1]))


def distillation(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """T² KL(softmax(teacher/T) ‖ softmax(student/T)), mean over pixels (Hinton et al., 2015, section 2.1).

    The teacher's logits are resized to the student's size. A single channel is the logit of the second of two classes;
    one network may have a single channel and the other both.
    """
    student, teacher = two_classes(student), two_classes(at_size(teacher, student.shape[2:]))
    log_student = (student / temperature).log_softmax(1)
    log_teacher = (teacher / temperature).log_softmax(1)
    return temperature**2 * F.kl_div(log_student, log_teacher, log_target=True, reduction="none").sum(1).mean()


@torch.no_grad()
def sure_classes(logits: Tensor, least: float = SURE) -> Tensor:
    """(N, h, w): the class of each pixel if its probability is at least `least`, else 255."""
    probability, classes = two_classes(logits).softmax(1).max(1)
    return torch.where(probability >= least, classes, IGNORED)


def two_classes(logits: Tensor) -> Tensor:
    """Logits of both classes, if `logits` has one channel: the logit of the second of two; else `logits`."""
    return torch.cat((-logits / 2, logits / 2), 1) if logits.shape[1] == 1 else logits


def mimicry(student: Tensor, teacher: Tensor) -> Tensor:
    """Squared error of features relative to the teacher's variance: 0 if equal, 1 for a constant channel mean.

    Features are (N, C, h, w); each channel's error is divided by its variance, except in almost silent channels. Large
    maps are compared on a random grid of pixels: neighbours are almost equal, and comparing all moves many bytes.
    """
    if student.shape[2:] != teacher.shape[2:]:
        student = at_size(student, teacher.shape[2:])
    student, teacher = _grid(student, teacher)
    error = (student - teacher).square().mean((0, 2, 3))
    variance = teacher.var((0, 2, 3), unbiased=False)
    # Without this minimum, channels that are almost always silent would dominate the mean.
    return (error / variance.clamp(min=QUIET_SHARE * float(variance.mean()) + 1e-12)).mean()


def _grid(*maps: Tensor) -> list[Tensor]:
    """Every k-th row and column of each map, from a random start that is the same for all maps."""
    step = max(1, math.isqrt(maps[0].shape[2] * maps[0].shape[3] // GRID_PIXELS))
    row, column = torch.randint(step, (2,)).tolist()
    return [each[:, :, row::step, column::step] for each in maps]


def at_size(logits: Tensor, size: torch.Size | tuple[int, ...]) -> Tensor:
    """Logits resized to (h, w), bilinearly, if they have another size."""
    if logits.shape[2:] == tuple(size):
        return logits
    return F.interpolate(logits, tuple(size), mode="bilinear", align_corners=False)

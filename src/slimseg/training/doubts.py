"""Whether a network's masks of the user's images mean anything: asked before time is spent on it.

A network that is fed the wrong numbers still gives masks, and its mIoU is a number like any other. What gives it away
is that guessing does about as well: one class for every pixel, or each class as often as it comes, wherever it lies.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from slimseg.graph.description import Description
from slimseg.progress import Progress
from slimseg.training.metrics import Confusion

ENOUGH = 24  # images that are asked about
ONE_CLASS = 0.999  # of the pixels: as good as all
BARELY_BETTER = 1.1  # times what guessing gets
LEAST_KAPPA = 0.3  # camvid_unet, fed with bytes that are not normalised, has 0.2 and a mIoU of 10; as it should, 0.9
RELABELLED = 0.5  # of the pixels are right with other numbers for the classes: those are at fault
_WRONG = "the network as it came seems to be wrong on these images"
Mask = NDArray[np.uint8]
Counts = NDArray[np.float64]


class Seen:
    """Masks of a network and, where there are labels, how they fit them."""

    def __init__(self, classes: int) -> None:
        self.confusion = Confusion(classes)
        self.labelled = False
        self._predicted = np.zeros(256)  # pixels by class

    def add(self, mask: Mask, truth: Mask | None) -> None:
        """One image: masks (height, width) of one size."""
        self._predicted += np.bincount(mask.ravel(), minlength=256)
        if truth is not None:
            self.labelled = True
            self.confusion.add(mask, truth)

    def doubts(self, description: Description, names: Sequence[str]) -> tuple[str, ...]:
        """Sentences on what makes no sense, with what may be the reason; empty where all is well."""
        matrix: Counts = self.confusion.matrix.astype(float)  # by class of the mask, by class of the network
        if self.labelled and not matrix.sum():
            return ("no pixel of the masks counts: all are 255, which is ignored",)
        told = self._one_class(names)
        if not self.labelled:
            return (f"{_WRONG}: {told}{_reasons(description)}",) if told else ()
        labelled = matrix.sum(1)
        if labelled.max() == labelled.sum():
            only = _name(names, int(labelled.argmax()))
            return (f"every pixel of the masks that counts is {only}: accuracy on them says little about a network",)
        miou, guessed = self.confusion.scores().miou, guessing(matrix)
        if miou > BARELY_BETTER * guessed and kappa(matrix) > LEAST_KAPPA:
            return ()
        told = told or f"its mIoU is {miou:.1f}, where guessing gets {guessed:.1f} (Cohen's kappa {kappa(matrix):.2f})"
        return (f"{_WRONG}: {told}{_relabelled(matrix, names) or _reasons(description)}",)

    def _one_class(self, names: Sequence[str]) -> str:
        most = int(self._predicted.argmax())
        share = self._predicted[most] / max(1.0, self._predicted.sum())
        return f"it takes every pixel for {_name(names, most)}" if share >= ONE_CLASS else ""


def say_doubts(doubts: Sequence[str], progress: Progress) -> None:
    for doubt in doubts:
        progress.say(f"warning: {doubt}")


def guessing(matrix: Counts) -> float:
    """The mIoU of the better of two guesses: the commonest class everywhere, or the network's classes anywhere.

    `matrix` counts pixels by class of the mask and class of the network.
    """
    truth, predicted = matrix.sum(1) / matrix.sum(), matrix.sum(0) / matrix.sum()
    constant = truth.max() / np.count_nonzero(truth)
    both = truth * predicted  # the share of pixels where they meet by chance
    union = truth + predicted - both
    by_chance = np.mean(both[union > 0] / union[union > 0])
    return 100 * float(max(constant, by_chance))


def kappa(matrix: Counts) -> float:
    """Cohen's kappa: agreement beyond chance, 1 where the network is always right and 0 where it guesses."""
    truth, predicted = matrix.sum(1) / matrix.sum(), matrix.sum(0) / matrix.sum()
    by_chance = float(truth @ predicted)
    return (float(np.trace(matrix) / matrix.sum()) - by_chance) / max(1e-9, 1 - by_chance)


def _relabelled(matrix: Counts, names: Sequence[str]) -> str:
    """Where the same masks fit well once classes are renumbered: which of them to look at."""
    from scipy.optimize import linear_sum_assignment  # half a second, for a rare question

    truth, network = linear_sum_assignment(matrix, maximize=True)
    fits = matrix[truth, network].sum() / matrix.sum()
    commonest = matrix.sum(1).max() / matrix.sum()
    moved = [(int(old), int(new)) for old, new in zip(truth, network, strict=True) if old != new and matrix[old, new]]
    if not moved or fits < max(RELABELLED, (1 + commonest) / 2):
        return ""
    largest = max(moved, key=lambda pair: float(matrix[pair]))
    of_masks, of_network = (_name(names, index) for index in largest)
    return (
        f", but {100 * fits:.0f}% of the pixels fit once classes are renumbered: what the masks call {of_masks}, the "
        f"network calls {of_network}"
    )


def _reasons(description: Description) -> str:
    used = description.preprocessing
    mean, std = (",".join(f"{value:g}" for value in each) for each in (used.mean, used.std))
    return (
        f": check `mean` ({mean} now), `std` ({std}), `channel_order` ({used.channel_order}), `output_kind` "
        f"({description.output_kind}), the order of the classes, and the masks"
    )


def _name(names: Sequence[str], index: int) -> str:
    return names[index] if index < len(names) else f"class {index}"

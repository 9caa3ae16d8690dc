"""Check whether a network's masks of the user's images make sense, before time is spent on it.

A network with wrong preprocessing still gives masks with some mIoU. It is recognised because guessing does about as
well: the same class for every pixel, or each class with its frequency at random places.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from slimseg.graph.description import Description
from slimseg.progress import Progress
from slimseg.training.metrics import Confusion

ENOUGH = 24  # number of images that are checked
ONE_CLASS = 0.999  # share of the pixels that counts as all of them, 0-1
BARELY_BETTER = 1.1  # a mIoU of less than this multiple of guessing's is doubtful
LEAST_KAPPA = 0.3  # camvid_unet has 0.2 (and a mIoU of 10) without normalisation of its input, and 0.9 with it
RELABELLED = 0.5  # least share of pixels right after renumbering classes for which their order is blamed, 0-1
_WRONG = "the original network seems to be wrong on these images"
Mask = NDArray[np.uint8]
Counts = NDArray[np.float64]


class Seen:
    """Counts over a network's masks: pixels by class and, with labels, the confusion matrix."""

    def __init__(self, classes: int) -> None:
        self.confusion = Confusion(classes)
        self.labelled = False
        self._predicted = np.zeros(256)  # pixels by class

    def add(self, mask: Mask, truth: Mask | None) -> None:
        """Add one image: masks (height, width) of the same size; `truth` is None without labels."""
        self._predicted += np.bincount(mask.ravel(), minlength=256)
        if truth is not None:
            self.labelled = True
            self.confusion.add(mask, truth)

    def doubts(self, description: Description, names: Sequence[str]) -> tuple[str, ...]:
        """Sentences on what looks wrong, with possible reasons; empty if all is well."""
        matrix: Counts = self.confusion.matrix.astype(float)  # rows: class in the mask, columns: class of the network
        if self.labelled and not matrix.sum():
            return ("every pixel of the masks is 255, which is ignored: give masks of class indices",)
        told = self._one_class(names)
        if not self.labelled:
            return (f"{_WRONG}: {told}{_reasons(description)}",) if told else ()
        labelled = matrix.sum(1)
        if labelled.max() == labelled.sum():
            only = _name(names, int(labelled.argmax()))
            return (f"the masks contain only {only} or ignored pixels: accuracy on them says little about a network",)
        miou, guessed = self.confusion.scores().miou, guessing(matrix)
        if miou > BARELY_BETTER * guessed and kappa(matrix) > LEAST_KAPPA:
            return ()
        told = (
            told or f"its mIoU is {miou:.1f}, while guessing reaches {guessed:.1f} (Cohen's kappa {kappa(matrix):.2f})"
        )
        return (f"{_WRONG}: {told}{_relabelled(matrix, names) or _reasons(description)}",)

    def _one_class(self, names: Sequence[str]) -> str:
        most = int(self._predicted.argmax())
        share = self._predicted[most] / max(1.0, self._predicted.sum())
        return f"it predicts {_name(names, most)} for every pixel" if share >= ONE_CLASS else ""


def say_doubts(doubts: Sequence[str], progress: Progress) -> None:
    for doubt in doubts:
        progress.say(f"warning: {doubt}")


def guessing(matrix: Counts) -> float:
    """The mIoU in percent of the better of two guesses: the commonest class everywhere, or the network's at random.

    `matrix` counts pixels: rows are the class in the mask, columns the network's class. The second guess assigns the
    network's classes, as often as it predicts them, to random pixels.
    """
    truth, predicted = matrix.sum(1) / matrix.sum(), matrix.sum(0) / matrix.sum()
    constant = truth.max() / np.count_nonzero(truth)
    both = truth * predicted  # the share of pixels where they agree by chance
    union = truth + predicted - both
    by_chance = np.mean(both[union > 0] / union[union > 0])
    return 100 * float(max(constant, by_chance))


def kappa(matrix: Counts) -> float:
    """Cohen's kappa, the agreement beyond chance: 1 if the network is always right, 0 if it guesses."""
    truth, predicted = matrix.sum(1) / matrix.sum(), matrix.sum(0) / matrix.sum()
    by_chance = float(truth @ predicted)
    return (float(np.trace(matrix) / matrix.sum()) - by_chance) / max(1e-9, 1 - by_chance)


def _relabelled(matrix: Counts, names: Sequence[str]) -> str:
    """If the masks fit well once classes are renumbered: a sentence that names the two most confused; else empty."""
    from scipy.optimize import linear_sum_assignment  # takes half a second to import and is rarely needed

    truth, network = linear_sum_assignment(matrix, maximize=True)
    fits = matrix[truth, network].sum() / matrix.sum()
    commonest = matrix.sum(1).max() / matrix.sum()
    moved = [(int(old), int(new)) for old, new in zip(truth, network, strict=True) if old != new and matrix[old, new]]
    if not moved or fits < max(RELABELLED, (1 + commonest) / 2):
        return ""
    largest = max(moved, key=lambda pair: float(matrix[pair]))
    of_masks, of_network = (_name(names, index) for index in largest)
    return (
        f", but {100 * fits:.0f}% of the pixels are right once classes are renumbered: {of_masks} in the masks is "
        f"{of_network} in the network"
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

"""Accuracy from a confusion matrix over a whole split: mIoU, IoU by class and pixel accuracy, all in percent."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from slimseg.training.data import IGNORED


@dataclass(frozen=True)
class Scores:
    miou: float
    pixel_accuracy: float
    class_iou: tuple[float | None, ...]  # None: the class is neither in the masks nor in the predictions


class Confusion:
    """Counts (truth, prediction) pairs of class indices, without pixels whose truth is 255."""

    def __init__(self, classes: int) -> None:
        self.classes = classes
        self.matrix = np.zeros((classes, classes), np.int64)  # rows are the truth

    def add(self, prediction: NDArray[np.uint8], truth: NDArray[np.uint8]) -> None:
        """Add one image: masks (height, width) of the same size; indices are below the number of classes, or 255."""
        known = truth != IGNORED
        pairs = truth[known].astype(np.intp) * self.classes + prediction[known]
        self.matrix += np.bincount(pairs, minlength=self.classes**2).reshape(self.classes, self.classes)

    def scores(self) -> Scores:
        """The scores so far; mIoU is the mean over the classes that occur in the masks or in the predictions."""
        hits = self.matrix.diagonal()
        union = self.matrix.sum(0) + self.matrix.sum(1) - hits
        iou = [100 * float(hit / all_) if all_ else None for hit, all_ in zip(hits, union, strict=True)]
        known = [each for each in iou if each is not None]
        total = int(self.matrix.sum())
        return Scores(
            sum(known) / len(known) if known else 0.0, 100 * int(hits.sum()) / total if total else 0.0, tuple(iou)
        )


@dataclass(frozen=True)
class Accuracy:
    """Accuracy of one file on some images, in percent."""

    miou: float | None  # None without labels
    agreement: float | None  # pixels with the same class as in the original's masks; None without such masks

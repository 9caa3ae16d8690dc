"""Accuracy from one confusion matrix over the whole split: mIoU, IoU by class, pixel accuracy, all in percent."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torchmetrics.functional.classification import multiclass_confusion_matrix

from slimseg.training.data import IGNORED


@dataclass(frozen=True)
class Scores:
    miou: float
    pixel_accuracy: float
    class_iou: tuple[float | None, ...]  # None: the class is neither in the masks nor in the predictions


class Confusion:
    """Counts (truth, prediction) pairs of class indices, pixels with truth 255 left out."""

    def __init__(self, classes: int) -> None:
        self.classes = classes
        self.matrix = torch.zeros(classes, classes, dtype=torch.long)

    def add(self, prediction: NDArray[np.uint8], truth: NDArray[np.uint8]) -> None:
        """One image: masks (height, width) of equal size."""
        self.matrix += multiclass_confusion_matrix(
            torch.from_numpy(prediction.astype(np.int64)),
            torch.from_numpy(truth.astype(np.int64)),
            self.classes,
            ignore_index=IGNORED,
            validate_args=False,
        )

    def scores(self) -> Scores:
        """mIoU is the mean over the classes that occur in the masks or in the predictions."""
        matrix = self.matrix.double()
        hits = matrix.diag()
        union = matrix.sum(0) + matrix.sum(1) - hits
        iou = [100 * float(hit / all_) if all_ else None for hit, all_ in zip(hits, union, strict=True)]
        known = [each for each in iou if each is not None]
        total = float(matrix.sum())
        return Scores(
            sum(known) / len(known) if known else 0.0, 100 * float(hits.sum()) / total if total else 0.0, tuple(iou)
        )

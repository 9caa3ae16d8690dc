"""The accuracy of a file on labelled images."""

from __future__ import annotations

from dataclasses import dataclass

from slimseg.results.result import Result


@dataclass(frozen=True, repr=False)
class Evaluation(Result):
    """Accuracy of the deployed file on a split: one confusion matrix over all pixels, at the masks' own resolution."""

    headline = ("model", "data", "split", "images", "miou", "pixel_accuracy")

    model: str
    data: str
    split: str
    images: int
    miou: float
    pixel_accuracy: float
    class_iou: dict[str, float | None]  # None: the class occurs neither in the masks nor in the predictions
    notes: tuple[str, ...] = ()  # how images and masks were interpreted, and whether the mIoU is plausible

"""The accuracy of a file on labelled images."""

from __future__ import annotations

from dataclasses import dataclass

from slimseg.results.export import Departure
from slimseg.results.result import Result


@dataclass(frozen=True)
class BesideCPU(Result):
    """A processor's masks beside those that the CPU makes of the same images, with the same file."""

    cpu_miou: float
    changed_percent: float  # pixels of another class, 0-100
    worst_changed_percent: float  # the same on the image with most
    departure: Departure | None = None  # if many pixels changed: the first layer whose values differ, on that image
    beyond_half: tuple[str, ...] = ()  # layers with values beyond float16, in which the processor computes on phones


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
    processor: str = "cpu"  # which computed the masks
    beside_cpu: BesideCPU | None = None  # if another than the CPU did
    notes: tuple[str, ...] = ()  # how images and masks were interpreted, and whether the mIoU is plausible

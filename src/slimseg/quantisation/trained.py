"""One more int8 file: the best of the others, trained in 8 bits for the time that the user gives.

It starts from the network that the best file was made from, which is equalised if that helped. The original in float32
is the teacher; labels are used if there are any.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from slimseg.errors import UserError
from slimseg.frontends import load
from slimseg.graph.graph import Graph
from slimseg.quantisation.bench import Base, Bench, Trial
from slimseg.quantisation.calibration import Method
from slimseg.quantisation.carried import carried
from slimseg.quantisation.qat import QuantisationAwareTraining
from slimseg.quantisation.schemes import TRAINED
from slimseg.training import separate_images
from slimseg.training.data import Folder

_RANGES: Method = "mse"  # finds the initial ranges
_STEPS = 1_000_000  # never reached: the time limit ends training


@dataclass(frozen=True)
class Course:
    """The images to train on, and the time limit in seconds."""

    folder: Folder
    seconds: float


def check(seconds: float, data: object, schemes: set[str]) -> None:
    """Check the user's request for training.

    Raises:
        UserError: there are no images, or no file becomes int8.
    """
    if seconds and data is None:
        raise UserError("`train_s` needs images for training: give `images`")
    if seconds and "int8" not in schemes:
        raise UserError(f"`train_s` applies to int8 only, not to `scheme` {'/'.join(sorted(schemes))}: leave it out")


def tried(bench: Bench, course: Course, teacher: Graph, best: Trial) -> list[Trial]:
    """The trained network's file, timed and judged.

    Raises:
        Unsupported: the network cannot be written by slimseg itself, or mixes the images of a batch.
    """
    separate_images.check(teacher)
    student = load(best.base.path, verify=False) if best.base.is_ours else teacher
    folder, with_labels = course.folder, course.folder.train.masks is not None
    training = QuantisationAwareTraining(student, folder, with_labels, 0, bench.progress, _RANGES, teacher, io=bench.io)
    training.train(_STEPS, course.seconds)
    float_path, path = bench.scratch / "trained_float32.tflite", bench.scratch / "trained_int8.tflite"
    training.write(float_path, path)
    path = carried(path, float_path, "int8", bench.source.its)
    attempt = replace(best.attempt, ranges=_RANGES, corrected=TRAINED)
    return bench.timed([bench.judged(Trial(attempt, Base(float_path), path))], best.row.original_ms)

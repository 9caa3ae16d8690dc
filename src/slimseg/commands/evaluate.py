"""`slimseg evaluate`: measures the accuracy of a deployed file on a split, by running the file itself."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from slimseg.deployment import CPU, DEFAULT_RUNTIME
from slimseg.disk import scratch
from slimseg.errors import DataError, ModelError
from slimseg.exporting import beside_cpu
from slimseg.frontends import describe, opens, with_one_output
from slimseg.graph.description import Description
from slimseg.graph.graph import Graph
from slimseg.graph.orders import nchw
from slimseg.graph.output import class_count
from slimseg.planning.choosing import sensitivity
from slimseg.progress import Progress, Silent
from slimseg.report.images import Example
from slimseg.results import Evaluation
from slimseg.runtimes import host, registry
from slimseg.runtimes.processor import Processor
from slimseg.training.data import Folder, Pixels, Split, open_folder, read_pair, say_notes
from slimseg.training.doubts import ENOUGH, Seen, say_doubts
from slimseg.training.metrics import Accuracy, Confusion, Scores

EXAMPLES = 4
BATCH = 8  # number of images passed to the runtime at once


def evaluate(
    model: Graph | str | Path,
    *,
    images: str | Path | Folder,
    split: str = "val",
    runtime: str | None = None,
    description: Description | None = None,
    output: str | int | None = None,
    threads: int = 1,
    processor: Processor | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """mIoU, IoU by class and pixel accuracy of a file at the masks' own resolution, from one confusion matrix.

    Logits and probabilities are resized bilinearly before the argmax, a mask by nearest neighbour.

    Args:
        model: the path of a `.tflite`, `.param` or `.onnx`, or a Graph, which is first written to a float file.
        images: a folder with images and masks, or the result of `open_folder`.
        split: "val" or "train".
        description: preprocessing and kind of output; by default as stored in the file or implied by its layers.
        threads: CPU threads of the runtime.
        progress: where to show progress; silent by default.
        runtime: runtime for a Graph, by default `deployment.DEFAULT_RUNTIME`; a file determines its own.
        output: name or number of the output to evaluate in a file with several; by default the likeliest.
        processor: the processor that computes the masks, which are then also compared with the CPU's; None for the CPU.

    Raises:
        ModelError, DataError, UserError: an argument cannot be used; the message says why.
    """
    folder = open_folder(images)
    progress = progress or Silent()
    say_notes(folder, progress)
    part = folder.split(split)
    if part.masks is None:
        raise DataError(
            f"{folder.path} has no masks to measure accuracy against: add masks (`slimseg slim` works without)"
        )
    with scratch.folder() as work:
        if isinstance(model, Graph):
            chosen = registry.named(runtime or DEFAULT_RUNTIME)
            path = work / f"{model.name}{chosen.suffix}"
            chosen.write(model, path)
        else:
            path = Path(model)
            registry.named(registry.of(path).name)
            if opens(path):
                path, note = with_one_output(path, output, work)
                if note:
                    progress.say(f"{model}: {note}")
        means = description or _described(path)
        names = means.classes or folder.classes
        classes = class_count_of(path, means, names)
        if processor is None:
            seen, beside = _seen(path, part, means, classes, threads, progress), None
        else:
            runs = (predictions(path, part, means, classes, threads, progress, each) for each in (processor, None))
            seen, beside = beside_cpu.compare(processor, path, means, classes, runs)
    if not seen.confusion.matrix.any():
        raise DataError(
            f"every pixel of the {split} masks in {folder.path} is 255, which is ignored: give masks of class indices"
        )
    scores, found = seen.confusion.scores(), seen.doubts(means, names)
    say_doubts(found, progress)
    return Evaluation(
        model=str(model.name if isinstance(model, Graph) else model),
        data=str(folder.path),
        split=split,
        images=len(part.images),
        miou=scores.miou,
        pixel_accuracy=scores.pixel_accuracy,
        class_iou={_name(names, index): iou for index, iou in enumerate(scores.class_iou)},
        notes=(*folder.notes, *found),
        processor=processor.name if processor else CPU,
        beside_cpu=beside,
    )


def _described(path: Path) -> Description:
    """The description stored in a file, or implied by its layers if slimseg did not write it.

    Raises:
        ModelError: the file has no description, and none can be derived.
    """
    if opens(path):
        return describe(path)
    said = registry.of(path).read(path).description
    if said is None:
        raise ModelError(f"{path} has no description of its input and output: export it with slimseg")
    return said


def _name(names: tuple[str, ...], index: int) -> str:
    return names[index] if index < len(names) else f"class {index}"


def class_count_of(path: Path, description: Description, names: tuple[str, ...]) -> int:
    """Number of classes that a file distinguishes.

    Raises:
        DataError: the file gives a mask, and there are no class names to count.
    """
    model = registry.of(path).read(path)
    output = model.outputs[0]
    if not output.shape:  # files of some runtimes do not store the output's shape
        return len(names) if len(names) > 1 else _seen_classes(path, model, description)
    channels = _channels(output.shape, math.prod(model.inputs[0].shape[1:3]))
    is_mask = output.dtype in ("int32", "int64", "bool", "uint8", "int8") and not output.scale and channels == 1
    if description.output_kind != "mask" and not is_mask:
        return max(2, channels)
    if len(names) < 2:
        raise DataError(
            f"{path} outputs a mask, which does not show the number of classes: add a classes.txt to the images"
        )
    return len(names)


def _seen_classes(path: Path, model: host.Described, description: Description) -> int:
    """Number of classes in a file's output, found by running it on a black image."""
    app = host.App(model, description)
    size = app.pipeline.size
    (output,) = registry.of(path).predict(path, app.prepare(np.zeros((*size, 3), np.uint8))[None])
    scores = host.in_rows(output, size, path)
    return max(2, scores.shape[-1] if scores.ndim == 3 else 1)


def _channels(shape: tuple[int, ...], pixels: int) -> int:
    """Number of channels of an output of shape (1, h, w, channels) or (1, h, w), or of a flat one."""
    if len(shape) == 4:
        return shape[3]
    return 1 if len(shape) == 3 else math.prod(shape) // max(1, pixels)


def score(path: Path, split: Split, description: Description, classes: int, threads: int, progress: Progress) -> Scores:
    """Scores of a file on a labelled split."""
    return _seen(path, split, description, classes, threads, progress).confusion.scores()


def _seen(path: Path, split: Split, description: Description, classes: int, threads: int, progress: Progress) -> Seen:
    seen = Seen(classes)
    for _, truth, mask in predictions(path, split, description, classes, threads, progress):
        seen.add(mask, truth)
    return seen


def predictions(
    path: Path,
    split: Split,
    description: Description,
    classes: int | None,
    threads: int,
    progress: Progress,
    processor: Processor | None = None,
) -> Iterator[tuple[Pixels, Pixels | None, Pixels]]:
    """(image, labelled mask or None, predicted mask) for every image of a split, masks at the image's own size.

    Raises:
        DataError: an image or mask cannot be used.
        RuntimeFailure: the runtime or the processor refused the file or crashed.
    """
    app, predict = host.App(registry.of(path).read(path), description), (processor or registry.of(path)).predict
    starts = range(0, len(split.images), BATCH)
    for start in progress.track(starts, f"evaluating {path.name}"):
        pairs = [read_pair(split, index, classes) for index in range(start, min(start + BATCH, len(split.images)))]
        outputs = predict(path, np.stack([app.prepare(image) for image, _ in pairs]), threads)
        for (image, truth), output in zip(pairs, outputs, strict=True):
            yield image, truth, app.mask(output, _size(image))


def _size(image: NDArray[np.uint8]) -> tuple[int, int]:
    return image.shape[0], image.shape[1]


class Judge:
    """Measures the accuracy of deployed files on one split: mIoU by the labels, and agreement with the first file."""

    def __init__(
        self,
        split: Split,
        description: Description,
        classes: int,
        threads: int,
        progress: Progress,
        own: Path | None = None,
    ) -> None:
        self.split = split
        self.description = description  # for files without a description, and always for `own`
        self.own = own
        self.classes = classes
        self.threads = threads
        self.progress = progress
        self._reference: list[Pixels] | None = None

    @property
    def count(self) -> int:
        """Number of images on which accuracy is measured."""
        return len(self.split.images)

    def described(self, path: Path) -> Description:
        """Preprocessing and kind of output of a file."""
        said = None if path == self.own else registry.of(path).read(path).description
        return said or self.description

    def doubts(self, path: Path, names: Sequence[str], count: int = ENOUGH) -> tuple[str, ...]:
        """Doubts whether the original suits the images, in sentences, from `count` of them; shown to the user at once.

        Raises:
            DataError, ModelError, RuntimeFailure: as `accuracy`.
        """
        description = self.described(path)
        seen = _seen(path, self.split.spread(count), description, self.classes, self.threads, self.progress)
        found = seen.doubts(description, names)
        say_doubts(found, self.progress)
        return found

    def accuracy(self, path: Path) -> Accuracy:
        """Accuracy of a file. The first file becomes the reference for agreement.

        Raises:
            DataError: an image or mask cannot be used.
            ModelError: the file cannot be read.
            RuntimeFailure: the runtime refused the file or crashed.
        """
        description = self.described(path)
        confusion = Confusion(self.classes)
        masks = []
        for _, truth, mask in predictions(path, self.split, description, self.classes, self.threads, self.progress):
            masks.append(mask)
            if truth is not None:
                confusion.add(mask, truth)
        if self._reference is None:
            self._reference = masks
        same = [float(np.mean(mask == other)) for mask, other in zip(masks, self._reference, strict=True)]
        counted = bool(confusion.matrix.any())  # False without labels, or if all are ignored
        return Accuracy(confusion.scores().miou if counted else None, 100 * float(np.mean(same)))


class Evaluator:
    """Measures accuracy for `slim`: by the labels, or without labels by agreement with the original's masks."""

    def __init__(self, folder: Folder, original: Graph, progress: Progress) -> None:
        self.folder = folder
        self.original = original
        self.progress = progress
        self.classes = original.description.classes or folder.classes
        self.notes = (*original.notes, *folder.notes)  # notes for the result
        self.count = self._count()
        self.judge = self._judge(folder.val)

    def _judge(self, split: Split) -> Judge:
        return Judge(split, self.original.description, self.count, 1, self.progress, self.original.source)

    def _count(self) -> int:
        if self.original.description.output_kind == "mask":
            return max(2, len(self.classes))
        return class_count(self.original)

    def accuracy(self, path: Path) -> Accuracy:
        """Accuracy of a deployed file. The first file becomes the reference for agreement."""
        return self.judge.accuracy(path)

    def look_at_original(self, on: str, count: int = ENOUGH) -> float:
        """Check on `count` images whether the original suits them, before time is spent; adds doubts to `notes`.

        Returns:
            Seconds that it takes to measure accuracy on one image; 0 if the input is no RGB image.
        """
        if self.original.input_shape[1] != 3:  # the input is no RGB image
            return 0.0
        with scratch.folder() as work:
            path = work / f"original{registry.named(on).suffix}"
            registry.named(on).write(self.original, path)
            start = time.monotonic()
            doubts = self.judge.doubts(path, self.classes, count)
        self.notes = (*self.notes, *doubts)
        return (time.monotonic() - start) / min(count, self.judge.count)

    def judge_by(self, count: int) -> None:
        """Measure accuracy on at most `count` images, evenly spread over the split, to save time."""
        total = self.judge.count
        if count >= total:
            return
        self.judge = self._judge(self.folder.val.spread(count))
        note = f"accuracy is measured on {count} of {total} images: `time_limit_s` leaves no time for all of them"
        self.progress.say(note)
        self.notes = (*self.notes, note)

    def told(self) -> dict[str, Any]:
        """The images on which accuracy is measured, and notes about them, as fields of a result."""
        data = str(self.folder.path.absolute())
        return {"data": data, "validation_images": self.judge.count, "notes": self.notes}

    def tensor(self, graph: Graph, count: int) -> torch.Tensor:
        """Preprocessed validation images (N, 3, H, W) at the graph's input size, spread over the split."""
        pipeline = host.ImagePipeline(graph.description.preprocessing, graph.input_size)
        images = [pipeline(read_pair(self.folder.val, index)[0]) for index in self._spread(count)]
        return nchw(np.stack(images))

    def _spread(self, count: int) -> list[int]:
        total = len(self.folder.val.images)
        return [int(index) for index in np.linspace(0, total - 1, min(count, total)).round()]

    def graph_accuracy(self, graph: Graph, count: int) -> float:
        """mIoU of a Graph on `count` images; without labels, agreement with the original; 0-100. Fast, for planning."""
        confusion = Confusion(self.count)
        agreement = []
        reference = None if self.folder.labelled else self._masks(self.original, count)
        for number, (index, mask) in enumerate(zip(self._spread(count), self._masks(graph, count), strict=True)):
            image, truth = read_pair(self.folder.val, index, self.count)
            if truth is not None:
                confusion.add(_resized(mask, _size(image)), truth)
            elif reference is not None:
                agreement.append(
                    float(np.mean(_resized(mask, _size(image)) == _resized(reference[number], _size(image))))
                )
        return confusion.scores().miou if reference is None else 100 * float(np.mean(agreement))

    def _masks(self, graph: Graph, count: int) -> list[Pixels]:
        size = self.original.input_size
        found = sensitivity.masks(graph, self.tensor(graph, count), size)
        return [mask.numpy().astype(np.uint8) for mask in found]

    def examples(self, before: Path, after: Path) -> list[Example]:
        """A few validation images with the masks of both files."""
        indices = self._spread(EXAMPLES)
        part = self.folder.val.chosen(indices)
        old, new = (
            list(predictions(path, part, self.judge.described(path), None, 1, Silent())) for path in (before, after)
        )
        return [
            Example(path.stem, image, truth, first, second)
            for path, (image, truth, first), (_, _, second) in zip(part.images, old, new, strict=True)
        ]


def _resized(mask: Pixels, size: tuple[int, int]) -> Pixels:
    return host.to_mask(mask, size, "mask")

"""The article's claims about whole networks and their accuracy, on camvid_unet and CamVid's validation images.

Needs the folder `shared` beside the checkout.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from article_claims import FASTER, Case
from torch import nn

import slimseg
from slimseg.commands.evaluate import evaluate
from slimseg.graph.edit import append, at_input_size
from slimseg.graph.graph import Graph
from slimseg.graph.ops import Resize
from slimseg.runtimes import host
from slimseg.runtimes.litert.quantising import quantizer
from slimseg.runtimes.litert.writing import writer
from slimseg.training.data import open_folder

SHARED = Path(__file__).resolve().parents[2] / "shared"
LITTLE = (-2.0, float("inf"))  # points of mIoU gained: at most two lost
SAME = (-1.0, 1.0)
MASK = (360, 480)  # CamVid's masks
CALIBRATION_IMAGES = 32


@dataclass(frozen=True)
class Accuracy:
    """mIoU of two networks; the claim holds if the second gains `claimed` (low, high) points. No training between."""

    label: str
    before: Graph
    after: Graph
    claimed: tuple[float, float]


def available() -> bool:
    return (SHARED / "models" / "camvid_unet.pt2").is_file() and (SHARED / "camvid").is_dir()


def network() -> Graph:
    return slimseg.load(SHARED / "models" / "camvid_unet.pt2", mean=127, std=128)


def halved_cases(graph: Graph) -> tuple[Case, ...]:
    """Exact halves at sizes that the network accepts, multiples of 32."""

    def case(size: tuple[int, int]) -> Case:
        half = (size[0] // 2, size[1] // 2)
        label = f"camvid_unet, {size[0]}x{size[1]} → {half[0]}x{half[1]}"
        sizes = (lambda: at_input_size(graph, size)), (lambda: at_input_size(graph, half))
        return Case(label, *sizes, (1 / 0.3, 1 / 0.2))

    return case((384, 512)), case((320, 448))


def softmax_case(graph: Graph) -> Case:
    return Case("camvid_unet", lambda: append(graph, nn.Softmax(1), "softmax"), lambda: graph, FASTER)


def halved_accuracy(graph: Graph) -> tuple[Accuracy, ...]:
    """352x480 has no exact half that the network accepts: the two sizes next to it."""
    return tuple(
        Accuracy(f"352x480 → {height}x{width}", graph, at_input_size(graph, (height, width)), LITTLE)
        for height, width in ((224, 288), (192, 256), (160, 224), (96, 128))
    )


def nearest_accuracy(graph: Graph) -> tuple[Accuracy, ...]:
    """The logits of a small input brought to the masks' size, by bilinear and by nearest upsampling."""
    pairs = []
    for size in ((192, 256), (96, 128)):
        small = at_input_size(graph, size)
        bilinear, nearest = (append(small, Resize(MASK, mode), "up") for mode in ("bilinear", "nearest"))
        pairs.append(Accuracy(f"logits of {size[0]}x{size[1]} to 360x480", bilinear, nearest, SAME))
    return tuple(pairs)


def miou(graph: Graph, scratch: Path) -> dict[str, float]:
    """In percent on the validation images, of the float32 and of the int8 file."""
    folder = open_folder(SHARED / "camvid")
    pipeline = host.ImagePipeline(graph.description.preprocessing, graph.input_size)
    samples = [np.asarray(pipeline(image))[None] for image in folder.sample_images(CALIBRATION_IMAGES)]
    plain, int8 = scratch / "accuracy.tflite", scratch / "accuracy.int8.tflite"
    writer.write(graph, plain)
    quantizer.quantize_int8(plain, int8, samples)
    return {
        name: evaluate(path, images=SHARED / "camvid").miou or 0.0
        for name, path in (("float32", plain), ("int8", int8))
    }

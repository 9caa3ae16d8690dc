"""Both ends of a fast network: ways from RGB bytes to the input, and from the classifier to the class mask.

    python benchmarks/heads.py [--size 96x128] [--mask 352x480] [--classes 11]

Prints two tables for README.md: milliseconds in the file (over a file that ends, or starts, with the convolution), on
the host, and both; with `shared` beside the checkout also the val mIoU of every way from the same int8 logits
(camvid_unet at 192x256, its logits averaged over 2x2 pixels). One thread, files timed in turns. About two minutes.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

import slimseg
from slimseg.graph import edit, ops
from slimseg.graph.description import Description
from slimseg.graph.preprocessing import Preprocessing
from slimseg.runtimes import benchmark, host, mask
from slimseg.runtimes.litert.quantising import quantizer
from slimseg.runtimes.litert.writing import writer
from slimseg.runtimes.quantiser import Ends
from slimseg.tflite import file
from slimseg.training.data import open_folder, read_pair
from slimseg.training.metrics import Confusion

SHARED = Path(__file__).resolve().parents[2] / "shared"
Array = np.ndarray[Any, Any]
Size = tuple[int, int]
INPUT_SIZE, IMAGE_SIZE = (192, 256), (352, 480)


@dataclass(frozen=True)
class Way:
    """From logits to the mask: `layers` behind the classifier in the file, `finish` on the host.

    `meaning` gives from int8 logits (h, w, classes) what the file would give, for accuracy and as `finish`'s input.
    """

    name: str
    layers: Callable[[], Sequence[nn.Module]]
    meaning: Callable[[Array], Array]
    finish: Callable[[Array], Array]
    alone: bool = False  # its layers are timed by themselves, in float: int8 would destroy what they compute


def ways(size: Size, full: Size, classes: int) -> list[Way]:
    double = (2 * size[0], 2 * size[1])

    def packed() -> Sequence[nn.Module]:
        return [ops.Affine(torch.tensor(16.0), torch.arange(float(classes)).reshape(-1, 1, 1)), _largest()]

    def largest_packed(scores: Array) -> Array:
        return np.asarray((np.rint(scores) * 16 + np.arange(classes)).max(-1), np.float32)

    def unpacked(value: Array) -> Array:
        return (value.astype(np.int32) & 15).astype(np.uint8)

    def four_bits(scores: Array) -> Array:
        low, high = int(scores.min()), int(scores.max())
        return np.rint((scores - np.float32(low)) * (15 / max(high - low, 1)))

    def argmax(scores: Array) -> Array:
        return scores.argmax(-1).astype(np.int32)

    def resized(scores: Array, to: Size) -> Array:
        return np.rint(mask.bilinear(scores, to)).astype(np.int8)

    return [
        Way("**logits; bilinear at class borders only**", list, _same, lambda z: mask.bilinear_argmax(z, full)),
        Way("logits; bilinear, argmax", list, _same, lambda z: mask.bilinear(z, full).argmax(-1)),
        Way("logits; argmax, nearest", list, _same, lambda z: mask.nearest(z.argmax(-1), full)),
        Way("ARG_MAX; nearest", lambda: [ops.ArgMax()], argmax, lambda y: mask.nearest(y, full)),
        Way("maximum with the class in its low bits, float; nearest", packed, largest_packed,
            lambda y: mask.nearest(unpacked(y), full), alone=True),
        Way("the same in 8 bits, four for the class; nearest", lambda: [_largest()],
            lambda z: largest_packed(four_bits(z)), lambda y: mask.nearest(unpacked(y), full)),
        Way("bilinear 2x; argmax, nearest", lambda: [ops.Resize(double)], lambda z: resized(z, double),
            lambda z: mask.nearest(z.argmax(-1), full)),
        Way("bilinear; argmax", lambda: [ops.Resize(full)], lambda z: resized(z, full),
            lambda z: z.argmax(-1)),
        Way("bilinear, ARG_MAX", lambda: [ops.Resize(full), ops.ArgMax()],
            lambda z: argmax(resized(z, full)), lambda y: y.astype(np.uint8)),
        Way("bilinear, maximum with the class in its low bits, float", lambda: [ops.Resize(full), *packed()],
            lambda z: largest_packed(mask.bilinear(z, full)), unpacked, alone=True),
        Way("ARG_MAX, nearest", lambda: [ops.ArgMax(), ops.Reshape((1, 1, *size)), ops.Cast("float32"),
            ops.Resize(full, "nearest-exact"), ops.Cast("int32"), ops.Reshape((1, *full))],
            lambda z: mask.nearest(z.argmax(-1), full).astype(np.int32), lambda y: y.astype(np.uint8)),
    ]  # fmt: skip


def _same(scores: Array) -> Array:
    return scores


def _largest() -> nn.Module:
    return ops.Reduce("max", (1,), True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="96x128", help="of the logits")
    parser.add_argument("--mask", default="352x480", help="of the mask")
    parser.add_argument("--classes", type=int, default=11)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    size, full = _size(options.size), _size(options.mask)
    with tempfile.TemporaryDirectory() as folder:
        inputs(Path(folder))
        masks(Path(folder), size, full, options.classes)


def _size(text: str) -> Size:
    height, width = text.split("x")
    return int(height), int(width)


def masks(folder: Path, size: Size, full: Size, classes: int) -> None:
    """Time and accuracy of every way to the mask."""
    logits, truth = photographs(size, classes)
    every = ways(size, full, classes)
    judged = every if not truth else ways(size, (truth[0].shape[0], truth[0].shape[1]), classes)
    in_file = file_ms(folder, every, size, classes)
    print("\n| from the classifier to the mask (file; host) | file | host | both | mIoU |\n|---|---|---|---|---|")
    for way, at_truth, ms in zip(every, judged, in_file, strict=True):
        given = [way.meaning(each) for each in logits[:8]]
        on_host = milliseconds([lambda value=value, way=way: way.finish(value) for value in given])  # type: ignore[misc]
        miou = accuracy(at_truth, logits, truth, classes)
        print(f"| {way.name} | {ms:.2f} | {on_host:.2f} | {ms + on_host:.2f} | {miou} |", flush=True)


def file_ms(folder: Path, every: Sequence[Way], size: Size, classes: int) -> list[float]:
    """What the layers of every way add to a file that ends with the classifier."""
    paths = [part(folder, f"{number}", way, size, classes) for number, way in enumerate(every)]
    classifier, *timings = benchmark.time_files([paths[0], *paths], seconds_per_file=0.5)
    result = []
    for way, timing in zip(every, timings, strict=True):
        over = np.subtract(timing.rounds_ms, 0.0 if way.alone else np.asarray(classifier.rounds_ms))
        result.append(float(np.median(over)) if way.layers() else 0.0)
    return result


def part(folder: Path, name: str, way: Way, size: Size, classes: int) -> Path:
    """The classifier and what follows it as an int8 file, or what follows it alone in float."""
    path, channels = folder / f"{name}.tflite", classes if way.alone else 16
    layers = [*way.layers()] if way.alone else [nn.Conv2d(16, classes, 1), *way.layers()]
    writer.write(edit.trace(nn.Sequential(*layers).eval(), (1, channels, *size)), path)
    if way.alone:
        return path
    sample = np.random.default_rng(0).standard_normal((1, *size, 16)).astype(np.float32)
    quantizer.quantize_int8(path, path.with_suffix(".int8.tflite"), [sample], io="int8")
    return path.with_suffix(".int8.tflite")


def milliseconds(calls: Sequence[Callable[[], object]], rounds: int = 15) -> float:
    """Median over all calls, each warmed up by a first round."""
    samples = []
    for number in range(rounds + 1):
        for call in calls:
            start = time.perf_counter()
            call()
            if number:
                samples.append(1e3 * (time.perf_counter() - start))
    return float(np.median(samples))


def photographs(size: Size, classes: int) -> tuple[list[Array], list[Array]]:
    """Int8 logits (h, w, classes) of CamVid's val split and its masks; soft spots and no masks without the data."""
    if not SHARED.is_dir() or (size, classes) != ((96, 128), 11):
        spots = np.random.default_rng(0).standard_normal((8, classes, 6, 8)).astype(np.float32)
        return [_int8(planes) for planes in F.interpolate(torch.from_numpy(spots), size, mode="bicubic")], []
    graph = slimseg.load(SHARED / "models" / "camvid_unet.pt2", input_size=INPUT_SIZE, mean=127, std=128)
    pipeline = host.ImagePipeline(graph.description.preprocessing, INPUT_SIZE)
    split = open_folder(SHARED / "camvid").val
    logits, truth = [], []
    with torch.inference_mode():
        for index in range(len(split.images)):
            image, answer = read_pair(split, index, classes)
            found = graph(torch.from_numpy(pipeline(image)).permute(2, 0, 1)[None])
            logits.append(_int8(F.avg_pool2d(found, 2)[0]))
            truth.append(np.asarray(answer))
    return logits, truth


def _int8(planes: torch.Tensor) -> Array:
    low, high = float(planes.min()), float(planes.max())
    value = (planes.permute(1, 2, 0) - low) * (255 / (high - low)) - 128
    return np.ascontiguousarray(value.round().numpy().astype(np.int8))


def accuracy(way: Way, logits: Sequence[Array], truth: Sequence[Array], classes: int) -> str:
    if not truth:
        return ""
    confusion = Confusion(classes)
    for scores, answer in zip(logits, truth, strict=True):
        confusion.add(way.finish(way.meaning(scores)).astype(np.uint8), answer)
    return f"{confusion.scores().miou:.2f}"


def inputs(folder: Path) -> None:
    """Time of every way to the input: the image's resize, what the host does then, and what the file does."""
    preprocessing = Preprocessing.of(127, 128)
    stem = nn.Sequential(nn.Conv2d(3, 32, 3, 2, 1), nn.ReLU6(), nn.AdaptiveAvgPool2d(1))
    graph = edit.trace(stem.eval(), (1, 3, *INPUT_SIZE))
    graph.description = Description(preprocessing)
    image = np.random.default_rng(0).integers(0, 256, (*IMAGE_SIZE, 3), np.uint8)
    small = host.resize_image(image, INPUT_SIZE)
    writer.write(graph, folder / "stem.tflite")
    kinds: tuple[Ends, ...] = ("int8", "float32", "image")
    for io in kinds:
        sample = host.ImagePipeline(preprocessing, INPUT_SIZE)(image)
        ranges = {graph.input.name: preprocessing.byte_range}
        quantizer.quantize_int8(folder / "stem.tflite", folder / f"{io}.tflite", [sample], io=io, ranges=ranges)
    (folder / "plain.tflite").write_bytes(with_one_quantize((folder / "image.tflite").read_bytes()))
    rows = {"int8, byte less 128: table": "int8", "float32: (byte - mean) / std; QUANTIZE": "float32",
            "uint8; QUANTIZE": "plain", "**uint8; DEQUANTIZE, QUANTIZE**": "image"}  # fmt: skip
    paths = [folder / f"{name}.tflite" for name in rows.values()]
    timings = benchmark.time_files(paths, seconds_per_file=0.5)
    print("| from the resized image to the first convolution (host; file) | host | file |\n|---|---|---|")
    for label, path, timing in zip(rows, paths, timings, strict=True):
        app = host.App(file.read(path), graph.description)
        over = float(np.median(np.subtract(timing.rounds_ms, timings[0].rounds_ms)))
        on_host = milliseconds([lambda app=app: app.prepare(small)], 100)  # type: ignore[misc]
        print(f"| {label} | {on_host:.2f} | {over:.2f} |")
    print("\n| resize of the image | ms |\n|---|---|")
    for label, call in resizes(image).items():
        print(f"| {label} | {milliseconds([call], 60):.2f} |")


def with_one_quantize(data: bytes) -> bytes:
    """A file of ours for bytes, with TFLite's own conversion in place of DEQUANTIZE and QUANTIZE."""
    model = file.parse(data, Path("model"))
    graph = model.subgraphs[0]
    _, quantise, *others = graph.operators
    quantise.inputs = np.asarray([graph.inputs[0]], np.int32)
    graph.operators = [quantise, *others]
    return file.pack(model)


def resizes(image: Array) -> dict[str, Callable[[], object]]:
    height, width = INPUT_SIZE
    planes = torch.from_numpy(image).permute(2, 0, 1)[None]

    def pillow(how: Image.Resampling) -> Array:
        return np.asarray(Image.fromarray(image).resize((width, height), how))

    return {
        "**torch, bilinear with antialiasing**": lambda: host.resize_image(image, INPUT_SIZE),
        "torch, bilinear without": lambda: (
            F.interpolate(planes, INPUT_SIZE, mode="bilinear")[0].permute(1, 2, 0).contiguous()
        ),
        "Pillow, bilinear (antialiased)": lambda: pillow(Image.Resampling.BILINEAR),
        "Pillow, box": lambda: pillow(Image.Resampling.BOX),
    }


if __name__ == "__main__":
    main()

"""What quantisation-aware training brings back where plain int8 loses much, with its learning curve.

    python benchmarks/quantisation_training.py [--steps 900]

A network of `slimseg.models` (separable convolutions, under 0.3 M parameters) is trained on drawn street scenes. Then
its channels are spread: behind every depthwise layer they are multiplied by 10^U(-1.5, 1.5), which the layer that reads
them undoes. That is the same function with ranges as wide as training without normalisation leaves them, and what one
range for all channels bears worst. Rows: float32; plain int8 (mean ranges, extremes, smallest squared error);
equalised before int8, and with biases corrected; quantisation-aware training of the spread network and of the
equalised one; the same for 4-bit weights. All by the deployed files, but for 4 bits, which LiteRT has no convolution
for: those are what the network computes. Writes benchmarks/results/quantisation_training.json and .svg.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import nn
from trained import trained

from slimseg.commands.evaluate import Evaluator
from slimseg.demonstration import scenes
from slimseg.graph import costs
from slimseg.graph.graph import Graph, only_consumer
from slimseg.progress import Silent
from slimseg.quantisation.bias_correction import bias_corrected
from slimseg.quantisation.calibration import Method, choose, observe
from slimseg.quantisation.equalise import equalised
from slimseg.quantisation.network import file_form
from slimseg.quantisation.qat import QuantisationAwareTraining
from slimseg.runtimes import host
from slimseg.runtimes.litert.quantising import quantizer
from slimseg.runtimes.litert.writing import writer
from slimseg.training.data import Folder, open_folder, read_pair
from slimseg.training.memory import keep_freed
from slimseg.training.metrics import Confusion

ROOT = Path(__file__).resolve().parents[1]
TRAIN, VAL = 240, 60
CURVE = 30  # steps between two points of the learning curve


def spread(graph: Graph) -> Graph:
    """The same function, channels behind depthwise layers 10^U(-1.5, 1.5) as large."""
    result = file_form(graph)
    torch.manual_seed(1)
    for node in result.layers():
        depthwise, activation = result.layer_as(node, nn.Conv2d), only_consumer(node)
        reader = only_consumer(activation) if activation is not None else None
        pointwise = result.layer_as(reader, nn.Conv2d)
        if depthwise is None or depthwise.groups == 1 or pointwise is None:
            continue
        factors = 10 ** (3 * torch.rand(depthwise.out_channels) - 1.5)
        depthwise.weight.data *= factors.reshape(-1, 1, 1, 1)
        depthwise.bias.data *= factors
        pointwise.weight.data /= factors.reshape(1, -1, 1, 1)
    return result


class Curve(Silent):
    """Asks for the accuracy of what is being trained, every now and then."""

    def __init__(self, accuracy: Callable[[], float]) -> None:
        self.accuracy = accuracy
        self.points: list[tuple[float, float]] = []
        self.before = 0.0

    def bar(self, what: str, total: float) -> _Point:
        return _Point(self, total)


class _Point:
    def __init__(self, curve: Curve, total: float) -> None:
        self.curve, self.total, self.done = curve, total, 0.0

    def update(self, done: float, note: str = "") -> None:
        if done // CURVE > self.done // CURVE or done == self.total:
            self.curve.points.append((self.curve.before + done, self.curve.accuracy()))
        self.done = done

    def close(self) -> None:
        self.curve.before += self.done


class Bench:
    """One data folder, one network, many ways to 8 bits."""

    def __init__(self, folder: Folder, graph: Graph, scratch: Path, steps: int) -> None:
        self.folder, self.graph, self.scratch, self.steps = folder, graph, scratch, steps
        self.evaluator = Evaluator(folder, graph, Silent())
        pipeline = host.ImagePipeline(graph.description.preprocessing, graph.input_size)
        self.images = choose(folder.train.images, 100, pipeline)
        self.rows: list[dict[str, Any]] = []

    def row(self, name: str, miou: float, **more: Any) -> None:
        self.rows.append({"name": name, "miou": miou, **more})
        print(f"{name:60s} mIoU {miou:.2f}", flush=True)

    def post_training(self, name: str, graph: Graph, method: Method) -> None:
        float_path, path = self.scratch / "float.tflite", self.scratch / "int8.tflite"
        writer.write(graph, float_path)
        ranges = observe(float_path, self.images, {method}).ranges(method)
        quantizer.quantize(float_path, path, "int8", ranges)
        self.row(name, self.evaluator.accuracy(path).miou or 0.0, kind="post-training")

    def float32(self) -> None:
        path = self.scratch / "float.tflite"
        writer.write(self.graph, path)
        self.row("float32", self.evaluator.accuracy(path).miou or 0.0, kind="float")

    def untrained(self, name: str, graph: Graph, bits: int) -> None:
        training = QuantisationAwareTraining(graph, self.folder, True, 0, Silent(), weight_bits=bits)
        self.row(name, self.network_miou(training), kind="post-training")

    def aware(self, name: str, graph: Graph, bits: int = 8) -> None:
        training = QuantisationAwareTraining(graph, self.folder, True, 0, Silent(), weight_bits=bits)
        curve = Curve(lambda: self.network_miou(training))
        started = self.network_miou(training)
        training.progress = curve
        seconds = time.monotonic()
        training.train(self.steps)
        seconds = time.monotonic() - seconds
        float_path, path = self.scratch / "qat_float.tflite", self.scratch / "qat.tflite"
        training.write(float_path, path)
        mine = self.network_miou(training)
        file = self.evaluator.accuracy(path).miou if bits == 8 else None
        self.row(
            name, file if file is not None else mine, kind="trained", network_miou=mine, started=started,
            seconds=seconds, curve=curve.points, bits=bits,
        )  # fmt: skip

    def network_miou(self, training: QuantisationAwareTraining) -> float:
        float_path = self.scratch / "now.tflite"
        writer.write(training.graph, float_path)
        val = self.folder.val
        pairs = [read_pair(val, index) for index in range(len(val.images))]
        confusion = Confusion(len(self.folder.classes))
        for mask, (_, truth) in zip(training.masks([image for image, _ in pairs], float_path), pairs, strict=True):
            assert truth is not None
            confusion.add(mask, truth)
        return confusion.scores().miou


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=900, help="of quantisation-aware training")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)  # layers are small
    keep_freed()
    with tempfile.TemporaryDirectory() as scratch:
        folder = open_folder(scenes.write_folder(Path(scratch) / "scenes", TRAIN, VAL, seed=7))
        network = trained(folder, "separable")
        wide = spread(network)
        bench = Bench(folder, wide, Path(scratch), options.steps)
        print(f"{costs.total(wide).params} parameters", flush=True)
        bench.float32()
        bench.post_training("int8, before the channels are spread", file_form(network), "mean")
        methods: tuple[Method, ...] = ("mean", "minmax", "percentile", "mse")
        for method in methods:
            bench.post_training(f"int8, {method} ranges", wide, method)
        sample = torch.from_numpy(np.stack(bench.images.samples(0, 16))).permute(0, 3, 1, 2)
        level = equalised(wide, sample).graph
        bench.post_training("int8, equalised", level, "mean")
        bench.post_training("int8, equalised, biases corrected", bias_corrected(level, sample), "mean")
        bench.aware("int8, quantisation-aware training", wide)
        bench.aware("int8, equalised, quantisation-aware training", level)
        bench.untrained("int8 x int4 weights, equalised", level, bits=4)
        bench.aware("int8 x int4 weights, equalised, quantisation-aware training", level, bits=4)
    report(bench.rows)


def report(rows: list[dict[str, Any]]) -> None:
    by_name = {row["name"]: row["miou"] for row in rows}
    plain = by_name["int8, minmax ranges"]
    lost = by_name["float32"] - plain
    table = Table("way", "mIoU", "of the loss brought back")
    for row in rows:
        row["brought_back"] = (row["miou"] - plain) / lost if lost > 0 else None
        share = "" if row["brought_back"] is None else f"{100 * row['brought_back']:.0f}%"
        table.add_row(row["name"], f"{row['miou']:.2f}", share)
    Console().print(table)
    target = ROOT / "benchmarks" / "results" / "quantisation_training.json"
    target.write_text(json.dumps(rows, indent=1) + "\n")
    plot(rows, target.with_suffix(".svg"))


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """The learning curves as an SVG."""
    trained = [row for row in rows if row["kind"] == "trained"]
    last = max(step for row in trained for step, _ in row["curve"])
    levels = {row["name"]: row["miou"] for row in rows if row["name"] in ("float32", "int8, minmax ranges")}
    top = max([*levels.values(), *(miou for row in trained for _, miou in row["curve"])]) + 2

    def place(step: float, miou: float) -> str:
        return f"{50 + 620 * step / last:.1f},{360 - 330 * miou / top:.1f}"

    parts = ['<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 700 400" font-family="sans-serif" font-size="12">']
    parts.append('<rect width="700" height="400" fill="#fff"/><text x="330" y="392">steps</text>')
    for name, miou in levels.items():
        parts.append(f'<polyline points="{place(0, miou)} {place(last, miou)}" stroke="#888" stroke-dasharray="4"/>')
        x, y = place(0, miou).split(",")
        parts.append(f'<text x="{x}" y="{float(y) - 4}" fill="#555">{name}, mIoU {miou:.1f}</text>')
    for number, (row, colour) in enumerate(zip(trained, ("#1f6fb4", "#d1661a", "#2a8f4a"), strict=False)):
        points = " ".join(place(step, miou) for step, miou in [(0, row["started"]), *row["curve"]])
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts.append(f'<text x="250" y="{300 + 16 * number}" fill="{colour}">{row["name"]}</text>')
    path.write_text("\n".join([*parts, "</svg>"]) + "\n")


if __name__ == "__main__":
    main()

"""Weights of 4 bits in LiteRT: whether the runtime runs them, and what they take and cost beside int8."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from slimseg.commands.evaluate import Evaluator
from slimseg.errors import SlimsegError
from slimseg.graph.graph import Graph
from slimseg.progress import Silent
from slimseg.quantisation.calibration import Ranges, choose, observe
from slimseg.runtimes import benchmark, host
from slimseg.runtimes.litert.quantising import quantizer
from slimseg.runtimes.litert.writing import writer
from slimseg.training.data import open_folder


@dataclass(frozen=True)
class FourBits:
    """One recipe's file beside float32, or why there is none."""

    recipe: str
    latency_ratio: float = 0.0  # to float32, within one interleaved run
    size_bytes: int = 0
    miou: float | None = None
    reason: str = ""


def four_bits(graph: Graph, data: Path, scratch: Path, images: int) -> list[dict[str, Any]]:
    """float32, int8, and the recipes of ai-edge-quantizer with 4-bit weights."""
    folder = open_folder(data)
    source = scratch / "four_float.tflite"
    writer.write(graph, source)
    pipeline = host.ImagePipeline(graph.description.preprocessing, graph.input_size)
    ranges = observe(source, choose(folder.train.images, images, pipeline), {"mse"}).ranges("mse")
    evaluator = Evaluator(folder, graph, Silent())
    evaluator.accuracy(source)

    def row(name: str, path: Path, write: Callable[[], None]) -> dict[str, Any]:
        try:
            write()
            base, timing = benchmark.time_files([source, path])
            ratio, miou = benchmark.ratio(timing, base), evaluator.accuracy(path).miou
            return asdict(FourBits(name, ratio, path.stat().st_size, miou))
        except (SlimsegError, RuntimeError, ValueError, TypeError, NotImplementedError) as error:
            return asdict(FourBits(name, reason=" ".join(str(error).split())[:300]))

    def int8(path: Path) -> Callable[[], None]:
        return lambda: quantizer.quantize(source, path, "int8", ranges)

    rows = [row("int8", scratch / "four_int8.tflite", int8(scratch / "four_int8.tflite"))]
    for name in ("int8 x int4 weights", "dynamic, int4 weights", "weight-only, int4 weights"):
        path = scratch / f"{name.replace(' ', '_').replace(',', '')}.tflite"
        rows.append(row(name, path, lambda name=name, path=path: _write(source, path, name, ranges)))  # type: ignore[misc]
    return rows


def _write(source: Path, path: Path, recipe: str, ranges: Ranges) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from litert_quantizer import quantizer as worker_of

        logging.getLogger().setLevel(logging.ERROR)
        worker = worker_of.Quantizer(source.read_bytes())
        calibration = None
        if recipe.startswith("int8"):
            worker.add_static_config(".*", "*", activation_num_bits=8, weight_num_bits=4)
            calibration = {
                name: {"min": np.array([[low]]), "max": np.array([[high]])} for name, (low, high) in ranges.items()
            }
        elif recipe.startswith("dynamic"):
            worker.add_dynamic_config(".*", "*", num_bits=4)
        else:
            worker.add_weight_only_config(".*", "*", num_bits=4)
        result = worker.quantize(calibration, enable_progress_bar=False, enable_progress_report=False)
    path.write_bytes(bytes(result.quantized_model))

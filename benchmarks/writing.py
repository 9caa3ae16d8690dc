"""How long slimseg takes to write a network as a `.tflite`, in float32 and in int8, for networks of different depth.

    python benchmarks/writing.py [--rounds 5]

Wall-clock, the median of some rounds. Beside it the time to open the file again and to quantise it, in proportion, and
how long an operator takes in proportion to one of the first network: 1.0 where writing is linear in the layers, less
where a file costs something by itself. Writes benchmarks/results/writing.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

import slimseg
from slimseg.graph.graph import Graph
from slimseg.models import build
from slimseg.runtimes.litert.quantising import quantizer
from slimseg.runtimes.litert.writing import writer
from slimseg.tflite import file

SIZE = (64, 64)
CHAINS = (10, 30, 100, 300)  # convolutions one after the other
RESULTS = Path(__file__).parent / "results" / "writing.json"


@dataclass(frozen=True)
class Row:
    """One network: medians of wall-clock, in seconds."""

    network: str
    operators: int  # of the file
    write_s: float
    read_s: float
    int8_s: float

    @property
    def per_operator_ms(self) -> float:
        return 1e3 * self.write_s / self.operators


def chain(length: int) -> Graph:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3 if not number else 8, 8, 3, padding=1) for number in range(length)]
    return slimseg.load(nn.Sequential(*layers), SIZE)


def median_s(work: Callable[[], object], rounds: int) -> float:
    """Seconds of wall-clock; a first run, which loads modules and starts the child, does not count."""
    work()
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def measured(name: str, graph: Graph, folder: Path, rounds: int) -> Row:
    wide, narrow = folder / "float.tflite", folder / "int8.tflite"
    images = np.random.default_rng(0).standard_normal((1, *graph.input_size, 3)).astype(np.float32)
    write_s = median_s(lambda: writer.write(graph, wide), rounds)
    ranges = quantizer.measure_ranges(wide, images)
    return Row(
        name,
        len(file.operators(wide)),
        write_s,
        median_s(lambda: slimseg.load(wide), rounds),
        median_s(lambda: quantizer.quantize(wide, narrow, "int8", ranges), rounds),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    networks = {f"{length} convolutions": chain(length) for length in CHAINS}
    networks["slimseg.models.build(11, (352, 480))"] = build(11, (352, 480))
    with tempfile.TemporaryDirectory() as folder:
        rows = [measured(name, graph, Path(folder), options.rounds) for name, graph in networks.items()]
    RESULTS.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    print("| network | operators | write | an operator, to the first row's | read / write | to int8 / write |")
    print("|---|---|---|---|---|---|")
    for row in rows:
        print(
            f"| {row.network} | {row.operators} | {1e3 * row.write_s:.0f} ms | "
            f"{row.per_operator_ms / rows[0].per_operator_ms:.1f}x | {row.read_s / row.write_s:.1f} | "
            f"{row.int8_s / row.write_s:.1f} |"
        )


if __name__ == "__main__":
    main()

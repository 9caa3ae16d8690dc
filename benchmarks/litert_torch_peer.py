"""litert-torch's float32 file beside slimseg's, of ten networks of the zoo: seconds to write, and latency.

    python benchmarks/litert_torch_peer.py [NAME ...] [--seconds 6] [--files runs/litert_torch_peer]

Both are given the same nn.Module with random weights. The two files of a network are timed in turns in one run. What
one of the tools cannot write is a row with its reason. Needs `pip install 'slimseg[litert-torch]'`. Writes
benchmarks/results/litert_torch_peer.json; with names, only their rows change.
"""

from __future__ import annotations

import argparse
import json
import math
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import nn
from zoo import built

import slimseg
from slimseg.runtimes import benchmark, registry

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "litert_torch_peer.json"
ATTENTION = ("segformer", "mobilevit_deeplab", "topformer", "dinov2_linear", "efficientvit")
CONVOLUTIONS = ("pidnet_s", "bisenet_v2", "fast_scnn", "pp_liteseg_t", "unet_mobileone_s0")


@dataclass
class Row:
    """One network: seconds to write each file, median latencies, and how many times faster slimseg's is."""

    name: str
    write_s: dict[str, float] = field(default_factory=dict)
    latency_ms: dict[str, float] = field(default_factory=dict)
    faster: float | None = None
    difference: float | None = None  # between the outputs of the two files, relative to the largest value
    refusals: dict[str, str] = field(default_factory=dict)


def measured(name: str, folder: Path, seconds: float) -> Row:
    row, (network, size, output) = Row(name), built(name)
    files = {tool: folder / f"{name}_{tool.replace('-', '_')}.tflite" for tool in ("litert-torch", "slimseg")}
    _timed(row, "litert-torch", lambda: by_litert_torch(network, size, files["litert-torch"]))
    _timed(row, "slimseg", lambda: _by_slimseg(network, size, output, files["slimseg"]))
    if not row.refusals:
        timings = benchmark.time_files(list(files.values()), seconds_per_file=seconds)
        row.latency_ms = {tool: round(each.calm_ms, 3) for tool, each in zip(files, timings, strict=True)}
        row.faster = round(benchmark.ratio(*timings), 3)
        row.difference = _difference(*files.values(), size)
    return row


def _timed(row: Row, tool: str, write: Callable[[], None]) -> None:
    start = time.perf_counter()
    try:
        write()
    except Exception as error:  # other people's converters fail in many ways
        row.refusals[tool] = (str(error).strip().splitlines() or [type(error).__name__])[0]
        return
    row.write_s[tool] = round(time.perf_counter() - start, 2)


def by_litert_torch(network: nn.Module, size: tuple[int, int], path: Path) -> None:
    import litert_torch

    module = litert_torch.to_channel_last_io(network, args=[0], outputs=[0])
    litert_torch.convert(module, (torch.zeros(1, *size, 3),)).export(str(path))


def _by_slimseg(network: nn.Module, size: tuple[int, int], output: int | None, path: Path) -> None:
    """Opened and written, without the comparison with PyTorch, which litert-torch does not make either."""
    registry.RUNTIMES["litert"].write(slimseg.load(network, size, output=output, verify=False), path)


def _difference(peer: Path, own: Path, size: tuple[int, int]) -> float:
    image = np.random.default_rng(0).uniform(-1, 1, (1, *size, 3)).astype(np.float32)
    theirs, ours = (registry.RUNTIMES["litert"].predict(path, image) for path in (peer, own))
    return float(np.abs(theirs - ours).max() / np.abs(theirs).max())


def show(rows: list[Row]) -> None:
    table = Table("network", "litert-torch ms", "slimseg ms", "faster", "difference", "written in s", "ours")
    for row in rows:
        if row.faster is None:
            table.add_row(row.name, *(row.refusals.get(tool, "") for tool in ("litert-torch", "slimseg")))
            continue
        written = (f"{row.write_s.get(tool, math.nan):.1f}" for tool in ("litert-torch", "slimseg"))
        times = (f"{row.latency_ms[tool]:.2f}" for tool in ("litert-torch", "slimseg"))
        table.add_row(row.name, *times, f"{row.faster:.2f}x", f"{row.difference:.0e}", *written)
    Console().print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=[*ATTENTION, *CONVOLUTIONS])
    parser.add_argument("--seconds", type=float, default=6.0, help="to time each file")
    parser.add_argument("--files", type=Path, default=ROOT / "runs" / "litert_torch_peer")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    options.files.mkdir(parents=True, exist_ok=True)
    known = {row["name"]: row for row in json.loads(RESULTS.read_text())} if RESULTS.exists() else {}
    for name in options.names:
        row = measured(name, options.files, options.seconds)
        print(row, flush=True)
        known[name] = asdict(row)
        RESULTS.write_text(json.dumps(list(known.values()), indent=1) + "\n")
    show([Row(**row) for row in known.values()])


if __name__ == "__main__":
    main()

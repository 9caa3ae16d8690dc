"""SegFormer-B0 on CamVid: slimseg's exact and trained results beside the files that others' tools give.

    python benchmarks/segformer.py [--weights TRAINED.safetensors] [--time-limit 30m] [--out runs/segformer]
    python benchmarks/segformer.py --weights TRAINED.safetensors --measure-again --out runs/segformer

Rows: litert-torch float32, litert-torch + litert-quantizer static int8, slimseg's float32 writer, `slim --needs
nothing`, and `slim` with labels, all timed in turns in one run. Without `--weights`, the network is trained first
(`segformer_training.py`). Needs the folder `shared` beside the checkout and `pip install 'slimseg[litert-torch]'`.
Writes benchmarks/results/segformer.json.
"""

from __future__ import annotations

import argparse
import json
import warnings
from pathlib import Path
from typing import Any

from camvid import quantizer_int8
from litert_torch_peer import by_litert_torch
from rich.console import Console
from rich.table import Table
from safetensors.torch import load_file
from segformer_training import SHARED, SIZE, network, opened, train
from torch import nn

import slimseg
from slimseg.planning.choosing.budget import parse_time
from slimseg.progress import Terminal
from slimseg.runtimes import benchmark
from slimseg.runtimes.litert.writing import writer
from slimseg.tflite import file
from slimseg.training.data import Folder, open_folder

ROOT = Path(__file__).resolve().parents[1]
KEPT = ("speedup", "seconds", "baseline", "plain_int8", "result", "edits", "budget")


def slimmed(graph: slimseg.Graph, options: argparse.Namespace) -> dict[str, Path]:
    """The runs without data and with labels."""
    progress = Terminal(Console(stderr=True))
    exact = slimseg.Budget(needs="nothing", time_limit_s=parse_time(options.exact_time_limit))
    slimseg.slim(graph, out=options.out / "exact", budget=exact, progress=progress)
    budget = slimseg.Budget(
        min_speedup=options.min_speedup, max_drop=options.max_drop, time_limit_s=parse_time(options.time_limit)
    )
    slimseg.slim(graph, images=SHARED / "camvid", out=options.out / "labels", budget=budget, progress=progress)
    return runs(options.out)


def runs(out: Path) -> dict[str, Path]:
    return {"slim --needs nothing": out / "exact", "slim with labels": out / "labels"}


def unchanged(module: nn.Module, graph: slimseg.Graph, folder: Folder, out: Path) -> dict[str, Path]:
    """What others' tools and slimseg's writer make of the unchanged network; files that exist are kept."""
    peers = {
        "litert-torch float32": out / "peer_float.tflite",
        "litert-torch + litert-quantizer int8": out / "peer_int8.tflite",
        "slimseg float32": out / "float.tflite",
    }
    in_float, in_int8, own = peers.values()
    if not in_float.exists():
        by_litert_torch(module, SIZE, in_float)
        in_float.write_bytes(file.embed_description(in_float.read_bytes(), graph.description))
    if not in_int8.exists():
        quantizer_int8(graph, in_float, in_int8, folder.sample_images(100))
    writer.write(graph, own)
    return peers


def measured(paths: dict[str, Path], folder: Folder) -> list[dict[str, Any]]:
    timings = benchmark.time_files(list(paths.values()), seconds_per_file=8.0)
    return [
        {
            "name": name,
            "latency_ms": timing.calm_ms,
            "faster": benchmark.ratio(timings[0], timing),
            "size_bytes": path.stat().st_size,
            "miou": slimseg.evaluate(path, images=folder).miou,
        }
        for (name, path), timing in zip(paths.items(), timings, strict=True)
    ]


def show(rows: list[dict[str, Any]], edits: dict[str, list[dict[str, Any]]]) -> None:
    table = Table("file", "ms", "faster", "MB", "mIoU")
    for row in rows:
        megabytes = row["size_bytes"] / 1e6
        numbers = f"{row['latency_ms']:.2f}", f"{row['faster']:.2f}x", f"{megabytes:.2f}", f"{row['miou']:.2f}"
        table.add_row(row["name"], *numbers)
    console = Console()
    console.print(table)
    for name, plan in edits.items():
        table = Table("edit", "layer", "predicted ms", "realised ms", title=name)
        for edit in plan:
            saved = (f"{edit[each]:.3f}" for each in ("predicted_saving_ms", "realised_saving_ms"))
            table.add_row(edit["technique"], edit["layers"][0], *saved)
        console.print(table)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, help="of a trained network, instead of training one")
    parser.add_argument("--minutes", type=float, default=45, help="of training, without --weights")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "segformer")
    parser.add_argument("--exact-time-limit", default="10m")
    parser.add_argument("--time-limit", default="30m")
    parser.add_argument("--min-speedup", type=float, default=6.0, help="of `slim` with labels, over its float32")
    parser.add_argument("--max-drop", type=float, default=1.0)
    parser.add_argument("--measure-again", action="store_true", help="the files of the runs that are in --out")
    return parser.parse_args()


def main() -> None:
    options = arguments()
    warnings.simplefilter("ignore")
    folder = open_folder(SHARED / "camvid")
    options.out.mkdir(parents=True, exist_ok=True)
    weights = options.weights or options.out / "trained.safetensors"
    if options.weights is None:
        train(folder, options.minutes, weights)
    module, graph = network(load_file(weights), len(folder.classes)), opened(load_file(weights), folder)
    finished = runs(options.out) if options.measure_again else slimmed(graph, options)
    edited = {name: run / "model.tflite" for name, run in finished.items()}
    rows = measured({**unchanged(module, graph, folder, options.out), **edited}, folder)
    results = {name: json.loads((run / "result.json").read_text()) for name, run in finished.items()}
    found = {"rows": rows, "runs": {name: {key: each[key] for key in KEPT} for name, each in results.items()}}
    target = ROOT / "benchmarks" / "results" / "segformer.json"
    target.write_text(json.dumps(found, indent=1) + "\n")
    show(rows, {name: each["edits"] for name, each in results.items()})


if __name__ == "__main__":
    main()

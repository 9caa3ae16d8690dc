"""Networks that nobody made for slimseg: opened, compared with their own runtime, written back, and sped up for free.

    python benchmarks/third_party.py [FILE ...] [--images FOLDER] [--out runs/third_party]

Files are `.tflite`, `.onnx`, `.keras` or `.h5`; by default those of the folder `shared` beside the checkout. For each:
the largest difference to its own runtime on real images (`.tflite` only), the written file's latency over the source's,
and `slim --needs nothing`: how much faster, how far outputs move, what was done. Writes results/third_party.json.
"""

from __future__ import annotations

import argparse
import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

import slimseg
from slimseg.planning.choosing.budget import Budget
from slimseg.progress import Terminal
from slimseg.runtimes import benchmark, host
from slimseg.runtimes.litert import session
from slimseg.runtimes.litert.writing import writer
from slimseg.training.data import open_folder

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"
COUNT = 10  # images on which outputs are compared


def inputs(graph: slimseg.Graph, folder: Path) -> np.ndarray[Any, Any]:
    """Preprocessed images (N, H, W, C) of the folder's validation split."""
    pipeline = host.ImagePipeline(graph.description.preprocessing, graph.input_size)
    return np.stack([pipeline(image) for image in open_folder(folder).sample_images(COUNT, seed=0)])


def as_in_a_file(graph: slimseg.Graph, images: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    with torch.no_grad():
        found = torch.cat([graph(torch.from_numpy(image[None]).permute(0, 3, 1, 2)) for image in images])
    return (found.permute(0, 2, 3, 1) if found.ndim == 4 else found).numpy()


def difference(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> float:
    """Largest, absolute; relative to the largest value where that is over one (logits)."""
    return float(np.abs(a.reshape(b.shape) - b).max() / max(1.0, float(np.abs(a).max())))


def study(path: Path, images: Path, out: Path) -> dict[str, Any]:
    """Everything about one file."""
    graph = slimseg.load(path)
    given = inputs(graph, images)
    back = out / f"{path.name}.written.tflite"
    writer.write(graph, back)
    row: dict[str, Any] = {"file": path.name, "notes": graph.notes, "layers": len(list(graph.layers()))}
    own = as_in_a_file(graph, given)
    row["written_difference"] = difference(own, session.predict(back, given))
    if graph.source is not None:
        row["opened_difference"] = difference(session.predict(graph.source, given), own)
        before, after = benchmark.time_files([graph.source, back], seconds_per_file=5)
        row["source_ms"], row["written_over_source"] = before.median_ms, benchmark.ratio(after, before)
    run = out / f"{path.name}.slim"
    result = slimseg.slim(
        graph, images=None, out=run, budget=Budget(needs="nothing"), progress=Terminal(Console(stderr=True))
    )
    slimmed = session.predict(run / "model.tflite", given)
    row["slim_speedup"], row["slim_difference"] = result.speedup, difference(own, slimmed)
    row["edits"] = [asdict(edit) for edit in result.edits]
    row["seconds"] = result.seconds
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    models = SHARED / "models"
    default = [
        models / name for name in ("prisma-net.tflite", "slim_reshape.tflite", "prisma_nchw.onnx", "slim_reshape.h5")
    ]
    parser.add_argument("files", nargs="*", type=Path, default=default)
    parser.add_argument("--images", type=Path, default=SHARED / "portraits")
    parser.add_argument("--out", type=Path, default=ROOT / "runs/third_party")
    parser.add_argument("--result", type=Path, default=ROOT / "benchmarks/results/third_party.json")
    given = parser.parse_args()
    shutil.rmtree(given.out, ignore_errors=True)
    given.out.mkdir(parents=True)
    rows = [study(path, given.images, given.out) for path in given.files]
    given.result.write_text(json.dumps(rows, indent=2) + "\n")
    table = Table("File", "Opened", "Written", "Written / source", "Faster for free", "Moved", box=None)
    for row in rows:
        table.add_row(
            row["file"],
            f"{row['opened_difference']:.0e}" if "opened_difference" in row else "",
            f"{row['written_difference']:.0e}",
            f"{row['written_over_source']:.3f}x" if "written_over_source" in row else "",
            f"{row['slim_speedup']:.2f}x",
            f"{row['slim_difference']:.0e}",
        )
    Console().print(table)


if __name__ == "__main__":
    main()

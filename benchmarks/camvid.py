"""camvid_unet on CamVid: slimseg's file beside the two baselines that others' tools give, all timed in one run.

    python benchmarks/camvid.py [--time-limit 80m] [--min-speedup 32] [--max-size 1MB] [--out runs/camvid]
    python benchmarks/camvid.py --without-labels --max-drop 8 --out runs/camvid_images

Rows: litert-torch float32, litert-torch + ai-edge-quantizer static int8, and `slimseg slim`. Without labels, slim is
given a folder of the images alone, and the masks only judge it afterwards. Needs the folder `shared` beside the
checkout and `pip install 'slimseg[litert-torch]'`. Writes benchmarks/results/camvid.json (or camvid_images.json).
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

import slimseg
from slimseg.commands.evaluate import Evaluator
from slimseg.graph import costs
from slimseg.planning.choosing.budget import Budget, parse_size, parse_time
from slimseg.progress import Silent, Terminal
from slimseg.runtimes import benchmark, end_to_end, host
from slimseg.runtimes.litert.writing import writer
from slimseg.tflite import file
from slimseg.training.data import Folder, open_folder

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"
LABELS = ("litert-torch float32", "litert-torch + ai-edge-quantizer int8", "slimseg float32 writer", "slimseg slim")


def litert_torch_float(graph: slimseg.Graph, path: Path) -> float:
    """The original through litert-torch; returns the seconds it took."""
    import litert_torch

    started = time.perf_counter()
    module = litert_torch.to_channel_last_io(graph.module.eval(), args=[0], outputs=[0])
    model = litert_torch.convert(module, (torch.zeros(1, *graph.input_size, 3),))
    model.export(str(path))
    seconds = time.perf_counter() - started
    path.write_bytes(file.embed_description(path.read_bytes(), graph.description))
    return seconds


def quantizer_int8(graph: slimseg.Graph, float_path: Path, path: Path, images: list[np.ndarray]) -> None:
    """Static int8 as ai-edge-quantizer does it by itself, calibrated on the same images."""
    from litert_quantizer import quantizer, recipe

    pipeline = host.ImagePipeline(graph.description.preprocessing, graph.input_size)
    worker = quantizer.Quantizer(str(float_path), recipe.static_wi8_ai8())
    name = next(iter(file.parse(float_path.read_bytes(), float_path).signatureDefs[0].inputs)).name.decode()
    ranges = worker.calibrate({"serving_default": [{name: pipeline(image)[None]} for image in images]})
    path.write_bytes(file.embed_description(bytes(worker.quantize(ranges).quantized_model), graph.description))


def images_alone(data: Path, folder: Path) -> Path:
    """The same splits without their masks."""
    for split in ("train", "val"):
        (folder / split).mkdir(parents=True, exist_ok=True)
        for image in (data / split / "images").iterdir():
            link = folder / split / image.name
            if not link.exists():
                link.symlink_to(image)
    return folder


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "camvid")
    parser.add_argument("--time-limit", default="80m")
    parser.add_argument("--min-speedup", type=float, default=32.0)
    parser.add_argument("--max-size", default="1MB")
    parser.add_argument("--max-drop", type=float, default=0.5)
    parser.add_argument("--without-labels", action="store_true")
    parser.add_argument("--run", type=Path, help="measure an existing run again instead of making one")
    return parser.parse_args()


def main() -> None:
    options = arguments()
    warnings.simplefilter("ignore")
    graph = slimseg.load(SHARED / "models" / "camvid_unet.pt2", mean=127, std=128)
    run = options.run or slimmed(graph, options)
    folder = open_folder(SHARED / "camvid")
    peers, write_seconds = written_by_others(graph, run, folder.sample_images(100))
    rows = measured(graph, [*peers, run / "original_float.tflite", run / "model.tflite"], folder)
    result = json.loads((run / "result.json").read_text())
    found = {
        "rows": rows,
        "write_seconds": write_seconds,
        "slim_seconds": result["seconds"],
        "macs": costs.total(graph).macs,
        "result": {key: result[key] for key in ("baseline", "plain_int8", "result", "speedup", "edits", "budget")},
    }
    target = ROOT / "benchmarks" / "results" / f"{'camvid_images' if options.without_labels else 'camvid'}.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(found, indent=1) + "\n")
    show(rows, found)


def slimmed(graph: slimseg.Graph, options: argparse.Namespace) -> Path:
    """The folder of a new run of `slim`."""
    budget = Budget(
        max_size_bytes=parse_size(options.max_size),
        min_speedup=options.min_speedup,
        max_drop=options.max_drop,
        time_limit_s=parse_time(options.time_limit),
    )
    data = SHARED / "camvid"
    given = images_alone(data, ROOT / "runs" / "camvid_images_alone") if options.without_labels else data
    slimseg.slim(graph, images=given, out=options.out, budget=budget, progress=Terminal(Console(stderr=True)))
    return Path(options.out)


def written_by_others(
    graph: slimseg.Graph,
    run: Path,
    images: list[np.ndarray],
) -> tuple[list[Path], dict[str, float]]:
    """The original as other tools write it, in float32 and int8, and the seconds that writing it took them and us."""
    peers = [run / "peer_float.tflite", run / "peer_int8.tflite"]
    peer_seconds = litert_torch_float(graph, peers[0])
    quantizer_int8(graph, peers[0], peers[1], images)
    started = time.perf_counter()
    writer.serialise(graph)
    return peers, {"slimseg": time.perf_counter() - started, "litert-torch": peer_seconds}


def measured(graph: slimseg.Graph, paths: list[Path], folder: Folder) -> list[dict[str, object]]:
    """A row for each of the files in `LABELS`, all timed in one run."""
    timings = benchmark.time_files(paths, seconds_per_file=8.0)
    whole = end_to_end.time_end_to_end(paths, graph.input_size, graph.input_size)
    evaluator = Evaluator(folder, graph, Silent())
    return [
        {
            "name": label,
            "latency_ms": timing.median_ms,
            "speedup": benchmark.ratio(timings[0], timing),
            "end_to_end_ms": end_to_end,
            "size_bytes": path.stat().st_size,
            "miou": evaluator.accuracy(path).miou,
        }
        for label, path, timing, end_to_end in zip(LABELS, paths, timings, whole, strict=True)
    ]


def show(rows: list[dict[str, object]], found: dict[str, object]) -> None:
    table = Table("file", "ms", "faster", "end to end ms", "MB", "mIoU")
    for row in rows:
        table.add_row(
            str(row["name"]),
            f"{row['latency_ms']:.2f}",
            f"{row['speedup']:.1f}x",
            f"{row['end_to_end_ms']:.1f}",
            f"{row['size_bytes'] / 1e6:.2f}",  # type: ignore[operator]
            f"{row['miou']:.2f}",
        )
    console = Console()
    console.print(table)
    console.print(f"slim took {found['slim_seconds']:.0f} s; writing the original: {found['write_seconds']}")


if __name__ == "__main__":
    main()

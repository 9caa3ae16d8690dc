"""Qualcomm's NPUs, asked without a phone: placement, compilation and masks of networks before and after slimming.

    python benchmarks/processors.py [NETWORK ...] [--images 8] [--chips SM8350,...] [--slim-minutes 4]

Takes camvid_unet, prisma-net and slim_reshape from `shared` beside the checkout, each as float32 and int8, and as
`slim --needs nothing` leaves it; files are kept in runs/processors. Every file is compiled for every chip with LiteRT's
plugin and Qualcomm's libraries (`pip install 'slimseg[qualcomm]'`). Masks are those of Qualcomm's simulator of SM8750,
beside LiteRT's on the CPU, on some of the validation images. MediaTek, Google Tensor and Samsung: by lists.

Writes benchmarks/results/processors.json after every file, and goes on from there when it is started again. A time in
it is a compiler's estimate for a chip that it estimates (SA8255, of cars), or how long compiling took here: nothing
ran on a phone.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import slimseg
from slimseg.errors import SlimsegError
from slimseg.planning.choosing.budget import Budget
from slimseg.results import Placement
from slimseg.runtimes import registry
from slimseg.training.data import open_folder

HERE = Path(__file__).resolve().parent
SHARED = HERE.parents[1] / "shared"
RESULTS, FILES = HERE / "results" / "processors.json", HERE.parent / "runs" / "processors"
NETWORKS = {
    "camvid_unet": ("camvid_unet.pt2", "camvid", {"mean": 127.0, "std": 128.0}),
    "prisma-net": ("prisma-net.tflite", "portraits", {}),
    "slim_reshape": ("slim_reshape.tflite", "portraits", {}),
}
CHIPS = "SM8350,SM8450,SM8550,SM8650,SM8750,SM8850,SA8255"
SIMULATED = "npu:sm8750"
LISTS = ("npu:mediatek", "npu:tensor", "npu:samsung")
CALIBRATION = 50  # images for the ranges of int8


def files(name: str, minutes: float) -> Iterator[tuple[str, Path]]:
    """The network's files by their form: "float32", "int8", and both of the slimmed network."""
    source, data, options = NETWORKS[name]
    images = open_folder(SHARED / data)
    graph = slimseg.load(SHARED / "models" / source, **options)
    yield from _both(graph, name, "", images)
    run = FILES / f"{name}_slim"
    budget = Budget(needs="nothing", time_limit_s=60 * minutes)
    try:
        slimseg.slim(graph, out=run, budget=budget)
        slimmed = slimseg.load(run / "model.pt2")
    except SlimsegError as error:
        print(f"{name}: not slimmed: {error}", flush=True)
        return
    yield from _both(slimmed, name, "slimmed ", images)


def _both(graph: Any, name: str, which: str, images: Any) -> Iterator[tuple[str, Path]]:
    for precision in ("float32", "int8"):
        path = FILES / f"{name}_{which.strip()}{precision}.tflite"
        if not path.exists():
            calibration = images.sample_images(CALIBRATION) if precision == "int8" else ()
            registry.DEFAULT.deploy(graph, path, precision, calibration)
        yield which + precision, path


def placed(path: Path, chips: str) -> list[dict[str, Any]]:
    """The placement on every chip, and what compiling gave."""
    names = ",".join(f"npu:{chip.lower()}" for chip in chips.split(","))
    rows = []
    for npu in registry.processors(registry.DEFAULT, ",".join((names, *LISTS))):
        try:
            rows.append(_row(npu.place(path)))
        except SlimsegError as error:
            rows.append({"processor": npu.name, "error": str(error)})
        print("   ", json.dumps(rows[-1]), flush=True)
    return rows


def _row(placement: Placement) -> dict[str, Any]:
    refused = sorted({f"{each.op}: {each.reason}" for each in placement.refused})
    return {
        "processor": placement.processor,
        "is_own_verdict": placement.is_own_verdict,
        "taken": placement.taken,
        "layers": len(placement.layers),
        "partitions": placement.partitions,
        "copies": placement.copies,
        "refused": refused,
        "compilation": None if placement.compilation is None else placement.compilation.as_dict(),
    }


def masks(path: Path, data: str, count: int) -> dict[str, Any]:
    """mIoU of the simulated NPU and of the CPU, and pixels in which they differ, on images spread over the split."""
    (npu,) = registry.processors(registry.DEFAULT, SIMULATED)
    with tempfile.TemporaryDirectory() as some:
        for kind in ("images", "masks"):
            source = sorted((SHARED / data / "val" / kind).iterdir())
            (folder := Path(some) / "val" / kind).mkdir(parents=True)
            for each in source[:: max(1, len(source) // count)][:count]:
                shutil.copy(each, folder / each.name)
            shutil.copytree(folder, Path(some) / "train" / kind)
        try:
            found = slimseg.evaluate(path, images=some, processor=npu)
        except SlimsegError as error:
            return {"processor": npu.name, "error": str(error)}
    assert found.beside_cpu is not None
    return {
        "processor": npu.name,
        "images": found.images,
        "miou": found.miou,
        "cpu_miou": found.beside_cpu.cpu_miou,
        "changed_percent": found.beside_cpu.changed_percent,
        "worst_changed_percent": found.beside_cpu.worst_changed_percent,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", choices=[[], *NETWORKS])
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--chips", default=CHIPS)
    parser.add_argument("--slim-minutes", type=float, default=4)
    parser.add_argument("--again", action="store_true", help="also files whose rows are there already")
    arguments = parser.parse_args()
    FILES.mkdir(parents=True, exist_ok=True)
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for name in arguments.networks or NETWORKS:
        rows = results.setdefault(name, {})
        for form, path in files(name, arguments.slim_minutes):
            if form in rows and not arguments.again:
                continue
            print(f"{name}, {form}: {path.stat().st_size / 1e6:.2f} MB", flush=True)
            row = {"size_bytes": path.stat().st_size, "placements": placed(path, arguments.chips)}
            row["masks"] = masks(path, NETWORKS[name][1], arguments.images)
            print("   ", json.dumps(row["masks"]), flush=True)
            rows[form] = row
            RESULTS.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()

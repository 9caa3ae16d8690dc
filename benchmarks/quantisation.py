"""Post-training quantisation, scheme by scheme, on many networks; what an int8 file computes; whether 4 bits pay.

    python benchmarks/quantisation.py [--images 100] [--val N] [--also PATH:DATA[:MEAN:STD] ...] [--only NAME ...]

Networks: those of the folder `shared` beside the checkout, two of `slimseg.models` trained on drawn street scenes for a
minute, and any others (for example the `model.pt2` that `slim` left). For each, `slimseg.quantize` with everything on
automatic, and the fidelity: how many pixels of the validation masks the int8 file has in common with the network that
quantisation-aware training trains, in percent. For the network FOUR_BITS three recipes with 4-bit weights beside int8.
Writes benchmarks/results/quantisation.json.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from quantisation_4bit import four_bits
from rich.console import Console
from rich.table import Table
from trained import trained

import slimseg
from slimseg.commands.evaluate import predictions
from slimseg.demonstration import scenes
from slimseg.graph.graph import Graph
from slimseg.planning.choosing.budget import Budget
from slimseg.progress import Silent, Terminal
from slimseg.quantisation.qat import QuantisationAwareTraining
from slimseg.results import QuantisationResult, QuantisedFile
from slimseg.tflite import file
from slimseg.training.data import open_folder, read_pair
from slimseg.training.memory import keep_freed

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"
RESULTS = ROOT / "benchmarks" / "results" / "quantisation.json"
FOUR_BITS = "separable"
SCENES = 240, 60
SPLITS = ("train", "val")
KEPT = ("baseline", "candidates", "chosen", "budget_met", "calibration_images", "validation_images", "seconds", "host")


@dataclass(frozen=True)
class Network:
    """A model, opened when its turn comes, and images for it."""

    name: str
    open: Callable[[], Graph | Path]
    data: Path


def networks(also: Sequence[str], drawn: Path, steps: int) -> Iterator[Network]:
    models, camvid, portraits = SHARED / "models", SHARED / "camvid", SHARED / "portraits"
    if models.is_dir():
        yield Network("camvid_unet", lambda: slimseg.load(models / "camvid_unet.pt2", mean=127, std=128), camvid)
        yield Network("prisma-net", lambda: models / "prisma-net.tflite", portraits)
        yield Network("slim_reshape", lambda: models / "slim_reshape.tflite", portraits)
    for text in also:
        yield given(text)
    yield Network("separable", lambda: trained(open_folder(drawn), "separable", steps), drawn)
    yield Network("inverted residual", lambda: trained(open_folder(drawn), "inverted residual", steps), drawn)


def given(text: str) -> Network:
    """PATH:DATA[:MEAN:STD]."""
    path, data, *normalisation = text.split(":")
    means = {key: float(value) for key, value in zip(("mean", "std"), normalisation, strict=False)}
    opened: Callable[[], Graph | Path] = lambda: (  # noqa: E731
        Path(path) if path.endswith(".tflite") else slimseg.load(path, **means)  # type: ignore[arg-type]
    )
    return Network(f"{Path(path).parent.name}/{Path(path).name}", opened, Path(data))


def part_of(data: Path, counts: Sequence[int | None], folder: Path) -> Path:
    """A copy of the data with at most so many images of each split, spread over it."""
    source = open_folder(data)
    for split, count in zip(SPLITS, counts, strict=True):
        part = source.split(split)
        total = len(part.images)
        for place in np.unique(np.linspace(0, total - 1, min(count or total, total)).round().astype(int)):
            for kind, paths in (("images", part.images), ("masks", part.masks or ())):
                (folder / split / kind).mkdir(parents=True, exist_ok=True)
                if paths:
                    shutil.copyfile(paths[place], folder / split / kind / paths[place].name)
    if (data / "classes.txt").exists():
        shutil.copyfile(data / "classes.txt", folder / "classes.txt")
    return folder


def fidelity(graph: Graph, data: Path, scratch: Path) -> float:
    """Of the int8 file's masks with those of the network that is trained, in percent of the validation pixels."""
    folder = open_folder(data)
    training = QuantisationAwareTraining(graph, folder, folder.labelled, 0, Silent())
    float_path, path = scratch / "fidelity_float.tflite", scratch / "fidelity_int8.tflite"
    training.write(float_path, path)
    description = file.read_description(path) or graph.description
    theirs = [mask for _, _, mask in predictions(path, folder.val, description, None, 1, Silent())]
    mine = training.masks([read_pair(folder.val, place)[0] for place in range(len(theirs))], float_path)
    return 100 * float(np.mean([np.mean(one == other) for one, other in zip(mine, theirs, strict=True)]))


def measured(network: Network, counts: tuple[int, int | None], scratch: Path, max_drop: float) -> dict[str, Any]:
    """One network: everything that was tried, and the best int8 of it."""
    data = part_of(network.data, (None, counts[1]), scratch / "data")
    model = network.open()
    graph = model if isinstance(model, Graph) else slimseg.load(model)
    progress = Terminal(Console(stderr=True))
    budget = Budget(max_drop=max_drop)
    result = slimseg.quantize(
        model, out=scratch / "best.tflite", images=data, budget=budget, calibration_images=counts[0], progress=progress
    )
    best = best_int8(result)
    found: dict[str, Any] = {
        "network": network.name,
        "result": {key: value for key, value in asdict(result).items() if key in KEPT},
        "best_int8": None if best is None else asdict(best),
        "drop": None if best is None else lost(result, best),
        "drop_of_minmax": next((lost(result, each) for each in plain_int8(result) if each.ranges == "minmax"), None),
        "fidelity": fidelity(graph, data, scratch),
    }
    if network.name == FOUR_BITS:
        found["four_bits"] = four_bits(graph, data, scratch, counts[0])
    return found


def plain_int8(result: QuantisationResult) -> list[QuantisedFile]:
    """Int8 throughout, corrected or not."""
    return [row for row in result.candidates if row.scheme == "int8" and row.was_made and not row.kept_float]


def best_int8(result: QuantisationResult) -> QuantisedFile | None:
    return min(plain_int8(result), key=lambda row: lost(result, row), default=None)


def lost(result: QuantisationResult, row: QuantisedFile) -> float:
    if result.baseline.miou is not None and row.miou is not None:
        return result.baseline.miou - row.miou
    return float("nan") if row.agreement is None else 100 - row.agreement


def show(found: Sequence[dict[str, Any]]) -> None:
    console = Console(width=130)
    for each in found:
        result = each["result"]
        table = Table(
            "scheme", "ranges", "corrected", "latency / float32", "size, MB", "mIoU", "agreed", title=each["network"]
        )
        for row in (result["baseline"], *result["candidates"]):
            kept = f", {len(row['kept_float'])} float" if row["kept_float"] else ""
            ratio = f"{1 / row['speedup']:.2f}" if row["speedup"] else "-"
            numbers = [f"{row[key]:.2f}" if row[key] is not None else "-" for key in ("miou", "agreement")]
            table.add_row(
                row["scheme"] + kept, row["ranges"], row["corrected"], ratio, f"{row['size_bytes'] / 1e6:.2f}", *numbers
            )
        console.print(table)
        best = each["best_int8"]
        if best is not None:
            how = f"ranges by {best['ranges']}" + (f", {best['corrected']}" if best["corrected"] else "")
            plain = each["drop_of_minmax"]
            console.print(f"int8 loses {each['drop']:.2f} ({how}); min/max alone {plain:.2f}", end="; ")
        console.print(f"the file agrees with the network by {each['fidelity']:.2f}%; {result['seconds']:.0f} s")
        for row in each.get("four_bits", ()):
            console.print(f"  {row}")
    drops = [max(0.0, each["drop"]) for each in found if each["drop"] is not None]
    if drops:
        average, worst = np.mean(drops), max(drops)
        console.print(
            f"\nbest int8 of each, gains counted as nothing: {average:.3f} lost on average, {worst:.3f} at worst"
        )
        console.print(f"fidelity at worst: {min(each['fidelity'] for each in found):.2f}%")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=100, help="for the ranges")
    parser.add_argument("--val", type=int, default=None, help="images that accuracy is measured on; default: all")
    parser.add_argument("--steps", type=int, default=1500, help="of training the small networks")
    parser.add_argument("--max-drop", type=float, default=1.0, help="points; more, and layers are kept in float32")
    parser.add_argument("--also", nargs="*", default=[], metavar="PATH:DATA[:MEAN:STD]")
    parser.add_argument("--only", nargs="*", default=[], metavar="NAME")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    keep_freed()
    found: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as scratch:
        drawn = scenes.write_folder(Path(scratch) / "scenes", *SCENES, seed=7)
        for number, network in enumerate(networks(options.also, Path(drawn), options.steps)):
            if options.only and network.name not in options.only:
                continue
            own = Path(scratch) / str(number)
            own.mkdir()
            found.append(measured(network, (options.images, options.val), own, options.max_drop))
            show(found[-1:])
    show(found)
    with suppress(FileExistsError):
        RESULTS.parent.mkdir()
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()

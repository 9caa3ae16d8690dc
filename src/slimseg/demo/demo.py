"""`slimseg demo`: the main job on what ships inside the package."""

from __future__ import annotations

from pathlib import Path

from slimseg.demo import network, scenes
from slimseg.errors import OutputError
from slimseg.frontends import load
from slimseg.planning.budget import Budget
from slimseg.progress import Progress, Silent
from slimseg.results import SlimResult
from slimseg.slim import slim

TRAIN_SCENES, VAL_SCENES = 160, 40
BUDGET = Budget(min_speedup=6, max_drop=2.0, time_limit_s=270)


def demo(out: str | Path = "runs/demo", seed: int = 0, progress: Progress | None = None) -> SlimResult:
    """Draw street scenes beside `out`, slim the network that was trained on such scenes, and leave the run in `out`.

    Raises:
        OutputError: `out` or the folder of scenes beside it holds something already.
    """
    progress = progress or Silent()
    run = Path(out)
    images = run.with_name(f"{run.name}-scenes")
    for folder in (run, images):
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise OutputError(f"{folder} exists already and is not empty: give another --out or remove it")
    progress.say(f"Drawing {TRAIN_SCENES + VAL_SCENES} street scenes into {images}")
    scenes.write_folder(images, train=TRAIN_SCENES, val=VAL_SCENES, seed=seed)
    model, size = network.load_trained(), network.INPUT_SIZE
    graph = load(model, size, mean=network.MEAN, std=network.STD, classes=scenes.CLASSES, name="demo")
    return slim(graph, images, run, BUDGET, seed, progress)

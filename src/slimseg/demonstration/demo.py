"""`slimseg demo`: the main workflow on data that ships in the package."""

from __future__ import annotations

from pathlib import Path

from slimseg.commands.slim import slim
from slimseg.demonstration import network, scenes
from slimseg.disk import claim
from slimseg.errors import OutputError
from slimseg.frontends import load
from slimseg.planning.choosing.budget import Budget
from slimseg.progress import Progress, Silent
from slimseg.results import SlimResult
from slimseg.stopping import keeping

TRAIN_SCENES, VAL_SCENES = 160, 40
COMMAND = "demo"  # the command that owns the folder of scenes
BUDGET = Budget(min_speedup=6, max_drop=2.0, time_limit_s=900)


def demo(out: str | Path = "runs/demo", seed: int = 0, progress: Progress | None = None) -> SlimResult:
    """Draw street scenes beside `out`, slim the network that was trained on such scenes, and leave the run in `out`.

    A demo that was stopped continues; a finished one returns its result again.

    Raises:
        OutputError: `out` or the folder of scenes beside it exists and holds something else.
    """
    progress = progress or Silent()
    run = Path(out)
    images = run.with_name(f"{run.name}-scenes")
    for folder in (run, images):
        if not claim.is_new(folder) and not claim.is_ours(folder):
            raise OutputError(f"{folder} exists already and is not empty: give another --out or remove it")
    _draw(images, seed, progress)
    model, size = network.load_trained(), network.INPUT_SIZE
    graph = load(model, size, mean=network.MEAN, std=network.STD, classes=scenes.CLASSES, name="demo")
    return slim(graph, images=images, out=run, budget=BUDGET, seed=seed, progress=progress)


def _draw(images: Path, seed: int, progress: Progress) -> None:
    """Draw the scenes, unless an earlier start of the same demo drew them all."""
    asked = {"train": TRAIN_SCENES, "val": VAL_SCENES, "seed": seed}
    with claim.claimed(images) as own:
        state = own.state
        if state is not None and state.command != COMMAND:
            raise OutputError(f"{images} is the folder of slimseg {state.command}: give another --out")
        if state is not None and state.is_of(asked) and state.finished:
            return
        if state is not None and state.finished:
            raise OutputError(f"{images} holds the scenes of another demo: give another --out or remove it")
        own.begin(COMMAND, asked)
        progress.say(f"Drawing {TRAIN_SCENES + VAL_SCENES} street scenes into {images}")
        with keeping(lambda: "The same command draws its scenes anew."):
            scenes.write_folder(images, train=TRAIN_SCENES, val=VAL_SCENES, seed=seed)
        own.finish()

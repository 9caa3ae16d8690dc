"""`slimseg demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from slimseg.cli.options import AsJson
from slimseg.cli.showing import progress, show


def demo(
    out: Annotated[Path, typer.Option(help="New folder for the result.")] = Path("runs/demo"),
    seed: Annotated[int, typer.Option(help="Seed of the drawn scenes and of training.")] = 0,
    json: AsJson = False,
) -> None:
    """The main job on what ships inside: drawn street scenes and a small heavy network, offline, in minutes.

    Where the machine is too slow to train in time, the result may miss the demo's budget (6 times as fast, at most 2
    points of mIoU lost): that is reported, and the demo has still succeeded.

    Example:  slimseg demo --out runs/demo
    """
    from slimseg.demonstration.demo import demo as run
    from slimseg.report.terminal import show_slim

    result = run(out, seed, progress())
    show(result, json, lambda: show_slim(result))

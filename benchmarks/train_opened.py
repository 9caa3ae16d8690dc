"""A network that was only a `.tflite` learns again: distilled from itself, with labels, on the user's own images.

    python benchmarks/train_opened.py [FILE] [--data FOLDER] [--minutes 5]

By default prisma-net.tflite and the portraits of the folder `shared` beside the checkout. Nothing of the network is
changed but its weights; IoU is that of the written float32 file on the validation split, before and after.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

from rich.console import Console

import slimseg
from slimseg.planning.choosing.budget import Budget
from slimseg.planning.choosing.plan import Plan
from slimseg.planning.running.recover import Recovery
from slimseg.progress import Terminal
from slimseg.training.data import open_folder

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", nargs="?", type=Path, default=SHARED / "models/prisma-net.tflite")
    parser.add_argument("--data", type=Path, default=SHARED / "portraits")
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--result", type=Path, default=ROOT / "benchmarks/results/train_opened.json")
    given = parser.parse_args()
    original = slimseg.load(given.file)
    student = original.copy()
    before = slimseg.evaluate(given.file, images=given.data)
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        until = started + 60 * given.minutes
        images = open_folder(given.data)
        terminal = Terminal(Console(stderr=True))
        recovery = Recovery(original, student, Plan(student, (), ()), images, Budget(), 0, terminal, Path(folder))
        leg = 0
        while time.monotonic() < until:
            recovery.distil_whole(until, leg)
            leg += 1
    after = slimseg.evaluate(student, images=given.data)
    result = {
        "file": given.file.name,
        "seconds": time.monotonic() - started,
        "before": before.class_iou,
        "after": after.class_iou,
        "miou_before": before.miou,
        "miou_after": after.miou,
    }
    given.result.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()

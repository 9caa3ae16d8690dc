"""Forms of the output on LiteRT and ncnn: the table of docs/heads.md.

    python benchmarks/head_forms.py [--int8] [FILE.pt2 ...]

Takes camvid_unet, prisma-net and slim_reshape from `shared` beside the checkout, and any further `.pt2` of slimseg. One
thread; all forms of a network are timed in turns in one run, from an image of the validation split to the mask at its
size. Half a minute a network on a machine that does nothing else; with others at work the times mean nothing.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

import slimseg
from slimseg.exporting import heads
from slimseg.report import head_choice, units
from slimseg.training.data import read_image

SHARED = Path(__file__).resolve().parents[2] / "shared"
NETWORKS = (
    ("camvid_unet.pt2", "camvid", 127.0, 128.0),
    ("prisma-net.tflite", "portraits", 0.0, 255.0),
    ("slim_reshape.tflite", "portraits", 0.0, 255.0),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path, help="further .pt2 files of slimseg, fed with CamVid")
    parser.add_argument("--int8", action="store_true", help="int8 on LiteRT, too")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    given = [(SHARED / "models" / name, folder, mean, std) for name, folder, mean, std in NETWORKS]
    sentences = []
    print(
        "| network | runtime | output | network | to the mask | bytes | pixels changed |\n|---|---|---|---|---|---|---|"
    )
    for path, folder, mean, std in [*given, *((path, "camvid", None, None) for path in arguments.files)]:
        graph = slimseg.load(path, mean=mean, std=std)
        pictures = images(folder)
        trials = heads.measured(graph, ["litert", "ncnn"], pictures[3], images=pictures if arguments.int8 else ())
        for trial in trials:
            if not trial.reason:
                print(
                    f"| {graph.name} | {trial.runtime} | {trial.form} | {units.milliseconds(trial.latency_ms)} "
                    f"| {units.milliseconds(trial.end_to_end_ms)} | {units.size(trial.output_bytes)} "
                    f"| {trial.changed_percent:.2f}% |",
                    flush=True,
                )
        sentences += [f"{graph.name}, {name}: {text}." for name, text in head_choice.recommend(trials).items()]
    print("", *sentences, sep="\n")


def images(folder: str) -> list[np.ndarray]:
    """Eight of the validation split, spread over it."""
    paths = sorted((SHARED / folder / "val" / "images").iterdir())
    return [read_image(path) for path in paths[:: max(1, len(paths) // 8)][:8]]


if __name__ == "__main__":
    main()

"""Every network as every artefact: how far its masks are from the network's, its size, its time, what MediaPipe says.

    python benchmarks/exporting.py [--images 50] [--out results/exporting.json] [RUN ...]

Takes camvid_unet, prisma-net and slim_reshape from `shared` beside the checkout, and any further folders of finished
runs of `slimseg slim` on CamVid. Needs `pip install 'slimseg[ncnn,coreml,mediapipe]'`; LiteRT and ncnn are timed in
turns in one run per network. Packages for Core ML are read back and not run: that takes a Mac. About two minutes a
network.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from rich.console import Console

import slimseg
from slimseg.progress import Terminal
from slimseg.results import Artefact, ExportResult

SHARED = Path(__file__).resolve().parents[2] / "shared"
NETWORKS = (
    ("camvid_unet.pt2", "camvid", 127.0, 128.0),
    ("prisma-net.tflite", "portraits", None, None),
    ("slim_reshape.tflite", "portraits", None, None),
)
TO = "tflite:float32,tflite:int8,ncnn:fp32,ncnn:fp16,coreml,coreml:palettised"


def show(name: str, result: ExportResult) -> None:
    for each in result.card.artefacts:
        if not each.files:
            print(f"| {name} | {each.target} | – | – | – | – | {each.reason} |", flush=True)
            continue
        differ = "not run" if each.disagreement is None else f"{each.disagreement:.3f}%"
        latency = "–" if each.latency_ms is None else f"{each.latency_ms:.2f} ms"
        print(
            f"| {name} | {each.target}, {each.precision} | {each.size_bytes / 1e6:.2f} MB | {latency} | {differ} "
            f"| {'–' if each.miou is None else f'{each.miou:.2f}'} | {told(each)} |",
            flush=True,
        )
    print(f"\n{name}: {result.card.recommendation}\n", flush=True)


def told(artefact: Artefact) -> str:
    """What MediaPipe or the package's structure says."""
    sentences = [*artefact.verified, *artefact.not_verified]
    return " ".join(each for each in sentences if "MediaPipe" in each or "Neural Engine" in each)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*", type=Path, help="folders of finished runs of slim on CamVid")
    parser.add_argument("--images", type=int, default=50)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    sources = [(SHARED / "models" / name, folder, mean, std) for name, folder, mean, std in NETWORKS]
    results = {}
    print("| network | artefact | size | time | pixels that differ | mIoU | told |\n|---|---|---|---|---|---|---|")
    for path, folder, mean, std in [*sources, *((run, "camvid", None, None) for run in arguments.runs)]:
        source = path if path.is_dir() else slimseg.load(path, mean=mean, std=std)
        progress = Terminal(Console(stderr=True))
        with tempfile.TemporaryDirectory() as scratch:
            result = slimseg.export(
                source,
                out=Path(scratch) / "app",
                to=TO,
                images=SHARED / folder,
                compared=arguments.images,
                progress=progress,
            )
        show(path.stem, result)
        results[path.stem] = result.as_dict()
    if arguments.out:
        arguments.out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()

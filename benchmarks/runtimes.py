"""ncnn against LiteRT: every network's two float32 files timed in turns in one run, with sizes and masks.

    python benchmarks/runtimes.py [--seconds 5] [--images 20] [--out results/runtimes.json] [FILE.pt2 ...]

Takes camvid_unet, prisma-net and slim_reshape from `shared` beside the checkout, and any further `.pt2` of slimseg. A
mask agrees where it has the Graph's class at the image's own size. The ratio is the median of the ratios within rounds,
above 1 where ncnn is slower; "unpacked" is ncnn with one channel at a time in memory. About a minute a network.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

import slimseg
from slimseg.graph.graph import Graph
from slimseg.runtimes import benchmark, child, host
from slimseg.runtimes.litert import session as litert_session
from slimseg.runtimes.litert.writing import writer as litert_writer
from slimseg.runtimes.ncnn import file, session, writer
from slimseg.runtimes.ncnn.session import DEFAULTS, Options
from slimseg.training.data import read_image

SHARED = Path(__file__).resolve().parents[2] / "shared"
NETWORKS = (
    ("camvid_unet.pt2", "camvid", 127.0, 128.0),
    ("prisma-net.tflite", "portraits", 0.0, 255.0),
    ("slim_reshape.tflite", "portraits", 0.0, 255.0),
)
Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Row:
    """One network on both runtimes; agreements with the Graph in percent of pixels."""

    network: str
    litert_ms: float
    ncnn_ms: float
    ncnn_over_litert: float
    unpacked_over_packed: float
    litert_bytes: int
    ncnn_bytes: int
    ncnn_half_bytes: int
    litert_agreement: float
    ncnn_agreement: float
    ncnn_half_agreement: float


def compare(graph: Graph, images: Sequence[Array], seconds: float) -> Row:
    with tempfile.TemporaryDirectory() as folder:
        tflite = Path(folder) / "model.tflite"
        litert_writer.write(graph, tflite)
        full, half = (writer.write(graph, folder, storage, storage) for storage in ("fp32", "fp16"))
        with child.Child() as process:
            options = (DEFAULTS, DEFAULTS, Options(packing=False))
            timings = benchmark.time_files(
                (tflite, full.param, full.param), seconds_per_file=seconds, within=process, options=options
            )
        truth = [_graph_mask(graph, image) for image in images]
        agreements = [
            _agreement(truth, [_mask(path, image) for image in images]) for path in (tflite, full.param, half.param)
        ]
        return Row(
            graph.name,
            timings[0].median_ms,
            timings[1].median_ms,
            benchmark.ratio(timings[1], timings[0]),
            benchmark.ratio(timings[2], timings[1]),
            tflite.stat().st_size,
            full.size_bytes,
            half.size_bytes,
            *agreements,
        )


def _graph_mask(graph: Graph, image: Array) -> Array:
    pipeline = host.ImagePipeline(graph.description.preprocessing, graph.input_size)
    with torch.no_grad():
        output = graph(torch.from_numpy(pipeline(image))[None].permute(0, 3, 1, 2))
    value = output.permute(0, 2, 3, 1) if output.ndim == 4 else output
    scores = host.in_rows(value.numpy()[0], graph.input_size, graph.name)
    return host.to_mask(scores, image.shape[:2], graph.description.output_kind)


def _mask(path: Path, image: Array) -> Array:
    """Of a deployed file, as an app makes it."""
    if path.suffix == ".tflite":
        app, run = host.App(litert_session.file.read(path)), litert_session.predict
    else:
        app, run = host.App(file.read(path)), session.predict
    (output,) = run(path, app.prepare(image)[None])
    return app.mask(output, image.shape[:2])


def _agreement(truth: Sequence[Array], masks: Sequence[Array]) -> float:
    return 100 * float(np.mean([np.mean(mask == other) for mask, other in zip(truth, masks, strict=True)]))


def pictures(folder: str, count: int) -> list[Array]:
    """Images of a validation split, spread over it."""
    paths = sorted((SHARED / folder / "val" / "images").iterdir())
    chosen = np.linspace(0, len(paths) - 1, min(count, len(paths))).round().astype(int)
    return [read_image(paths[index]) for index in chosen]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path, help="further .pt2 files of slimseg, fed with CamVid")
    parser.add_argument("--seconds", type=float, default=5.0, help="per file")
    parser.add_argument("--images", type=int, default=20)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    given = [(SHARED / "models" / name, folder, mean, std) for name, folder, mean, std in NETWORKS]
    rows = []
    print("| network | LiteRT | ncnn | ncnn / LiteRT | unpacked / packed | MB (half) | agreement LiteRT, ncnn (half) |")
    print("|---|---|---|---|---|---|---|")
    for path, folder, mean, std in [*given, *((path, "camvid", None, None) for path in arguments.files)]:
        graph = slimseg.load(path, mean=mean, std=std)
        row = compare(graph, pictures(folder, arguments.images), arguments.seconds)
        rows.append(row)
        print(
            f"| {row.network} | {row.litert_ms:.2f} ms | {row.ncnn_ms:.2f} ms | {row.ncnn_over_litert:.2f} "
            f"| {row.unpacked_over_packed:.2f} | {row.ncnn_bytes / 1e6:.2f} ({row.ncnn_half_bytes / 1e6:.2f}) "
            f"| {row.litert_agreement:.2f}, {row.ncnn_agreement:.2f} ({row.ncnn_half_agreement:.2f}) |",
            flush=True,
        )
    if arguments.out:
        arguments.out.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")


if __name__ == "__main__":
    main()

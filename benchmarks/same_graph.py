"""Opens networks of benchmarks/architectures from PyTorch, `.pt2` and `.onnx` files, and compares the Graphs.

    python benchmarks/same_graph.py [NAME ...]

The `.onnx` files are written by both of PyTorch's exporters: the older one (TorchScript, opset 17) and the newer one
(torch.export), which needs onnxscript. For each format: whether the Graph is the same layer by layer once scales are
folded, as exporters fold them; else how many runs of layers differ; or why the network could not be exported or opened.
Adds rows to benchmarks/results/same_graph.json.
"""

from __future__ import annotations

import difflib
import io
import json
import sys
import tempfile
import warnings
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import torch
from torch import nn

import slimseg
from slimseg.graph.fold import fold_scales
from slimseg.graph.graph import Graph

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent / "tests" / "frontends")]
import zoo  # noqa: E402
from signature import signature  # noqa: E402

RESULTS = Path(__file__).parent / "results" / "same_graph.json"
NAMES = (
    *("erfnet", "ddrnet_23_slim", "segformer", "fast_scnn", "cgnet", "pp_liteseg_t", "farseenet", "enet"),
    *("lraspp_mobilenet_v3_small", "efficientformerv2_fpn"),
)
FILES = ("exported.pt2", "older.onnx", "newer.onnx")


def export(network: nn.Module, size: tuple[int, int], path: Path) -> None:
    image = (torch.zeros(1, 3, *size),)
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        if path.suffix == ".pt2":
            torch.export.save(torch.export.export(network, image), path)
        elif path.stem == "older":
            torch.onnx.export(network, image, path, dynamo=False, opset_version=17)
        else:
            torch.onnx.export(network, image, path, dynamo=True, external_data=False)


def compared(graph: Graph, other: Graph) -> str:
    """ "same", or the number of runs of layers that differ."""
    one, two = signature(fold_scales(graph)), signature(fold_scales(other))
    if one == two:
        return "same"
    steps = difflib.SequenceMatcher(None, [step[:3] for step in one], [step[:3] for step in two], False)
    return f"{sum(tag != 'equal' for tag, *_ in steps.get_opcodes()) or 'connections'} differ"


def row(name: str) -> dict[str, str]:
    network, size, output = zoo.built(name)
    graph = slimseg.load(network, size, name=name, output=output, verify=False)
    result = {"layers": str(len(list(graph.layers())))}
    for file in FILES:
        with tempfile.TemporaryDirectory() as folder:
            try:
                export(network, size, Path(folder) / file)
                result[file] = compared(graph, slimseg.load(Path(folder) / file, output=output, verify=False))
            except Exception as error:  # of any library
                lines = [line for line in str(error).splitlines() if line.strip()]
                result[file] = f"{type(error).__name__}: {lines[0] if lines else ''}"[:200].replace(folder, "")
    return result


def main() -> None:
    rows = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for name in sys.argv[1:] or NAMES:
        rows[name] = row(name)
        print(name, rows[name], flush=True)
        RESULTS.write_text(json.dumps(rows, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()

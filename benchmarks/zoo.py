"""Opens published segmentation networks and reports, for each, how far slimseg gets with it.

    python benchmarks/zoo.py [NAME ...] [--quick | --speed] [--timeout 900]

The networks are in benchmarks/architectures, one per file, with random weights and statistics. Each runs in a process
of its own. Columns: seconds to open it; operators that stay opaque; whether the `.tflite` is written without
litert-torch, in what time; the largest relative difference between that file and PyTorch; pixels of the int8 file that
have the same class as in the float file, on noise; ncnn's relative difference, or why it refuses; whether Core ML's
file is written. With --quick, int8, ncnn and Core ML are left out; with --speed, also the number of findings and the
speed-up that `slim --needs nothing` measures. Writes benchmarks/results/zoo.json; with names, only their rows change.
"""

from __future__ import annotations

import argparse
import copy
import importlib.util
import json
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import slimseg
from slimseg.errors import SlimsegError
from slimseg.graph.graph import Graph
from slimseg.graph.orders import nhwc
from slimseg.runtimes import registry
from slimseg.runtimes.coreml import writer

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "zoo.json"
EQUAL = 1e-4  # relative difference that counts as equal
ROUNDINGS = 3.0  # or this many times PyTorch's own rounding error, where random weights make that larger
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.LayerNorm, nn.GroupNorm, nn.InstanceNorm2d)


@dataclass
class Row:
    """What became of one network; `refusals` holds the reason for every step that was not possible."""

    name: str
    size: tuple[int, int] = (0, 0)
    parameters: int = 0
    layers: int = 0
    opaque: list[str] = field(default_factory=list)
    opened_s: float | None = None
    written_s: float | None = None
    difference: float | None = None  # of the .tflite's output from PyTorch's, relative to the largest value
    rounding: float | None = None  # PyTorch's own difference from float64, where the file's is above `EQUAL`
    int8_agreement_percent: float | None = None
    ncnn_difference: float | None = None
    coreml_written: bool = False
    findings: int | None = None
    exact_speedup: float | None = None
    refusals: dict[str, str] = field(default_factory=dict)

    @property
    def is_direct(self) -> bool:
        """Whether it has no opaque node and is written directly, with outputs that are equal up to rounding."""
        tolerance = max(EQUAL, ROUNDINGS * (self.rounding or 0.0))
        return not self.opaque and self.difference is not None and self.difference < tolerance


def names() -> list[str]:
    return sorted(path.stem for path in (HERE / "architectures").glob("*.py") if not path.stem.startswith("_"))


def built(name: str) -> tuple[nn.Module, tuple[int, int], int | None]:
    """The network with random weights, its input size (height, width), and the number of the output to use."""
    path = HERE / "architectures" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    torch.manual_seed(0)
    network = module.build()
    randomise(network, module.SIZE)
    return network.eval(), module.SIZE, getattr(module, "OUTPUT", None)


def randomise(network: nn.Module, size: tuple[int, int]) -> None:
    """Give every normalisation scales and shifts of its own, and batch norms the statistics of noise."""
    network.eval()
    for layer in network.modules():
        if isinstance(layer, NORMS) and getattr(layer, "weight", None) is not None:
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.bias, std=0.2)
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
            layer.momentum = None  # the plain mean over all batches
            layer.train()
    with torch.no_grad():
        network(torch.rand(4, 3, *size) * 2 - 1)
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d) and layer.running_var is not None:
            layer.running_var.clamp_(min=1e-3)  # a map of one pixel hardly varies over four images


def measured(name: str, quick: bool, speed: bool) -> Row:
    row = Row(name)
    network, row.size, output = built(name)
    row.parameters = sum(each.numel() for each in network.parameters())
    graph = _step(row, "load", lambda: slimseg.load(network, row.size, name=name, output=output), "opened_s")
    if graph is None:
        return row
    row.layers = len(list(graph.layers()))
    row.opaque = sorted({str(node.target) for node in graph.opaque()})
    image = torch.rand(1, 3, *row.size) * 2 - 1
    with tempfile.TemporaryDirectory() as folder:
        _litert(row, graph, network, image, Path(folder))
        if not quick:
            if row.difference is not None:
                row.int8_agreement_percent = _step(row, "int8", lambda: _int8_agreement(graph, Path(folder)))
            _ncnn(row, graph, image, Path(folder))
            _coreml(row, graph, Path(folder))
        if speed and row.is_direct:
            _speed(row, graph, Path(folder))
    return row


def _step(row: Row, step: str, work: Callable[[], Any], seconds: str = "") -> Any:
    """The result of one step, and its time in the row's field `seconds`; None if it was refused."""
    start = time.perf_counter()
    try:
        result = work()
    except SlimsegError as error:
        row.refusals[step] = str(error)
        return None
    if seconds:
        setattr(row, seconds, round(time.perf_counter() - start, 2))
    return True if result is None else result


def _relative(ours: np.ndarray[Any, Any], truth: np.ndarray[Any, Any]) -> float:
    return float(np.abs(ours.reshape(truth.shape) - truth).max() / np.abs(truth).max())


def _litert(row: Row, graph: Graph, network: nn.Module, image: Tensor, folder: Path) -> None:
    its, path = registry.RUNTIMES["litert"], folder / "network.tflite"
    if _step(row, "write", lambda: its.write(graph, path), "written_s") is None:
        return
    with torch.no_grad():
        truth = _of_shape(network(image), graph.shape(graph.output))
    value = _step(row, "run", lambda: its.predict(path, nhwc(image).numpy()))
    if value is not None and truth is not None:
        row.difference = _relative(value, nhwc(truth).numpy())
        if row.difference >= EQUAL:
            with torch.no_grad():
                exact = _of_shape(copy.deepcopy(network).double()(image.double()), tuple(truth.shape))
            row.rounding = None if exact is None else _relative(truth.numpy(), exact.numpy())


def _of_shape(outputs: Any, shape: tuple[int, ...]) -> Tensor | None:
    """The tensor of a shape among the outputs of a network; dimensions of length 1 may be missing in the shape."""
    found = [each for each in _tensors(outputs) if _longer(each.shape) == _longer(shape)]
    return next((each for each in found if tuple(each.shape) == shape), found[0].reshape(shape) if found else None)


def _longer(shape: Iterable[int]) -> list[int]:
    """The lengths above 1."""
    return [length for length in shape if length > 1]


def _tensors(outputs: Any) -> Iterator[Tensor]:
    if isinstance(outputs, Tensor):
        yield outputs
    elif isinstance(outputs, dict | list | tuple):
        for each in outputs.values() if isinstance(outputs, dict) else outputs:
            yield from _tensors(each)


def _int8_agreement(graph: Graph, folder: Path) -> float:
    """Percent of pixels with the class of the float file, on noise of the kind that int8 was calibrated on."""
    its, path = registry.RUNTIMES["litert"], folder / "int8.tflite"
    draw = np.random.default_rng(0)
    samples = [draw.uniform(-1, 1, (1, *graph.input_size, 3)).astype(np.float32) for _ in range(5)]
    its.write_int8(graph, path, samples[:4])
    masks = [_classes(its.predict(each, samples[4])) for each in (folder / "network.tflite", path)]
    return round(100 * float((masks[0] == masks[1]).mean()), 2)


def _classes(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    if values.ndim == 4 and values.shape[-1] > 1:
        return values.argmax(-1)
    return values > np.median(values)  # a matte, or a value that is no map


def _ncnn(row: Row, graph: Graph, image: Tensor, folder: Path) -> None:
    its, path = registry.RUNTIMES["ncnn"], folder / "network.param"
    if _step(row, "ncnn", lambda: its.write(graph, path, "full")) is None:
        return
    with torch.no_grad():
        truth = nhwc(its.said(graph)(image)).numpy()
    value = _step(row, "ncnn", lambda: its.predict(path, nhwc(image).numpy()))
    if value is not None:
        row.ncnn_difference = _relative(value, truth)


def _coreml(row: Row, graph: Graph, folder: Path) -> None:
    made = _step(row, "coreml", lambda: writer.write(graph, folder / "network.mlpackage"))
    row.coreml_written = made is not None


def _speed(row: Row, graph: Graph, folder: Path) -> None:
    diagnosis = _step(row, "diagnose", lambda: slimseg.diagnose(graph))
    row.findings = None if diagnosis is None else len(diagnosis.findings)
    budget = slimseg.Budget(needs="nothing", time_limit_s=300)
    result = _step(row, "slim", lambda: slimseg.slim(graph, out=folder / "slim", budget=budget))
    row.exact_speedup = None if result is None else round(result.speedup, 3)


def _in_child(name: str, options: list[str], timeout_s: float) -> Row:
    command = [sys.executable, __file__, "--one", name, *options]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)
    except subprocess.TimeoutExpired:
        return Row(name, refusals={"all": f"not done in {timeout_s:.0f} s"})
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        said = done.stderr.strip().splitlines() or ["no output"]
        return Row(name, refusals={"all": said[-1]})
    return Row(**json.loads(lines[-1]))


def _cells(row: Row) -> list[str]:
    def number(value: float | None, form: str) -> str:
        return "-" if value is None else format(value, form)

    return [
        row.name,
        number(row.opened_s, ".1f"),
        str(row.layers),
        ", ".join(row.opaque) or "none",
        "yes" if row.is_direct else "no",
        number(row.written_s, ".1f"),
        number(row.difference, ".0e"),
        number(row.int8_agreement_percent, ".1f"),
        number(row.ncnn_difference, ".0e"),
        "yes" if row.coreml_written else "no",
        number(row.findings, "d"),
        number(row.exact_speedup, ".2f"),
    ]


HEADER = (
    *("network", "open s", "layers", "opaque", "direct", "write s", "difference"),
    *("int8 %", "ncnn", "Core ML", "findings", "exact x"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="networks; all if none are given")
    parser.add_argument("--quick", action="store_true", help="only open, write and compare with PyTorch")
    parser.add_argument("--speed", action="store_true", help="also diagnose, and slim without images")
    parser.add_argument("--timeout", type=float, default=900.0, help="seconds for each network")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    if arguments.one:
        print(json.dumps(asdict(measured(arguments.one, arguments.quick, arguments.speed))))
        return
    options = [f"--{each}" for each in ("quick", "speed") if getattr(arguments, each)]
    known = {row["name"]: row for row in json.loads(RESULTS.read_text())} if RESULTS.exists() else {}
    print(" | ".join(HEADER), flush=True)
    for name in arguments.names or names():
        row = _in_child(name, options, arguments.timeout)
        print(" | ".join(_cells(row)), flush=True)
        for step, reason in row.refusals.items():
            print(f"    {step}: {reason}", flush=True)
        known[name] = asdict(row)
        RESULTS.write_text(json.dumps([known[each] for each in sorted(known)], indent=1) + "\n")
    rows = [Row(**each) for each in known.values()]
    direct = sum(row.is_direct for row in rows)
    print(f"{direct} of {len(rows)} networks ({100 * direct / len(rows):.0f}%) are direct: no opaque node, equal file")


if __name__ == "__main__":
    main()

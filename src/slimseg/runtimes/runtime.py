"""The runtimes that run here, behind one interface. A network's file says by its suffix whose it is."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Protocol

from numpy.typing import NDArray

from slimseg.disk import atomic
from slimseg.errors import ModelError, UserError
from slimseg.graph.graph import Graph
from slimseg.results import Profile, RuntimeName
from slimseg.runtimes import child, host

# How a network's weights are stored: in the precision that they came in ("rounded" to it where an edit or training made
# them), in that precision only where it rounds nothing ("exact"), or in 32 bits all ("full").
Kept = Literal["rounded", "exact", "full"]


class Runtime(Protocol):
    """What planning, evaluation and export ask of a runtime. Errors are those of its own modules."""

    name: RuntimeName
    title: str  # for people
    suffix: str  # of the file that stands for a network

    def write(self, graph: Graph, path: Path, weights: Kept = "rounded") -> None:
        """The network in float, as `path` and what belongs to it.

        "full" is for comparisons of numbers, and for what is still to be quantised.
        """

    def files(self, path: Path) -> tuple[Path, ...]:
        """All files of a network, `path` first."""

    def read(self, path: Path) -> host.Described:
        """What a file says of itself."""

    def weights(self, path: Path) -> str:
        """In what a file stores its weights: "float32", "float16", "int8", or several of them, most first."""

    def predict(self, path: Path, inputs: NDArray[Any], threads: int = 1) -> NDArray[Any]:
        """Inputs (N, height, width, 3) as `host.App.prepare` gives them, to outputs as `host.App.mask` takes them."""

    def profile(self, path: Path, threads: int = 1, runs: int = 50, within: child.Child | None = None) -> Profile:
        """Where the time goes."""


class _LiteRT:
    name: RuntimeName = "litert"
    title = "LiteRT CPU (XNNPACK)"
    suffix = ".tflite"

    def write(self, graph: Graph, path: Path, weights: Kept = "rounded") -> None:
        from slimseg.runtimes.litert import writer

        if graph.weights == "float32" or weights == "full":
            writer.write(graph, path)
        else:
            writer.write(graph, path, "float16" if weights == "rounded" else "float16 where exact")

    def files(self, path: Path) -> tuple[Path, ...]:
        return (path,)

    def read(self, path: Path) -> host.Described:
        from slimseg.runtimes.litert import file

        return file.read(path)

    def weights(self, path: Path) -> str:
        from slimseg.runtimes.litert import file

        return file.read(path).weights

    def predict(self, path: Path, inputs: NDArray[Any], threads: int = 1) -> NDArray[Any]:
        from slimseg.runtimes.litert import session

        return session.predict(path, inputs, threads, raw=True)

    def profile(self, path: Path, threads: int = 1, runs: int = 50, within: child.Child | None = None) -> Profile:
        from slimseg.runtimes.litert import profiler

        return profiler.profile(path, threads, runs, within=within)


class _Ncnn:
    """Weights are stored in 16 bits, rounded, as an app would have them, unless all 32 are asked for; they are computed
    with in 32 here."""

    name: RuntimeName = "ncnn"
    title = "ncnn CPU"
    suffix = ".param"

    def write(self, graph: Graph, path: Path, weights: Kept = "rounded") -> None:
        from slimseg.runtimes.ncnn import writer

        writer.write(graph, path.parent, "fp32" if weights == "full" else "fp16", path.stem)

    def files(self, path: Path) -> tuple[Path, ...]:
        return path, path.with_suffix(".bin")

    def read(self, path: Path) -> host.Described:
        from slimseg.runtimes.ncnn import file

        return file.read(path)

    def weights(self, path: Path) -> str:
        from slimseg.runtimes.ncnn import file

        return file.weights(path)

    def predict(self, path: Path, inputs: NDArray[Any], threads: int = 1) -> NDArray[Any]:
        from slimseg.runtimes.ncnn import session

        return session.predict(path, inputs, threads)

    def profile(self, path: Path, threads: int = 1, runs: int = 50, within: child.Child | None = None) -> Profile:
        from slimseg.runtimes.ncnn import profiler

        return profiler.profile(path, threads, runs, within=within)


LITERT: Runtime = _LiteRT()
NCNN: Runtime = _Ncnn()
RUNTIMES: Mapping[RuntimeName, Runtime] = {"litert": LITERT, "ncnn": NCNN}


def named(name: str) -> Runtime:
    """The runtime of a name.

    Raises:
        UserError: there is none, or it is not installed.
    """
    for known, runtime in RUNTIMES.items():
        if known == name:
            if runtime is NCNN:
                _require_ncnn()
            return runtime
    raise UserError(f"--runtime {name!r} must be one of {', '.join(RUNTIMES)}")


def _require_ncnn() -> None:
    from slimseg.runtimes.ncnn import package

    if not package.available():
        raise UserError(f"the ncnn package is not installed: {package.INSTALL}")


def of(path: str | Path) -> Runtime:
    """The runtime whose file it is.

    Raises:
        ModelError: nobody's.
    """
    suffix = Path(path).suffix.lower()
    for runtime in RUNTIMES.values():
        if suffix == runtime.suffix:
            return runtime
    raise ModelError(f"{path} is no file of a runtime: give a .tflite or a .param")


def is_deployed(path: str | Path) -> bool:
    """Whether a path is that of a runtime's file rather than of a network to be opened."""
    return Path(path).suffix.lower() in {runtime.suffix for runtime in RUNTIMES.values()}


def size_bytes(path: Path) -> int:
    """Of all files of a network."""
    return sum(each.stat().st_size for each in of(path).files(path))


def copy(source: Path, target: Path) -> None:
    """All files of a network under another name; each is replaced in one step, the one that stands for it last."""
    pairs = list(zip(of(source).files(source), of(target).files(target), strict=True))
    for old, new in reversed(pairs):
        with old.open("rb") as stream, atomic.replacing(new) as copied:
            shutil.copyfileobj(stream, copied)

"""ONNX Runtime on the CPU: the runtime of `.onnx` files, which apps on Android, iOS and Windows have, too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from numpy.typing import NDArray

from slimseg.deployment import Precision
from slimseg.disk import scratch
from slimseg.errors import Unsupported
from slimseg.results import Profile
from slimseg.runtimes import child, host
from slimseg.runtimes.exporter import Request, Written
from slimseg.runtimes.onnxruntime import package
from slimseg.runtimes.quantiser import Ends, Scheme
from slimseg.runtimes.runtime import Kept, Runtime, Session

if TYPE_CHECKING:  # the child process, which needs no torch, starts sooner without
    from torch import nn

    from slimseg.graph.graph import Graph


class OnnxRuntime(Runtime):
    """ONNX Runtime: float files store weights in 32 or 16 bits, and compute in 32 bits on a CPU; int8 is QDQ.

    `.onnx` is also a format that users bring, so such a file is opened as a network unless this runtime is named.
    """

    name = "onnxruntime"
    brand = "ONNX Runtime"
    title = "ONNX Runtime CPU"
    suffix = ".onnx"
    target = "onnx"
    system = "Android"
    forms = ("float32", "float16", "int8")
    unrounded = "float32"
    layout = "NCHW"
    only_if_named = True
    carries = True
    snippets: ClassVar[Mapping[str, str]] = {"onnxruntime.kt": "ONNX Runtime"}
    precisions: ClassVar[tuple[Precision, ...]] = ("float32", "int8")

    def missing(self) -> str:
        return "" if package.available() else package.INSTALL

    def write(self, graph: Graph, path: Path, weights: Kept = "rounded") -> None:
        from slimseg.runtimes.onnxruntime import writer

        if graph.weights == "float32" or weights == "full":
            writer.write(graph, path)
        else:
            writer.write(graph, path, "float16" if weights == "rounded" else "float16 where exact")

    def write_int8(self, graph: Graph, path: Path, samples: Sequence[NDArray[Any]], ends: Ends = "float32") -> None:
        """As `Runtime.write_int8`, with exactly the ranges of the default runtime's int8 file."""
        from slimseg.runtimes import registry
        from slimseg.runtimes.onnxruntime import writer
        from slimseg.runtimes.onnxruntime.quantising import qdq

        model = writer.serialise(graph)  # first: it refuses sooner than the quantiser
        with scratch.folder() as folder:
            twin = folder / f"{path.stem}{registry.DEFAULT.suffix}"
            registry.DEFAULT.write_int8(graph, twin, samples, ends)
            writer.save(qdq.quantised(model, twin), path)

    def carry(self, graph: Graph, quantised: Path, path: Path, scheme: Scheme) -> None:
        """As `Runtime.carry`; also Unsupported if the layers of `quantised` have other names."""
        from slimseg.runtimes.onnxruntime import writer
        from slimseg.runtimes.onnxruntime.quantising import qdq

        if scheme == "float16":
            writer.write(graph, path, "float16")
            return
        if scheme != "int8":
            super().carry(graph, quantised, path, scheme)
        model = writer.serialise(graph)
        if not qdq.fits(model, quantised):
            raise Unsupported(f"{graph.name} and its int8 file name their layers differently: open it as a network")
        writer.save(qdq.quantised(model, quantised), path)

    def export(self, request: Request) -> Written:
        from slimseg.runtimes.onnxruntime import exporter

        return exporter.write(request)

    def fuses(self, layer: nn.Module) -> bool:
        from torch import nn

        from slimseg.graph import ops

        return isinstance(layer, nn.BatchNorm2d | ops.Affine | nn.ReLU | nn.ReLU6 | nn.LeakyReLU | nn.Sigmoid | nn.Tanh)

    def files(self, path: Path) -> tuple[Path, ...]:
        return (path,)

    def read(self, path: Path) -> host.Described:
        from slimseg.runtimes.onnxruntime import file

        return file.read(path)

    def weights(self, path: Path) -> str:
        from slimseg.runtimes.onnxruntime import file

        return file.read(path).weights

    def precision(self, path: Path) -> Precision:
        """The precision that the convolutions compute in."""
        from slimseg.runtimes.onnxruntime import file

        return "int8" if file.read(path).is_int8 else "float32"

    def open(self, path: str | Path, threads: int = 1, options: Any = None) -> Session:
        from slimseg.runtimes.onnxruntime import session

        return session.Session(path, threads)

    def predict(
        self, path: Path, inputs: NDArray[Any], threads: int = 1, timeout_s: float | None = None
    ) -> NDArray[Any]:
        from slimseg.runtimes.onnxruntime import session

        return session.predict(path, inputs, threads, timeout_s)

    def layer_names(self, path: Path) -> Mapping[str, str]:
        from slimseg.runtimes.onnxruntime import file

        return {each.result: each.name for each in file.read(path).operators if not each.converts}

    def layer_values(self, path: Path, image: NDArray[Any], names: Sequence[str]) -> Mapping[str, NDArray[Any]]:
        from slimseg.runtimes.onnxruntime import session

        return session.values(path, image, names)

    def profile(
        self,
        path: Path,
        threads: int = 1,
        runs: int = 50,
        within: child.Child | None = None,
        with_roofs: bool = True,
    ) -> Profile:
        from slimseg.runtimes.onnxruntime import profiler

        return profiler.profile(path, threads, runs, within=within)


ONNXRUNTIME = OnnxRuntime()

"""LiteRT on the CPU, slimseg's default runtime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from numpy.typing import NDArray

from slimseg.deployment import Precision
from slimseg.results import Profile
from slimseg.runtimes import child, host
from slimseg.runtimes.exporter import Request, Written
from slimseg.runtimes.processor import Processor
from slimseg.runtimes.quantiser import Quantiser
from slimseg.runtimes.runtime import Kept, Runtime, Session

if TYPE_CHECKING:  # the child process, which needs no torch, starts sooner without
    from torch import nn

    from slimseg.graph.graph import Graph


class LiteRT(Runtime):
    """LiteRT: float files store weights in 32 or 16 bits, as in the original file, and compute in 32 bits."""

    name = "litert"
    brand = "LiteRT"
    title = "LiteRT CPU (XNNPACK)"
    suffix = ".tflite"
    target = "tflite"
    system = "Android"
    forms = ("float32", "float16", "int8")
    other_forms = "the name of a chip whose NPU it is compiled for, such as sm8750 or int8-sm8750"
    unrounded = "float32"
    layout = "NHWC"
    snippets: ClassVar[Mapping[str, str]] = {
        "mediapipe.kt": "MediaPipe Tasks",
        "mediapipe.java": "MediaPipe Tasks",
        "litert.kt": "LiteRT",
        "litert.java": "LiteRT",
    }
    precisions: ClassVar[tuple[Precision, ...]] = ("float32", "int8")

    def write(self, graph: Graph, path: Path, weights: Kept = "rounded") -> None:
        from slimseg.runtimes.litert.writing import writer

        if graph.weights == "float32" or weights == "full":
            writer.write(graph, path)
        else:
            writer.write(graph, path, "float16" if weights == "rounded" else "float16 where exact")

    def export(self, request: Request) -> Written:
        from slimseg.runtimes.litert import exporter

        return exporter.write(request)

    def quantiser(self) -> Quantiser:
        from slimseg.runtimes.litert.quantiser import QUANTISER

        return QUANTISER

    def fuses(self, layer: nn.Module) -> bool:
        from torch import nn

        from slimseg.graph import ops

        return isinstance(layer, nn.BatchNorm2d | ops.Affine | nn.ReLU | nn.ReLU6)

    def has_form(self, form: str) -> bool:
        from slimseg.runtimes.litert.npu import compiled_file

        return form in self.forms or compiled_file.asked(form) is not None

    def unrun_file(self, path: Path) -> str:
        from slimseg.runtimes.litert.npu import compiled_file

        return compiled_file.unrun(path)

    def files(self, path: Path) -> tuple[Path, ...]:
        return (path,)

    def read(self, path: Path) -> host.Described:
        from slimseg.tflite import file

        return file.read(path)

    def weights(self, path: Path) -> str:
        from slimseg.tflite import file

        return file.read(path).weights

    def precision(self, path: Path) -> Precision:
        """The precision that the convolutions of a `.tflite` compute in."""
        from slimseg.tflite import file

        return "int8" if any("int8" in each.dtype for each in file.operators(path) if each.macs) else "float32"

    def open(self, path: str | Path, threads: int = 1, options: Any = None) -> Session:
        from slimseg.runtimes.litert import session

        return session.Session(path, threads)

    def predict(
        self, path: Path, inputs: NDArray[Any], threads: int = 1, timeout_s: float | None = None
    ) -> NDArray[Any]:
        from slimseg.runtimes.litert import session

        return session.predict(path, inputs, threads, timeout_s, raw=True)

    def processors(self) -> tuple[Processor, ...]:
        from slimseg.runtimes.litert import npu
        from slimseg.runtimes.litert.gpu.processor import GPU

        return (GPU, *npu.known())

    def layer_names(self, path: Path) -> Mapping[str, str]:
        from slimseg.runtimes.litert.quantising import activations
        from slimseg.tflite import file

        known = set(activations.names(path))
        return {each.result: each.name for each in file.read(path).operators if each.result in known}

    def layer_values(self, path: Path, image: NDArray[Any], names: Sequence[str]) -> Mapping[str, NDArray[Any]]:
        from slimseg.runtimes.litert.quantising import activations

        return activations.values(path, image, names)

    def profile(
        self,
        path: Path,
        threads: int = 1,
        runs: int = 50,
        within: child.Child | None = None,
        with_roofs: bool = True,
    ) -> Profile:
        from slimseg.runtimes.litert.profiling import profiler

        return profiler.profile(path, threads, runs, within=within, with_roofs=with_roofs)


LITERT = LiteRT()

"""ncnn on the CPU: an optional second runtime for Android."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from numpy.typing import NDArray

from slimseg.deployment import Precision
from slimseg.graph.description import OutputKind
from slimseg.results import Profile
from slimseg.runtimes import child, host
from slimseg.runtimes.exporter import Request, Written
from slimseg.runtimes.ncnn import package
from slimseg.runtimes.runtime import Kept, Runtime, Session

if TYPE_CHECKING:  # the child process, which needs no torch, starts sooner without
    from torch import nn

    from slimseg.graph.graph import Graph


class Ncnn(Runtime):
    """ncnn: weights are rounded to 16 bits, as in an app, unless 32 bits are requested; computes in 32 bits here.

    The app takes the argmax: ncnn's ArgMax gives one number for a whole blob.
    """

    name = "ncnn"
    brand = "ncnn"
    title = "ncnn CPU"
    suffix = ".param"
    target = "ncnn"
    system = "Android"
    forms = ("fp16", "fp32")
    unrounded = "fp32"
    layout = "CHW"
    snippets: ClassVar[Mapping[str, str]] = {"ncnn.cpp": "ncnn"}
    precisions: ClassVar[tuple[Precision, ...]] = ("float16",)
    output_kinds: ClassVar[tuple[OutputKind, ...]] = ("logits", "probabilities")
    without_kind = "ncnn has no argmax per pixel: its files output the scores, and the app compares them"

    def missing(self) -> str:
        return "" if package.available() else package.INSTALL

    def write(self, graph: Graph, path: Path, weights: Kept = "rounded") -> None:
        from slimseg.runtimes.ncnn import writer

        writer.write(graph, path.parent, "fp32" if weights == "full" else "fp16", path.stem)

    def export(self, request: Request) -> Written:
        from slimseg.runtimes.ncnn import exporter

        return exporter.write(request)

    def fuses(self, layer: nn.Module) -> bool:
        from torch import nn

        from slimseg.graph import ops
        from slimseg.runtimes.ncnn import lowering

        return isinstance(layer, nn.BatchNorm2d | ops.Affine) or bool(lowering.fused(layer))

    def said(self, graph: Graph) -> Graph:
        from slimseg.runtimes.ncnn import writer

        return writer.without_argmax(graph)

    def files(self, path: Path) -> tuple[Path, ...]:
        return path, path.with_suffix(".bin")

    def read(self, path: Path) -> host.Described:
        from slimseg.runtimes.ncnn import file

        return file.read(path)

    def weights(self, path: Path) -> str:
        from slimseg.runtimes.ncnn import file

        return file.weights(path)

    def precision(self, path: Path) -> Precision:
        """ncnn's only precision: half precision if a phone's processor has it."""
        return self.float_precision

    def open(self, path: str | Path, threads: int = 1, options: Any = None) -> Session:
        from slimseg.runtimes.ncnn import session

        return session.Session(path, threads, options or session.DEFAULTS)

    def predict(
        self, path: Path, inputs: NDArray[Any], threads: int = 1, timeout_s: float | None = None
    ) -> NDArray[Any]:
        from slimseg.runtimes.ncnn import session

        return session.predict(path, inputs, threads, timeout_s)

    def layer_names(self, path: Path) -> Mapping[str, str]:
        from slimseg.runtimes.ncnn import file

        return {layer.result: layer.name for layer in file.read(path).layers if len(layer.outputs) == 1}

    def layer_values(self, path: Path, image: NDArray[Any], names: Sequence[str]) -> Mapping[str, NDArray[Any]]:
        from slimseg.runtimes.ncnn import session

        return session.values(path, image, names)

    def profile(
        self,
        path: Path,
        threads: int = 1,
        runs: int = 50,
        within: child.Child | None = None,
        with_roofs: bool = True,
    ) -> Profile:
        from slimseg.runtimes.ncnn import profiler

        return profiler.profile(path, threads, runs, within=within)


NCNN = Ncnn()

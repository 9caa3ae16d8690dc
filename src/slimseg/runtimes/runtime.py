"""What slimseg asks of a runtime: everything that differs between runtimes is behind this class.

A new runtime is a folder with a `Runtime` in its `runtime.py`, and one line in `registry.py`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

from numpy.typing import NDArray

from slimseg.deployment import CPU, Precision
from slimseg.disk import scratch
from slimseg.errors import Unsupported, UserError
from slimseg.graph.description import OUTPUT_KINDS, OutputKind
from slimseg.results import Artefact, Port, Profile
from slimseg.runtimes import child, host
from slimseg.runtimes.exporter import Exporter, Request, Written
from slimseg.runtimes.tensors import TensorInfo

if TYPE_CHECKING:  # the child process, which needs no torch, starts sooner without
    from torch import nn

    from slimseg.graph.graph import Graph

# How a network's weights are stored: in the precision that they came in ("rounded" to it where an edit or training made
# them), in that precision only where it rounds nothing ("exact"), or in 32 bits all ("full").
Kept = Literal["rounded", "exact", "full"]
# What an int8 file takes and gives: floats, 8-bit numbers, or an image's bytes in and floats out where that can be.
Ends = Literal["float32", "int8", "image"]


class Session(host.Runnable, Protocol):
    """A loaded file."""

    def set_random(self) -> None:
        """Put random numbers in place of the input: time must not depend on an image."""


class Runtime(Exporter):
    """A runtime that runs on this machine. Instances can be pickled: the child process gets them. Each has
    a suffix of its own.

    Errors are those of the runtime's own modules: ModelError for a damaged file, RuntimeFailure for one that is
    refused, Unsupported for a network that cannot be written.
    """

    name: ClassVar[str]  # as users give it: `--runtime`, `Deployment.runtime`
    title: ClassVar[str]  # with the processor, for people: "LiteRT CPU (XNNPACK)"
    precisions: ClassVar[tuple[Precision, ...]]  # that networks are deployed in; the first is that of float networks
    processors: ClassVar[tuple[str, ...]] = (CPU,)
    output_kinds: ClassVar[tuple[OutputKind, ...]] = OUTPUT_KINDS  # that its files can give
    without_kind: ClassVar[str] = ""  # why it does not give the others

    @property
    def float_precision(self) -> Precision:
        """That of a network that is not quantised."""
        return self.precisions[0]

    def missing(self) -> str:
        """How to install what it needs; empty where everything is there."""
        return ""

    @abstractmethod
    def write(self, graph: Graph, path: Path, weights: Kept = "rounded") -> None:
        """The network in float, as `path` and what belongs to it.

        "full" is for comparisons of numbers, and for what is still to be quantised.
        """

    def export(self, request: Request) -> Written:
        """The file as it is deployed, in one of `precisions`, with nothing further around it.

        Raises:
            UserError: int8 without images for its ranges.
        """
        precision = next((each for each in self.precisions if each == request.form), self.float_precision)
        if precision == "int8" and request.drawn:
            raise UserError("int8 needs images for the ranges of activations: give `images`")
        path = request.folder / f"{request.stem}{self.suffix}"
        self.deploy(request.graph, path, precision, request.images)
        files, found, said = self.files(path), self.read(path), self.said(request.graph)
        artefact = Artefact(
            target=self.target,
            files=tuple(each.name for each in files),
            size_bytes=sum(each.stat().st_size for each in files),
            precision=precision,
            input=_port(found.inputs[0]),
            output=_port(found.outputs[0]),
            output_kind=said.description.output_kind,
        )
        return Written(artefact, path, said, is_float=precision != "int8", others=files[1:])

    def quantise(self, float_path: Path, path: Path, samples: Sequence[NDArray[Any]], ends: Ends = "float32") -> None:
        """The int8 form of a file whose weights are in 32 bits.

        Args:
            samples: preprocessed inputs (1, height, width, channels), for the ranges of activations.
            ends: what the file takes and gives.
        """
        raise Unsupported(f"{self.brand} has no int8 here: its networks are deployed in {self.float_precision}")

    def deploy(self, graph: Graph, path: Path, precision: Precision, images: Sequence[host.Pixels] = ()) -> None:
        """The file that is shipped: in float, its weights in the precision that they came in; or in int8, taking RGB
        bytes where the first layer can take the normalisation in.

        Args:
            images: RGB (height, width, 3), for int8's ranges of activations.
        """
        if precision != "int8":
            self.write(graph, path)
            return
        from slimseg.graph import image_input

        ends: Ends = "image"
        try:
            graph = image_input.fold(graph)
        except Unsupported:
            ends = "float32"
        with scratch.folder() as folder:
            float_path = folder / path.name
            self.write(graph, float_path, "full")
            self.quantise(float_path, path, host.prepared(graph, images), ends)

    def fuses(self, layer: nn.Module) -> bool:
        """Whether a layer becomes part of the operator before it, where that operator can take it."""
        return False

    def said(self, graph: Graph) -> Graph:
        """What a file of the network computes: the network, or without what the runtime leaves to the app."""
        return graph

    @abstractmethod
    def files(self, path: Path) -> tuple[Path, ...]:
        """All files of a network, `path` first."""

    @abstractmethod
    def read(self, path: Path) -> host.Described:
        """What a file says of itself."""

    @abstractmethod
    def weights(self, path: Path) -> str:
        """In what a file stores its weights: "float32", "float16", "int8", or several of them, most first."""

    @abstractmethod
    def precision(self, path: Path) -> Precision:
        """What a file is deployed in, as one of `precisions`."""

    @abstractmethod
    def open(self, path: str | Path, threads: int = 1, options: Any = None) -> Session:
        """Load a file into this process.

        Args:
            options: the runtime's own, for benchmarks; None for its usual ones.
        """

    @abstractmethod
    def predict(self, path: Path, inputs: NDArray[Any], threads: int = 1) -> NDArray[Any]:
        """Inputs (N, height, width, 3) as `host.App.prepare` gives them, to outputs as `host.App.mask` takes them."""

    @abstractmethod
    def layer_names(self, path: Path) -> Mapping[str, str]:
        """The layers of a file in order, by the nodes whose values `layer_values` tells of them."""

    @abstractmethod
    def layer_values(self, path: Path, image: NDArray[Any], names: Sequence[str]) -> Mapping[str, NDArray[Any]]:
        """What those layers give, channels last, for one input (height, width, 3) as `host.App.prepare` gives it."""

    @abstractmethod
    def profile(self, path: Path, threads: int = 1, runs: int = 50, within: child.Child | None = None) -> Profile:
        """Where the time goes."""


def _port(info: TensorInfo) -> Port:
    return Port(info.name, info.shape, info.dtype, info.scale, info.zero_point)

"""The interface of a runtime: everything that differs between runtimes is behind this class.

To add a runtime, write a folder with a `Runtime` in its `runtime.py`, and one line in `registry.py`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

from numpy.typing import NDArray

from slimseg.deployment import Precision
from slimseg.disk import scratch
from slimseg.errors import Unsupported, UserError
from slimseg.graph.description import OUTPUT_KINDS, OutputKind
from slimseg.results import Artefact, Profile
from slimseg.runtimes import child, host
from slimseg.runtimes.exporter import Exporter, Request, Written
from slimseg.runtimes.processor import Processor
from slimseg.runtimes.quantiser import Ends, Quantiser, Scheme
from slimseg.tensors import port

if TYPE_CHECKING:  # the child process, which needs no torch, starts sooner without
    from torch import nn

    from slimseg.graph.graph import Graph

# How a network's weights are stored. "rounded": in the precision of the original file, to which weights that an edit or
# training changed are rounded; "exact": in that precision only if no weight has to be rounded; "full": all in 32 bits.
Kept = Literal["rounded", "exact", "full"]


class Session(host.Runnable, Protocol):
    """A loaded file."""

    def set_random(self) -> None:
        """Set the input to random numbers: the latency must not depend on an image."""


class Runtime(Exporter):
    """A runtime that runs on this machine. Each has its own suffix of files. Instances can be pickled, since they are
    sent to the child process.

    Raises:
        ModelError: a file is damaged.
        RuntimeFailure: the runtime refuses a file.
        Unsupported: a network cannot be written.
    """

    name: ClassVar[str]  # name on the command line and in `Deployment.runtime`
    title: ClassVar[str]  # name in messages, with the processor
    precisions: ClassVar[tuple[Precision, ...]]  # precisions of its files; the first is that of float networks
    output_kinds: ClassVar[tuple[OutputKind, ...]] = OUTPUT_KINDS  # kinds of output that its files can have
    without_kind: ClassVar[str] = ""  # why its files cannot have the other kinds
    carries: ClassVar[bool] = False  # whether its quantised files are made of those of the default runtime: `carry`
    only_if_named: ClassVar[bool] = False  # whether its files are opened as networks unless the user names the runtime

    @property
    def float_precision(self) -> Precision:
        """The precision of a network that is not quantised."""
        return self.precisions[0]

    def missing(self) -> str:
        """How to install the packages that it needs; empty if all are installed."""
        return ""

    @abstractmethod
    def write(self, graph: Graph, path: Path, weights: Kept = "rounded") -> None:
        """Write the network in floating point, as `path` and the files that belong to it.

        Args:
            weights: how weights are stored; "full" is for comparing values, and for files that are quantised next.

        Raises:
            Unsupported: the runtime cannot express the network.
        """

    def export(self, request: Request) -> Written:
        """Write the file as it is deployed, in one of `precisions`, without further metadata or packaging.

        Raises:
            UserError: int8 was requested without images for calibration.
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
            input=port(found.inputs[0]),
            output=port(found.outputs[0]),
            output_kind=said.description.output_kind,
        )
        return Written(artefact, path, said, is_float=precision != "int8", others=files[1:])

    def quantiser(self) -> Quantiser:
        """The quantiser of its files.

        Raises:
            Unsupported: the runtime has no int8.
        """
        raise Unsupported(
            f"slimseg does not write int8 for {self.brand}: its networks are deployed in {self.float_precision}"
        )

    def deploy(self, graph: Graph, path: Path, precision: Precision, images: Sequence[host.Pixels] = ()) -> None:
        """Write the file that is shipped.

        In floating point its weights have the precision of the original file. In int8 it takes RGB bytes if the
        normalisation can be folded into the first layer, else floats.

        Args:
            images: RGB (height, width, 3), to calibrate int8's ranges of activations.
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
        self.write_int8(graph, path, host.prepared(graph, images), ends)

    def write_int8(self, graph: Graph, path: Path, samples: Sequence[NDArray[Any]], ends: Ends = "float32") -> None:
        """Write the network in full precision, quantise that file to int8, and write the result to `path`.

        Args:
            samples: preprocessed inputs (1, height, width, channels), to calibrate the ranges of activations.
            ends: types of the input and output.

        Raises:
            Unsupported: the runtime has no int8.
        """
        with scratch.folder() as folder:
            float_path = folder / path.name
            self.write(graph, float_path, "full")
            self.quantiser().quantise_int8(float_path, path, samples, ends)

    def carry(self, graph: Graph, quantised: Path, path: Path, scheme: Scheme) -> None:
        """Write a quantised file of the default runtime as a file of this one, with the same ranges.

        Args:
            graph: the network, whose nodes have the names of the float file's values.
            quantised: the file that the default runtime's quantiser made of that float file.
            scheme: the scheme of `quantised`.

        Raises:
            Unsupported: this runtime does not have the scheme.
        """
        raise Unsupported(f"slimseg does not write {scheme} for {self.brand}")

    def processors(self) -> tuple[Processor, ...]:
        """The phones' processors beside the CPU that it can place a file on, whether or not they can be asked here."""
        return ()

    def fuses(self, layer: nn.Module) -> bool:
        """Whether the runtime fuses a layer with the operator before it, if that operator allows it."""
        return False

    def said(self, graph: Graph) -> Graph:
        """The network that a file computes: `graph` without the layers that the runtime leaves to the app, if any."""
        return graph

    @abstractmethod
    def files(self, path: Path) -> tuple[Path, ...]:
        """All files of a network, `path` first."""

    @abstractmethod
    def read(self, path: Path) -> host.Described:
        """What a file states about itself: description, inputs and outputs."""

    def unrun_file(self, path: Path) -> str:
        """Why this machine cannot run one of its files; empty if it can. Raises: ModelError, if the file is damaged."""
        return ""

    @abstractmethod
    def weights(self, path: Path) -> str:
        """The type of a file's stored weights: "float32", "float16", "int8", or several, the most frequent first."""

    @abstractmethod
    def precision(self, path: Path) -> Precision:
        """The precision of a deployed file, one of `precisions`."""

    @abstractmethod
    def open(self, path: str | Path, threads: int = 1, options: Any = None) -> Session:
        """Load a file into this process.

        Args:
            threads: number of threads.
            options: options of this runtime, for benchmarks; None for its defaults.
        """

    @abstractmethod
    def predict(
        self, path: Path, inputs: NDArray[Any], threads: int = 1, timeout_s: float | None = None
    ) -> NDArray[Any]:
        """Outputs, in the form that `host.App.mask` takes, for inputs (N, height, width, 3) of `host.App.prepare`.

        Args:
            timeout_s: seconds after which the child process is killed; None waits for ever.

        Raises:
            RuntimeFailure: the runtime refused the file, crashed or ran out of time.
        """

    @abstractmethod
    def layer_names(self, path: Path) -> Mapping[str, str]:
        """Names of the file's layers in order, by the node whose value `layer_values` returns for each of them."""

    @abstractmethod
    def layer_values(self, path: Path, image: NDArray[Any], names: Sequence[str]) -> Mapping[str, NDArray[Any]]:
        """Outputs of the named nodes, channels last, for one input (height, width, 3) from `host.App.prepare`."""

    @abstractmethod
    def profile(
        self,
        path: Path,
        threads: int = 1,
        runs: int = 50,
        within: child.Child | None = None,
        with_roofs: bool = True,
    ) -> Profile:
        """Profile a file: the time of each operator, and of the whole.

        Args:
            runs: number of profiled runs.
            within: the child process to run in; None for the runtime's default.
            with_roofs: whether to measure the highest speed of the machine, too, if the runtime can (`Profile.roofs`).
        """

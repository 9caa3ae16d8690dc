"""Write a Graph as an `.mlpackage`: an ML Program that takes an image and normalises it, float16 by default.

The program is built with coremltools' own MIL builder, with one lowering per layer class, not with coremltools' PyTorch
converter. The converter is tested only up to torch 2.7 and changes with every version of torch, loses the names of the
layers, and would need an extension for every operation that torch lacks (TFLite's asymmetric resizing, cropped
transposed convolutions). coremltools' passes then optimise the program and write it.

The package needs iOS 16, which introduced 8-bit weights (constexpr_*) and half_pixel_centers of upsample_bilinear.

Core ML's scale and bias of an image input do not suffice: the scale is one number for all channels, and in an ML
Program the converter turns them into a product and a sum before the network anyway. Here the mean is subtracted first,
which is exact in float16 for integers, and then the result is scaled, per channel if necessary.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import tempfile
import warnings
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from torch import fx

from slimseg.disk import scratch
from slimseg.errors import OutputError, Unsupported, one_line
from slimseg.graph import edit, ops
from slimseg.graph.description import Description
from slimseg.graph.fold import fold_scales, is_padding_of_next
from slimseg.graph.graph import Graph, producer
from slimseg.graph.written_out import layer_of, written_out
from slimseg.runtimes.coreml import lowering, metadata, package
from slimseg.runtimes.coreml.compression import WeightStorage, compressed
from slimseg.runtimes.lowering import without_lowering

Precision = Literal["float16", "float32"]
Size = tuple[int, int]  # height, width

INPUT = "image"
TARGET = "iOS16"
_SHAPED = "_has_output_shape"


@dataclass(frozen=True)
class Artefact:
    """A written package, with its input and output."""

    path: Path
    precision: Precision
    weights: WeightStorage
    target: str  # oldest system that runs it
    input_name: str
    output_name: str
    input_shape: tuple[int, ...]  # NCHW
    output_shape: tuple[int, ...]  # NCHW, or (1, height, width) for a mask
    sizes: tuple[Size, ...]  # further accepted input sizes
    description: Description
    float32_layers: tuple[str, ...] = ()  # these and their readers compute in float32, so not on the Neural Engine

    @property
    def size_bytes(self) -> int:
        """Total size of all files of the package."""
        return package_bytes(self.path)


def package_bytes(path: Path) -> int:
    """Total size in bytes of all files in a folder."""
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def write(
    graph: Graph,
    path: str | Path,
    precision: Precision = "float16",
    weights: WeightStorage = "float",
    *,
    sizes: Sequence[Size] = (),
    float32_layers: Collection[str] = (),
    palette: Sequence[str] = (),
    licence: str = "",
) -> Artefact:
    """Write `graph` to `path`, a folder that ends in .mlpackage; an existing package is replaced in one step.

    The output is the Graph's own (`techniques.head.with_output` makes it a mask, probabilities or logits); a mask is
    int32, other outputs are float32.

    Args:
        graph: a network with 3 input channels.
        path: the folder to write.
        precision: precision of the arithmetic; only float16 runs on the Neural Engine.
        weights: how weights are stored, see `compression`.
        sizes: further input sizes (height, width) that the package should accept.
        float32_layers: names of layers whose values overflow float16; `half_range.overflowing` finds them on images.
        palette: colour of every class, "#rrggbb", for Xcode's preview.
        licence: licence of the weights, in a sentence.

    Raises:
        Unsupported: a layer cannot be expressed in Core ML, or not for several sizes; the message names it.
        OutputError: `path` cannot be written, or does not end in .mlpackage.
        UserError: coremltools is not installed.
    """
    coremltools = package.require()
    folded = written_out(fold_scales(graph))
    _check(folded, sizes)
    with _quiet(), scratch.for_libraries():  # coremltools leaves files in the temporary folder
        model = compressed(coremltools, _convert(coremltools, folded, precision, sizes, float32_layers), weights)
        metadata.describe(model, graph, (INPUT, output_name(graph)), palette, licence)
        target = _save(model, Path(path))
    return Artefact(
        path=target,
        precision=precision,
        weights=weights,
        target=TARGET,
        input_name=INPUT,
        output_name=output_name(graph),
        input_shape=graph.input_shape,
        output_shape=graph.shape(graph.output),
        sizes=tuple(sizes),
        description=graph.description,
        float32_layers=tuple(float32_layers) if precision == "float16" else (),
    )


def output_name(graph: Graph) -> str:
    """The name of a package's output: "mask", "probabilities" or "logits"."""
    return graph.description.output_kind


def _check(graph: Graph, sizes: Sequence[Size]) -> None:
    unknown = without_lowering(graph, lowering.LOWERINGS, lowering.REFUSALS)
    if unknown:
        raise Unsupported(
            f"{graph.name} has layers that slimseg cannot write for Core ML ({unknown}): export it to another target"
        )
    if graph.input_shape[1] != 3:
        raise Unsupported(
            f"{graph.name} has {graph.input_shape[1]} input channels, and an image of Core ML has 3: "
            "export it to another target"
        )
    if graph.output is graph.input:
        raise Unsupported(f"{graph.name} has no layers, so there is nothing to write for Core ML")
    for size in sizes:
        edit.at_input_size(graph, size)


def _convert(coremltools: Any, graph: Graph, precision: Precision, sizes: Sequence[Size], wide: Collection[str]) -> Any:
    order = graph.description.preprocessing.channel_order
    layout = coremltools.colorlayout.BGR if order == "bgr" else coremltools.colorlayout.RGB
    shapes = [graph.input_shape, *((1, 3, *size) for size in sizes)]
    shape = coremltools.EnumeratedShapes(shapes=shapes, default=graph.input_shape) if sizes else graph.input_shape
    builder = _Builder(coremltools, graph, flexible=bool(sizes))
    program = builder.run()
    wide_operations = builder.operations_around(wide)
    half = coremltools.transform.FP16ComputePrecision(
        # Before this, a pass that adds output shapes to transposed convolutions has renamed them with this suffix.
        lambda operation: operation.name.removesuffix(_SHAPED) not in wide_operations
    )
    try:
        return coremltools.convert(
            program,
            source="milinternal",
            convert_to="mlprogram",
            inputs=[coremltools.ImageType(INPUT, shape=shape, color_layout=layout)],
            compute_precision=half if precision == "float16" else coremltools.precision.FLOAT32,
            minimum_deployment_target=getattr(coremltools.target, TARGET),
            skip_model_load=True,
        )
    except (ValueError, RuntimeError, TypeError, NotImplementedError) as error:
        raise Unsupported(f"coremltools refuses {graph.name}: {one_line(error)}") from error


class _Builder:
    """Builds the MIL program from the layers of the folded graph, in order."""

    def __init__(self, coremltools: Any, graph: Graph, flexible: bool) -> None:
        from coremltools.converters.mil.mil import Builder, Function, Program, get_new_symbol

        self.mb, self.function, self.program = Builder, Function, Program
        self.target = getattr(coremltools.target, TARGET)
        self.graph = graph
        self.flexible = flexible
        shape = graph.input_shape
        self.input_shape = (*shape[:2], get_new_symbol(), get_new_symbol()) if flexible else shape
        self.values: dict[fx.Node, Any] = {}
        self.operations: dict[fx.Node, list[str]] = {}

    def run(self) -> Any:
        program = self.program()
        image = self.mb.TensorSpec(shape=self.input_shape)
        with self.function({INPUT: image}, opset_version=self.target) as function:
            self.values[self.graph.input] = self._normalised(function.inputs[INPUT])
            for node in self.graph.layers():
                if not is_padding_of_next(self.graph, node):
                    before = len(function.operations)
                    self._write(node)
                    self.operations[node] = [str(made.name) for made in list(function.operations)[before:]]
            function.set_outputs([self.values[self.graph.output]])
        program.add_function("main", function)
        return program

    def operations_around(self, names: Collection[str]) -> frozenset[str]:
        """Names of the operations of these layers, and of all layers that read them."""
        nodes = [node for node in self.operations if layer_of(node) in names]
        readers = [reader for node in nodes for reader in node.users]
        return frozenset(name for node in (*nodes, *readers) for name in self.operations.get(node, ()))

    def _normalised(self, image: Any) -> Any:
        wanted = self.graph.description.preprocessing
        if any(wanted.mean):
            image = self.mb.sub(x=image, y=_per_channel(wanted.mean), name="mean_removed")
        if set(wanted.std) != {1.0}:
            scale = _per_channel([1 / value for value in wanted.std])
            image = self.mb.mul(x=image, y=scale, name="normalised")
        return image

    def _write(self, node: fx.Node) -> None:
        layer = self.graph.layer(node)
        assert layer is not None
        sources = [source for source in node.args if isinstance(source, fx.Node)]
        padding = (0, 0, 0, 0)
        pad = self.graph.layer_as(sources[0], ops.Pad)
        if pad is not None and is_padding_of_next(self.graph, sources[0]):
            sources, padding = [producer(sources[0]), *sources[1:]], pad.padding
        step = lowering.Step(
            mb=self.mb,
            node=node,
            layer=layer,
            inputs=tuple(self.values[source] for source in sources),
            name=self._name(node),
            padding=padding,
            input_shapes=tuple(self.graph.shape(source) for source in sources),
            shape=self.graph.shape(node),
            flexible=self.flexible,
        )
        try:
            self.values[node] = lowering.LOWERINGS[type(layer)](step, layer)
        except (ValueError, TypeError) as error:
            raise Unsupported(f"{node.name} cannot be written for Core ML: {one_line(error)}") from error

    def _name(self, node: fx.Node) -> str:
        """The name of a node's value: the output's name for the last node, else the node's.

        A node that happens to have the name of the input or the output gets a suffix.
        """
        output = output_name(self.graph)
        if node is self.graph.output:
            return output
        return f"{node.name}_layer" if node.name in (INPUT, output) else node.name


def _per_channel(values: Sequence[float]) -> Any:
    if len(set(values)) == 1:
        return np.float32(values[0])
    return np.asarray(values, np.float32).reshape(1, -1, 1, 1)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppress coremltools' progress bars, and warnings about its own code."""
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


def _save(model: Any, path: Path) -> Path:
    """Write the package beside `path` and then move it there, so that `path` never has an incomplete package."""
    if path.suffix != ".mlpackage":
        raise OutputError(f"{path} must end in .mlpackage, as coremltools and Xcode require")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".slimseg-") as folder:
            made, old = Path(folder) / path.name, Path(folder) / "old"
            model.save(str(made))
            if path.exists():
                os.replace(path, old)
            os.replace(made, path)
            shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror or error}") from error
    return path

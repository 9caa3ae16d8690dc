"""The network to quantise: the user's `.tflite` as it is, or a Graph that is written in float.

A file with weights in float16 is widened to float32 first; the quantised files are made from the widened one, and
compared with the original.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from slimseg.errors import ModelError, Unsupported
from slimseg.frontends import describe, load
from slimseg.graph import image_input
from slimseg.graph.description import Description
from slimseg.graph.graph import Graph
from slimseg.quantisation.carried import network
from slimseg.runtimes import deployed, host, registry
from slimseg.runtimes.quantiser import Ends
from slimseg.runtimes.runtime import Runtime
from slimseg.tflite import file, halves, runnable


@dataclass(frozen=True)
class Source:
    """A network as float files with an embedded description."""

    name: str
    original: Path  # with which every quantised file is compared; its weights keep the precision of the user's file
    quantised_from: Path  # the same function in float32; a function of bytes if the input is to be an image
    description: Description  # of the original
    size_bytes: int  # of the user's file, or of the one that was written
    written_from: Graph | None = None  # the graph of `quantised_from`; None: the user's own `.tflite`
    its: Runtime = registry.DEFAULT  # the runtime of `original` and of every quantised file

    @property
    def is_half(self) -> bool:
        """Whether all weights of the original are in float16 already."""
        return self.its.weights(self.original) == "float16"

    def graph(self) -> Graph:
        """The graph that is quantised, for corrections of it. Do not change it in place.

        Raises:
            ModelError: the `.tflite` has an operator that slimseg does not know, or cannot be opened as a graph.
        """
        if self.written_from is not None:
            return self.written_from
        graph = load(self.quantised_from, verify=False)
        graph.description = self.description
        return graph

    @property
    def pipeline(self) -> host.ImagePipeline:
        """From RGB bytes to the input of the network to quantise.

        Raises:
            ModelError: its input is not one image.
        """
        model = file.read(self.quantised_from)
        if len(model.inputs) != 1:
            raise ModelError(
                f"{self.name} has {len(model.inputs)} inputs instead of one image: export one with a single input"
            )
        return host.App(model).pipeline


def open_source(
    model: Graph | str | Path, description: Description | None, io: Ends, folder: Path, its: Runtime = registry.DEFAULT
) -> Source:
    """Write the files into `folder`.

    Args:
        model: a Graph; the path of a `.tflite`, which is not opened as a Graph; or that of another file for `load`.
        description: overrides the description in a `.tflite`.
        its: the runtime to quantise for.

    Raises:
        ModelError: the model cannot be opened, is quantised already, has weights that are not finite, or cannot take
            bytes although `io` is "image".
    """
    own = folder / "original.tflite"
    if not isinstance(model, Graph) and Path(model).suffix.lower() == ".tflite":
        source = _of_file(Path(model), description, folder, own)
    else:
        source = _written(model if isinstance(model, Graph) else load(model), io, folder, own)
    return source if its is registry.DEFAULT else _for_runtime(source, its)


def _for_runtime(source: Source, its: Runtime) -> Source:
    """The same source, whose original is written for another runtime."""
    path = source.original.with_suffix(its.suffix)
    its.write(network(source.original), path)
    return replace(source, original=path, size_bytes=path.stat().st_size, its=its)


def _of_file(path: Path, description: Description | None, folder: Path, own: Path) -> Source:
    """The user's `.tflite` with an embedded description, and if its weights are float16, a copy in float32."""
    found = file.read(path)
    if "float16" not in found.weights:
        registry.of(path).quantiser().check(path)
    runnable.check(found)
    data = path.read_bytes()
    means = description or describe(path)
    file.save(file.embed_description(data, means), own)
    if "float16" not in found.weights:
        return Source(str(path), own, own, means, found.size_bytes)
    in_32_bits = folder / "float32.tflite"
    file.save(file.embed_description(halves.widened(data, path), means), in_32_bits)
    registry.of(in_32_bits).quantiser().check(in_32_bits)
    return Source(str(path), own, in_32_bits, means, found.size_bytes)


def _written(graph: Graph, io: Ends, folder: Path, own: Path) -> Source:
    in_32_bits = own if graph.weights == "float32" else folder / "float32.tflite"
    registry.of(own).write(graph, own)
    if in_32_bits is not own:
        deployed.write_float(graph, in_32_bits)
    registry.of(in_32_bits).quantiser().check(in_32_bits)
    size_bytes = own.stat().st_size
    if io != "image":
        return Source(graph.name, own, in_32_bits, graph.description, size_bytes, graph)
    try:
        folded = image_input.fold(graph)
    except Unsupported as error:
        raise ModelError(f"{graph.name} cannot take an image's bytes: {error}") from error
    of_bytes = folder / "of_bytes.tflite"
    deployed.write_float(folded, of_bytes)
    return Source(graph.name, own, of_bytes, graph.description, size_bytes, folded)

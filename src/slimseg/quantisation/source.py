"""What is quantised: the user's own `.tflite` as it is, or a Graph that is written as float32."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from slimseg.errors import ModelError, Unsupported
from slimseg.frontends import describe, load
from slimseg.graph.description import Description
from slimseg.graph.graph import Graph
from slimseg.planning import deploy
from slimseg.runtimes import host
from slimseg.runtimes.litert import file, quantizer, runnable
from slimseg.runtimes.litert.quantizer import Io
from slimseg.techniques import image_input


@dataclass(frozen=True)
class Source:
    """A network as float32 files that describe themselves."""

    name: str
    original: Path  # what every quantised file is compared with
    quantised_from: Path  # the same function; of bytes where the input is to be an image
    description: Description  # of the original
    written_from: Graph | None = None  # what `quantised_from` was written from; None: the user's own `.tflite`

    def graph(self) -> Graph:
        """What is quantised, for changes to it before. Not to be changed itself.

        Raises:
            ModelError: the `.tflite` has an operator that slimseg does not know, or is otherwise no graph.
        """
        if self.written_from is not None:
            return self.written_from
        graph = load(self.quantised_from)
        graph.description = self.description
        return graph

    @property
    def pipeline(self) -> host.ImagePipeline:
        """From RGB bytes to the input of what is quantised. Raises: ModelError where that is not one image."""
        model = file.read(self.quantised_from)
        if len(model.inputs) != 1:
            raise ModelError(f"{self.name} takes {len(model.inputs)} inputs, not one image: export a part that does")
        return host.App(model).pipeline


def open_source(model: Graph | str | Path, description: Description | None, io: Io, folder: Path) -> Source:
    """Write the files into `folder`.

    Args:
        model: a Graph; the path of a `.tflite`, which need not become one; or of any other file that `load` opens.
        description: overrules what a `.tflite` says of itself.

    Raises:
        ModelError: the model cannot be opened, is quantised already, has weights that are not finite, or cannot take
            bytes where `io` wants that.
    """
    own = folder / "float32.tflite"
    if not isinstance(model, Graph) and Path(model).suffix.lower() == ".tflite":
        path = Path(model)
        quantizer.check(path)
        runnable.check(file.read(path))
        means = description or describe(path)
        file.save(file.embed_description(path.read_bytes(), means), own)
        return Source(str(model), own, own, means)
    return _written(model if isinstance(model, Graph) else load(model), io, folder, own)


def _written(graph: Graph, io: Io, folder: Path, own: Path) -> Source:
    deploy.write_float(graph, own)
    quantizer.check(own)
    if io != "image":
        return Source(graph.name, own, own, graph.description, graph)
    try:
        folded = image_input.fold(graph)
    except Unsupported as error:
        raise ModelError(f"{graph.name} cannot take an image's bytes: {error}") from error
    of_bytes = folder / "of_bytes.tflite"
    deploy.write_float(folded, of_bytes)
    return Source(graph.name, own, of_bytes, graph.description, folded)

"""What is exported: a network, and the `.tflite` files that say the same one already and have been proven."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from slimseg.errors import ModelError, Unsupported, UserError
from slimseg.frontends import load
from slimseg.graph.description import OUTPUT_KINDS, OutputKind
from slimseg.graph.graph import Graph
from slimseg.runtimes.litert import file
from slimseg.techniques.head import with_output

_RUN = ("result.json", "model.pt2")  # what a finished run of slim has


@dataclass(frozen=True)
class Source:
    """The network with the output that was asked for."""

    graph: Graph
    files: Mapping[str, Path] = field(default_factory=dict)  # "float32" and "int8", those that there are

    @property
    def precision(self) -> str:
        """Of the `.tflite` that is exported where no other is asked for."""
        return "int8" if "int8" in self.files else "float32"


def open_source(model: Graph | str | Path, head: OutputKind | None = None) -> Source:
    """A Graph, any file that `load` opens, or the folder of a finished run of `slimseg slim`.

    A `.tflite` is exported as it is, unless another output is asked for; and so is that of a run.

    Raises:
        ModelError: it cannot be opened.
        UserError: that output cannot be had from it.
    """
    if head is not None and head not in OUTPUT_KINDS:
        raise UserError(f"--head {head!r} must be one of {', '.join(OUTPUT_KINDS)}")
    if isinstance(model, Graph):
        return _with_head(model, _of_file(model), head)
    path = Path(model)
    if not path.is_dir():
        graph = load(model)
        return _with_head(graph, _of_file(graph), head)
    if not all((path / name).is_file() for name in _RUN):
        raise ModelError(f"{path} is a folder, but not of a finished run of slimseg slim: give that, or a model file")
    return _with_head(load(path / "model.pt2"), _of_run(path), head)


def _of_file(graph: Graph) -> dict[str, Path]:
    return {} if graph.source is None else {precision(graph.source): graph.source}


def _of_run(folder: Path) -> dict[str, Path]:
    """The deployed file last: where it is in float32, it is the rewritten one."""
    paths = [folder / name for name in ("model_float.tflite", "model.tflite")]
    return {precision(path): path for path in paths if path.is_file()}


def precision(path: Path) -> str:
    """ "int8" where a `.tflite` takes or gives integers, or holds them in between."""
    return "int8" if file.read(path).integer else "float32"


def _with_head(graph: Graph, files: dict[str, Path], head: OutputKind | None) -> Source:
    if head is None or head == graph.description.output_kind:
        return Source(graph, files)
    try:
        return Source(with_output(graph, head))
    except Unsupported as error:
        raise UserError(f"--head {head} cannot be had: {error}") from error

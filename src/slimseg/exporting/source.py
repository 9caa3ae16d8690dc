"""The source of an export: a network, and existing `.tflite` files that compute the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from slimseg.errors import ModelError, Unsupported, UserError
from slimseg.exporting import proven
from slimseg.frontends import load
from slimseg.graph.description import OUTPUT_KINDS, OutputKind
from slimseg.graph.graph import Graph
from slimseg.planning.pricing.own import own_file
from slimseg.report import wording
from slimseg.results import UNKNOWN, Provenance
from slimseg.runtimes import deployed, registry
from slimseg.techniques.head import with_output


@dataclass(frozen=True)
class Source:
    """The network with the requested output, and where it came from."""

    graph: Graph
    files: Mapping[str, Path] = field(default_factory=dict)  # existing files, by "float32", "float16" or "int8"
    provenance: Provenance = UNKNOWN
    run: Path | None = None  # folder of the run of `slimseg slim` whose result it is
    opened: Graph | None = None  # the network with its original output; None for the result of a run

    @property
    def precision(self) -> str:
        """Precision of the exported `.tflite` if none is requested: that of the source's file, else of its weights."""
        return next((each for each in ("int8", "float16") if each in self.files), "") or self._of_weights

    @property
    def _of_weights(self) -> str:
        return "float32" if "float32" in self.files else self.graph.weights


def open_source(model: Graph | str | Path, head: OutputKind | None = None, anyway: bool = False) -> Source:
    """Open the source of an export.

    A `.tflite`, also that of a run, is exported unchanged unless another output is requested.

    Args:
        model: a Graph, any file that `load` opens, or the folder of a finished run of `slimseg slim`.
        head: the requested kind of output; None for the source's own.
        anyway: accept the result of a run that did not meet its budget.

    Raises:
        ModelError: the source cannot be opened.
        UserError: the network cannot have that output, or the run did not meet its budget.
    """
    if head is not None and head not in OUTPUT_KINDS:
        raise UserError(f"`head` {head!r} must be one of {', '.join(OUTPUT_KINDS)}")
    source = _opened(model)
    if source.run is not None and not (source.provenance.budget_met or anyway):
        missed = wording.missed(source.provenance.budget)
        raise UserError(f"{source.run} did not meet its budget ({missed}): give `anyway` to export it nevertheless")
    return _with_head(source, head)


def _opened(model: Graph | str | Path) -> Source:
    if not isinstance(model, Graph) and Path(model).is_dir():
        path = Path(model)
        if not all((path / name).is_file() for name in proven.FILES):
            raise ModelError(
                f"{path} is a folder, but not of a finished run of slimseg slim: give that, or a model file"
            )
        return Source(load(path / "model.pt2", verify=False), _of_run(path), proven.read(path), path)
    graph = model if isinstance(model, Graph) else load(model)
    run = proven.run_of(graph.origins[0].path) if graph.origins else None
    if run is not None:
        return Source(graph, _of_file(graph), proven.read(run), run)
    told = str(graph.source_check)
    provenance = Provenance(sources=tuple(each.told for each in graph.origins), source_check=told)
    return Source(graph, _of_file(graph), provenance, opened=graph)


def _of_file(graph: Graph) -> dict[str, Path]:
    own = own_file(graph)
    return {} if own is None else {precision(own): own}


def _of_run(folder: Path) -> dict[str, Path]:
    """The files of a run by precision. A float32 deployed file takes precedence over the run's other float file."""
    paths = [folder / deployed.float_name("model"), folder / f"model{registry.DEFAULT.suffix}"]
    return {precision(path): path for path in paths if path.is_file()}


def precision(path: Path) -> str:
    """ "int8" if a file has integer weights; else "float16" or "float32", the type of most of its weights."""
    weights = registry.of(path).weights(path)
    return "int8" if "int" in weights else weights.partition(" ")[0]


def _with_head(source: Source, head: OutputKind | None) -> Source:
    if head is None or head == source.graph.description.output_kind:
        return source
    try:
        return replace(source, graph=with_output(source.graph, head), files={})
    except Unsupported as error:
        raise UserError(f"`head` {head} is not possible: {error}") from error

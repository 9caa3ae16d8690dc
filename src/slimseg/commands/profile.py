"""`slimseg profile`: measures how a network's time on a real runtime divides among its layers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from slimseg.deployment import DEFAULT_RUNTIME
from slimseg.disk import scratch
from slimseg.errors import RuntimeFailure
from slimseg.frontends import load
from slimseg.results import Profile
from slimseg.runtimes import child, registry

if TYPE_CHECKING:  # the profile of a file needs no torch, which takes seconds to import
    from slimseg.graph.graph import Graph


def profile(model: Graph | str | Path, *, runtime: str | None = None, threads: int = 1, runs: int = 50) -> Profile:
    """Time every operator of a Graph or of a file: with the runtime's own profiler, or layer by layer.

    A Graph is first written to a float file, in which layers have the names of the graph's nodes.

    Args:
        model: a Graph, the path of a runtime's file (`.tflite`, `.param`, or `.onnx` if `runtime` names its runtime),
            or any path that `load` opens.
        threads: CPU threads of the runtime.
        runs: number of profiled inferences; times are medians over them.
        runtime: name of the runtime; by default that of the file, or `deployment.DEFAULT_RUNTIME` for a Graph.

    Raises:
        ModelError: the model cannot be opened, or the runtime refuses the user's own file or crashes on it.
        UserError: the runtime is not installed.
        RuntimeFailure: the runtime refused or crashed on a file that slimseg wrote, or ran out of time.
    """
    if isinstance(model, str | Path):
        if registry.runs_unchanged(model, runtime):
            return _given_file(Path(model), threads, runs)
        model = load(model)
    chosen = registry.named(runtime or DEFAULT_RUNTIME)
    with scratch.folder() as folder:
        path = folder / f"model{chosen.suffix}"
        chosen.write(model, path)
        return replace(chosen.profile(path, threads, runs), model=model.name)


def _given_file(path: Path, threads: int, runs: int) -> Profile:
    try:
        return registry.named(registry.of(path).name).profile(path, threads, runs)
    except RuntimeFailure as error:
        raise child.blamed(error) from error

"""`slimseg profile`: where the time of a network goes on the real runtime (article, section 1)."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

from slimseg.errors import RuntimeFailure
from slimseg.frontends import load
from slimseg.graph.graph import Graph
from slimseg.results import Profile
from slimseg.runtimes.litert import profiler, runnable, writer


def profile(model: Graph | str | Path, threads: int = 1, runs: int = 50) -> Profile:
    """Time every operator of a Graph or of a `.tflite` file with LiteRT's own profiler.

    A Graph is written as a float32 file first; its layers are named after its nodes.

    Args:
        model: a Graph, the path of a `.tflite`, or whatever `load` opens by path.
        threads: CPU threads of the runtime.
        runs: profiled inferences; times are medians over them.

    Raises:
        ModelError: the model cannot be opened, or the runtime refuses the user's own file or crashes on it.
        RuntimeFailure: the runtime refused or crashed on a file that slimseg wrote, or ran out of time.
    """
    if isinstance(model, str | Path):
        if Path(model).suffix == ".tflite":
            return _given_file(Path(model), threads, runs)
        model = load(model)
    with tempfile.TemporaryDirectory(prefix="slimseg-") as folder:
        path = Path(folder) / "model.tflite"
        writer.write(model, path)
        return replace(profiler.profile(path, threads=threads, runs=runs), model=model.name)


def _given_file(path: Path, threads: int, runs: int) -> Profile:
    try:
        return profiler.profile(path, threads=threads, runs=runs)
    except RuntimeFailure as error:
        raise runnable.blamed(error) from error

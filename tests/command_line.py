"""`slimseg ARGUMENTS` called in the tests' own process (the fixture `run` is such a call), and files to call it on."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from slimseg import cli
from slimseg.graph.graph import Graph
from slimseg.runtimes.litert.writing import writer


class Ran(NamedTuple):
    """What a command left behind."""

    code: int
    out: str
    err: str


Run = Callable[..., Ran]


def caller(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    def call(*arguments: object) -> Ran:
        monkeypatch.setattr(sys, "argv", ["slimseg", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            cli.main()
        captured = capsys.readouterr()
        return Ran(int(left.value.code or 0), captured.out, captured.err)

    return call


def model_file(graph: Graph, folder: Path, suffix: str) -> Path:
    """The network as a file of its own name: ".pt2" or ".tflite"."""
    path = folder / f"{graph.name}{suffix}"
    if suffix == ".pt2":
        graph.save(path)
    else:
        writer.write(graph, path)
    return path

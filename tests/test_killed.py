"""A command that is killed while it puts a file into its place, and given again, comes to its right end.

`benchmarks/kills.py` kills real processes at random moments; here each dies at a named one, in a fork of the tests.
"""

from __future__ import annotations

import json
import os
import signal
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import Run
from torch import nn

from slimseg.frontends import load
from slimseg.results import Profile
from slimseg.runtimes import child
from slimseg.runtimes.litert.profiling import profiler as litert_profiler
from slimseg.tflite import file

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no processes to fork")

RUN = ("model.tflite", "model.pt2", "result.json", "report.html", "profile_after.json")
EXPORT = ("export/model.tflite", "export/model_card.json", "export/model_card.md")


@pytest.fixture(autouse=True)
def _profiled_in_one_child(quick_timing: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without what a profile says of the machine and of start-up, which takes most of its time."""
    profile = litert_profiler.profile

    def quick(path: str | Path, *arguments: Any, **options: Any) -> Profile:
        return profile(path, *arguments, **{**options, "within": child.shared(), "with_roofs": False})

    monkeypatch.setattr(litert_profiler, "profile", quick)


@pytest.fixture
def network(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 3, 1), nn.ReLU()
    load(nn.Sequential(*layers).eval(), (16, 16), name="network").save(tmp_path / "network.pt2")
    return tmp_path / "network.pt2"


def killed_before(name: str, work: Callable[[], object]) -> None:
    """Runs `work` in a fork that is killed when it is about to put a file of that name into its place."""
    replace = os.replace

    def kill(source: str | os.PathLike[str], target: str | os.PathLike[str]) -> None:
        if Path(target).name == name:
            os.kill(os.getpid(), signal.SIGKILL)
        replace(source, target)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of Python 3.12 on, where a process has threads
        process = os.fork()
    if not process:
        try:
            os.replace = kill
            work()
        finally:
            os._exit(0)
    _, status = os.waitpid(process, 0)
    assert os.WIFSIGNALED(status), f"it came to its end without writing {name}"
    assert os.WTERMSIG(status) == signal.SIGKILL


def check_that_it_is_whole(folder: Path, files: Iterable[str]) -> None:
    for path in (folder / each for each in files):
        if path.suffix == ".tflite":
            assert file.read(path).inputs
        elif path.suffix == ".json":
            assert isinstance(json.loads(path.read_text()), dict)
        else:
            assert path.stat().st_size
    assert {path.name for path in folder.rglob(".*")} <= {".slimseg.json"}
    assert not list(folder.rglob("work"))


def test_slim_of_exact_edits_and_its_export(run: Run, network: Path, tmp_path: Path) -> None:
    """Killed when it begins, when its edits are chosen, and when its export is about to be delivered."""
    command = ("slim", network, "--needs", "nothing", "--to", "tflite", "--out", tmp_path / "run")
    for name in (".slimseg.json", "model.pt2", "ready"):
        killed_before(name, lambda: run(*command))
    assert not (tmp_path / "run" / "export" / "model_card.json").exists()
    done = run(*command)
    assert done.code == 0, done.err
    check_that_it_is_whole(tmp_path / "run", RUN + EXPORT)


def test_quantize_keeps_what_was_there(run: Run, network: Path, tmp_path: Path) -> None:
    """Killed when it is about to replace an earlier file."""
    target = tmp_path / "int8" / "network.tflite"
    target.parent.mkdir()
    target.write_text("earlier")
    command = ("quantize", network, "--scheme", "float16", "--out", target)
    killed_before(target.name, lambda: run(*command))
    assert target.read_text() == "earlier"
    assert list(target.parent.glob(".slimseg-*"))
    done = run(*command)
    assert done.code == 0, done.err
    check_that_it_is_whole(target.parent, [target.name])

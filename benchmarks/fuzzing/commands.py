"""Mutants through the command line: exit codes 0 to 3, no traceback, and one sentence where it is not 0."""

from __future__ import annotations

import contextlib
import io
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from fuzzing import seeds
from fuzzing.trials import Mutant
from slimseg import cli
from slimseg.errors import RuntimeFailure, UserError
from slimseg.planning.pricing import steady
from slimseg.quantisation import timing
from slimseg.runtimes import benchmark

CODES = range(4)
COMMANDS = ("profile", "profile", "diagnose", "export", "evaluate", "quantize", "slim")
_NETWORKS = ("tflite", "onnx", "pt2", "h5", "keras")


def arguments(mutant: Mutant, path: Path, folder: Path) -> list[str]:
    """A command for a mutant, out of its number."""
    command = COMMANDS[mutant.number % len(COMMANDS)]
    data = str(folder / "data")
    model = [str(path)]
    if mutant.format == "weights":
        model = [f"{seeds.__file__}:build", "--input-size", "32x48", "--weights", str(path)]
    if mutant.format == "image":
        shutil.copyfile(path, folder / "data" / "val" / "images" / f"mutant{path.suffix}")
        model = [str(folder / "seeds" / "tflite" / "float.tflite")]
    if mutant.format == "ncnn" or (command == "evaluate" and path.suffix not in (".tflite", ".param")):
        command = "profile"
    more = {
        "profile": [],
        "diagnose": [],
        "evaluate": ["--data", data],
        "export": ["--out", str(folder / "app"), "--to", "tflite", "--data", data],
        "quantize": ["--out", str(folder / "out.tflite"), "--scheme", "dynamic"],
        "slim": ["--out", str(folder / "run"), "--needs", "nothing"],
    }[command]
    return [command, *model, *more]


def opens(mutant: Mutant, folder: Path) -> Callable[[Path], None]:
    """Calls the command in this process and raises what a user must not see."""

    def called(path: Path) -> None:
        _fresh(folder)
        code, said = run(arguments(mutant, path, folder))
        if code not in CODES or "Traceback" in said:
            raise AssertionError(f"exit code {code}: {said[-500:]}")
        if code == 2:
            raise UserError(_sentence(said))
        if code == 1:
            raise RuntimeFailure(_sentence(said))

    return called


def _sentence(said: str) -> str:
    """The line of an error."""
    lines = [line for line in said.splitlines() if line.startswith("error: ")]
    if len(lines) != 1:
        raise AssertionError(f"{len(lines)} lines of error: {said[-500:]}")
    return lines[0]


def run(given: list[str]) -> tuple[int, str]:
    """Exit code, and what was printed to standard error."""
    printed, errors, before = io.StringIO(), io.StringIO(), sys.argv
    sys.argv = ["slimseg", *given]
    try:
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(errors), quick():
            cli.main()
    except SystemExit as left:
        return int(left.code or 0), errors.getvalue()
    finally:
        sys.argv = before
    raise AssertionError("a command returned")


def _fresh(folder: Path) -> None:
    """Images for the commands, and no output of the last one."""
    for name in ("app", "run", "data"):
        shutil.rmtree(folder / name, ignore_errors=True)
    (folder / "out.tflite").unlink(missing_ok=True)
    for split in ("train", "val"):
        for kind, name in (("images", "photo.png"), ("masks", "mask.png")):
            place = folder / "data" / split / kind
            place.mkdir(parents=True)
            for number in range(2):
                shutil.copyfile(folder / "seeds" / "image" / name, place / f"{number}.png")


@contextlib.contextmanager
def quick() -> Iterator[None]:
    """Files are timed for an instant: here it matters that a command ends, and how, not what it measures."""
    timed, steadily, seconds = benchmark.time_files, steady.time_files, timing.SECONDS_PER_FILE

    def at_once(paths: Any, threads: int = 1, seconds_per_file: float = 1.0, **more: Any) -> Any:
        return timed(paths, threads, 0.02, **more)

    def shortly(paths: Any, seconds: float, *more: Any) -> Any:
        return steadily(paths, min(seconds, 0.3), *more)

    benchmark.time_files, steady.time_files, timing.SECONDS_PER_FILE = at_once, shortly, 0.02  # type: ignore[assignment]
    try:
        yield
    finally:
        benchmark.time_files, steady.time_files, timing.SECONDS_PER_FILE = timed, steadily, seconds

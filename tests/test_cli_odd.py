"""Every option of every command with nonsense: exit code 2, one sentence, and nothing left behind."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from command_line import Run
from typer.main import get_command

from slimseg import cli
from slimseg.graph.graph import Graph
from slimseg.runtimes.litert.writing import writer

NONSENSE = (
    "", " ", "nan", "-inf", "-1", "0", "1e999", "99999999999999999999", "1,2", ",", "ü", "\x1b[31mred", "\u202eabc",
    "%s{0}", "None", "../..", "/dev/null", "NOWHERE/x", "FOLDER", "FILE", "x" * 5000, "8x8x8", "-5x7", "0m",
)  # fmt: skip
REQUIRED = {
    "profile": [],
    "diagnose": [],
    "slim": ["--out", "OUT", "--data", "EMPTY"],
    "quantize": ["--out", "OUT.tflite", "--data", "EMPTY"],
    "export": ["--out", "OUT", "--data", "EMPTY"],
    "evaluate": ["--data", "EMPTY"],
}
UNJUDGED = ("--licence",)  # any text will do


def options(command: str) -> list[str]:
    """Those of a command that take a value."""
    parameters = get_command(cli.app).commands[command].params
    return [
        each.opts[0] for each in parameters if each.opts[0].startswith("--") and not getattr(each, "is_flag", False)
    ]


@pytest.fixture(scope="module")
def model(shapes_graph: Graph, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "shapes.tflite"
    writer.write(shapes_graph, path)
    return path


class Place:
    """A folder with a file, a folder and no more, for the words in capitals."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "empty").mkdir()
        (folder / "file.txt").write_text("nothing of use")
        self.before = self.listing()

    def listing(self) -> list[str]:
        return sorted(str(path.relative_to(self.folder)) for path in self.folder.rglob("*"))

    def filled(self, text: str) -> str:
        words = {"EMPTY": "empty", "FOLDER": "empty", "FILE": "file.txt", "OUT": "out", "NOWHERE": "nowhere"}
        for word, name in words.items():
            text = text.replace(word, str(self.folder / name))
        return text


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def check(run: Run, place: Place, *arguments: str) -> None:
    code, out, err = run(*(place.filled(each) for each in arguments))
    assert code == 2, (arguments, code, out, err)
    assert out == "", arguments
    *notes, sentence = err.splitlines()
    assert sentence.startswith("error: "), (arguments, err)
    assert all(line.startswith("note: ") for line in notes), (arguments, err)
    assert err.replace("\n", "").isprintable(), (arguments, err)
    assert place.listing() == place.before, arguments


@pytest.mark.parametrize("command", REQUIRED)
def test_a_model_that_is_missing_beside_any_option(run: Run, place: Place, command: str) -> None:
    """Whether the option or the model is told of first, there is one sentence. Each option has some of the values."""
    values = itertools.cycle(NONSENSE)
    for option in options(command):
        for value in itertools.islice(values, 3):
            check(run, place, command, "NOWHERE/model.tflite", *REQUIRED[command], option, value)


@pytest.mark.parametrize("command", [name for name, more in REQUIRED.items() if more])
def test_a_folder_without_images_beside_any_option(run: Run, place: Place, command: str, model: Path) -> None:
    """With a model that opens, what an option says is looked at, and the images after it."""
    values = itertools.cycle(("", "nan", "-1", "\x1b[31mred", "FOLDER", "99999999999999999999"))
    for option in options(command):
        if option not in (*UNJUDGED, "--data"):
            check(run, place, command, str(model), *REQUIRED[command], option, next(values))


@pytest.mark.parametrize("command", REQUIRED)
@pytest.mark.parametrize(
    "given", ["", " ", "FOLDER", "FILE", "/dev/null", "ü.tflite", "a:b", "x.py:y", ":", "os:system", "\x1b.onnx"]
)
def test_models_that_are_none(run: Run, place: Place, command: str, given: str) -> None:
    check(run, place, command, given, *REQUIRED[command])


@pytest.mark.parametrize("command", REQUIRED)
def test_arguments_that_are_missing_or_too_many(run: Run, place: Place, command: str) -> None:
    check(run, place, command)
    check(run, place, command, "a.tflite", "b.tflite", *REQUIRED[command])
    check(run, place, command, "a.tflite", *REQUIRED[command], "--no-such-option")
    for option in options(command)[::4]:
        check(run, place, command, "a.tflite", *REQUIRED[command], option)
    for missing in range(0, len(REQUIRED[command]), 2):
        rest = [*REQUIRED[command][:missing], *REQUIRED[command][missing + 2 :]]
        check(run, place, command, "NOWHERE/model.tflite", *rest)

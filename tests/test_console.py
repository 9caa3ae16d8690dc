"""What a file calls its layers, and what the user calls the file, is shown on the terminal and not obeyed by it."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
import typer
from ai_edge_litert import schema_py_generated as tflite
from command_line import Run
from rich.table import Table

from slimseg import cli
from slimseg.console import OPTIONS, PlainConsole, as_options
from slimseg.errors import BudgetError, ModelError
from slimseg.graph.description import Description
from slimseg.graph.names import Names, node_name
from slimseg.planning.choosing.budget import Budget
from slimseg.progress import Terminal
from slimseg.report.files import to_json
from slimseg.results import Evaluation
from slimseg.tflite.schema import ModelBuilder

EVIL = "a\x1b[2Jb\x1b]0;owned\x07\rc\u202ed\u200be\x9bf[bold red]g[/][link=http://h]:smile:"


def harmless(text: str) -> bool:
    return all(letter.isprintable() or letter == "\n" for letter in text)


def printed(*parts: object) -> str:
    console = PlainConsole(file=io.StringIO(), width=100, force_terminal=True, color_system=None)
    for part in parts:
        console.print(part)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_text_and_tables_are_shown_as_they_are():
    table = Table()
    table.add_column(EVIL)
    table.add_row(EVIL)
    text = printed(EVIL, table)
    assert harmless(text)
    assert text.count("[bold red]g[/][link=http://h]:smile:") == 3
    assert len({len(line) for line in text.splitlines()[-5:]}) == 1, "columns stay in line"


def test_progress_shows_names_as_they_are():
    console = PlainConsole(file=io.StringIO(), width=200, color_system=None)
    progress = Terminal(console)
    progress.say(EVIL)
    list(progress.track([1], EVIL))
    assert "[bold red]g[/]" in console.file.getvalue()  # type: ignore[attr-defined]
    assert harmless(console.file.getvalue())  # type: ignore[attr-defined]


def test_errors_are_one_printable_line():
    assert str(ModelError(f"{EVIL}\nsecond line")).isprintable()
    with pytest.raises(ModelError) as caught:
        Description.from_json("[" * 100_000)
    assert "nested too deeply" in str(caught.value)
    names = Description.from_json(Description(classes=(EVIL, "sky")).to_json()).classes
    assert names[0].isprintable()
    assert names[1] == "sky"


def test_errors_are_of_a_length_that_can_be_read():
    """Whatever a file calls its layers, in one word or in many; the file and what to do stand at the ends."""
    for name in ("A" * 1_000_000, "A " * 500_000):
        error = ModelError(f"/files/model.tflite: {name} is damaged: export it again")
        assert str(error).startswith("/files/model.tflite: A")
        assert str(error).endswith("is damaged: export it again")
        assert len(str(error)) <= 1500
        assert str(ModelError(str(error))) == str(error)  # as it comes back from a child process
    plain = f"{'/folder' * 40}/model.tflite is damaged"
    assert str(ModelError(plain)) == plain


def test_json_stays_json():
    result = Evaluation("m", EVIL, "val", 1, 50.0, 60.0, {EVIL: 1.0, "\U000e0001é": 2.0})
    text = to_json(result)
    assert harmless(text)
    assert json.loads(text)["class_iou"] == {EVIL: 1.0, "\U000e0001é": 2.0}
    assert "é" in text


def test_names_that_python_has_for_something_else():
    assert [node_name(name) for name in ("self", "max", "training", "forward", "class", "conv")] == [
        "layer_self", "layer_max", "layer_training", "layer_forward", "layer_class", "conv",
    ]  # fmt: skip
    names = Names()
    assert [names.new("a"), names.new("a"), names.new("a_2"), names.new("a")] == ["a", "a_2", "a_2_2", "a_3"]


def evil_file(path: Path, known: bool) -> Path:
    """Its one operator, which slimseg knows or does not, is called what it should not be called."""
    builder = ModelBuilder()
    source, target = builder.tensor("self", (1, 16, 16, 3)), builder.tensor("out", (1, 16, 16, 3))
    builder.subgraph.tensors[target].name = EVIL.encode()
    if known:
        builder.operator(tflite.BuiltinOperator.RELU, (source,), target)
    else:
        options, kind = tflite.L2NormOptionsT(), tflite.BuiltinOptions.L2NormOptions
        builder.operator(tflite.BuiltinOperator.L2_NORMALIZATION, (source,), target, options, kind)
    path.write_bytes(builder.finish([source], [target], Description(classes=(EVIL, "sky", "road"))))
    return path


@pytest.mark.usefixtures("hurried")
def test_the_command_line_obeys_no_file(run, tmp_path, shapes):
    name = "m\x1b[2J\u202e.tflite"
    known, unknown = evil_file(tmp_path / name, True), evil_file(tmp_path / f"u{name}", False)
    for arguments, code in (
        (("profile", known, "--runs", "2"), 0),
        (("profile", unknown, "--runs", "2"), 0),
        (("evaluate", known, "--data", shapes), 0),
        (("export", unknown, "--out", tmp_path / "out"), 2),
        (("export", tmp_path / "none\x1b[2J.tflite", "--out", tmp_path / "out"), 2),
        (("profile", known, "--runs", "2", "--json"), 0),
    ):
        ran = run(*arguments)
        assert ran.code == code, ran.err
        assert harmless(ran.out + ran.err)
    assert np.isfinite(json.loads(ran.out)["latency_ms"])


def test_messages_of_the_library_name_options_on_the_command_line(run: Run, tmp_path: Path) -> None:
    with pytest.raises(BudgetError, match="`max_drop` 200 must be between"):
        Budget(max_drop=200)
    code, _, err = run("slim", "net.pt2", "--out", str(tmp_path / "run"), "--max-drop", "200", "--needs", "nothing")
    assert (code, "--max-drop 200 must be between" in err) == (2, True)
    assert (
        as_options("give `images`, or `needs` nothing; `conv_1` stays")
        == "give --data, or --needs nothing; `conv_1` stays"
    )


def test_every_option_that_messages_name_is_one() -> None:
    commands = typer.main.get_command(cli.app).commands.values()  # type: ignore[attr-defined]
    known = {option for command in commands for parameter in command.params for option in parameter.opts}
    assert set(OPTIONS.values()) <= known

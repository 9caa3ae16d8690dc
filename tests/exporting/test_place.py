"""The folder of an export keeps what is not its own, and is whole whenever the process dies."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from slimseg.disk.claim import NOTE, PRIVATE
from slimseg.errors import OutputError
from slimseg.exporting import place
from slimseg.exporting.place import CARD, CARDS


def exported(folder: Path, *names: str) -> None:
    """As an export leaves it."""
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).write_text("old")
    (folder / "model_card.md").write_text("old")
    (folder / CARD).write_text(json.dumps({"artefacts": [{"files": names}]}))


NEW = json.dumps({"artefacts": [], "new": True})


def put(folder: Path, *names: str) -> None:
    with place.opened(folder) as app:
        for name in names:
            (app.scratch / name).write_text(NEW)
        app.take([app.scratch / name for name in names])


def stopped(folder: Path, error: type[BaseException]) -> None:
    with place.opened(folder) as app:
        (app.scratch / "half.tflite").write_text("ha")
        raise error


def names_in(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.iterdir())


def test_a_new_folder(tmp_path: Path) -> None:
    put(tmp_path / "deep" / "app", "model.tflite")
    assert names_in(tmp_path / "deep" / "app") == ["model.tflite"]


def test_an_earlier_export_is_written_over(tmp_path: Path) -> None:
    exported(tmp_path, "model.tflite", "model.bin")
    put(tmp_path, "model.tflite")
    assert (tmp_path / "model.tflite").read_text() == NEW
    assert (tmp_path / "model.bin").read_text() == "old"


@pytest.mark.parametrize("old", ["folder", "file"])
def test_a_package_is_replaced_as_a_whole(tmp_path: Path, old: str) -> None:
    package = tmp_path / "model.mlpackage"
    exported(tmp_path)
    if old == "folder":
        package.mkdir()
        (package / "old").touch()
    else:
        package.touch()
    with place.opened(tmp_path) as app:
        made = app.scratch / package.name
        made.mkdir()
        (made / "new").touch()
        app.take([made])
    assert names_in(package) == ["new"]


def test_what_is_not_of_an_export_stays(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years")
    with pytest.raises(OutputError, match="not from an export"):
        put(tmp_path, "model.tflite")
    assert names_in(tmp_path) == ["thesis.txt"]
    assert (tmp_path / "thesis.txt").read_text() == "years"


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "app").touch()
    with pytest.raises(OutputError, match="is a file"):
        put(tmp_path / "app", "model.tflite")


def test_a_card_that_is_damaged_is_no_export(tmp_path: Path) -> None:
    (tmp_path / CARD).write_text("[]")
    with pytest.raises(OutputError, match="not from an export"):
        put(tmp_path, "model.tflite")


def test_an_error_leaves_nothing(tmp_path: Path) -> None:
    exported(tmp_path / "old", "model.tflite")
    before = {name: (tmp_path / "old" / name).read_bytes() for name in names_in(tmp_path / "old")}
    for folder in ("new/app", "old"):
        with pytest.raises(KeyboardInterrupt):
            stopped(tmp_path / folder, KeyboardInterrupt)
    assert names_in(tmp_path) == ["old"]
    assert {name: (tmp_path / "old" / name).read_bytes() for name in names_in(tmp_path / "old")} == before


class Died(BaseException):
    """Stands for a kill: nothing runs after it."""


NAMES = ("a.tflite", "b.param", *CARDS)
MOVES = 2 * len(NAMES) + 1 + 1  # gathered, made ready, put into their places; and the note of whose the folder is


@pytest.mark.parametrize("move", range(MOVES))
def test_a_death_at_any_step_is_made_good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, move: int) -> None:
    """Killed at each renaming in turn: old or new files, never a card that speaks of others; then all is new."""
    exported(tmp_path, *NAMES[:2])
    moves, replace = iter(range(MOVES)), os.replace

    def dying(*paths: Any) -> None:
        if next(moves) == move:
            raise Died
        replace(*paths)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", dying)
        patch.setattr(place.Place, "leave", lambda _: None)
        with pytest.raises(Died):
            put(tmp_path, *NAMES)
    texts = {name: (tmp_path / name).read_text() for name in NAMES if (tmp_path / name).exists()}
    if CARD in texts:
        assert len({text == NEW for text in texts.values()}) == 1
    with place.opened(tmp_path):
        pass  # whatever happens in it, what was ready is delivered first
    kept = {name: (tmp_path / name).read_text() for name in names_in(tmp_path)}
    assert kept.keys() == set(NAMES)
    assert len({text == NEW for text in kept.values()}) == 1
    put(tmp_path, *NAMES)
    assert {(tmp_path / name).read_text() for name in names_in(tmp_path)} == {NEW}


def test_a_death_in_a_new_folder_is_made_good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "app"
    with monkeypatch.context() as patch:
        patch.setattr(place.Place, "leave", lambda _: None)
        with pytest.raises(Died):
            stopped(folder, Died)
    assert names_in(folder) == [PRIVATE, NOTE]
    (folder / "notes.txt").write_text("mine")  # put there by the user in between
    put(folder, "model.tflite")
    assert names_in(folder) == ["model.tflite", "notes.txt"]


def test_a_folder_of_another_command_is_refused(tmp_path: Path) -> None:
    (tmp_path / NOTE).write_text(json.dumps({"command": "slim"}))
    with pytest.raises(OutputError, match="run of slimseg slim"):
        put(tmp_path, "model.tflite")
    assert names_in(tmp_path) == [NOTE]


def test_all_of_them_or_none(tmp_path: Path) -> None:
    exported(tmp_path, "model.tflite")
    before = {path.name: path.read_text() for path in tmp_path.iterdir()}
    with place.opened(tmp_path) as app:
        made = [app.scratch / name for name in ("model.tflite", "model.bin", "never_written.param")]
        for path in made[:2]:
            path.write_text(NEW)
        with pytest.raises(OutputError, match="never_written"):
            app.take(made)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == before


def test_what_stays_empty_goes(tmp_path: Path) -> None:
    with pytest.raises(KeyError):
        stopped(tmp_path / "deep" / "app", KeyError)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "mine").mkdir()
    with place.opened(tmp_path / "mine"):
        pass
    assert (tmp_path / "mine").is_dir()

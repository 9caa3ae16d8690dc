"""The folder of an export keeps what is not its own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from slimseg.errors import OutputError
from slimseg.exporting.place import CARD, Place


def exported(folder: Path, *names: str) -> None:
    """As an export leaves it."""
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).write_text("old")
    (folder / CARD).write_text(json.dumps({"artefacts": [{"files": names}]}))


def put(folder: Path, name: str) -> None:
    place = Place(folder)
    with place.scratch() as scratch:
        path = Path(scratch) / name
        path.write_text("new")
        place.take([path])


def test_a_new_folder(tmp_path: Path) -> None:
    put(tmp_path / "deep" / "app", "model.tflite")
    assert [each.name for each in (tmp_path / "deep" / "app").iterdir()] == ["model.tflite"]


def test_an_earlier_export_is_written_over(tmp_path: Path) -> None:
    exported(tmp_path, "model.tflite", "model.bin")
    put(tmp_path, "model.tflite")
    assert (tmp_path / "model.tflite").read_text() == "new"
    assert (tmp_path / "model.bin").read_text() == "old"


def test_a_package_is_replaced_as_a_whole(tmp_path: Path) -> None:
    package = tmp_path / "model.mlpackage"
    package.mkdir()
    (package / "old").touch()
    (tmp_path / CARD).write_text(json.dumps({"artefacts": [{"files": [package.name]}]}))
    place = Place(tmp_path)
    with place.scratch() as scratch:
        made = Path(scratch) / package.name
        made.mkdir()
        (made / "new").touch()
        place.take([made])
    assert [each.name for each in package.iterdir()] == ["new"]


def test_what_is_not_of_an_export_stays(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years")
    with pytest.raises(OutputError, match="not from an export"):
        Place(tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "years"


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "app").touch()
    with pytest.raises(OutputError, match="is a file"):
        Place(tmp_path / "app")


def test_a_card_that_is_damaged_is_no_export(tmp_path: Path) -> None:
    (tmp_path / CARD).write_text("[]")
    with pytest.raises(OutputError, match="not from an export"):
        Place(tmp_path)


def test_all_of_them_or_none(tmp_path: Path) -> None:
    exported(tmp_path, "model.tflite")
    before = {path.name: path.read_text() for path in tmp_path.iterdir()}
    place = Place(tmp_path)
    with place.scratch() as scratch:
        made = [scratch / name for name in ("model.tflite", "model.bin", "never_written.param")]
        for path in made[:2]:
            path.write_text("new")
        with pytest.raises(OutputError, match="never_written"):
            place.take(made)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == before


def test_what_stays_empty_goes(tmp_path: Path) -> None:
    place = Place(tmp_path / "deep" / "app")
    with pytest.raises(KeyError), place.scratch():
        raise KeyError
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "mine").mkdir()
    with Place(tmp_path / "mine").scratch():
        pass
    assert (tmp_path / "mine").is_dir()

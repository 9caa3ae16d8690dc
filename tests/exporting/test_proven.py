"""Runs of `slim` as they are exported: with what they proved, and not where that was too little."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest
from torch import nn

import slimseg
from slimseg.commands.export import export
from slimseg.errors import ModelError, UserError
from slimseg.exporting import heads, proven
from slimseg.planning.choosing.budget import Budget
from slimseg.runtimes.ncnn import package as ncnn


@pytest.fixture(autouse=True, scope="module")
def _quick(quick_timing: None) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(import_module("slimseg.commands.export"), "SECONDS_PER_FILE", 0.03)
        patch.setattr(heads, "ROUNDS", 1)
        yield


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    graph = slimseg.load(
        nn.Sequential(nn.Conv2d(3, 8, 3, 4, 1), nn.Upsample(scale_factor=4), nn.Conv2d(8, 3, 1)), (64, 80)
    )
    path = tmp_path_factory.mktemp("model") / "small.pt2"
    graph.save(path)
    return path


def slimmed(model: Path, shapes: Path, out: Path, **budget: int) -> Path:
    slimseg.slim(model, images=shapes, out=out, budget=Budget(needs="nothing", **budget))  # type: ignore[arg-type]
    return out


@pytest.fixture(scope="module")
def met(model: Path, shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return slimmed(model, shapes, tmp_path_factory.mktemp("met") / "run")


@pytest.fixture(scope="module")
def missed(model: Path, shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return slimmed(model, shapes, tmp_path_factory.mktemp("missed") / "run", max_size_bytes=1000)


def test_the_card_has_what_the_run_measured(met: Path, model: Path, shapes: Path, tmp_path: Path) -> None:
    targets = "tflite,ncnn" if ncnn.available() else "tflite"
    result = export(met, out=tmp_path / "app", to=targets, images=shapes, compared=2)
    told = json.loads((met / "result.json").read_text())
    assert told["verdict"] == "The budget is met."
    card = json.loads((tmp_path / "app" / "model_card.json").read_text())
    its = card["provenance"]
    assert (its["original"], its["slimmed"]) == (told["baseline"], told["result"])
    assert its["sources"][0]["name"] == "small.pt2"
    assert its["sources"] == told["sources"]
    assert its["miou_images"] == 6  # all of val, though masks were compared on 2
    own, *others = card["artefacts"]
    assert own["miou"] == told["result"]["miou"]
    assert all(each["miou"] == pytest.approx(own["miou"], abs=0.5) for each in others)  # on the same 6 images
    assert all(each.miou is None for each in result.parities)
    assert result.card.images == 2


def test_no_other_miou_without_the_images_of_the_run(met: Path, tmp_path: Path) -> None:
    result = export(met, out=tmp_path / "app", to="tflite")
    (own,) = result.card.artefacts
    assert own.miou == result.card.provenance.slimmed.miou  # type: ignore[union-attr]


@pytest.mark.parametrize("name", ["", "model.tflite", "model.pt2"])
def test_a_missed_budget_is_not_exported(missed: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match=r"did not meet its budget \(Size .*`anyway`"):
        export(missed / name, out=tmp_path / "app", to="tflite")
    assert not (tmp_path / "app").exists()


def test_a_missed_budget_is_exported_anyway_and_never_recommended(missed: Path, tmp_path: Path) -> None:
    targets = "tflite,ncnn" if ncnn.available() else "tflite"
    result = export(missed, out=tmp_path / "app", to=targets, anyway=True)
    assert result.card.provenance.budget_met is False
    assert result.card.recommendation == ""
    text = (tmp_path / "app" / "model_card.md").read_text()
    assert "**The budget is not met: Size" in text


def test_other_files_of_a_run_were_not_judged_by_its_budget(missed: Path) -> None:
    assert proven.run_of(missed / "model.tflite") == missed
    assert proven.run_of(missed / "original_float.tflite") is None
    assert proven.run_of(missed.parent / "model.pt2") is None


@pytest.mark.parametrize("text", ["", "[]", '{"result": 3}', '{"budget": [], "result": {}, "baseline": {}}'])
def test_a_damaged_result_is_one_sentence(met: Path, tmp_path: Path, text: str) -> None:
    (tmp_path / "result.json").write_text(text)
    (tmp_path / "model.pt2").write_bytes((met / "model.pt2").read_bytes())
    with pytest.raises(ModelError, match=r"result\.json is damaged"):
        export(tmp_path, out=tmp_path / "app", to="tflite")

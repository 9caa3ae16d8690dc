"""`slimseg export` from end to end: files that are run, a card that says so, failures that leave the others alone."""

from __future__ import annotations

import hashlib
import json
from importlib import import_module
from pathlib import Path

import pytest

from slimseg.commands.export import export
from slimseg.errors import ModelError, OutputError, UserError
from slimseg.exporting import heads
from slimseg.frontends import load
from slimseg.graph.graph import Graph
from slimseg.report.export import show_export
from slimseg.results import ExportResult, SourceFile
from slimseg.runtimes.coreml import package as coreml
from slimseg.runtimes.litert.tasks import has_task_metadata
from slimseg.runtimes.ncnn import package as ncnn


@pytest.fixture(scope="module")
def exported(
    shapes_graph: Graph, shapes: Path, tmp_path_factory: pytest.TempPathFactory, quick_timing: None
) -> ExportResult:
    """Everything that can be had here, from a network and labelled images."""
    targets = ["tflite", "tflite:int8", "ncnn"] + (["coreml"] if coreml.available() else [])
    out = tmp_path_factory.mktemp("export") / "app"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(heads, "ROUNDS", 1)
        return export(shapes_graph, out=out, to=",".join(targets), images=shapes, compared=4)


def test_every_file_is_there(exported: ExportResult) -> None:
    folder = Path(exported.folder)
    assert not exported.failed
    for artefact in exported.card.artefacts:
        assert artefact.files
        assert all((folder / name).exists() for name in artefact.files)
    assert {each.name for each in folder.iterdir()} >= {"model.tflite", "model_int8.tflite", "model.param", "model.bin"}
    assert not [each for each in folder.iterdir() if each.name.startswith(".")]
    assert has_task_metadata((folder / "model.tflite").read_bytes())


def test_masks_are_compared_and_files_timed(exported: ExportResult) -> None:
    by_file = {each.files[0]: each for each in exported.card.artefacts}
    tflite = by_file["model.tflite"]
    assert tflite.disagreement is not None
    assert tflite.disagreement < 0.1
    assert tflite.miou is not None
    assert tflite.latency_ms is not None
    assert by_file["model_int8.tflite"].miou is not None
    ran = [each for each in exported.card.artefacts if each.disagreement is not None]
    assert len(exported.parities) == len(ran) == (3 if ncnn.available() else 2)
    assert all((Path(exported.folder) / each.picture).is_file() for each in ran)
    assert exported.heads


def test_the_card_says_the_same(exported: ExportResult) -> None:
    folder = Path(exported.folder)
    card = json.loads((folder / "model_card.json").read_text())
    assert [each["files"] for each in card["artefacts"]] == [list(each.files) for each in exported.card.artefacts]
    text = (folder / "model_card.md").read_text()
    assert "ImageSegmenter" in text
    assert "ncnn::Net" in text
    assert ("VNCoreMLRequest" in text) == coreml.available()


def test_the_table(exported: ExportResult, capsys: pytest.CaptureFixture[str]) -> None:
    show_export(exported)
    printed = capsys.readouterr().out
    assert "model.param + .bin" in printed
    assert "model_int8.tflite" in printed
    assert max(map(len, printed.splitlines())) <= 80


def test_one_failure_leaves_the_others(
    shapes_graph: Graph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object) -> None:
        raise UserError("the coremltools package is not there")

    monkeypatch.setattr(coreml, "require", refuse)
    result = export(shapes_graph, out=tmp_path / "app", to="coreml,tflite", head="logits")
    assert [each.target for each in result.failed] == ["coreml"]
    assert (tmp_path / "app" / "model.tflite").is_file()
    assert "not there" in (tmp_path / "app" / "model_card.md").read_text()
    show_export(result)
    assert "not there" in capsys.readouterr().out


def test_a_float_file_that_differs_is_not_delivered(
    shapes_graph: Graph, shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if the writer of ncnn's files had a bug: the weights of one layer come out with the wrong sign."""
    if not ncnn.available():
        pytest.skip(f"ncnn is not installed: {ncnn.INSTALL}")
    from slimseg.runtimes.ncnn import writer

    serialise = writer.serialise
    layer = next(node for node in shapes_graph.layers() if hasattr(shapes_graph.layer(node), "out_channels"))

    def wrong(graph: Graph, storage: writer.Storage = "fp32") -> writer.Written:
        other = graph.copy()
        other.module.get_submodule(str(layer.target)).weight.data.mul_(-1)
        return serialise(other, storage)

    monkeypatch.setattr(writer, "serialise", wrong)
    result = export(shapes_graph, out=tmp_path / "app", to="ncnn,tflite", head="logits", images=shapes, compared=2)
    (failed,) = result.failed
    assert "first layer whose values differ" in failed.reason
    assert failed.reason.endswith("give `to` ncnn:fp32, which rounds no weights")
    assert not (tmp_path / "app" / "model.param").exists()
    assert (tmp_path / "app" / failed.picture).is_file()
    assert (tmp_path / "app" / "model.tflite").is_file()


def test_an_export_can_be_repeated(shapes_graph: Graph, tmp_path: Path) -> None:
    for _ in range(2):
        export(shapes_graph, out=tmp_path / "app", to="tflite", head="logits")
    (tmp_path / "app" / "notes.txt").write_text("mine")
    export(shapes_graph, out=tmp_path / "app", to="tflite", head="logits")
    assert (tmp_path / "app" / "notes.txt").read_text() == "mine"


def test_nothing_is_left_where_nothing_could_be_exported(
    shapes_graph: Graph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object) -> None:
        raise UserError("the coremltools package is not there")

    monkeypatch.setattr(coreml, "require", refuse)
    result = export(shapes_graph, out=tmp_path / "new" / "app", to="coreml", head="logits")
    assert [each.target for each in result.failed] == ["coreml"]
    assert not (tmp_path / "new").exists()
    show_export(result)
    printed = " ".join(capsys.readouterr().out.split())
    assert "Nothing was exported" in printed
    assert "model_card.md" not in printed
    export(shapes_graph, out=tmp_path / "app", to="tflite", head="logits")
    before = {path: path.read_bytes() for path in (tmp_path / "app").iterdir()}
    export(shapes_graph, out=tmp_path / "app", to="coreml", head="logits")
    assert {path: path.read_bytes() for path in (tmp_path / "app").iterdir()} == before


@pytest.mark.parametrize("at", ["write_card", "_timed"])
def test_an_error_on_the_way_leaves_what_was_there(
    shapes_graph: Graph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    def full(*_: object) -> None:
        raise OutputError("the disk is full")

    module = import_module("slimseg.commands.export")
    monkeypatch.setattr(module if at == "write_card" else module._Job, at, full)
    with pytest.raises(OutputError, match="full"):
        export(shapes_graph, out=tmp_path / "app", to="tflite", head="logits")
    assert not (tmp_path / "app").exists()


def test_the_card_tells_of_the_source(shapes_graph: Graph, shapes: Path, tmp_path: Path) -> None:
    path = tmp_path / "shapes.pt2"
    shapes_graph.save(path)
    card = export(load(path), out=tmp_path / "app", to="tflite", head="logits", images=shapes, compared=3).card
    (source,) = card.provenance.sources
    assert source == SourceFile("shapes.pt2", path.stat().st_size, hashlib.sha256(path.read_bytes()).hexdigest())
    assert card.provenance.original_miou == pytest.approx(card.artefacts[0].miou, abs=0.1)
    assert card.provenance.miou_images == card.images == 3
    assert source.sha256 in (tmp_path / "app" / "model_card.md").read_text()


@pytest.mark.parametrize(
    ("to", "head", "error", "told"),
    [
        ("tensorrt", None, UserError, "no such target"),
        ("tflite", "labels", UserError, "must be one of"),
    ],
)
def test_what_is_refused(
    shapes_graph: Graph, tmp_path: Path, to: str, head: str | None, error: type[Exception], told: str
) -> None:
    with pytest.raises(error, match=told):
        export(shapes_graph, out=tmp_path / "app", to=to, head=head)  # type: ignore[arg-type]
    assert not (tmp_path / "app").exists()


def test_places_and_sources_that_are_none(shapes_graph: Graph, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years")
    with pytest.raises(OutputError, match="not from an export"):
        export(shapes_graph, out=tmp_path)
    with pytest.raises(ModelError, match="not of a finished run"):
        export(tmp_path, out=tmp_path / "app")

"""`slim --needs nothing`: no data, equal outputs, compared with the user's own file; kept as it is if nothing pays."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import slimseg
from slimseg.deployment import Deployment
from slimseg.errors import DataError
from slimseg.graph import edit, ops
from slimseg.graph.description import Description
from slimseg.graph.graph import Graph
from slimseg.planning.choosing import exact
from slimseg.planning.choosing.budget import Budget
from slimseg.planning.choosing.exact import ExactEdits, same_kind
from slimseg.planning.pricing import whatif
from slimseg.planning.pricing.probes import probe_images
from slimseg.progress import Silent
from slimseg.report.wording import headline
from slimseg.results import SlimResult
from slimseg.runtimes.litert import session
from slimseg.runtimes.litert.writing import writer
from slimseg.techniques import EXACT, named
from slimseg.techniques.softmax import TwoClassSoftmax
from slimseg.techniques.transposed import Transposed
from slimseg.tflite import file

NOTHING = Budget(needs="nothing")


@pytest.fixture(autouse=True, scope="module")
def _quick(quick_timing: None) -> None:
    """For every test here."""


def portrait() -> Graph:
    """Two classes out of a transposed convolution at 256x256, PReLU of few channels: much to win."""
    torch.manual_seed(0)
    slopes = nn.PReLU(8)
    nn.init.uniform_(slopes.weight)
    module = nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), slopes, nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU(),
        nn.ConvTranspose2d(16, 8, 2, 2), nn.PReLU(8), nn.ConvTranspose2d(8, 2, 2, 2, bias=False),
        ops.Affine(None, torch.tensor([0.3, -0.2]).reshape(2, 1, 1)), nn.Softmax(1), ops.Slice(1, 1, 2),
        ops.Reshape((1, 256 * 256)),
    )  # fmt: skip
    graph = edit.trace(module.eval(), (1, 3, 256, 256), "portrait")
    graph.description = Description(output_kind="probabilities")
    return graph


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("source") / "portrait.tflite"
    writer.write(portrait(), path)
    return path


@pytest.fixture(scope="module")
def done(source: Path, tmp_path_factory: pytest.TempPathFactory) -> SlimResult:
    return slimseg.slim(source, images=None, out=tmp_path_factory.mktemp("run") / "out", budget=NOTHING)


def test_edits_that_a_processor_would_not_take_are_left_out(source: Path, tmp_path: Path) -> None:
    """MediaTek's plugin has no DEPTH_TO_SPACE; the result says what it takes of both files."""
    budget = Budget(needs="nothing", processor="cpu,npu:mediatek")
    result = slimseg.slim(source, images=None, out=tmp_path / "out", budget=budget)
    assert "transposed convolution to depth to space" not in {edit.technique for edit in result.edits}
    assert "DEPTH_TO_SPACE" not in {each.op for each in file.operators(tmp_path / "out" / "model.tflite")}
    assert any("npu:mediatek would leave DEPTH_TO_SPACE" in refusal.reason for refusal in result.refusals)
    (before,), (after,) = result.placed_before, result.placed_after
    assert len(after.refused) <= len(before.refused)
    (check,) = (each for each in result.budget if each.name == "npu:mediatek")
    assert check.met is after.is_whole


def test_faster_with_equal_outputs_and_no_data(done: SlimResult, source: Path) -> None:
    assert done.speedup > 1.2  # 1.6 on a quiet machine
    assert done.budget_met
    assert done.plain_int8 is done.speedup_over_int8 is None
    assert done.after.miou is done.after.agreement is None
    assert done.max_difference is not None
    assert done.max_difference < 1e-4
    techniques = {edit.technique for edit in done.edits}
    assert techniques & {"softmax and argmax", "transposed convolution to depth to space"}
    assert all(edit.needs == "nothing" for edit in done.edits)
    assert "equal outputs" in headline(done)


def test_predictions_are_of_edits_where_they_stand(done: SlimResult) -> None:
    writing, *edits = done.edits
    assert writing.technique == "writing the file"
    assert edits
    assert all(edit.alone_saving_ms is not None for edit in edits), "what the part alone promised is kept beside it"


def test_the_deployed_file_gives_what_the_source_gave(done: SlimResult, source: Path) -> None:
    images = np.random.default_rng(3).random((3, 256, 256, 3), np.float32)
    new = Path(done.run) / "model.tflite"
    np.testing.assert_allclose(session.predict(new, images), session.predict(source, images), atol=1e-4)
    # Which edits are made is the stopwatch's decision, and on a busy machine it may leave one out.
    left = {operator.op for operator in file.operators(new)}
    made = {edit.technique for edit in done.edits}
    replaced = {"TRANSPOSE_CONV": Transposed.name, "SOFTMAX": TwoClassSoftmax.name}
    assert made & set(replaced.values())
    assert all(operator not in left for operator, technique in replaced.items() if technique in made)
    back = slimseg.load(Path(done.run) / "model.pt2")
    assert any(back.layer_as(node, nn.ConvTranspose2d) for node in back.layers()), "the plain form is the one to train"
    with torch.inference_mode():
        flat = back(torch.from_numpy(images[:1]).permute(0, 3, 1, 2)).numpy()
    np.testing.assert_allclose(flat, session.predict(source, images[:1]), atol=1e-4)


def test_the_users_file_is_the_baseline(done: SlimResult, source: Path) -> None:
    assert done.baseline.file == source.name
    assert done.baseline.size_bytes == source.stat().st_size
    run = Path(done.run)
    names = {path.name for path in run.iterdir()}
    assert names == {
        ".slimseg.json",
        "model.tflite",
        "model.pt2",
        "result.json",
        "report.html",
        "profile_before.json",
        "profile_after.json",
    }
    saved = sum(edit.realised_saving_ms for edit in done.edits)
    assert saved == pytest.approx(done.baseline.latency_ms - done.after.latency_ms)
    assert json.loads((run / "result.json").read_text())["plain_int8"] is None


def test_what_cannot_be_faster_is_left_as_it_is(tmp_path: Path) -> None:
    graph = edit.trace(nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU()), (1, 3, 32, 32), "small")
    path = tmp_path / "small.tflite"
    writer.write(graph, path)
    result = slimseg.slim(path, images=None, out=tmp_path / "run", budget=NOTHING)
    assert result.max_difference == 0.0 or result.speedup > 1
    assert (tmp_path / "run" / "report.html").is_file()
    if not result.edits:
        assert (tmp_path / "run" / "model.tflite").read_bytes() == path.read_bytes()
        assert "no edit makes the whole network faster" in result.refusals[-1].reason


def test_images_are_asked_for_where_edits_need_them(source: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="`needs` nothing"):
        slimseg.slim(source, images=None, out=tmp_path / "run", budget=Budget(needs="images"))
    assert not (tmp_path / "run").exists()


def test_another_kind_of_output(source: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.ConvTranspose2d(4, 4, 4, 2, 1))
    graph = edit.trace(module, (1, 3, 64, 64), "logits")
    result = slimseg.slim(
        graph, images=None, out=tmp_path / "run", budget=Budget(needs="nothing", head="probabilities")
    )
    out = session.predict(tmp_path / "run" / "model.tflite", np.zeros((1, 64, 64, 3), np.float32))
    np.testing.assert_allclose(out.sum(-1), 1, atol=1e-5)
    assert (tmp_path / "run" / "original_float.tflite").is_file()
    assert result.model == "logits"


def test_an_edit_that_the_check_objects_to_is_undone_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = portrait()
    cheap = whatif.Price(2.0, 1.0)
    monkeypatch.setattr(whatif, "compare", lambda *_: cheap)
    monkeypatch.setattr(whatif, "latency_ms", lambda *_: 2.0)
    price = lambda graph, sites, *_, **__: whatif.Priced(dict.fromkeys(sites, cheap), ())  # noqa: E731
    monkeypatch.setattr(exact.alike, "price_alike", price)

    def no_sigmoid(before: Graph, after: Graph) -> str | None:
        return "no sigmoid, please" if any(after.layer_as(node, nn.Sigmoid) for node in after.layers()) else None

    found = ExactEdits(graph, EXACT, Deployment(), Silent(), no_sigmoid).run()
    assert any(refusal.reason.endswith("no sigmoid, please") for refusal in found.refusals)
    made = {edit.site.technique for edit in found.edits}
    assert named("transposed convolution to depth to space").name in made
    assert not any(found.graph.layer_as(node, nn.Sigmoid) for node in found.graph.layers())
    assert same_kind(graph, found.graph) is None


def test_what_is_slower_in_the_whole_is_undone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(whatif, "compare", lambda *_: whatif.Price(1.0, 1.1, wins=0.2))
    found = ExactEdits(portrait(), EXACT, Deployment(), Silent(), same_kind).run()
    assert found.edits == []
    assert any("in the whole network" in refusal.reason for refusal in found.refusals)


def test_probes_cover_what_images_hold() -> None:
    images = probe_images((48, 64), 3)
    assert [image.shape for image in images] == [(48, 64, 3)] * 5
    assert images[0].std() > 20
    assert not np.array_equal(images[0], images[1])
    assert (images[-2].max(), images[-1].min()) == (0, 255)
    rough = np.abs(np.diff(images[0].astype(int), axis=0)).mean()
    assert rough < 0.6 * images[0].std(), "neighbouring pixels are alike, as in photographs"

"""A diagnosis of a small network with every kind of site, and of files that slimseg did not open before."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from ai_edge_litert import schema_py_generated as schema
from torch import nn

import slimseg
from slimseg.commands.diagnose import WORTH_SHARE, find_all
from slimseg.errors import ModelError, UnknownOperator
from slimseg.frontends import load
from slimseg.graph.graph import Graph
from slimseg.planning.pricing.own import own_file
from slimseg.planning.pricing.whatif import NO_TIME
from slimseg.results import Diagnosis, Finding
from slimseg.runtimes.litert.quantising import quantizer
from slimseg.runtimes.litert.runtime import LITERT
from slimseg.runtimes.litert.writing import writer
from slimseg.tflite import file

MODELS = Path(__file__).parents[1] / "../shared/models"


@pytest.fixture(scope="module", autouse=True)
def _quick(quick_timing: None) -> None:
    """For every test here."""


@pytest.fixture(scope="module")
def found(shapes_graph: Graph) -> Diagnosis:
    return slimseg.diagnose(shapes_graph, time_limit_s=600)


@pytest.fixture(scope="module")
def tflite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A decoder of two layers."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("diagnose") / "decoder.tflite"
    net = nn.Sequential(nn.Conv2d(3, 16, 3, 4, 1), nn.ReLU(), nn.ConvTranspose2d(16, 8, 4, 4), nn.Sigmoid())
    writer.write(load(net, (96, 128)), path)
    return path


def priced(found: Diagnosis) -> list[Finding]:
    return [finding for finding in found.findings if finding.basis == "what-if"]


def test_every_technique_and_site(found: Diagnosis) -> None:
    assert (found.model, found.precision) == ("shapes", "float32")
    assert found.latency_ms > 0
    techniques = {finding.technique for finding in found.findings}
    assert {"input size", "transposed convolution to resize", "separable convolution", "full resolution"} <= techniques
    layers = {layer for finding in found.findings for layer in finding.layers}
    assert {"up1", "up2", "middle_0", "join_0"} <= layers
    assert any("too few" in refusal.reason for refusal in found.refusals)  # the first convolution has 3 channels


def test_what_asks_least_comes_first_then_what_saves_most(found: Diagnosis) -> None:
    needs = [finding.needs for finding in found.findings]
    assert needs == sorted(needs, key=["nothing", "images", "labels"].index)
    for before, after in zip(found.findings, found.findings[1:], strict=False):
        alike = (before.needs, before.basis) == (after.needs, after.basis)
        assert not alike or before.saving_ms >= after.saving_ms


def test_numbers_agree_with_each_other(found: Diagnosis) -> None:
    for finding in found.findings:
        assert finding.saving_ms == pytest.approx(finding.before_ms - finding.after_ms)
        assert finding.share <= 1
        assert (finding.share > 0) == (finding.saving_ms > 0)
        assert finding.before_ms > 0
        assert finding.reason
        assert finding.paper
        if finding.layers_ms is not None:
            assert 0 < finding.layers_ms < found.latency_ms
    assert all(finding.after_ms > 0 for finding in priced(found))
    size = next(finding for finding in found.findings if finding.technique == "input size")
    assert size.layers_ms is None
    assert size.share == pytest.approx(size.saving_ms / size.before_ms)
    assert 0.1 < size.before_ms / found.latency_ms < 10  # a busy machine is no failure


def test_layers_that_take_no_time_are_counted_not_priced() -> None:
    wide = nn.Sequential(
        nn.Conv2d(3, 32, 3, 2, 1), nn.Conv2d(32, 32, 3, 1, 1), nn.AdaptiveAvgPool2d(1), nn.Conv2d(32, 20, 1), nn.SiLU(),
        nn.Conv2d(20, 4, 1),
    )  # fmt: skip
    result = slimseg.diagnose(load(wide, (224, 224)), time_limit_s=600)
    small = [refusal for refusal in result.refusals if refusal.technique == "every technique"]
    assert small
    assert len({refusal.reason for refusal in small}) == 1  # one line
    assert f"{WORTH_SHARE:.1%}" in small[0].reason
    assert all(refusal.layer.startswith(("layer_3", "layer_4", "layer_5")) for refusal in small)


def test_int8(tflite: Path) -> None:
    found = slimseg.diagnose(tflite, precision="int8", time_limit_s=600)
    assert found.precision == "int8"
    assert not any("cannot be" in refusal.reason for refusal in found.refusals)
    assert priced(found)


def test_a_tflite_is_timed_as_it_is(tflite: Path) -> None:
    result = slimseg.diagnose(tflite, time_limit_s=600)
    assert (result.model, result.precision) == ("decoder", "float32")
    found = {each.technique: each for each in priced(result)}
    assert 0.1 < found["input size"].before_ms / result.latency_ms < 10
    up = found["transposed convolution to resize"]
    assert up.layers_ms is not None
    assert up.layers_ms > 0.2 * result.latency_ms
    assert 0.1 < up.layers_ms / up.before_ms < 10


def test_a_quantised_file_is_priced_in_int8(tflite: Path, tmp_path: Path) -> None:
    path = tmp_path / "decoder.int8.tflite"
    shape = file.read(tflite).inputs[0].shape
    quantizer.quantize_int8(tflite, path, [np.random.default_rng(0).standard_normal(shape).astype(np.float32)])
    assert (LITERT.precision(tflite), LITERT.precision(path)) == ("float32", "int8")
    result = slimseg.diagnose(path, time_limit_s=600)
    assert result.precision == "int8"
    assert any(each.technique == "transposed convolution to resize" for each in priced(result))


def test_another_input_size_is_not_the_file_any_more(tflite: Path) -> None:
    assert own_file(load(tflite)) == tflite
    assert own_file(load(tflite, (48, 64))) is None


@pytest.fixture
def unknown(tmp_path: Path) -> Path:
    """A file that runs, with an operator outside the vocabulary: a normalisation in the place of tanh."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), nn.MaxPool2d(3, 1, 1), nn.Tanh(), nn.Conv2d(16, 4, 1))
    path = tmp_path / "unknown.tflite"
    writer.write(load(net, (128, 128)), path)
    model = file.parse(path.read_bytes(), path)
    for entry in model.operatorCodes:
        if entry.builtinCode == schema.BuiltinOperator.TANH:
            entry.builtinCode = entry.deprecatedBuiltinCode = schema.BuiltinOperator.LOCAL_RESPONSE_NORMALIZATION
    path.write_bytes(file.pack(model))
    return path


def test_an_operator_outside_the_vocabulary_leaves_the_profile(unknown: Path) -> None:
    result = slimseg.diagnose(unknown)
    assert result.latency_ms > 0
    (note,) = result.notes
    assert "LOCAL_RESPONSE_NORMALIZATION" in note
    assert priced(result) == []
    fallen = next(each for each in result.findings if each.technique == "left to built-in kernels")
    assert "LOCAL_RESPONSE_NORMALIZATION" in fallen.reason
    with pytest.raises(UnknownOperator):  # LiteRT alone can run the file
        slimseg.diagnose(unknown, runtime="ncnn")


def test_what_is_no_model_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "broken.tflite"
    path.write_bytes(b"\0\0\0\0TFL3" + bytes(64))
    with pytest.raises(ModelError):
        slimseg.diagnose(path, time_limit_s=600)


@pytest.mark.parametrize("name", ["slim_reshape.tflite", "prisma-net.tflite"])
def test_transposed_convolutions_of_foreign_files_are_found(name: str) -> None:
    if not (MODELS / name).exists():
        pytest.skip("the shared models are not here")
    graph = load(MODELS / name)
    sites, _ = find_all(graph)
    layers = {layer for site in sites if "transposed" in site.technique for layer in site.layers}
    assert sum(isinstance(graph.layer(graph.node(layer)), nn.ConvTranspose2d) for layer in layers) >= 4


def test_what_is_not_priced_in_time_is_listed(found: Diagnosis, shapes_graph: Graph) -> None:
    late = slimseg.diagnose(shapes_graph, time_limit_s=0)
    assert NO_TIME in {each.reason for each in late.refusals}
    assert NO_TIME not in {each.reason for each in found.refusals}
    assert priced(found)
    assert not priced(late)

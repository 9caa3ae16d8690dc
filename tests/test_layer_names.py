"""One convolution has one name, from the network that is opened to the files that are exported."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import slimseg
from slimseg.exporting.bisection import first_departure
from slimseg.frontends import load
from slimseg.graph import layer_names, ops
from slimseg.graph.graph import Graph
from slimseg.graph.layer_names import OperatorName
from slimseg.planning.pricing.layer_times import layer_times
from slimseg.planning.pricing.observations import observe
from slimseg.results import Profile
from slimseg.runtimes.litert.profiling import profiler as litert_profiler
from slimseg.runtimes.litert.quantising import quantizer
from slimseg.runtimes.litert.tasks import for_image_segmenter
from slimseg.runtimes.litert.writing import writer
from slimseg.runtimes.ncnn import package
from slimseg.runtimes.ncnn import profiler as ncnn_profiler
from slimseg.runtimes.ncnn import writer as ncnn_writer
from slimseg.tflite import file, metadata, operator_names

# As `load` names a module's layers: functions are called after the module before them.
WORKERS = ["conv_1", "conv_2", "norm_2_hardswish", "up", "score", "score_resize"]
COVERS = {
    "conv_1": ("pad", "conv_1", "norm_1", "norm_1_relu"),
    "conv_2": ("conv_2", "norm_2"),
    "up": ("up", "norm_3", "norm_3_relu6"),
}
# GPUs take no transposed convolution with a fused activation; in int8 the range of its result is the activation.
BESIDE = "norm_3_relu6"


class Net(nn.Module):
    """Convolutions with what can be fused into them, and an activation that is several operators in 8 bits."""

    def __init__(self) -> None:
        super().__init__()
        self.pad, self.conv_1, self.norm_1, self.relu_1 = (
            ops.Pad((1, 0, 1, 0)),
            nn.Conv2d(3, 16, 3, 2),
            norm(16),
            nn.ReLU(),
        )
        self.conv_2, self.norm_2, self.swish = nn.Conv2d(16, 16, 3, padding=1), norm(16), nn.Hardswish()
        self.up, self.norm_3, self.relu_3 = nn.ConvTranspose2d(16, 8, 2, 2), norm(8), nn.ReLU6()
        self.score, self.enlarge = nn.Conv2d(8, 4, 1), ops.Resize((64, 96), "bilinear")

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu_1(self.norm_1(self.conv_1(self.pad(x))))
        x = self.swish(self.norm_2(self.conv_2(x)))
        return self.enlarge(self.score(self.relu_3(self.norm_3(self.up(x)))))


def norm(channels: int) -> nn.BatchNorm2d:
    result = nn.BatchNorm2d(channels)
    nn.init.uniform_(result.running_var, 0.5, 2.0)
    nn.init.uniform_(result.bias, -0.1, 0.5)
    return result


@pytest.fixture(scope="module")
def graph() -> Graph:
    torch.manual_seed(0)
    return slimseg.load(Net().eval(), (48, 64), name="net")


@pytest.fixture(scope="module")
def path(graph: Graph, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("names") / "net.tflite"
    writer.write(graph, path)
    return path


@pytest.fixture(scope="module")
def int8(path: Path) -> Path:
    samples = np.random.default_rng(0).random((4, 48, 64, 3), np.float32)
    quantizer.quantize_int8(path, path.with_name("int8.tflite"), list(samples))
    return path.with_name("int8.tflite")


def named(profile: Profile) -> dict[str, tuple[str, ...]]:
    """What operators cover, by name, of those that have the name of a node."""
    names = [layer.name for layer in profile.layers]
    assert len(names) == len(set(names)), "no two operators have one name"
    return {layer.name: layer.covers for layer in profile.layers if layer.name in WORKERS}


@pytest.mark.parametrize("kind", ["float", "float16", "int8"])
def test_operators_of_a_file_have_the_names_of_layers(graph: Graph, path: Path, int8: Path, kind: str) -> None:
    if kind == "float16":
        writer.write(graph, path.with_name("half.tflite"), "float16")
    made = {"float": path, "float16": path.with_name("half.tflite"), "int8": int8}[kind]
    profile = litert_profiler.profile(made, runs=3)
    assert [name for name in (layer.name for layer in profile.layers) if name in WORKERS] == WORKERS
    alone = [] if kind == "int8" else [BESIDE]
    up = tuple(name for name in COVERS["up"] if name not in alone)
    assert {name: covers for name, covers in named(profile).items() if covers} == {**COVERS, "up": up}
    activations = ("norm_1", "norm_2_r", "norm_3")
    assert [layer.name for layer in profile.layers if layer.name.startswith(activations)] == alone
    assert set(layer_times(graph, profile)) == {*WORKERS, *alone}
    spent = sum(layer.latency_ms for layer in profile.layers if layer.op != "QUANTIZE")
    assert sum(layer_times(graph, profile).values()) == pytest.approx(spent)


def test_the_layers_of_findings(graph: Graph, int8: Path, quick_timing: None) -> None:
    for found in (*observe(litert_profiler.profile(int8, runs=3)), *slimseg.diagnose(graph, time_limit_s=600).findings):
        if found.basis == "profile":
            assert set(found.layers) <= {
                *WORKERS,
                "conv_1_padded",
                "norm_2_hardswish_shifted",
                "norm_2_hardswish_gate",
                "image_quantized",
                "score_resize_dequant",
            }


def test_a_file_that_is_opened_again_has_the_same_layers(graph: Graph, path: Path, int8: Path) -> None:
    kept = {*WORKERS, "norm_1_relu", "norm_3_relu6"}
    for each in (path, int8):
        opened = load(each, verify=False)
        assert {node.name for node in opened.layers()} >= kept
        assert opened.layer_as(opened.node("conv_1"), nn.Conv2d) is not None
    again = path.with_name("again.tflite")
    writer.write(load(path), again)
    assert {each.name for each in file.operators(again)} == {each.name for each in file.operators(path)}


def test_a_layer_of_a_file_from_elsewhere_has_the_name_of_its_operator(path: Path) -> None:
    """Which is that of its result: nothing else in such a file has a name."""
    model = file.parse(path.read_bytes(), path)
    metadata.write(model, operator_names.METADATA_NAME, b"")
    foreign = path.with_name("foreign.tflite")
    foreign.write_bytes(file.pack(model))
    opened = load(foreign)
    assert opened.layer_as(opened.node("norm_1_relu"), nn.Conv2d) is not None
    assert opened.layer_as(opened.node("norm_1_relu_activation"), nn.ReLU) is not None
    profile = litert_profiler.profile(foreign, runs=3)
    assert "norm_1_relu" in {layer.name for layer in profile.layers}
    assert sum(layer_times(opened, profile).values()) == pytest.approx(sum(each.latency_ms for each in profile.layers))


@pytest.mark.parametrize("layer", ["conv_1", "conv_2", "up", "score"])
def test_the_layer_that_departs(graph: Graph, path: Path, tmp_path: Path, layer: str) -> None:
    other = graph.copy()
    with torch.no_grad():
        other.module.get_submodule(str(other.node(layer).target)).weight.mul_(-1.5)
    writer.write(other, tmp_path / "other.tflite")
    image = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    assert first_departure(graph, path, image) is None
    found = first_departure(graph, tmp_path / "other.tflite", image)
    assert found is not None
    assert found.layer == layer
    if package.available():
        artefact = ncnn_writer.write(other, tmp_path)
        found = first_departure(graph, artefact.param, image)
        assert found is not None
        assert found.layer == layer


@pytest.mark.skipif(not package.available(), reason="ncnn is not installed")
def test_layers_of_an_ncnn_file(graph: Graph, tmp_path: Path) -> None:
    profile = ncnn_profiler.profile(ncnn_writer.write(graph, tmp_path).param, runs=3)
    fused = {**COVERS, "conv_2": (*COVERS["conv_2"], "norm_2_hardswish")}  # ncnn takes that in, too
    assert {name: covers for name, covers in named(profile).items() if name in COVERS} == fused
    assert set(layer_times(graph, profile)) == set(WORKERS) - {"norm_2_hardswish"}


def test_a_layer_that_stays_in_float_is_named_like_in_the_profile(path: Path) -> None:
    samples = np.random.default_rng(0).random((4, 48, 64, 3), np.float32)
    ranges = quantizer.measure_ranges(path, list(samples))
    for name in ("conv_1", "norm_1_relu"):
        out = path.with_name("mixed.tflite")
        quantizer.quantize(path, out, "int8", ranges, keep_float=[name])
        dtypes = {each.name: each.dtype for each in file.operators(out)}
        assert (dtypes["conv_1"], dtypes["conv_2"]) == ("float32", "int8")


def test_names_in_a_file_for_mediapipe(graph: Graph) -> None:
    data = for_image_segmenter(writer.serialise(graph).data, graph.description)
    model = file.parse(data, Path("model"))
    assert [name.layer for name in operator_names.of_operators(model)][-1] == "score_resize"
    assert "conv_1" in {name.name for name in operator_names.of_operators(model)}


def test_nonsense_in_a_file_is_passed_over() -> None:
    assert layer_names.of_text(b"\xff\n\n a\nrelu conv\nrelu conv conv relu\n" + b" " * 5000) == {
        "relu": OperatorName("conv", ("conv", "relu"))
    }
    assert layer_names.of_text(layer_names.to_text({"a b": OperatorName("c", ("c",)), "d": OperatorName("d")})) == {}

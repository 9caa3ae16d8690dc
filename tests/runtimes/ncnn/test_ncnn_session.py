"""Running, timing and profiling ncnn files in the child."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from slimseg import load, models
from slimseg.errors import DataError, ModelError, RuntimeFailure
from slimseg.runtimes import benchmark, child, end_to_end, host
from slimseg.runtimes.litert import session as litert_session
from slimseg.runtimes.litert.writing import writer as litert_writer
from slimseg.runtimes.ncnn import file, profiler, session, writer
from slimseg.runtimes.ncnn.session import APP, Options


def images(count: int, shape=(64, 96, 3)) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(count, *shape)).astype(np.float32)


def test_outputs_of_several_images(small):
    inputs = images(3)
    outputs = session.predict(small.param, inputs)
    assert outputs.shape == (3, *small.output_shape)
    assert outputs.dtype == np.float32
    alone = session.predict(small.param, inputs[2:])
    np.testing.assert_array_equal(outputs[2:], alone)


@pytest.mark.parametrize(
    "options", [APP, Options(packing=False), Options(winograd=False), Options(bfloat16=True)], ids=repr
)
def test_options_change_little(small, options):
    plain, other = (session.predict(small.param, images(1), options=each) for each in (session.DEFAULTS, options))
    np.testing.assert_allclose(plain, other, atol=0.05 * np.abs(plain).max())


@pytest.mark.parametrize("shape", [(0, 64, 96, 3), (1, 64, 95, 3), (1, 3, 64, 96), (64, 96, 3)])
def test_inputs_that_do_not_fit(small, shape):
    with pytest.raises(DataError, match="needs one or more inputs of shape"):
        session.predict(small.param, np.zeros(shape, np.float32))


def test_a_changed_file_is_loaded_anew(tmp_path):
    first, second = (models.build(2, (32, 32), "separable", 0.5) for _ in range(2))
    outputs = []
    for graph in (first, second):
        path = writer.write(graph, tmp_path).param
        outputs.append(session.predict(path, images(1, (32, 32, 3))))
    assert np.abs(outputs[0] - outputs[1]).max() > 1e-3


def test_without_the_package_there_is_a_sentence(small):
    script = (
        "import sys; sys.modules['ncnn'] = None\n"
        "from slimseg.runtimes.ncnn.session import Session\n"
        "from slimseg.errors import RuntimeFailure\n"
        "try: Session(sys.argv[1])\n"
        "except RuntimeFailure as error: print(error)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
    done = subprocess.run(
        [sys.executable, "-c", script, str(small.param)], capture_output=True, text=True, check=True, env=environment
    )
    assert "pip install 'slimseg[ncnn]'" in done.stdout
    assert done.stdout.count("\n") == 1


def test_both_runtimes_are_timed_in_one_run(small, tmp_path):
    graph = models.build(5, (64, 96), "inverted residual", 0.5)
    litert_writer.write(graph, tmp_path / "m.tflite")
    paths = [small.param, tmp_path / "m.tflite"]
    timings = benchmark.time_files(paths, seconds_per_file=0.05)
    assert [each.path for each in timings] == [str(path) for path in paths]
    assert len({len(each.rounds_ms) for each in timings}) == 1
    assert all(each.median_ms > 0 for each in timings)
    assert benchmark.ratio(*timings) > 0


def test_options_are_timed_side_by_side(small):
    timings = benchmark.time_files([small.param] * 2, rounds=7, options=[session.DEFAULTS, Options(packing=False)])
    assert [len(each.rounds_ms) for each in timings] == [7, 7]


def test_a_profile_adds_up(small):
    found = profiler.profile(small.param, runs=20)
    layers = {layer.name: layer for layer in found.layers}
    assert found.runtime == "ncnn"
    assert set(small.covers) <= set(layers), "a layer is called like the node that works in it"
    assert found.input_shapes == ((1, 64, 96, 3),)
    assert layers["resize"].output_shape == (1, 64, 96, 5)
    assert layers["stem_conv"].macs == 27 * 8 * 32 * 48
    assert layers["stem_conv"].covers == ("stem_conv", "stem_norm", "stem_activation")
    assert found.params == sum(layer.params for layer in found.layers)
    assert found.size_bytes == small.size_bytes
    total = sum(layer.latency_ms for layer in found.layers)
    assert total > 0
    assert max(layer.cumulative for layer in found.layers) == pytest.approx(sum(each.share for each in found.layers))
    assert sum(each.count for each in found.node_types) == len(found.layers)
    assert found.first_run_ms > 0
    assert found.prepare_ms > 0


def test_every_layer_ran_once(small):
    """Asking for blob after blob computes what a whole run computes."""
    lines = [line for line in file.read(small.param).layers if line.kind != "Input"]
    whole = session.Session(small.param)
    whole.set_random()
    stepped = session.Session(small.param)
    stepped.set_random()
    extractor = stepped.extractor()
    for line in lines:
        last = np.array(extractor.extract(line.outputs[0])[1])
    np.testing.assert_array_equal(last, np.array(whole.invoke()))
    del extractor


def test_values_between_the_ends_are_those_of_the_graph(tmp_path):
    graph = models.build(5, (64, 96), "shuffle", 0.5)
    artefact = writer.write(graph, tmp_path)
    names = ["smooth_1_activation", "stem_activation", "resizes_0"]
    image = images(1)[0]
    found = session.values(artefact.param, image, names)
    assert list(found) == names
    recorder = Recorder(graph.module)
    with torch.no_grad():
        recorder.run(torch.from_numpy(image)[None].permute(0, 3, 1, 2))
    for name, value in found.items():
        expected = recorder.values[name].permute(0, 2, 3, 1).numpy()
        np.testing.assert_allclose(value, expected, atol=1e-4 * np.abs(expected).max())
    with pytest.raises(ModelError, match="no layer 'absent'"):
        session.values(artefact.param, image, ["absent"])


class Recorder(torch.fx.Interpreter):
    """Runs a graph and keeps every value."""

    def __init__(self, module: torch.fx.GraphModule) -> None:
        super().__init__(module, garbage_collect_values=False)
        self.values: dict[str, torch.Tensor] = {}

    def run_node(self, n):
        self.values[n.name] = super().run_node(n)
        return self.values[n.name]


def test_what_an_app_does_around_a_file_is_the_same_for_both_runtimes(small):
    app = host.App(file.read(small.param))
    image = np.random.default_rng(1).integers(0, 256, (100, 130, 3), np.uint8)
    (output,) = session.predict(small.param, app.prepare(image)[None])
    assert app.mask(output, (100, 130)).shape == (100, 130)


def test_raw_output_is_the_output(small):
    loaded = session.Session(small.param)
    first, second = images(2)
    kept = loaded.run_raw(first[None])
    assert kept.shape == (64, 96, 5)
    np.testing.assert_array_equal(loaded.run_raw(second), loaded.run(second)[0])
    np.testing.assert_array_equal(kept, loaded.run(first)[0], "a later run does not write over it")


def test_both_runtimes_are_timed_end_to_end_in_one_run(small, tmp_path):
    graph = models.build(5, (64, 96), "inverted residual", 0.5, mean=127, std=128)
    larger = models.build(5, (64, 96), "residual", 2.0, mean=127, std=128)
    litert_writer.write(graph, tmp_path / "m.tflite")
    slow = writer.write(larger, tmp_path, name="larger")
    times = end_to_end.time_end_to_end([small.param, tmp_path / "m.tflite", slow.param], (100, 130), (100, 130))
    assert len(times) == 3
    assert 0 < times[0] < times[2]
    assert 0.02 < times[0] / times[1] < 50


def test_end_to_end_needs_a_size(small, tmp_path):
    (tmp_path / "open.param").write_text(small.param.read_text().replace("0=96 1=64 2=3", "", 1))
    (tmp_path / "open.bin").write_bytes(small.bin.read_bytes())
    with pytest.raises(ModelError, match=r"open.param has an input of shape \(1, 0, 0, 0\) instead of one"):
        end_to_end.time_end_to_end([tmp_path / "open.param"], (64, 96), (64, 96))


def test_a_profile_without_a_size_is_refused(small, tmp_path):
    text = small.param.read_text().replace("0=96 1=64 2=3", "", 1)
    (tmp_path / "open.param").write_text(text)
    (tmp_path / "open.bin").write_bytes(small.bin.read_bytes())
    with pytest.raises(ModelError, match="size of its input"):
        profiler.profile(tmp_path / "open.param")
    assert session.predict(tmp_path / "open.param", images(1)).shape == (1, 64, 96, 5)


def test_a_slow_run_is_stopped(small):
    with child.Child() as process, pytest.raises(RuntimeFailure, match="did not answer"):
        profiler.profile(small.param, runs=2000, timeout_s=0.05, within=process)


@pytest.mark.parametrize(
    ("name", "folder", "mean", "std"),
    [
        ("camvid_unet.pt2", "camvid", 127, 128),
        ("prisma-net.tflite", "portraits", 0, 255),
        ("slim_reshape.tflite", "portraits", 0, 255),
    ],
)
def test_real_networks_give_the_masks_of_the_graph(shared, tmp_path, name, folder, mean, std):
    graph = load(shared / "models" / name, mean=mean, std=std)
    path = sorted((shared / folder / "val" / "images").iterdir())[0]
    pixels = np.array(Image.open(path).convert("RGB"))
    image = host.ImagePipeline(graph.description.preprocessing, graph.input_size)(pixels)
    with torch.no_grad():
        expected = graph(torch.from_numpy(image)[None].permute(0, 3, 1, 2)).numpy()
    expected = expected.transpose(0, 2, 3, 1) if expected.ndim == 4 else expected
    artefacts = [writer.write(graph, tmp_path, storage, storage) for storage in ("fp32", "fp16")]
    outputs = [expected, *(session.predict(each.param, image[None]) for each in artefacts)]
    size, kind = pixels.shape[:2], graph.description.output_kind
    truth, full, half = (host.to_mask(host.in_rows(each[0], graph.input_size, name), size, kind) for each in outputs)
    assert np.mean(truth == full) > 0.9999
    assert np.mean(truth == half) > 0.998


def test_both_runtimes_agree(small, tmp_path):
    graph = models.build(5, (64, 96), "shuffle", 0.5)
    path = writer.write(graph, tmp_path).param
    litert_writer.write(graph, tmp_path / "m.tflite")
    inputs = images(2)
    ours, theirs = session.predict(path, inputs), litert_session.predict(tmp_path / "m.tflite", inputs)
    np.testing.assert_allclose(ours, theirs, atol=1e-4 * np.abs(theirs).max())

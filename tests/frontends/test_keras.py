"""Keras files: the graph gives what Keras gives, Keras 2 and 3, and a hostile file gives one sentence."""

from __future__ import annotations

import io
import re
import warnings
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from PIL import Image

from slimseg.errors import ModelError
from slimseg.frontends.keras import from_file
from slimseg.graph.graph import Graph
from slimseg.runtimes.litert import session
from slimseg.runtimes.litert.writing import writer

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Keras's own
    zoo = pytest.importorskip("keras_zoo", reason="Keras is not installed")


def saved(model: object, path: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # HDF5 is called legacy
        model.save(path)
    return path


def images(graph: Graph, count: int = 2) -> np.ndarray:
    _, channels, height, width = graph.input_shape
    return np.random.default_rng(1).normal(0, 1, (count, height, width, channels)).astype(np.float32)


def run(graph: Graph, batch: np.ndarray) -> np.ndarray:
    """NHWC in, NHWC out."""
    with torch.no_grad():
        result = torch.cat([graph(torch.from_numpy(image[None].transpose(0, 3, 1, 2).copy())) for image in batch])
    return (result.permute(0, 2, 3, 1) if result.ndim == 4 else result).numpy()


def assert_equal(given: np.ndarray, expected: np.ndarray) -> None:
    assert given.shape == expected.shape
    np.testing.assert_allclose(given, expected, atol=1e-4 * max(1.0, np.abs(expected).max()), rtol=0)


@pytest.mark.parametrize("build", zoo.ZOO, ids=lambda build: build.__name__)
def test_zoo_is_what_keras_computes(build, tmp_path):
    model = zoo.with_random_weights(build())
    for suffix in (".keras", ".h5"):
        graph = from_file(saved(model, tmp_path / f"net{suffix}"))
        batch = images(graph)
        assert graph.opaque() == []
        try:
            expected = zoo.outputs(model, batch)
        except UserWarning as warning:  # older ones cannot do on torch what Keras does elsewhere, and say so
            if "inconsistencies across backends" not in str(warning):
                raise
            pytest.skip("this version of Keras is no reference for transposed convolutions on torch")
        assert_equal(run(graph, batch), expected)


@pytest.mark.parametrize("build", zoo.WRITABLE, ids=lambda build: build.__name__)
def test_zoo_is_written_to_tflite_as_it_is(build, tmp_path):
    graph = from_file(saved(zoo.with_random_weights(build()), tmp_path / "net.keras"))
    writer.write(graph, tmp_path / "net.tflite")
    batch = images(graph)
    assert_equal(session.predict(tmp_path / "net.tflite", batch), run(graph, batch))


def test_names_notes_and_meaning_survive(tmp_path):
    graph = from_file(saved(zoo.unet(), tmp_path / "net.keras"))
    names = {node.name for node in graph.layers()}
    assert {"enter", "enter_relu", "norm", "up", "classify"} <= names
    assert graph.description.output_kind == "probabilities"
    assert graph.description.preprocessing.std == (255.0, 255.0, 255.0)
    graph = from_file(saved(zoo.deeplab(), tmp_path / "deeplab.keras"))
    assert graph.description.output_kind == "logits"
    assert graph.description.preprocessing.std == (1.0, 1.0, 1.0), "it scales bytes itself"
    assert any("bytes" in note for note in graph.notes)


def test_shared_layers_share_their_parameters(tmp_path):
    graph = from_file(saved(zoo.nested_and_shared(), tmp_path / "net.keras"))
    convolutions = [graph.layer(node) for node in graph.layers() if node.name.startswith("shared")]
    convolutions = [layer for layer in convolutions if isinstance(layer, torch.nn.Conv2d)]
    assert len(convolutions) == 2
    assert convolutions[0].weight is convolutions[1].weight
    assert len(list(graph.module.parameters())) == len(zoo.nested_and_shared().trainable_weights)


@pytest.mark.parametrize(
    ("build", "container"), [(zoo.mobilenet, "_layer_checkpoint_dependencies"), (zoo.nested_and_shared, "layers")]
)
def test_weights_of_older_files_are_counted(build, container, tmp_path):
    """They note no names; those of Keras 2.13 count a layer with weights twice."""
    model = zoo.with_random_weights(build())
    path = saved(model, tmp_path / "net.keras")
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    weights = io.BytesIO()
    with h5py.File(io.BytesIO(entries["model.weights.h5"])) as new, h5py.File(weights, "w") as old:
        new.visititems(lambda where, item: _copy_counted(old, where, item, container))
    entries["model.weights.h5"] = weights.getvalue()
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    graph = from_file(path)
    batch = images(graph)
    assert_equal(run(graph, batch), zoo.outputs(model, batch))


def _copy_counted(old: h5py.File, where: str, item: h5py.Dataset | h5py.Group, container: str) -> None:
    if isinstance(item, h5py.Dataset):
        if container != "layers":
            where = re.sub(r"(conv2d|batch_normalization)_(\d+)/", lambda m: f"{m[1]}_{2 * int(m[2])}/", where)
        old[re.sub(r"\blayers\b", container, where)] = item[()]


def test_a_network_for_any_size_needs_one(tmp_path):
    image = zoo.keras.Input((None, None, 3))
    model = zoo.with_random_weights(zoo.keras.Model(image, zoo.kl.Conv2D(2, 3, 2, padding="same")(image)))
    path = saved(model, tmp_path / "net.keras")
    with pytest.raises(ModelError, match="`input_size`"):
        from_file(path)
    graph = from_file(path, (17, 32))
    batch = images(graph)
    assert batch.shape[1:3] == (17, 32)
    assert_equal(run(graph, batch), zoo.outputs(model, batch))


def test_a_layer_without_counterpart_is_named(tmp_path):
    image = zoo.keras.Input((8, 8, 3))
    x = zoo.kl.Masking(name="odd")(image)
    path = saved(zoo.keras.Model(image, x), tmp_path / "net.keras")
    with pytest.raises(ModelError, match=r"layer odd \(Masking\)"):
        from_file(path)


def test_slim_reshape_is_its_tflite_on_portraits_and_trains(shared):
    graph = from_file(shared / "models/slim_reshape.h5")
    files = sorted((shared / "portraits/val/images").iterdir())[:3]
    batch = np.stack(
        [np.asarray(Image.open(file).convert("RGB").resize((512, 512)), np.float32) / 255 for file in files]
    )
    expected = session.predict(shared / "models/slim_reshape.tflite", batch)
    given = run(graph, batch)
    np.testing.assert_allclose(given, expected, atol=1e-4, rtol=0)
    assert expected.std() > 0.1, "portraits have a foreground"
    assert graph.description.output_kind == "probabilities"
    assert any("align_corners" in note for note in graph.notes)
    graph.module.train()
    graph(torch.from_numpy(batch[:1].transpose(0, 3, 1, 2).copy())).square().mean().backward()
    assert all(each.grad is not None for each in graph.module.parameters())


def test_slim_reshape_is_written_as_it_is(shared, tmp_path):
    graph = from_file(shared / "models/slim_reshape.h5")
    writer.write(graph, tmp_path / "net.tflite")
    batch = images(graph, 1)
    np.testing.assert_allclose(session.predict(tmp_path / "net.tflite", batch), run(graph, batch), atol=1e-4, rtol=0)

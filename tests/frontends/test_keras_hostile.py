"""Damaged and hostile Keras files: one sentence, soon, within bounded memory, and our process lives on."""

from __future__ import annotations

import copy
import json
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from slimseg.errors import ModelError, RuntimeFailure
from slimseg.frontends import keras
from slimseg.graph.graph import Graph
from slimseg.runtimes import child

CONVOLUTION = {
    "name": "conv", "trainable": True, "kernel_size": [3, 3], "strides": [2, 2], "padding": "same", "use_bias": True,
    "dilation_rate": [1, 1], "activation": "relu", "groups": 1, "data_format": "channels_last",
}  # fmt: skip
SHAPED = {"name": "flat", "trainable": True, "target_shape": [-1]}
IMAGE = {"name": "image", "batch_shape": [None, 16, 16, 3]}


def tensor(name: str) -> dict[str, Any]:
    return {"class_name": "__keras_tensor__", "config": {"shape": None, "keras_history": [name, 0, 0]}}


def entry(class_name: str, config: dict[str, Any], source: str | None = None) -> dict[str, Any]:
    nodes = [{"args": [tensor(source)], "kwargs": {}}] if source else []
    return {"module": "keras.layers", "class_name": class_name, "config": config, "name": config["name"],
            "inbound_nodes": nodes}  # fmt: skip


CONFIG = {
    "module": "keras", "class_name": "Functional", "config": {
        "name": "net", "input_layers": ["image", 0, 0], "output_layers": ["flat", 0, 0],
        "layers": [
            entry("InputLayer", IMAGE), entry("Conv2D", CONVOLUTION, "image"), entry("Reshape", SHAPED, "conv"),
        ],
    },
}  # fmt: skip


def write_h5(path: Path, config: Any = CONFIG, fill: Callable[[Any], None] | None = None) -> Path:
    with h5py.File(path, "w") as file:
        file.attrs["model_config"] = config if isinstance(config, str) else json.dumps(config)
        file.attrs["keras_version"] = "3.15.1"
        weights = file.create_group("model_weights")
        weights["conv/conv/kernel"] = np.ones((3, 3, 3, 4), "f4")
        weights["conv/conv/bias"] = np.ones(4, "f4")
        if fill:
            fill(weights)
    return path


def write_keras(path: Path, config: bytes | None = None, weights: bytes | None = None) -> Path:
    """A zip; newer Keras notes a layer's name at its weights."""
    with h5py.File(path.with_suffix(".h5"), "w") as file:
        group = file.create_group("layers/conv2d/vars")
        group.attrs["name"] = "conv"
        group["0"], group["1"] = np.ones((3, 3, 3, 4), "f4"), np.ones(4, "f4")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("metadata.json", '{"keras_version": "3.15.1"}')
        archive.writestr("config.json", json.dumps(CONFIG).encode() if config is None else config)
        archive.writestr("model.weights.h5", path.with_suffix(".h5").read_bytes() if weights is None else weights)
    return path


def opened(path: Path) -> Graph | str:
    """The graph, or the sentence that refuses the file."""
    start = time.process_time()
    try:
        return keras.from_file(path)
    except ModelError as error:
        message = str(error)
    finally:
        assert time.process_time() - start < 15, "of this processor; the child's own time has a limit that ends it"
    assert "\n" not in message
    assert path.name in message
    return message


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("keras")
    files = [write_h5(folder / "net.h5"), write_keras(folder / "zipped.keras")]
    for file in files:
        graph = opened(file)
        assert isinstance(graph, Graph)
        assert graph.shape(graph.output) == (1, 256)
    return {file.suffix: file.read_bytes() for file in files}


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """HDF5 can search a damaged file for ever; the tests need not wait that long."""
    monkeypatch.setattr(keras, "READ_TIMEOUT_S", 3.0)


EACH = settings(
    max_examples=12, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@EACH
@given(
    suffix=st.sampled_from([".h5", ".keras"]),
    changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=20),
    kept=st.floats(0, 1) | st.just(1.0),
)
def test_damaged_bytes_are_refused_or_harmless(suffix, changes, kept, small, tmp_path, impatient):
    data = bytearray(small[suffix])
    for place, value in changes:
        data[int(place * len(data))] = value
    path = tmp_path / f"damaged{suffix}"
    path.write_bytes(data[: int(kept * len(data))])
    opened(path)


@EACH
@given(suffix=st.sampled_from([".h5", ".keras"]), data=st.binary(max_size=2000))
def test_random_bytes_are_refused(suffix, data, tmp_path):
    path = tmp_path / f"random{suffix}"
    path.write_bytes(data)
    assert isinstance(opened(path), str)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield (*path, key)
        yield from places(item, (*path, key))


NONSENSE = st.sampled_from([
    None, -1, 0, 10**9, 10**18, 1.5, float("nan"), "", "x" * 300, "relu", [], {}, [0, 0], [10**9, 10**9], [[1]], True,
    ["conv", 0, 0], tensor("flat"), tensor("nobody"), "import os", "channels_first",
])  # fmt: skip


@EACH
@given(place=st.sampled_from(list(places(CONFIG))), value=NONSENSE)
def test_nonsense_in_the_configuration_is_refused_or_harmless(place, value, tmp_path):
    config: Any = copy.deepcopy(CONFIG)
    inner = config
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    opened(write_h5(tmp_path / "nonsense.h5", config))


def bomb_of_chunks(weights: Any) -> None:
    weights.create_dataset("huge", shape=(40_000, 40_000), dtype="f4", chunks=(1000, 1000), compression="gzip")


def other_file_by_link(weights: Any) -> None:
    weights["linked"] = h5py.ExternalLink("net.h5", "/model_weights")


def other_file_by_storage(weights: Any) -> None:
    weights.create_dataset("borrowed", shape=(10,), dtype="u1", external=[("/etc/hostname", 0, 10)])


def endless(weights: Any) -> None:
    weights["loop"] = weights


@pytest.mark.parametrize(
    ("fill", "reason"),
    [
        (bomb_of_chunks, "unpacks to more"),
        (other_file_by_link, "links to"),
        (other_file_by_storage, "in another file"),
        (endless, "more groups"),
    ],
)
def test_weights_that_are_none_are_refused(fill, reason, tmp_path):
    message = opened(write_h5(tmp_path / "net.h5", fill=fill))
    assert isinstance(message, str)
    assert reason in message


@pytest.mark.parametrize(
    ("config", "weights"),
    [(b" " * (100 << 20), None), (b"[" * 100_000, None), (b"{}", bytes(100 << 20)), (b"{}", b"")],
)
def test_zip_bombs_and_empty_archives_are_refused(config, weights, tmp_path):
    assert isinstance(opened(write_keras(tmp_path / "net.keras", config, weights)), str)


def test_names_cannot_write_to_the_terminal_or_into_generated_code(tmp_path):
    config: Any = json.loads(json.dumps(CONFIG).replace('"conv"', '"x\\u001b[2J\\nimport os"'))
    message = opened(write_h5(tmp_path / "net.h5", config))
    assert isinstance(message, str), "its weights have another name"
    assert message.isprintable()
    config["config"]["layers"][1]["class_name"] = "Dropout"
    graph = opened(write_h5(tmp_path / "net.h5", config))
    assert isinstance(graph, Graph)
    assert [node.name for node in graph.layers()] == ["flat"]
    config["config"]["layers"][1] |= {"class_name": "ReLU"}
    graph = opened(write_h5(tmp_path / "net.h5", config))
    assert isinstance(graph, Graph)
    assert [node.name for node in graph.layers()] == ["x__2J_import_os", "flat"]


def test_without_h5py_the_extra_is_named(tmp_path, monkeypatch):
    (tmp_path / "h5py.py").write_text("raise ImportError")
    monkeypatch.syspath_prepend(tmp_path)
    assert "pip install 'slimseg[keras]'" in str(opened(write_h5(tmp_path / "net.h5")))


def test_weights_alone_and_a_subclassed_model_are_refused(tmp_path):
    with h5py.File(tmp_path / "weights.h5", "w") as file:
        file["conv/kernel"] = np.ones(3)
    assert "without a network" in str(opened(tmp_path / "weights.h5"))
    assert "subclassed" in str(opened(write_h5(tmp_path / "net.h5", {"class_name": "MyNet", "config": {}})))
    assert "cannot be read" in str(opened(tmp_path / "nowhere.h5"))


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not limit the memory of a process")
def test_memory_of_the_reading_process_is_bounded(tmp_path):
    path = write_h5(tmp_path / "net.h5")
    with child.Child() as process:
        process.call("slimseg.frontends.keras.stored:read", str(path))
        with pytest.raises(RuntimeFailure, match="MemoryError"):
            process.call("builtins:bytearray", 1 << 30)

"""What ncnn files say of themselves, and what is said of damaged ones."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from slimseg import models
from slimseg.errors import ModelError, OutputError, RuntimeFailure
from slimseg.graph.description import Description
from slimseg.runtimes import child
from slimseg.runtimes.ncnn import costs, file, session, writer
from slimseg.runtimes.ncnn.writer import Artefact


@pytest.fixture
def copy(small: Artefact, tmp_path: Path) -> Path:
    for path in (small.param, small.bin):
        shutil.copy(path, tmp_path)
    return tmp_path / small.param.name


def test_a_file_says_what_it_takes_and_means(small):
    found = file.read(small.param)
    assert found.input_shape == small.input_shape == (64, 96, 3)
    assert (found.input_name, found.output_name) == (small.input_name, small.output_name) == ("in0", "out0")
    assert found.description == small.description
    assert found.description.classes[4] == "class 4"
    assert found.size_bytes == small.size_bytes
    assert file.read(small.bin) == found, "either file stands for both"


def test_costs_are_those_of_the_graph(small):
    blobs = {"in0": (3, 64, 96)}
    layer = next(line for line in file.read(small.param).layers if line.kind == "Convolution")
    price = costs.cost(layer, [blobs["in0"]], [(8, 32, 48)])
    assert price.params == 3 * 9 * 8 + 8
    assert price.macs == 3 * 9 * 8 * 32 * 48
    assert price.memory_bytes == 4 * (3 * 64 * 96 + 8 * 32 * 48 + price.params)


def test_a_file_from_elsewhere_has_no_description(copy):
    text, data = copy.read_text(), copy.with_suffix(".bin").read_bytes()
    plain = data[: data.rindex(b'{"preprocessing"')]
    copy.with_suffix(".bin").write_bytes(plain)
    assert file.read(copy).description is None
    assert session.predict(copy, np.zeros((1, 64, 96, 3), "float32")).shape == (1, 64, 96, 5)
    assert copy.read_text() == text


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text.replace("7767517", "1234567"),
        lambda text: text[: len(text) // 2],
        lambda text: "",
        lambda text: text.replace("1 1 ", "1 99 ", 1),
        lambda text: "\n".join(text.splitlines()[:-1]) + "\n",
        lambda text: text.replace("0=", "zero=", 1),
        lambda text: text.encode("utf-16").decode("latin-1"),
    ],
)
def test_a_damaged_param_is_refused_in_one_sentence(copy, damage):
    copy.write_bytes(damage(copy.read_text()).encode("latin-1"))
    with pytest.raises(ModelError, match=r"small\.param"):
        file.read(copy)


def test_a_param_in_several_parts_is_refused(copy):
    head, counts, *lines = copy.read_text().splitlines()
    layers, blobs = map(int, counts.split())
    copy.write_text("\n".join((head, f"{layers + 1} {blobs + 1}", *lines, "Input another 0 1 another 0=1 1=1 2=1", "")))
    with pytest.raises(ModelError, match="2 inputs"):
        file.read(copy)


def test_a_missing_file_is_named(copy):
    copy.with_suffix(".bin").unlink()
    with pytest.raises(ModelError, match=r"small\.bin"):
        file.read(copy)
    with pytest.raises(ModelError, match=r"absent\.param"):
        file.read(copy.with_name("absent.param"))


def test_what_ncnn_refuses_is_a_sentence(copy):
    copy.write_text(copy.read_text().replace("Interp ", "Unheard "))
    with pytest.raises(RuntimeFailure, match="does not know one of its layers"):
        session.predict(copy, np.zeros((1, 64, 96, 3), "float32"))


def test_missing_weights_are_a_sentence(copy):
    copy.with_suffix(".bin").write_bytes(copy.with_suffix(".bin").read_bytes()[:100])
    with child.Child() as process, pytest.raises(RuntimeFailure, match=r"small\.(bin|param)"):
        session.predict(copy, np.zeros((1, 64, 96, 3), "float32"), within=process)


@pytest.mark.parametrize("tail", [b"slimseg\0", b"\xff\xff\xff\xffslimseg\0", b""])
def test_a_tail_that_is_no_description_is_none(tmp_path, tail):
    (tmp_path / "m.bin").write_bytes(tail)
    assert file.read_description(tmp_path / "m.bin") is None


def test_a_description_comes_back(tmp_path):
    means = Description(classes=("road", "sky"), output_kind="probabilities")
    (tmp_path / "m.bin").write_bytes(file.with_description(b"weights", means))
    assert file.read_description(tmp_path / "m.bin") == means


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(OutputError, match="taken"):
        writer.write(models.build(2, (32, 32), "separable", 0.5), tmp_path / "taken")

"""Reading `.tflite` files: costs from shapes, the embedded description, damaged files in one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from slimseg.errors import ModelError, OutputError
from slimseg.graph.description import Description
from slimseg.graph.preprocessing import Preprocessing
from slimseg.tensors import TensorInfo
from slimseg.tflite import file


def test_operators_and_costs(tiny: Path) -> None:
    conv, both = file.operators(tiny)
    assert (conv.op, conv.name, conv.index) == ("CONV_2D", "conv", 0)
    assert (conv.input_shapes, conv.output_shape) == (((1, 32, 32, 4),), (1, 32, 32, 8))
    assert conv.macs == 32 * 32 * 8 * 3 * 3 * 4
    assert conv.params == 8 * 3 * 3 * 4 + 8
    assert conv.memory_bytes == 4 * (32 * 32 * 4 + 32 * 32 * 8 + conv.params)
    assert (both.op, both.macs, both.params) == ("CONCATENATION", 0, 0)


def test_inputs_outputs_and_totals(tiny: Path) -> None:
    found = file.read(str(tiny))
    assert found.inputs == (TensorInfo("x", (1, 32, 32, 4), "float32", 0.0, 0),)
    assert found.outputs[0].shape == (1, 32, 32, 16)
    assert found.size_bytes == tiny.stat().st_size
    assert (found.params, found.macs) == (296, file.operators(tiny)[0].macs)


def test_index_constants_are_not_parameters(tiny_mask: Path) -> None:
    assert file.operators(tiny_mask)[-1].params == 0


def test_description_survives_and_is_replaced(tiny: Path, tmp_path: Path) -> None:
    assert file.read_description(tiny) == Description(classes=("road", "sky"))
    other = Description(Preprocessing.of(127, 128), ("a",), "mask")
    again = tmp_path / "again.tflite"
    again.write_bytes(file.embed_description(tiny.read_bytes(), other))
    assert file.read_description(again) == other
    assert file.operators(again) == file.operators(tiny)


def test_a_file_from_elsewhere(shared: Path) -> None:
    found = file.read(shared / "models" / "prisma-net.tflite")
    assert found.description is None
    assert found.operators[0].op == "CONV_2D"  # its operator codes are of the old kind
    assert sum(operator.op == "TRANSPOSE_CONV" for operator in found.operators) == 5
    assert 0.9e6 < found.params < 0.95e6
    assert found.macs == 1_097_465_856


@pytest.mark.parametrize("cut", [0, 4, 8, 30, 200, 1500, -1])
def test_truncated(tiny: Path, tmp_path: Path, cut: int) -> None:
    damaged = tmp_path / "damaged.tflite"
    damaged.write_bytes(tiny.read_bytes()[:cut])
    with pytest.raises(ModelError, match=r"damaged\.tflite is"):
        file.read(damaged)


def test_not_a_model(tmp_path: Path) -> None:
    text = tmp_path / "notes.tflite"
    text.write_text("this is a text file, not a network")
    with pytest.raises(ModelError, match=r"notes\.tflite is not a \.tflite model"):
        file.read(text)
    with pytest.raises(ModelError, match="cannot be opened: No such file"):
        file.read(tmp_path / "none.tflite")
    with pytest.raises(ModelError, match="is not a file"):
        file.read(tmp_path)


def test_a_changed_file_is_read_again(tiny: Path, tiny_mask: Path, tmp_path: Path) -> None:
    path = tmp_path / "changing.tflite"
    file.save(tiny.read_bytes(), path)
    assert len(file.operators(path)) == 2
    file.save(tiny_mask.read_bytes(), path)
    assert len(file.operators(path)) == 3


def test_saving_nowhere(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"cannot be written"):
        file.save(b"", tmp_path / "none" / "model.tflite")

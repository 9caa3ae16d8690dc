"""Running files: the child gives what this process gives, and what numpy gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from slimseg.errors import DataError, ModelError
from slimseg.runtimes.litert import session
from slimseg.runtimes.litert.session import Session, predict
from slimseg.tensors import TensorInfo, dequantise, quantise


def images(count: int) -> np.ndarray:
    return np.random.default_rng(1).standard_normal((count, 32, 32, 4), np.float32)


def test_predict_is_session_in_the_child(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "_CHUNK_BYTES", 1 << 17)  # two images per message
    inputs = images(5)
    outputs = predict(tiny, inputs)
    here = Session(tiny)
    assert outputs.shape == (5, 32, 32, 16)
    assert outputs.dtype == np.float32
    for one, result in zip(inputs, outputs, strict=True):
        np.testing.assert_array_equal(here.run(one)[0], result)
    assert np.ptp(outputs) > 1
    np.testing.assert_array_equal(outputs[..., :8], outputs[..., 8:])


def test_a_mask_stays_integer(tiny: Path, tiny_mask: Path) -> None:
    inputs = images(2)
    mask = predict(tiny_mask, inputs)
    assert mask.dtype == np.int32
    np.testing.assert_array_equal(mask, predict(tiny, inputs).argmax(-1))


def test_a_replaced_file_is_loaded_again(tiny: Path, tiny_mask: Path, tmp_path: Path) -> None:
    path = tmp_path / "changing.tflite"
    path.write_bytes(tiny.read_bytes())
    assert predict(path, images(1)).ndim == 4
    path.unlink()
    path.write_bytes(tiny_mask.read_bytes())
    assert predict(path, images(1)).ndim == 3


def test_wrong_inputs(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"needs inputs of shape \(N, \*\(32, 32, 4\)\)"):
        predict(tiny, np.zeros((1, 4, 32, 32), np.float32))
    with pytest.raises(ModelError):
        predict(tmp_path / "none.tflite", images(1))
    assert predict(tiny, images(0)).shape == (0, 32, 32, 16)


def test_integers_round_trip() -> None:
    info = TensorInfo("x", (4,), "int8", 0.5, 3)
    raw = quantise(np.array([0.0, 0.5, -100.0, 100.0], np.float32), info)
    np.testing.assert_array_equal(raw, np.array([3, 4, -128, 127], np.int8))
    np.testing.assert_array_equal(dequantise(raw, info), np.array([0.0, 0.5, -65.5, 62.0], np.float32))

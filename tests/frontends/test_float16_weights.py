"""Networks whose weights came in float16 know it, whatever file they came in."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from slimseg import load

SIZE = (16, 24)
WEIGHTS = np.random.default_rng(0).standard_normal((8, 3, 3, 3)).astype(np.float16)


def network() -> nn.Module:
    layer = nn.Conv2d(3, 8, 3, 1, 1, bias=False)
    layer.weight.data = torch.from_numpy(WEIGHTS.astype(np.float32))
    return nn.Sequential(layer, nn.ReLU()).eval()


def write_pt2(path: Path, dtype: torch.dtype) -> None:
    program = torch.export.export(network().to(dtype), (torch.zeros(1, 3, *SIZE, dtype=dtype),))
    torch.export.save(program, path)


def write_onnx(path: Path, dtype: torch.dtype) -> None:
    kind = TensorProto.FLOAT16 if dtype == torch.float16 else TensorProto.FLOAT
    values = WEIGHTS if dtype == torch.float16 else WEIGHTS.astype(np.float32)
    node = helper.make_node("Conv", ["x", "w"], ["y"], kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    ends = (helper.make_tensor_value_info(*each) for each in (("x", kind, (1, 3, *SIZE)), ("y", kind, (1, 8, *SIZE))))
    graph = helper.make_graph([node], "g", [next(ends)], [next(ends)], [numpy_helper.from_array(values, "w")])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)]), path)


def write_keras(path: Path, dtype: torch.dtype) -> None:
    keras = pytest.importorskip("keras_zoo", reason="Keras is not installed").keras
    policy = str(dtype).removeprefix("torch.")
    layers = keras.layers.Input((*SIZE, 3)), keras.layers.Conv2D(8, 3, padding="same", use_bias=False, dtype=policy)
    model = keras.Sequential(layers)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Keras's own, and HDF5 is called legacy
        model.layers[-1].set_weights([WEIGHTS.transpose(2, 3, 1, 0)])
        model.save(path)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
@pytest.mark.parametrize(
    ("name", "write"), [("m.pt2", write_pt2), ("m.onnx", write_onnx), ("m.keras", write_keras), ("m.h5", write_keras)]
)
def test_a_file(tmp_path: Path, name: str, write, dtype: torch.dtype) -> None:
    write(tmp_path / name, dtype)
    graph = load(tmp_path / name)
    assert graph.weights == str(dtype).removeprefix("torch.")
    (kept,) = [value for value in graph.module.parameters() if value.ndim == 4]
    assert kept.dtype == torch.float32
    np.testing.assert_array_equal(kept.detach().numpy(), WEIGHTS.astype(np.float32))


def test_a_module() -> None:
    assert load(network().half(), SIZE).weights == "float16"
    assert load(network(), SIZE).weights == load(network().bfloat16(), SIZE).weights == "float32"

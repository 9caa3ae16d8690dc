"""Operators of a `.tflite` run in the file's order; what they write must have a place of its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from ai_edge_litert import schema_py_generated as tflite

import slimseg
from slimseg.errors import ModelError
from slimseg.graph.description import Description
from slimseg.runtimes.litert.runtime import LITERT
from slimseg.tflite.schema import ModelBuilder

SHAPE = (1, 8, 8, 4)


def write(path: Path, *steps: str) -> Path:
    """Each step is names of one letter: what is added (or, alone, put through a sigmoid), and where the result goes."""
    builder = ModelBuilder()
    tensors = {name: builder.tensor(name, SHAPE) for name in "xyab"}
    tensors["c"] = builder.constant("c", np.full(SHAPE, 2, np.float32))
    for *names, result in steps:
        inputs = [tensors[name] for name in names]
        if len(inputs) == 1:
            builder.operator(tflite.BuiltinOperator.LOGISTIC, inputs, tensors[result])
        else:
            options = tflite.AddOptionsT(), tflite.BuiltinOptions.AddOptions
            builder.operator(tflite.BuiltinOperator.ADD, inputs, tensors[result], *options)
    path.write_bytes(builder.finish([tensors["x"]], [tensors["y"]], Description()))
    return path


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        (("xc", "xcy"), "the operator LOGISTIC writes its result c over a constant"),
        (("xa", "aca", "ay"), "the operator ADD writes its result a over its own input"),
        (("yy",), "writes its result y over its own input"),
        (("aby", "xya", "xb"), "reads a before it is computed"),
        (("ay", "xa"), "reads a before it is computed"),
    ],
    ids=["over a constant", "in place", "its own result", "in a circle", "in the wrong order"],
)
def test_refused_in_one_sentence(steps: tuple[str, ...], said: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=said):
        slimseg.load(write(tmp_path / "m.tflite", *steps))


@pytest.mark.parametrize("steps", [("xa", "xca", "ay"), ("xa", "ay", "xca"), ("xy", "xcy"), ("xb", "bx", "xcy")])
def test_a_tensor_that_is_written_again_holds_the_later_value(steps: tuple[str, ...], tmp_path: Path) -> None:
    path = write(tmp_path / "m.tflite", *steps)
    image = np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32)
    with torch.no_grad():
        ours = slimseg.load(path)(torch.from_numpy(image).permute(0, 3, 1, 2)).permute(0, 2, 3, 1).numpy()
    np.testing.assert_allclose(LITERT.predict(path, image), ours, atol=1e-5)

"""`.tflite` files that take an image's bytes, with or without a scale, and give masks of any integer type."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from ai_edge_litert import schema_py_generated as tflite

import slimseg
from slimseg.graph.description import Description
from slimseg.runtimes import host
from slimseg.runtimes.litert import session
from slimseg.runtimes.litert.writing import writer
from slimseg.tensors import TensorInfo
from slimseg.tflite import file
from slimseg.tflite.schema import ModelBuilder

Op, Options, Type = tflite.BuiltinOperator, tflite.BuiltinOptions, tflite.TensorType
SIZE = (32, 40)
TYPES = {"uint8": Type.UINT8, "int8": Type.INT8, "int32": Type.INT32, "float32": Type.FLOAT32}
DATA = Path(__file__).resolve().parents[1] / "data"


def bytes_in(path: Path, dtype: str = "uint8", mask: str = "") -> Path:
    """CAST, (x - 120) / 60, a 1x1 convolution to 4 classes, perhaps the mask in a type; the file says nothing else."""
    random = np.random.default_rng(0)
    builder = ModelBuilder()
    image, real, scaled, y = (
        builder.tensor(name, (1, *SIZE, depth)) for name, depth in (("image", 3), ("r", 3), ("s", 3), ("y", 4))
    )
    builder.subgraph.tensors[image].type = TYPES[dtype]
    offset = 120.0 - (128.0 if dtype == "int8" else 0.0)
    builder.operator(Op.CAST, (image,), real, tflite.CastOptionsT(), Options.CastOptions)
    options = tflite.SubOptionsT()
    shift = builder.constant("shift", np.float32([offset]))
    shifted = builder.tensor("shifted", (1, *SIZE, 3))
    builder.operator(Op.SUB, (real, shift), shifted, options, Options.SubOptions)
    scale = builder.constant("scale", np.float32([1 / 60]))
    builder.operator(Op.MUL, (shifted, scale), scaled, tflite.MulOptionsT(), Options.MulOptions)
    weight = builder.constant("w", random.normal(size=(4, 1, 1, 3)).astype(np.float32))
    bias = builder.constant("b", random.normal(size=4).astype(np.float32))
    convolution = tflite.Conv2DOptionsT()
    convolution.strideH = convolution.strideW = convolution.dilationHFactor = convolution.dilationWFactor = 1
    builder.operator(Op.CONV_2D, (scaled, weight, bias), y, convolution, Options.Conv2DOptions)
    result = y
    if mask:
        axis, result = builder.constant("axis", np.int32([3])), builder.tensor("mask", (1, *SIZE), np.int64)
        largest = tflite.ArgMaxOptionsT()
        largest.outputType = Type.INT64
        builder.operator(Op.ARG_MAX, (y, axis), result, largest, Options.ArgMaxOptions)
    builder.finish([image], [result], Description())
    builder.model.metadata = []  # it is from elsewhere
    path.write_bytes(file.pack(builder.model))
    return path


def picture() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (*SIZE, 3), np.uint8)


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int32"])
def test_bytes_without_a_scale_are_fed_as_bytes(tmp_path, dtype):
    path = bytes_in(tmp_path / "m.tflite", dtype)
    graph, pixels = slimseg.load(path), picture()
    given = pixels.astype(np.int64) - (128 if dtype == "int8" else 0)
    (expected,) = session.predict(path, given.astype(dtype)[None], raw=True)
    assert graph.description == slimseg.frontends.describe(path)
    assert any("int8 input has no scale" in note for note in graph.notes) == (dtype == "int8")
    app = host.App(file.read(path), graph.description)
    assert np.array_equal(app.prepare(pixels), given)
    with torch.no_grad():
        value = torch.from_numpy(app.pipeline(pixels)).permute(2, 0, 1)[None]
        own = graph(value)[0].permute(1, 2, 0).numpy()
    assert np.abs(own - expected).max() < 1e-4 * np.abs(expected).max()


def test_every_command_feeds_bytes(run, tmp_path, shapes):
    path = bytes_in(tmp_path / "m.tflite")
    folder = tmp_path / "images"
    for split in ("train", "val"):
        (folder / split).mkdir(parents=True)
        (folder / split / "images").symlink_to(shapes / split / "images")
    result = slimseg.export(path, out=tmp_path / "app", to="tflite:float32", images=folder, compared=4)
    assert result.parities[0].disagreement_percent < 0.1
    refused = run("quantize", path, "--data", folder, "--scheme", "float16", "--out", tmp_path / "q.tflite")
    assert refused.code == 2
    assert "has uint8 input" in refused.err
    writer.write(slimseg.load(path), tmp_path / "float.tflite")
    app = host.App(file.read(tmp_path / "float.tflite"))
    (output,) = session.predict(tmp_path / "float.tflite", app.prepare(picture())[None], raw=True)
    (wanted,) = session.predict(path, picture()[None], raw=True)
    assert (app.mask(output, SIZE) == wanted.argmax(-1)).mean() > 0.995


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int32, np.int64, np.bool_])
@pytest.mark.parametrize("shape", [(1, *SIZE), (1, *SIZE, 1)])
def test_masks_of_every_type(tmp_path, dtype, shape):
    described = file.read(bytes_in(tmp_path / "m.tflite", mask="int64"))
    output = TensorInfo("mask", shape, np.dtype(dtype).name, 0.0, 0)
    mask = (np.arange(np.prod(shape)) % 2).reshape(shape)
    model = file.File(described.path, 0, (), described.inputs, (output,), Description(), 0)
    assert np.array_equal(host.App(model).mask(mask.astype(dtype), SIZE), mask.reshape(SIZE))


@pytest.mark.parametrize("dtype", [np.uint8, np.int32])
def test_whole_numbers_as_scores(tmp_path, dtype):
    described = file.read(bytes_in(tmp_path / "m.tflite"))
    output = TensorInfo("y", (1, *SIZE, 4), np.dtype(dtype).name, 0.0, 0)
    scores = np.random.default_rng(0).integers(0, 250, output.shape).astype(dtype)
    model = file.File(described.path, 0, (), described.inputs, (output,), Description(), 0)
    assert np.array_equal(host.App(model).mask(scores, SIZE), scores[0].argmax(-1))


def test_a_scale_taken_for_mean_and_std_is_called_a_guess(run, shapes):
    path = DATA / "deeplab_int8.tflite"
    (note,) = [note for note in slimseg.load(path).notes if "understood as mean" in note]
    assert "zero point" in note
    assert "`mean` and `std`" in note
    assert not [note for note in slimseg.load(path, mean=127.5, std=127.5).notes if "understood as mean" in note]
    assert "understood as mean" in run("evaluate", path, "--data", shapes).err

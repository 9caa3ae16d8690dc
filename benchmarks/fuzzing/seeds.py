"""Small files that are what they should be, made afresh: for each format the files that its mutants come from."""

from __future__ import annotations

import io
import json
import warnings
import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

import slimseg
from slimseg.graph.graph import Graph
from slimseg.runtimes.litert.quantising import quantizer
from slimseg.runtimes.litert.runtime import LITERT
from slimseg.runtimes.ncnn import writer as ncnn_writer

SIZE = (32, 48)
DATA = Path(__file__).resolve().parents[2] / "tests" / "data"


class Net(nn.Module):
    """An encoder and a decoder with a skip; small, and with most kinds of layers."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.PReLU(8))
        self.deep = nn.Sequential(nn.Conv2d(8, 8, 3, 1, 2, 2, groups=8), nn.Hardswish(), nn.Conv2d(8, 16, 1, 2))
        self.up = nn.ConvTranspose2d(16, 8, 2, 2)
        self.classify = nn.Conv2d(16, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        skip = self.down(x)
        x = torch.cat([self.up(F.max_pool2d(F.pad(self.deep(skip), (0, 1, 0, 1)), 2, 1)), skip], 1)
        x = self.classify(x) * x.mean((2, 3), keepdim=True)[:, :3].sigmoid()
        return F.interpolate(x, scale_factor=2, mode="bilinear").softmax(1)


def network() -> Net:
    """Always the same."""
    torch.manual_seed(0)
    return Net().eval()


def build() -> nn.Module:
    """What `seeds.py:build` names on the command line: the network that files of weights are for."""
    return network()


def graph() -> Graph:
    return slimseg.load(network(), SIZE, mean=127, std=128, classes=("ground", "disc", "box"), name="net")


def write_all(folder: Path) -> None:
    """A folder of seeds for each format."""
    for name, write in _WRITERS.items():
        (folder / name).mkdir(parents=True)
        write(folder / name)


def _tflite(folder: Path) -> None:
    for path in DATA.glob("*.tflite"):
        (folder / path.name).write_bytes(path.read_bytes())
    made = graph()
    LITERT.write(made, folder / "float.tflite")
    sample = np.random.default_rng(0).random((1, *SIZE, 3), np.float32)
    quantizer.quantize_int8(folder / "float.tflite", folder / "int8.tflite", [sample])
    made.weights = "float16"
    LITERT.write(made, folder / "half.tflite")


def _pt2(folder: Path) -> None:
    graph().save(folder / "ours.pt2")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, about its future
        program = torch.export.export(network(), (torch.zeros(1, 3, *SIZE),))
        torch.export.save(program, folder / "torch.pt2")


def _onnx(folder: Path) -> None:
    random = np.random.default_rng(0)

    def weights(*shape: int) -> np.ndarray:
        return random.normal(size=shape).astype(np.float32)

    constants = {
        "w1": weights(8, 3, 3, 3), "b1": weights(8), "scale": weights(8), "mean": weights(8),
        "var": np.abs(weights(8)), "w2": weights(8, 1, 3, 3), "w3": weights(8, 4, 2, 2), "w4": weights(3, 12, 1, 1),
        "slope": weights(8, 1, 1), "pads": np.array([0, 0, 1, 1, 0, 0, 1, 1]), "sizes": np.array([1, 4, 16, 24]),
        "starts": np.array([0]), "ends": np.array([4]), "axes": np.array([1]), "axis": np.array([2, 3]),
        "none": np.array([], np.float32), "shape": np.array([0, 3, -1]), "back": np.array([1, 3, 16, 24]),
    }  # fmt: skip
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["a"], "stem", strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node("BatchNormalization", ["a", "scale", "b1", "mean", "var"], ["b"], "norm"),
        helper.make_node("PRelu", ["b", "slope"], ["c"], "slopes"),
        helper.make_node("Pad", ["c", "pads"], ["d"], "padded"),
        helper.make_node("Conv", ["d", "w2"], ["e"], "depthwise", group=8),
        helper.make_node("ConvTranspose", ["e", "w3"], ["f"], "up", strides=[2, 2]),
        helper.make_node("Resize", ["f", "none", "none", "sizes"], ["g"], "resized", mode="linear"),
        helper.make_node("Slice", ["c", "starts", "ends", "axes"], ["h"], "part"),
        helper.make_node("Concat", ["h", "c"], ["i"], "joined", axis=1),
        helper.make_node("Conv", ["i", "w4"], ["j"], "classify"),
        helper.make_node("ReduceMean", ["g"], ["k"], "pooled", axes=[1, 2, 3], keepdims=1),
        helper.make_node("Mul", ["j", "k"], ["l"], "gated"),
        helper.make_node("Reshape", ["l", "shape"], ["m"], "flat"),
        helper.make_node("Reshape", ["m", "back"], ["n"], "square"),
        helper.make_node("Softmax", ["n"], ["y"], "scores", axis=1),
    ]  # fmt: skip
    stored = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    ends = [helper.make_tensor_value_info(*each) for each in (("x", TensorProto.FLOAT, (1, 3, *SIZE)),
                                                               ("y", TensorProto.FLOAT, None))]  # fmt: skip
    made = helper.make_graph(nodes, "net", ends[:1], ends[1:], stored)
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    (folder / "float.onnx").write_bytes(model.SerializeToString())
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            tensor.CopyFrom(numpy_helper.from_array(constants[tensor.name].astype(np.float16), tensor.name))
    (folder / "half.onnx").write_bytes(model.SerializeToString())


def _layer(class_name: str, name: str, config: dict[str, Any], source: str = "") -> dict[str, Any]:
    given = {"class_name": "__keras_tensor__", "config": {"shape": None, "keras_history": [source, 0, 0]}}
    return {
        "module": "keras.layers", "class_name": class_name, "name": name,
        "config": {"name": name, "trainable": True, **config},
        "inbound_nodes": [{"args": [given], "kwargs": {}}] if source else [],
    }  # fmt: skip


def _keras_config() -> dict[str, Any]:
    convolution = {
        "kernel_size": [3, 3], "strides": [2, 2], "padding": "same", "use_bias": True, "dilation_rate": [1, 1],
        "activation": "relu", "groups": 1, "data_format": "channels_last",
    }  # fmt: skip
    layers = [
        _layer("InputLayer", "image", {"batch_shape": [None, *SIZE, 3]}),
        _layer("Rescaling", "scaled", {"scale": 0.0078125, "offset": -1.0}, "image"),
        _layer("Conv2D", "conv", {**convolution, "filters": 4}, "scaled"),
        _layer("MaxPooling2D", "pooled", {"pool_size": [2, 2], "strides": [2, 2], "padding": "valid"}, "conv"),
        _layer("UpSampling2D", "up", {"size": [4, 4], "interpolation": "bilinear"}, "pooled"),
        _layer("Softmax", "scores", {"axis": -1}, "up"),
    ]
    inner = {"name": "net", "layers": layers, "input_layers": ["image", 0, 0], "output_layers": ["scores", 0, 0]}
    return {"module": "keras", "class_name": "Functional", "config": inner}


def _h5(folder: Path) -> None:
    with h5py.File(folder / "net.h5", "w") as file:
        file.attrs["model_config"] = json.dumps(_keras_config())
        file.attrs["keras_version"] = "3.10.0"
        weights = file.create_group("model_weights")
        weights["conv/conv/kernel"], weights["conv/conv/bias"] = np.ones((3, 3, 3, 4), "f4"), np.ones(4, "f4")


def _keras(folder: Path) -> None:
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        group = file.create_group("layers/conv2d/vars")
        group.attrs["name"] = "conv"
        group["0"], group["1"] = np.ones((3, 3, 3, 4), "f4"), np.ones(4, "f4")
    with zipfile.ZipFile(folder / "net.keras", "w") as archive_:
        archive_.writestr("metadata.json", json.dumps({"keras_version": "3.10.0", "date_saved": "2026-01-01"}))
        archive_.writestr("config.json", json.dumps(_keras_config()))
        archive_.writestr("model.weights.h5", stream.getvalue())


def _weights(folder: Path) -> None:
    state = network().state_dict()
    save_file(state, folder / "net.safetensors")
    torch.save(state, folder / "net.pth")


def _image(folder: Path) -> None:
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (*SIZE, 3), np.uint8)
    for suffix, options in (("png", {}), ("jpg", {"exif": _turned()}), ("webp", {}), ("bmp", {}), ("tif", {})):
        Image.fromarray(pixels).save(folder / f"photo.{suffix}", **options)
    mask = Image.fromarray(random.integers(0, 3, SIZE, np.uint8))
    mask.save(folder / "mask.png")
    palette = mask.copy()
    palette.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
    palette.save(folder / "palette.png")
    Image.fromarray(random.integers(0, 3, SIZE, np.uint16)).save(folder / "deep.png")


def _turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


def _ncnn(folder: Path) -> None:
    ncnn_writer.write(graph(), folder, name="net")


_WRITERS = {
    "tflite": _tflite, "pt2": _pt2, "onnx": _onnx, "h5": _h5, "keras": _keras, "weights": _weights, "image": _image,
    "ncnn": _ncnn,
}  # fmt: skip

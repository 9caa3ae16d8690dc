"""Files of Keras 2, written here as TensorFlow writes them, and Lambda layers, whose code is read and never run.

`lambdas.json` holds what Keras stores of the functions below it, base64 of `marshal.dumps(f.__code__)`, defaults and
closure, by the Python version that wrote it.
"""

from __future__ import annotations

import base64
import json
import marshal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from slimseg.errors import ModelError
from slimseg.frontends.keras import from_file
from slimseg.graph import ops

LAMBDAS: dict[str, dict[str, Any]] = json.loads((Path(__file__).parent / "lambdas.json").read_text())


def layer(name: str, class_name: str, inputs: list[Any], **config: Any) -> dict[str, Any]:
    """One entry of a Keras 2 configuration; an input is a layer's name, or that with further arguments."""
    nodes = [[item, 0, 0, {}] if isinstance(item, str) else item for item in inputs]
    calls = [nodes] if nodes else []
    settings = {"name": name, "trainable": True, "dtype": "float32", **config}
    return {"name": name, "class_name": class_name, "config": settings, "inbound_nodes": calls}


def keras2(
    path: Path,
    layers: list[dict[str, Any]],
    weights: dict[str, np.ndarray] | None = None,
    size: tuple[int, int, int] = (8, 8, 2),
    version: str = "2.4.0",
) -> Path:
    """An .h5 file; `weights` by path below the group of weights."""
    image = layer("image_in", "InputLayer", [], batch_input_shape=[None, *size])
    config = {
        "name": "model", "layers": [image, *layers], "input_layers": [["image_in", 0, 0]],
        "output_layers": [[layers[-1]["name"], 0, 0]],
    }  # fmt: skip
    with h5py.File(path, "w") as file:
        file.attrs["keras_version"] = version
        file.attrs["backend"] = "tensorflow"
        file.attrs["model_config"] = json.dumps({"class_name": "Functional", "config": config})
        group = file.create_group("model_weights")
        for name, value in (weights or {}).items():
            group[name] = value
    return path


def result(path: Path) -> tuple[Tensor, Tensor]:
    """A random image (NHWC), and what the network makes of it (NHWC)."""
    graph = from_file(path)
    image = torch.randn(graph.input_shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        given = graph(image)
    return image.permute(0, 2, 3, 1), given.permute(0, 2, 3, 1) if given.ndim == 4 else given


def resized(x: Tensor, size: tuple[int, int], align_corners: bool = False) -> Tensor:
    return F.interpolate(x.permute(0, 3, 1, 2), size, mode="bilinear", align_corners=align_corners).permute(0, 2, 3, 1)


EXPECTED: dict[str, Callable[[Tensor], Tensor]] = {
    "softmax": lambda x: x.softmax(-1),
    "scale": lambda x: x / 127.5 - 1,
    "last": lambda x: x[..., 1:],
    "last2": lambda x: x[:, :, :, -1],
    "tfresize": lambda x: resized(x, (32, 40)),
    "slice": lambda x: x[:, :, :, 1:2],
    "kw": lambda x: resized(x, (16, 16)),
    "relu6": lambda x: F.relu6(x + 3) / 6,
    "join": lambda x: torch.cat((x, x), -1),
    "shape": lambda x: resized(x, (16, 16), align_corners=True),
    "swish": lambda x: x * x.sigmoid(),
    "closure": lambda x: resized(x, (32, 32), align_corners=True),
    "closurekw": lambda x: resized(x, (32, 32), align_corners=True),
}


@pytest.mark.parametrize("python", LAMBDAS)
def test_lambdas_of_every_python_are_read(python, tmp_path):
    """All of them side by side; a result's size tells it from the others."""
    names = list(EXPECTED)
    assert set(names) == set(LAMBDAS[python])
    layers = []
    for name in names:
        inputs = ["image_in", "image_in"] if name == "join" else ["image_in"]
        layers.append(layer(name, "Lambda", inputs, function=LAMBDAS[python][name], function_type="lambda"))
        layers.append(layer(f"{name}_flat", "Flatten", [name]))
    layers.append(layer("all", "Concatenate", [f"{name}_flat" for name in names], axis=-1))
    image, given = result(keras2(tmp_path / "net.h5", layers))
    torch.testing.assert_close(given, torch.cat([EXPECTED[name](image).flatten(1) for name in names], 1))


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (lambda x: __import__("os").system("touch pwned"), "__import__"),
        (lambda x: open("/tmp/pwned", "w"), "open"),  # noqa: SIM115
        (lambda x: x if x else -x, "more than compute one expression"),
        (lambda x: [y for y in x], "more than compute one expression|code"),  # noqa: C416
        (lambda x: tf.linalg.inv(x), "tf.linalg.inv"),  # noqa: F821
        (lambda x: 2**10**10 * x, ""),
        (lambda x: 3, "does not return a tensor"),
    ],
)
def test_lambdas_that_say_more_are_refused_and_never_run(function, reason, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    stored = [base64.b64encode(marshal.dumps(function.__code__)).decode(), None, None]
    path = keras2(tmp_path / "net.h5", [layer("strange", "Lambda", ["image_in"], function=stored)])
    with pytest.raises(ModelError, match=rf"layer strange \(Lambda\).*{reason}") as caught:
        from_file(path)
    assert "\n" not in str(caught.value)
    assert [each.name for each in tmp_path.iterdir()] == ["net.h5"]


def test_tensorflow_calls_in_functional_code(tmp_path):
    layers = [
        layer("plus", "TFOpLambda", [["image_in", 0, 0, {"y": 3.0, "name": None}]], function="math.add"),
        layer("six", "TFOpLambda", ["plus"], function="nn.relu6"),
        layer("times", "TFOpLambda", [["six", 0, 0, {"y": ["image_in", 0, 0]}]], function="math.multiply"),
        layer("part", "SlicingOpLambda", [["times", 0, 0, {"slice_spec": [
            {"class_name": "__ellipsis__"}, {"start": 0, "stop": 1, "step": None}]}]],
            function="__operators__.getitem"),
        layer("both", "TFOpLambda", [["part", 0, 0, {}], ["times", 0, 0, {}]], function="concat"),
        layer("large", "TFOpLambda", [["both", 0, 0, {"size": [16, 12], "method": "bilinear"}]],
              function="image.resize"),
        layer("turned", "SlicingOpLambda", [["large", 0, 0, {"slice_spec": [
            {"class_name": "__ellipsis__"}, {"start": None, "stop": None, "step": -1}]}]],
            function="__operators__.getitem"),
        layer("minus", "TFOpLambda", [["_CONSTANT_VALUE", -1, 1.0, {"y": ["turned", 0, 0]}]], function="math.subtract"),
    ]  # fmt: skip
    layers[4]["inbound_nodes"][0][0][3]["axis"] = -1
    image, given = result(keras2(tmp_path / "net.h5", layers))
    times = F.relu6(image + 3) * image
    torch.testing.assert_close(given, 1 - resized(torch.cat((times[..., :1], times), -1), (16, 12)).flip(-1))


def test_keras_2_weights_nested_models_and_its_own_hard_sigmoid(tmp_path):
    random = np.random.default_rng(0)
    kernel, bias = random.normal(0, 1, (3, 3, 2, 4)).astype("f4"), random.normal(0, 1, 4).astype("f4")
    depthwise, statistics = random.normal(0, 1, (3, 3, 4, 1)).astype("f4"), random.uniform(0.5, 2, (4, 4)).astype("f4")
    inner = {
        "name": "inner", "input_layers": [["inner_in", 0, 0]], "output_layers": [["norm", 0, 0]],
        "layers": [
            layer("inner_in", "InputLayer", [], batch_input_shape=[None, None, None, 4]),
            layer("deep", "DepthwiseConv2D", ["inner_in"], kernel_size=[3, 3], padding="same", use_bias=False),
            layer("norm", "BatchNormalization", ["deep"], axis=[3], epsilon=1e-3),
        ],
    }  # fmt: skip
    layers = [
        layer("conv", "Conv2D", ["image_in"], kernel_size=[3, 3], padding="valid", activation="hard_sigmoid"),
        {"name": "inner", "class_name": "Functional", "config": inner, "inbound_nodes": [[["conv", 0, 0, {}]]]},
    ]
    names = ("gamma", "beta", "moving_mean", "moving_variance")
    weights = {"conv/conv/kernel:0": kernel, "conv/conv/bias:0": bias, "inner/deep/depthwise_kernel:0": depthwise}
    weights |= {f"inner/norm/{name}:0": value for name, value in zip(names, statistics, strict=True)}
    image, given = result(keras2(tmp_path / "net.h5", layers, weights))
    x = F.conv2d(image.permute(0, 3, 1, 2), torch.tensor(kernel.transpose(3, 2, 0, 1)), torch.tensor(bias))
    x = (0.2 * x + 0.5).clamp(0, 1)
    x = F.conv2d(x, torch.tensor(depthwise.transpose(2, 3, 0, 1)), padding=1, groups=4)
    gamma, beta, mean, variance = torch.tensor(statistics)
    x = F.batch_norm(x, mean, variance, gamma, beta, eps=1e-3)
    torch.testing.assert_close(given, x.permute(0, 2, 3, 1))


@pytest.mark.parametrize(("version", "coordinates"), [("2.1.6-tf", "asymmetric"), ("2.4.0", "half_pixel")])
def test_tf_image_resize_reads_the_pixels_that_its_version_read(version, coordinates, tmp_path):
    stored = LAMBDAS["3.6"]["tfresize"]
    path = keras2(tmp_path / "net.h5", [layer("large", "Lambda", ["image_in"], function=stored)], version=version)
    graph = from_file(path)
    module = graph.layer(graph.output)
    assert isinstance(module, ops.Resize)
    assert (module.size, module.coordinates) == ((32, 40), coordinates)


def test_sizes_that_tensorflow_code_works_out(tmp_path):
    stored = {"start": 1, "stop": 3, "step": None}
    layers = [
        layer("small", "AveragePooling2D", ["image_in"], pool_size=[2, 2]),
        layer("shape", "TFOpLambda", ["image_in"], function="compat.v1.shape"),
        layer("size", "SlicingOpLambda", [["shape", 0, 0, {"slice_spec": stored}]], function="__operators__.getitem"),
        layer("large", "TFOpLambda", [["small", 0, 0, {"size": ["size", 0, 0]}]], function="image.resize"),
    ]
    image, given = result(keras2(tmp_path / "net.h5", layers))
    small = F.avg_pool2d(image.permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1)
    torch.testing.assert_close(given, resized(small, (8, 8)))


def test_node_definitions_of_early_tensorflow_2(tmp_path):
    def operation(name: str, op: str, inputs: list[str], constants: dict[str, Any], **attr: Any) -> dict[str, Any]:
        return layer(name, "TensorFlowOpLayer", inputs, node_def={"op": op, "attr": attr}, constants=constants)

    layers = [
        operation("plus", "AddV2", ["image_in"], {"1": 3.0}),
        operation("six", "Relu6", ["plus"], {}),
        operation("mean", "Mean", ["six"], {"1": [1, 2]}, keep_dims={"b": True}),
        operation("scaled", "Mul", ["six", "mean"], {}),
        operation("large", "ResizeBilinear", ["scaled"], {"1": [16, 16]}, half_pixel_centers={"b": True}),
        operation("both", "ConcatV2", ["large", "large"], {"2": -1}),
    ]
    image, given = result(keras2(tmp_path / "net.h5", layers))
    six = F.relu6(image + 3)
    large = resized(six * six.mean((1, 2), keepdim=True), (16, 16))
    torch.testing.assert_close(given, torch.cat((large, large), -1))

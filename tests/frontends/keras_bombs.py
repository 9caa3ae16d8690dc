"""Small Keras files that ask for far more work or memory than they are."""

from __future__ import annotations

import base64
import json
import marshal
import struct
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import h5py
import numpy as np

SUFFIX = ".h5"
IMAGE = {"name": "image", "batch_shape": [None, 16, 16, 3]}


def entry(class_name: str, name: str, *calls: list[str], **config: Any) -> dict[str, Any]:
    """A layer; each of `calls` names the layers whose results it is given, as Keras 2 writes it."""
    nodes = [[[source, 0, 0, {}] for source in call] for call in calls]
    return {"class_name": class_name, "name": name, "config": {"name": name, **config}, "inbound_nodes": nodes}


def model(name: str, layers: list[dict[str, Any]], output: list[Any], source: str = "image") -> dict[str, Any]:
    config = {"name": name, "layers": layers, "input_layers": [[source, 0, 0]], "output_layers": [output]}
    return {"class_name": "Functional", "config": config, "name": name}


def image() -> dict[str, Any]:
    return {"class_name": "InputLayer", "name": "image", "config": IMAGE, "inbound_nodes": []}


def write(path: Path, raw: Any, fill: Callable[[Any], None] = lambda weights: None) -> None:
    with h5py.File(path, "w", libver="latest") as file:
        text = np.void(json.dumps(raw).encode()) if len(json.dumps(raw)) > 60_000 else json.dumps(raw)
        file.attrs["model_config"] = text if isinstance(text, str) else bytes(text)
        file.attrs["keras_version"] = "2.9.0"
        fill(file.create_group("model_weights"))


def models_in_models(path: Path) -> None:
    """Forty models, each of which calls the next one twice: 2⁴⁰ calls."""
    inner = model("m0", [image()], ["image", 0, 0])
    for number in range(1, 41):
        nested = {**inner, "inbound_nodes": [[["image", 0, 0, {}]], [[inner["name"], 0, 0, {}]]]}
        inner = model(f"m{number}", [image(), nested], [inner["name"], 1, 0])
    write(path, inner)


def one_layer_called_for_ever(path: Path) -> None:
    """A convolution of 4 MB, called 5000 times."""
    nodes = [[["image", 0, 0, {}]], *([["conv", number, 0, {}]] for number in range(5000))]
    layer = entry("Conv2D", "conv", kernel_size=[1, 1], strides=[1, 1], padding="same", use_bias=False)
    first = entry("Conv2D", "first", ["image"], kernel_size=[1, 1], strides=[1, 1], padding="same", use_bias=False)
    nodes[0] = [["first", 0, 0, {}]]

    def fill(weights: Any) -> None:
        weights["conv/conv/kernel:0"] = np.zeros((1, 1, 1024, 1024), "f4")
        weights["first/first/kernel:0"] = np.zeros((1, 1, 3, 1024), "f4")

    write(path, model("net", [image(), first, {**layer, "inbound_nodes": nodes}], ["conv", 5000, 0]), fill)


def layers_of_one_class(path: Path) -> None:
    """4900 activations in a row."""
    names = ["image", *(f"a{number}" for number in range(4900))]
    layers = [entry("ReLU", after, [before]) for before, after in pairwise(names)]
    write(path, model("net", [image(), *layers], [names[-1], 0, 0]))


def a_lambda(path: Path, code: bytes) -> None:
    text = base64.b64encode(code).decode()
    layer = entry("Lambda", "f", ["image"], function=[text, None, None], arguments={})
    write(path, model("net", [image(), layer], ["f", 0, 0]))


def constants_of_constants(path: Path) -> None:
    """A constant of 2⁴⁰ numbers: a tuple that holds one twice that holds one twice..., each by a reference."""
    shared, refer = 0x80, [struct.pack("<ci", b"r", number) for number in range(41)]
    tuples = [bytes([ord(")") | shared, 2]) + b"N" * 2]
    tuples += [bytes([ord(")") | shared, 2]) + refer[number] * 2 for number in range(40)]
    code = (lambda x: x + 1.0).__code__
    plain = marshal.dumps(code.replace(co_consts=(None, 0.5)), 2)  # version 2 has no references of its own
    constants = b"(" + struct.pack("<i", 41) + b"".join(tuples)
    a_lambda(path, plain.replace(marshal.dumps((None, 0.5), 2), constants))


def a_slope_for_each_place(path: Path) -> None:
    """A PReLU of 8192 numbers on an image of 8192x8192."""
    wide = {**image(), "config": {"name": "image", "batch_shape": [None, 8192, 8192, 3]}}
    layer = entry("PReLU", "prelu", ["image"])

    def fill(weights: Any) -> None:
        weights["prelu/prelu/alpha:0"] = np.zeros((8192, 1, 3), "f4")

    write(path, model("net", [wide, layer], ["prelu", 0, 0]), fill)


def deep_lists(path: Path) -> None:
    layer = entry("Reshape", "flat", ["image"])
    layer["config"]["target_shape"] = json.loads("[" * 500 + "]" * 500)
    layer["inbound_nodes"] = [[["image", 0, 0, {"shape": json.loads("[" * 400 + "]" * 400)}]]]
    write(path, model("net", [image(), layer], ["flat", 0, 0]))


def many_lists(path: Path) -> None:
    """A configuration of nothing but a million brackets."""
    layer = entry("ReLU", "relu", ["image"], more=[[] for _ in range(1_000_000)])
    write(path, model("net", [image(), layer], ["relu", 0, 0]))


def a_long_name(path: Path) -> None:
    name = "n" * 1_000_000
    write(path, model("net", [image(), entry("ReLU", name, ["image"])], [name, 0, 0]))


BOMBS: dict[str, Callable[[Path], None]] = {
    function.__name__: function
    for function in (
        models_in_models, one_layer_called_for_ever, layers_of_one_class, constants_of_constants,
        a_slope_for_each_place, deep_lists, many_lists, a_long_name,
    )
}  # fmt: skip

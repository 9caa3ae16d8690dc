"""The outputs of a source in its own runtime.

.tflite     the runtime of such files, in the child process
.onnx       onnxruntime if it is installed, in the child process
.keras .h5  Keras if it is installed, in the child process, on the configuration that keras/reference.py allows
nn.Module   the module itself, in PyTorch
.pt2        its ATen calls one by one, in PyTorch: torch's own reader would import and unpickle whatever the file names
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from slimseg.errors import Unsupported
from slimseg.frontends import archive
from slimseg.frontends.tree import tensors_of
from slimseg.graph.graph import Graph
from slimseg.graph.orders import nhwc
from slimseg.graph.source_check import OwnRuntime
from slimseg.runtimes import child, registry
from slimseg.tensors import dequantise, quantise

Array = np.ndarray[Any, Any]
TIMEOUT_S = 20.0
KERAS_TIMEOUT_S = 60.0  # Keras takes some seconds to start


def of(graph: Graph, source: Path | nn.Module) -> OwnRuntime:
    """The runtime of the source that `graph` was opened from.

    Raises:
        Unsupported: this source has no runtime here; the message says why.
    """
    if isinstance(source, nn.Module):
        return Module(source)
    suffix = source.suffix.lower()
    is_half = graph.weights != "float32"
    if suffix == ".pt2":
        return Program(source, is_half)
    if registry.is_deployed(source):
        if graph.source is None:
            raise Unsupported(
                "the size or layout of the file's input or output differs from that of the opened network"
            )
        return Deployed(source, is_half, registry.of(source).brand)
    runtime, package = (Onnx, "onnxruntime") if suffix == ".onnx" else (Keras, "keras")
    if find_spec(package) is None:
        raise Unsupported(f"{package} is not installed (pip install {package})")
    return runtime(source, is_half)


@dataclass(frozen=True)
class Module:
    """Runs the user's own module."""

    module: nn.Module
    name: str = "PyTorch"

    @property
    def is_half(self) -> bool:
        return _floats(self.module.parameters()).itemsize < _floats(()).itemsize

    def outputs(self, images: Iterable[Tensor]) -> Iterator[list[Array]]:
        given = _floats(self.module.parameters())
        for image in images:
            was_training = getattr(self.module, "training", None)  # a frozen TorchScript module has no such state
            try:
                with torch.no_grad():
                    value = (self.module if was_training is None else self.module.eval())(image.to(given))
            finally:
                if was_training is not None:
                    self.module.train(was_training)
            yield [_array(each) for _, each in tensors_of(value)]


@dataclass(frozen=True)
class Program:
    """Runs a `.pt2` file: its ATen calls in order."""

    path: Path
    is_half: bool
    name: str = "PyTorch"

    def outputs(self, images: Iterable[Tensor]) -> Iterator[list[Array]]:
        program, _ = archive.read_program(self.path)
        weights = {node: parameter.tensor for node, parameter in program.parameters.items()}
        given = _floats(weights.values())
        for image in images:
            values: dict[fx.Node, Any] = {**weights, program.image: image.to(given, copy=True)}  # calls may write to it
            with torch.no_grad():
                for node in program.graph.nodes:
                    if node.op == "call_function":
                        arguments = fx.node.map_arg((node.args, node.kwargs), lambda each: values[each])  # noqa: B023
                        values[node] = node.target(*arguments[0], **arguments[1])
            found = (values.get(node) for _, node in program.outputs)
            yield [_array(value) for value in found if isinstance(value, Tensor)]


@dataclass(frozen=True)
class Deployed:
    """Runs the file of a runtime, whose first output is the one in use."""

    path: Path
    is_half: bool
    name: str

    def outputs(self, images: Iterable[Tensor]) -> Iterator[list[Array]]:
        its = registry.of(self.path)
        found = its.read(self.path)
        for image in images:
            given = quantise(_channels_last(image), found.inputs[0])
            yield [dequantise(its.predict(self.path, given, timeout_s=TIMEOUT_S), found.outputs[0])]


@dataclass(frozen=True)
class Onnx:
    """Runs an `.onnx` file."""

    path: Path
    is_half: bool
    name: str = "onnxruntime"

    def outputs(self, images: Iterable[Tensor]) -> Iterator[list[Array]]:
        call = "slimseg.frontends.onnx_session:run"
        for image in images:
            yield child.call(call, str(self.path), image.numpy(), timeout_s=TIMEOUT_S, about=self.path)


@dataclass(frozen=True)
class Keras:
    """Runs a `.keras` or `.h5` file."""

    path: Path
    is_half: bool
    name: str = "Keras"

    def outputs(self, images: Iterable[Tensor]) -> Iterator[list[Array]]:
        call = "slimseg.frontends.keras.reference:run"
        keras = child.shared("keras")  # shared, as this child limits its memory and takes seconds to start
        for image in images:
            yield keras.call(call, str(self.path), _channels_last(image), timeout_s=KERAS_TIMEOUT_S, about=self.path)


def _floats(parameters: Iterable[Tensor]) -> torch.dtype:
    """The precision that the network computes in: that of its first weights."""
    return next((each.dtype for each in parameters if each.is_floating_point()), torch.float32)


def _channels_last(image: Tensor) -> Array:
    return nhwc(image).contiguous().numpy()


def _array(value: Tensor) -> Array:
    return (value.float() if value.is_floating_point() else value).numpy()

"""Small ONNX files for tests, made by hand, and onnxruntime's answer to them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper, save_model

from slimseg.frontends.onnx import from_file
from slimseg.graph.graph import Graph


def node(op: str, inputs: str, outputs: str = "y", **attributes: Any) -> Any:
    """A node from names separated by blanks; `_` is an argument left out."""
    names = ["" if name == "_" else name for name in inputs.split()]
    return helper.make_node(op, names, outputs.split(), attributes.pop("node_name", None), **attributes)


def weights(*shape: int) -> np.ndarray:
    return np.random.normal(size=shape).astype(np.float32)  # seeded by the name of the test, see seeding.py


def write(
    path: Path,
    nodes: Sequence[Any],
    constants: dict[str, np.ndarray] | None = None,
    shape: Sequence[int | str] = (1, 4, 8, 8),
    opset: int = 13,
    kind: int = TensorProto.FLOAT,
    outputs: Sequence[str] = ("y",),
    output_kind: int = TensorProto.FLOAT,
) -> Path:
    graph = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info("x", kind, list(shape))],
        [helper.make_tensor_value_info(name, output_kind, None) for name in outputs],
        [numpy_helper.from_array(value, name) for name, value in (constants or {}).items()],
    )
    save_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8), path)
    return path


def image(graph: Graph, seed: int = 1) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=graph.input_shape).astype(np.float32))


def reference(path: Path, x: torch.Tensor) -> torch.Tensor:
    """What onnxruntime gives for `x` (NCHW), brought to NCHW where the file is NHWC."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    session = onnxruntime.InferenceSession(path, options)
    given = session.get_inputs()[0]
    values = x.numpy()
    if given.shape[3] == x.shape[1] and given.shape[1] != x.shape[1]:
        values = values.transpose(0, 2, 3, 1)
    values = values.astype({"tensor(float16)": np.float16, "tensor(uint8)": np.uint8}.get(given.type, np.float32))
    result = session.run(None, {given.name: values})[0]
    return torch.from_numpy(result.astype(np.float32) if result.dtype == np.float16 else result)


def difference(path: Path, graph: Graph | None = None) -> float:
    """The largest difference from onnxruntime, on noise."""
    graph = graph or from_file(path)
    x = image(graph)
    with torch.no_grad():
        ours = graph(x)
    theirs = reference(path, x)
    if any("output is NHWC" in note for note in graph.notes):
        theirs = theirs.permute(0, 3, 1, 2)
    assert ours.shape == theirs.shape
    return float((ours.double() - theirs.double()).abs().max())


def kinds(graph: Graph) -> list[str]:
    """Class names of the layers, in order."""
    return [type(graph.layer(layer)).__name__ for layer in graph.layers()]

"""Adaptive average pooling whose windows differ in size, which exporters write out: as a gather and many additions, or
as products.

The steps depend on the exporter, so they are not recognised one by one. They are computed on noise, and the result is
compared with the pooling's.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch.nn import functional as F

from slimseg.frontends.onnx import constants
from slimseg.frontends.onnx.builder import Value
from slimseg.frontends.onnx.reader import Node
from slimseg.frontends.onnx.tensors import Array
from slimseg.frontends.work import Work

_MOST_STEPS = 2048
_LAST = ("Div", "ReduceMean", "Transpose")  # the last step, in the files of one exporter or another
_MOST_VALUES = 1 << 22  # of the map that is pooled


def written_out(
    nodes: Sequence[Node], source: Value, known: dict[str, Value | Array], work: Work
) -> tuple[int, tuple[int, int]] | None:
    """Where in `nodes` the pooling ends that begins with their first, and its output size; None if it is no pooling.

    `source` is what the first node reads, of `known` values.
    """
    if source.rank != 4 or int(np.prod(source.shape)) > _MOST_VALUES:
        return None
    noise = np.random.default_rng(0).standard_normal(source.stored, np.float32)
    computed: dict[str, Array] = {nodes[0].inputs[0]: noise.transpose(source.order)}
    for place, node in enumerate(nodes[:_MOST_STEPS]):
        given = [computed.get(name, known.get(name)) if name else None for name in node.inputs]
        if not any(name in computed for name in node.inputs):
            continue
        if any(isinstance(each, Value) for each in given):
            return None  # it reads something beside the map
        results = constants.fold(node, given, work)  # type: ignore[arg-type]
        if results is None:
            return None
        computed.update(zip(node.outputs, results, strict=False))
        if node.op in _LAST and results[0].ndim == 4:
            size = (results[0].shape[2], results[0].shape[3])
            pooled = F.adaptive_avg_pool2d(torch.from_numpy(noise), size).numpy()
            if pooled.shape == results[0].shape and np.allclose(pooled, results[0], atol=1e-5):
                return place, size
            if node.op != "Transpose":
                return None
    return None


def may_begin(node: Node) -> bool:
    """Whether adaptive pooling may begin with a node: PyTorch's exporters gather its windows, slimseg multiplies."""
    return node.op == "GatherND" or (node.op == "MatMul" and node.name.endswith("_across"))

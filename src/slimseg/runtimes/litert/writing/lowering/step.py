"""The argument of every lowering, and operators that many of them need."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as tflite
from torch import fx, nn

from slimseg.runtimes.litert.writing.dimensions import Order
from slimseg.tflite.schema import ModelBuilder

Op = tflite.BuiltinOperator
Options = tflite.BuiltinOptions
Fused = tflite.ActivationFunctionType


@dataclass(frozen=True)
class Step:
    """One node to write: its layer, the tensors that it reads, the name and shape of its result.

    Shapes are those of the file's tensors, whose dimensions have the orders of `dimensions.plan`: NHWC for layers that
    need it. The writer renames the result if it holds the value of a fused activation.
    """

    node: fx.Node
    layer: nn.Module
    inputs: tuple[int, ...]
    name: str
    fused: int  # activation that the operator applies to its result
    padding: tuple[int, int, int, int]  # zero padding (left, right, top, bottom) of a pad node before it
    input_shapes: tuple[tuple[int, ...], ...]  # of the stored inputs; the first without that padding
    orders: tuple[Order, ...]  # in which the inputs are stored
    shape: tuple[int, ...]  # of the stored result


Lowerings = dict[type[nn.Module], Callable[[ModelBuilder, Step, Any], int]]


def stored_dim(step: Step, dim: int) -> int:
    """The position in the file of a dimension of the node's first input."""
    order = step.orders[0]
    return order.index(dim % len(order))


def unary(builder: ModelBuilder, step: Step, code: int, options: Any = None, kind: int = 0, version: int = 1) -> int:
    """Add an operator that reads all inputs of the node unchanged, and return its result."""
    target = builder.tensor(step.name, step.shape, builder.dtype(step.inputs[0]))
    builder.operator(code, step.inputs, target, options, kind, version)
    return target


def pad_operator(
    builder: ModelBuilder,
    source: int,
    name: str,
    shape: Sequence[int],
    amounts: Any,
    value: float,
) -> int:
    """Add PAD, or PADV2 for a `value` other than 0, and return its result.

    Args:
        shape: NHWC shape of the result.
        amounts: (before, after) for height and width, and optionally for channels.
    """
    target = builder.tensor(name, shape)
    table = builder.constant(f"{name}_amounts", np.asarray([(0, 0), *amounts, (0, 0)][:4], np.int32))
    if value == 0.0:
        builder.operator(Op.PAD, (source, table), target, tflite.PadOptionsT(), Options.PadOptions)
    else:
        fill = builder.constant(f"{name}_value", np.asarray([value], np.float32))
        builder.operator(Op.PADV2, (source, table, fill), target, tflite.PadV2OptionsT(), Options.PadV2Options, 2)
    return target


def transpose_operator(builder: ModelBuilder, source: int, name: str, shape: Sequence[int], dims: Sequence[int]) -> int:
    """Add a TRANSPOSE of `source` to the dimensions `dims`, and return its result of `shape`."""
    order = builder.constant(f"{name}_dims", np.asarray(dims, np.int32))
    target = builder.tensor(name, shape, builder.dtype(source))
    builder.operator(Op.TRANSPOSE, (source, order), target, tflite.TransposeOptionsT(), Options.TransposeOptions)
    return target


def reshape_operator(builder: ModelBuilder, source: int, name: str, shape: Sequence[int]) -> int:
    """Add a RESHAPE of `source` to `shape`, and return its result."""
    wanted = np.asarray(shape, np.int32)
    options = tflite.ReshapeOptionsT()
    options.newShape = wanted
    target = builder.tensor(name, shape, builder.dtype(source))
    inputs = (source, builder.constant(f"{name}_shape", wanted))
    builder.operator(Op.RESHAPE, inputs, target, options, Options.ReshapeOptions)
    return target


def slice_operator(builder: ModelBuilder, source: int, begin: Sequence[int], step: Step) -> int:
    """Add a SLICE of `source` that starts at `begin` and has the node's shape, and return its result."""
    start = builder.constant(f"{step.name}_begin", np.asarray(begin, np.int32))
    size = builder.constant(f"{step.name}_size", np.asarray(step.shape, np.int32))
    target = builder.tensor(step.name, step.shape, builder.dtype(source))
    builder.operator(Op.SLICE, (source, start, size), target, tflite.SliceOptionsT(), Options.SliceOptions)
    return target

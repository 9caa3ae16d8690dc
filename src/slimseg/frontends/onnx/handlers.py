"""The table from ONNX operators to layers of the vocabulary."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from slimseg.errors import UnknownOperator
from slimseg.frontends.aten.decomposition import MOST_CALLS, MOST_STEPS
from slimseg.frontends.onnx import (
    activation,
    arithmetic,
    contributed,
    convolution,
    functions,
    layout,
    markers,
    pooling,
    rarities,
    resampling,
    resize,
    sampling,
)
from slimseg.frontends.onnx.builder import Call, Value
from slimseg.frontends.onnx.in_torch import in_torch
from slimseg.graph import ops

Handler = Callable[[Call], Any]


def _unary(function: str) -> Handler:
    return activation.simple(lambda: ops.Unary(function))


def _or_in_torch(handler: Handler) -> Handler:
    """A handler for an operator that is one layer for some arguments; for others it is computed in torch."""

    def either(call: Call) -> Any:
        try:
            return handler(call)
        except UnknownOperator:
            return in_torch(_IN_TORCH[call.node.op])(call)

    return either


def _results(*functions_: Callable[..., Tensor], most_calls: int = MOST_CALLS) -> Handler:
    """A handler for an operator with several results, each of which a function computes if it is read."""

    def handler(call: Call) -> tuple[Value, ...]:
        names, made = call.node.outputs, []
        for name, function in zip(names, functions_, strict=False):
            is_read = bool(call.builder.consumers.get(name)) or name in call.builder.model.outputs
            made.append(in_torch(function, most_calls)(call) if is_read else call.value())
        return tuple(made)

    return handler


_IN_TORCH = {**functions.TABLE, **rarities.TABLE, "Resize": resampling.resize, "Upsample": resampling.resize}


_LAYERS: Mapping[str, Handler] = {
    "Conv": convolution.convolution,
    "ConvTranspose": convolution.transposed_convolution,
    "Gemm": convolution.fully_connected,
    "MatMul": convolution.matrix_product,
    "BatchNormalization": arithmetic.batch_norm,
    "InstanceNormalization": arithmetic.instance_norm,
    "LayerNormalization": arithmetic.layer_norm,
    "RMSNormalization": arithmetic.rms_norm,
    "GroupNormalization": arithmetic.group_norm,
    "Relu": activation.simple(nn.ReLU),
    "Clip": activation.clip,
    "LeakyRelu": activation.leaky_relu,
    "PRelu": activation.prelu,
    "Elu": activation.elu,
    "HardSwish": activation.simple(nn.Hardswish),
    "HardSigmoid": activation.hard_sigmoid,
    "Sigmoid": activation.simple(nn.Sigmoid),
    "Tanh": activation.simple(nn.Tanh),
    "Gelu": activation.gelu,
    "Erf": activation.simple(activation.Erf),
    "Softplus": activation.softplus,
    "Mish": activation.mish,
    "Softmax": activation.softmax,
    "LogSoftmax": activation.log_softmax,
    "QuantizeLinear": activation.quantize,
    "DequantizeLinear": layout.alias,
    "Abs": _unary("abs"),
    "Exp": _unary("exp"),
    "Log": _unary("log"),
    "Neg": _unary("neg"),
    "Sqrt": _unary("sqrt"),
    "Floor": _unary("floor"),
    "Sign": _unary("sign"),
    "Sin": _unary("sin"),
    "Cos": _unary("cos"),
    "Pow": arithmetic.power,
    "Reciprocal": arithmetic.reciprocal,
    "MaxPool": markers.max_pool,
    "AveragePool": pooling.average_pool,
    "GlobalAveragePool": pooling.global_average,
    "GlobalMaxPool": pooling.global_maximum,
    "ReduceMean": pooling.reduction("mean"),
    "ReduceSum": pooling.reduction("sum"),
    "ReduceMax": pooling.reduction("max"),
    "ReduceMin": pooling.reduction("min"),
    "ArgMax": pooling.arg_max,
    "Add": arithmetic.broadcasting(ops.Add, *(lambda value: ops.Affine(shift=value),) * 2),
    "Sub": arithmetic.broadcasting(ops.Subtract, arithmetic.minus, arithmetic.from_constant),
    "Mul": arithmetic.broadcasting(ops.Multiply, ops.Affine, ops.Affine),
    "Div": arithmetic.divide,
    "Sum": arithmetic.variadic(ops.Add),
    "Max": arithmetic.variadic(ops.Maximum, lambda low: activation.bounds(low, math.inf)),
    "Min": arithmetic.variadic(ops.Minimum, lambda high: activation.bounds(-math.inf, high)),
    "Resize": resize.resize,
    "Upsample": resize.resize,
    "Reshape": layout.reshape,
    "Flatten": layout.flatten,
    "Squeeze": layout.squeeze,
    "Unsqueeze": layout.unsqueeze,
    "Transpose": layout.transpose,
    "Concat": layout.concat,
    "Slice": layout.slice_,
    "Split": layout.split,
    "Gather": layout.gather,
    "GatherND": layout.gather_nd,
    "GridSample": sampling.grid_sample,
    "Pad": layout.pad,
    "Expand": layout.expand,
    "Tile": layout.expand,
    "DepthToSpace": layout.depth_to_space,
    "SpaceToDepth": layout.space_to_depth,
    "Cast": layout.cast,
    "Identity": layout.alias,
    "Dropout": layout.alias,
}

HANDLERS: Mapping[str, Handler] = {
    **{op: in_torch(function) for op, function in _IN_TORCH.items()},
    **{op: _or_in_torch(layer) if op in _IN_TORCH else layer for op, layer in _LAYERS.items()},
    **contributed.HANDLERS,
    **{op: _results(rarities.recurrent_layer, most_calls=MOST_STEPS) for op in ("LSTM", "GRU", "RNN")},
    "TopK": _results(rarities.top(0), rarities.top(1)),
    "SequenceConstruct": markers.listed,
    "SplitToSequence": markers.split,
    "CastLike": layout.alias,
}

"""The table from TFLite's operators to the handlers that rebuild them in the vocabulary."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import nn

from slimseg.frontends.tflite import activation, arithmetic, convolution, layout, pooling, product
from slimseg.frontends.tflite.value import Call, Value
from slimseg.graph import ops

Handler = Callable[[Call], "Value | tuple[Value, ...]"]

HANDLERS: Mapping[str, Handler] = {
    "CONV_2D": convolution.convolution,
    "DEPTHWISE_CONV_2D": convolution.depthwise,
    "TRANSPOSE_CONV": convolution.transposed,
    "Convolution2DTransposeBias": convolution.media_pipe_transposed,
    "FULLY_CONNECTED": convolution.fully_connected,
    "BATCH_MATMUL": product.matrix_product,
    "SPACE_TO_BATCH_ND": convolution.space_to_batch,
    "BATCH_TO_SPACE_ND": convolution.batch_to_space,
    "MAX_POOL_2D": pooling.max_pool,
    "AVERAGE_POOL_2D": pooling.average_pool,
    "MEAN": pooling.reduction("mean"),
    "SUM": pooling.reduction("sum"),
    "REDUCE_MAX": pooling.reduction("max"),
    "REDUCE_MIN": pooling.reduction("min"),
    "RELU": activation.plain(nn.ReLU),
    "RELU6": activation.plain(nn.ReLU6),
    "RELU_N1_TO_1": activation.plain(lambda: nn.Hardtanh(-1.0, 1.0)),
    "RELU_0_TO_1": activation.plain(lambda: nn.Hardtanh(0.0, 1.0)),
    "LEAKY_RELU": activation.leaky_relu,
    "PRELU": activation.prelu,
    "ELU": activation.plain(nn.ELU),
    "GELU": activation.gelu,
    "HARD_SWISH": activation.plain(nn.Hardswish),
    "LOGISTIC": activation.plain(nn.Sigmoid),
    "TANH": activation.plain(nn.Tanh),
    "SOFTMAX": activation.softmax,
    "ARG_MAX": activation.arg_max,
    "ADD": arithmetic.add,
    "ADD_N": arithmetic.add_all,
    "SUB": arithmetic.subtract,
    "MUL": arithmetic.multiply,
    "DIV": arithmetic.divide,
    "MAXIMUM": arithmetic.maximum,
    "MINIMUM": arithmetic.minimum,
    "SQUARED_DIFFERENCE": arithmetic.squared_difference,
    "POW": arithmetic.power,
    "ABS": arithmetic.function("abs"),
    "EXP": arithmetic.function("exp"),
    "LOG": arithmetic.function("log"),
    "NEG": arithmetic.function("neg"),
    "SQRT": arithmetic.function("sqrt"),
    "RSQRT": arithmetic.function("rsqrt"),
    "SQUARE": arithmetic.function("square"),
    "CONCATENATION": layout.concatenate,
    "PAD": layout.pad,
    "PADV2": layout.pad,
    "RESIZE_BILINEAR": layout.resize("bilinear"),
    "RESIZE_NEAREST_NEIGHBOR": layout.resize("nearest"),
    "RESHAPE": layout.reshape,
    "SQUEEZE": layout.reshape,
    "EXPAND_DIMS": layout.reshape,
    "TRANSPOSE": layout.transpose,
    "SLICE": layout.slice_,
    "STRIDED_SLICE": layout.strided_slice,
    "SPLIT": layout.split,
    "SPLIT_V": layout.split,
    "UNPACK": layout.unpack,
    "GATHER": layout.gather,
    "PACK": layout.pack,
    "TILE": layout.tile,
    "BROADCAST_TO": layout.spread,
    "DEPTH_TO_SPACE": layout.blocks(ops.DepthToSpace),
    "SPACE_TO_DEPTH": layout.blocks(ops.SpaceToDepth),
    "CAST": layout.cast,
    "QUANTIZE": layout.alias,
    "DEQUANTIZE": layout.alias,
    "FAKE_QUANT": layout.alias,
    "STOP_GRADIENT": layout.alias,
}

"""How well the name of an XNNPACK kernel fits a TFLite operator, and which operators have several kernels or none."""

from __future__ import annotations

import re
from typing import NamedTuple

# Misfits of a kernel: unusual for this operator; a helper that any operator may have; typical of another operator.
SLIGHT, HELP, FOREIGN = 0.1, 2.0, 12.0

# Names of the XNNPACK kernels that do an operator's main work.
_OWN = {
    "CONV_2D": r"Convolution|Fully Connected|Dynamic|Batch Matrix",
    "DEPTHWISE_CONV_2D": r"Convolution|Multiply",
    "TRANSPOSE_CONV": r"Deconvolution",
    "Convolution2DTransposeBias": r"Deconvolution",  # this and the next two: MediaPipe's operators, which XNNPACK runs
    "MaxPoolingWithArgmax2D": r"Arg ?Max Pooling|Max Pooling",
    "MaxUnpooling2D": r"Unpooling",
    "FULLY_CONNECTED": r"Fully Connected|Dynamic|Batch Matrix",
    "BATCH_MATMUL": r"Batch Matrix|Fully Connected",
    "ADD": r"Add",
    "SUB": r"Subtract",
    "MUL": r"Multiply|Unary",  # x · gate(x) in 8 bits is one table look-up
    "DIV": r"Divide",
    "MAXIMUM": r"Maximum",
    "MINIMUM": r"Minimum",
    "SQUARED_DIFFERENCE": r"Squared Difference",
    "AVERAGE_POOL_2D": r"Average Pooling|Mean|Global|Reduce",
    "MEAN": r"Mean|Global|Reduce|Average",
    "SUM": r"Sum|Global|Reduce",
    "REDUCE_MAX": r"Max|Reduce",
    "REDUCE_MIN": r"Min|Reduce",
    "MAX_POOL_2D": r"Max Pooling",
    "ARG_MAX": r"Arg",
    "RESIZE_BILINEAR": r"Resize Bilinear",
    "SOFTMAX": r"Soft ?max|Exp|Reduce|Subtract|Divide|Multiply|Max",
    "PRELU": r"PReLU",
    "RELU": r"Clamp|Max|Unary",
    "RELU6": r"Clamp|Unary",
    "RELU_N1_TO_1": r"Clamp|Unary",
    "RELU_0_TO_1": r"Clamp|Unary",
    "LEAKY_RELU": r"Leaky|Unary",
    "ELU": r"ELU|Elu|Unary",
    "GELU": r"GELU|Gelu|Unary",
    "HARD_SWISH": r"Hard ?Swish|HSwish|Unary",
    "LOGISTIC": r"Sigmoid|Unary",
    "TANH": r"Tanh|TanH|Unary",
    "SQRT": r"Square Root|Sqrt|Unary",
    "RSQRT": r"Reciprocal|Rsqrt|Unary",
    "EXP": r"Exp|Unary",
    "ABS": r"Abs|Unary",
    "NEG": r"Neg|Unary",
    "SQUARE": r"Square|Unary",
    "LOG": r"Log|Unary",
    "FLOOR": r"Floor|Bankers|Unary",
    "CEIL": r"Ceil|Unary",
    "ROUND": r"Round|Bankers|Unary",
    "SIN": r"Sin|Unary",
    "COS": r"Cos|Unary",
    "SIGN": r"Sign|Unary",
    "CONCATENATION": r"Copy|Concat|Convert",
    "SPLIT": r"Copy|Slice|Split",
    "PACK": r"Copy|Concat",
    "UNPACK": r"Slice|Split|Copy",
    "BROADCAST_TO": r"Broadcast|Copy",
    "PAD": r"Constant Pad|Pad",
    "PADV2": r"Constant Pad|Pad",
    "SLICE": r"Slice|Copy",
    "STRIDED_SLICE": r"Slice|Copy",
    "TRANSPOSE": r"Transpose|Copy",
    "RESHAPE": r"Reshape|Copy",
    "EXPAND_DIMS": r"Reshape|Copy",
    "SQUEEZE": r"Reshape|Copy",
    "DEPTH_TO_SPACE": r"Depth To Space|Transpose|Depth",
    "SPACE_TO_DEPTH": r"Space To Depth|Transpose|Space",
    "QUANTIZE": r"Convert|Invalid Unary",  # from int8 to uint8 or back
    "DEQUANTIZE": r"Convert",
    "CAST": r"Convert",
}
_PATTERNS = {op: re.compile(rf"\b(?:{names})", re.IGNORECASE) for op, names in _OWN.items()}
_PLUMBING = re.compile(
    r"\b(?:Copy|Transpose|Convert|Reshape|Constant Pad|Reduce|Dynamic|Pack|Unary|Clamp)", re.IGNORECASE
)
# Operators that the delegate splits into several kernels; `FOLDED`, below, are those it may fuse with another's kernel.
SPLIT = {"CONCATENATION", "SPLIT", "PACK", "SOFTMAX", "MEAN", "GELU", "BATCH_MATMUL", "DEPTH_TO_SPACE"}
# Kernels that prepare an operator's input: quantise it at run time (dynamic range), or reshape it to a matrix.
_DYNAMIC = re.compile(r"Convert \(NC, F\d+, Q[DP]")
_ACTIVATION = re.compile(r"Clamp|Invalid Unary")
_TABLE = "Invalid Unary Op"
_FLATTENED = re.compile(r"Static Reshape")
PREPARED = {"CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV", "FULLY_CONNECTED", "BATCH_MATMUL"}
PREPARED |= {"Convolution2DTransposeBias"}
FOLDED = {"RELU", "RELU6", "RELU_N1_TO_1", "RELU_0_TO_1", "PAD", "RESHAPE", "SQUEEZE", "EXPAND_DIMS", "QUANTIZE"}
FOLDED |= {"DEQUANTIZE", "CAST", "TRANSPOSE", "CONCATENATION", "SPLIT", "SLICE", "STRIDED_SLICE"}


class Kind(NamedTuple):
    """The properties of an operator that the alignment uses."""

    op: str
    activated: bool = False  # has a fused activation, for which the delegate may add a kernel
    tabular: bool = False  # a function of one 8-bit tensor: a chain of them becomes one table, reported for the last


def misfit(kind: Kind, tag: str) -> float:
    """0 for the operator's main kernel, more for helpers that any operator may have, most for another's kernel."""
    op = kind.op
    pattern = _PATTERNS.get(op)
    name = tag.partition("(")[0]
    if _DYNAMIC.match(tag):
        return SLIGHT if op in PREPARED else FOREIGN
    if (op == "FULLY_CONNECTED" and _FLATTENED.match(tag)) or (kind.activated and _ACTIVATION.match(tag)):
        return SLIGHT
    if kind.tabular and _TABLE in tag:
        return SLIGHT
    if pattern is not None and pattern.search(name):
        if op == "DEPTHWISE_CONV_2D" and "DWConv" not in tag:
            return 0.5
        return 1.0 if op == "CONV_2D" and "DWConv" in tag else 0.0
    if pattern is None:
        return HELP  # the kernels of an unknown operator can have any name
    return HELP + (0.5 if op not in SPLIT else 0.0) if _PLUMBING.search(name) else FOREIGN

"""The table from ATen calls, as torch.export writes them, to modules of the vocabulary."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import nn

from slimseg.frontends.aten import arithmetic, layers, layout, resize
from slimseg.frontends.aten.call import Alias, Call, Chain, Layer, Parameter
from slimseg.frontends.aten.layout import part
from slimseg.graph import ops

HANDLERS: Mapping[str, Callable[[Call], Layer | Chain | Alias | None]] = {
    "conv2d.default": layers.convolution,
    "conv2d.padding": layers.convolution,
    "conv_transpose2d.input": layers.transposed_convolution,
    "batch_norm.default": layers.batch_norm,
    "linear.default": layers.linear,
    "relu.default": layers.simple("relu", nn.ReLU),
    "relu_.default": layers.simple("relu", nn.ReLU),
    "relu6.default": layers.simple("relu6", nn.ReLU6),
    "relu6_.default": layers.simple("relu6", nn.ReLU6),
    "hardtanh.default": layers.hard_tanh,
    "hardtanh_.default": layers.hard_tanh,
    "clamp.default": layers.clamp,
    "clamp_.default": layers.clamp,
    "clamp_min.default": lambda call: layers.simple("relu", nn.ReLU)(call) if call["min"] == 0 else None,
    "leaky_relu.default": layers.leaky_relu,
    "leaky_relu_.default": layers.leaky_relu,
    "rrelu.default": layers.random_relu,
    "prelu.default": layers.prelu,
    "hardswish.default": layers.simple("hardswish", nn.Hardswish),
    "hardswish_.default": layers.simple("hardswish", nn.Hardswish),
    "hardsigmoid.default": layers.simple("hardsigmoid", nn.Hardsigmoid),
    "hardsigmoid_.default": layers.simple("hardsigmoid", nn.Hardsigmoid),
    "silu.default": layers.simple("silu", nn.SiLU),
    "silu_.default": layers.simple("silu", nn.SiLU),
    "sigmoid.default": layers.simple("sigmoid", nn.Sigmoid),
    "sigmoid_.default": layers.simple("sigmoid", nn.Sigmoid),
    "tanh.default": layers.simple("tanh", nn.Tanh),
    "gelu.default": layers.gelu,
    "max_pool2d.default": layers.max_pool,
    "avg_pool2d.default": layers.average_pool,
    "adaptive_avg_pool2d.default": layers.adaptive_average_pool,
    "mean.dim": layout.reduction("mean"),
    "sum.dim_IntList": layout.reduction("sum"),
    "amax.default": layout.reduction("max"),
    "amin.default": layout.reduction("min"),
    "upsample_bilinear2d.vec": resize.resize("bilinear"),
    "upsample_bilinear2d.default": resize.resize("bilinear"),
    "upsample_nearest2d.vec": resize.resize("nearest"),
    "upsample_nearest2d.default": resize.resize("nearest"),
    "_upsample_nearest_exact2d.vec": resize.resize("nearest-exact"),
    "_upsample_nearest_exact2d.default": resize.resize("nearest-exact"),
    "pad.default": layout.pad,
    "constant_pad_nd.default": layout.pad,
    "add.Tensor": arithmetic.add,
    "add_.Tensor": arithmetic.add,
    "sub.Tensor": arithmetic.subtract,
    "sub_.Tensor": arithmetic.subtract,
    "rsub.Scalar": arithmetic.reverse_subtract,
    "mul.Tensor": arithmetic.multiply,
    "mul_.Tensor": arithmetic.multiply,
    "div.Tensor": arithmetic.divide,
    "div_.Tensor": arithmetic.divide,
    "maximum.default": arithmetic.together("maximum", ops.Maximum),
    "minimum.default": arithmetic.together("minimum", ops.Minimum),
    "abs.default": arithmetic.function("abs"),
    "exp.default": arithmetic.function("exp"),
    "log.default": arithmetic.function("log"),
    "neg.default": arithmetic.function("neg"),
    "sqrt.default": arithmetic.function("sqrt"),
    "rsqrt.default": arithmetic.function("rsqrt"),
    "square.default": arithmetic.function("square"),
    "pow.Tensor_Scalar": arithmetic.power,
    "expand.default": layout.expand,
    "view.default": layout.reshape,
    "reshape.default": layout.reshape,
    "flatten.using_ints": layout.reshape,
    "unflatten.int": layout.reshape,
    "squeeze.default": layout.reshape,
    "squeeze.dim": layout.reshape,
    "squeeze.dims": layout.reshape,
    "unsqueeze.default": layout.reshape,
    "permute.default": layout.permute,
    "transpose.int": layout.transpose,
    "cat.default": layout.concat,
    "softmax.int": layers.softmax,
    "argmax.default": layout.arg_max,
    "slice.Tensor": layout.channel_slice,
    "narrow.default": layout.narrow,
    "dropout.default": layout.dropout,
    "dropout_.default": layout.dropout,
    "feature_dropout.default": layout.dropout,
    "to.dtype": layout.cast,
    "to.dtype_layout": layout.cast,
    "_to_copy.default": layout.cast,
    "contiguous.default": layout.alias("self"),
    "alias.default": layout.alias("self"),
    "detach.default": layout.alias("self"),
    "detach_.default": layout.alias("self"),
    "clone.default": lambda call: Alias(call["self"], copies=True),
}

# Calls that read no tensor and always return the same values.
FACTORIES = frozenset(
    ("ones.default", "zeros.default", "full.default", "arange.default", "arange.start", "arange.start_step")
)

__all__ = ["FACTORIES", "HANDLERS", "Alias", "Call", "Chain", "Layer", "Parameter", "part"]

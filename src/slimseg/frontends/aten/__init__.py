"""The table from ATen calls, as torch.export writes them, to modules of the vocabulary."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import fx, nn

from slimseg.frontends.aten import arithmetic, layers, layout, normalisation, product, resize, sampling
from slimseg.frontends.aten.call import Alias, Call, Chain, Layer, Parameter
from slimseg.frontends.aten.layout import TAKEN_APART, part
from slimseg.graph import ops

# Calls that round values as those of an 8-bit network are rounded: left out.
ROUNDED = frozenset(
    (
        *("fake_quantize_per_tensor_affine.default", "fake_quantize_per_tensor_affine.tensor_qparams"),
        *("fake_quantize_per_channel_affine.default", "fused_moving_avg_obs_fake_quant.default"),
        "_fake_quantize_learnable_per_tensor_affine.default",
        "_fake_quantize_learnable_per_channel_affine.default",
    )
)

HANDLERS: Mapping[str, Callable[[Call], Layer | Chain | Alias | None]] = {
    "conv2d.default": layers.convolution,
    "conv2d.padding": layers.convolution,
    "conv_transpose2d.input": layers.transposed_convolution,
    "batch_norm.default": layers.batch_norm,
    "layer_norm.default": normalisation.layer_norm,
    "rms_norm.default": normalisation.rms_norm,
    "group_norm.default": normalisation.group_norm,
    "instance_norm.default": normalisation.instance_norm,
    "linear.default": layers.linear,
    "matmul.default": product.matrix_product,
    "bmm.default": product.matrix_product,
    "mm.default": product.matrix_product,
    "einsum.default": product.einsum,
    "scaled_dot_product_attention.default": product.attention,
    "relu.default": layers.simple("relu", nn.ReLU),
    "relu6.default": layers.simple("relu6", nn.ReLU6),
    "hardtanh.default": layers.hard_tanh,
    "clamp.default": layers.clamp,
    "clamp_min.default": layers.clamp,
    "clamp_max.default": layers.clamp,
    "clip.default": layers.clamp,
    "elu.default": layers.elu,
    "leaky_relu.default": layers.leaky_relu,
    "rrelu.default": layers.random_relu,
    "prelu.default": layers.prelu,
    "hardswish.default": layers.simple("hardswish", nn.Hardswish),
    "hardsigmoid.default": layers.simple("hardsigmoid", nn.Hardsigmoid),
    "silu.default": layers.simple("silu", nn.SiLU),
    "sigmoid.default": layers.simple("sigmoid", nn.Sigmoid),
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
    "grid_sampler.default": sampling.grid_sample,
    "grid_sampler_2d.default": sampling.grid_sample,
    "pad.default": layout.pad,
    "constant_pad_nd.default": layout.pad,
    "add.Tensor": arithmetic.add,
    "sub.Tensor": arithmetic.subtract,
    "rsub.Scalar": arithmetic.reverse_subtract,
    "rsub.Tensor": arithmetic.reverse_subtract,
    "add.Scalar": arithmetic.add,
    "sub.Scalar": arithmetic.subtract,
    "mul.Scalar": arithmetic.multiply,
    "div.Scalar": arithmetic.divide,
    "mul.Tensor": arithmetic.multiply,
    "div.Tensor": arithmetic.divide,
    "maximum.default": arithmetic.together("maximum", ops.Maximum),
    "minimum.default": arithmetic.together("minimum", ops.Minimum),
    "abs.default": arithmetic.function("abs"),
    "exp.default": arithmetic.function("exp"),
    "log.default": arithmetic.function("log"),
    "neg.default": arithmetic.function("neg"),
    "sqrt.default": arithmetic.function("sqrt"),
    "rsqrt.default": arithmetic.function("rsqrt"),
    "square.default": arithmetic.function("square"),
    "reciprocal.default": arithmetic.function("reciprocal"),
    "sin.default": arithmetic.function("sin"),
    "cos.default": arithmetic.function("cos"),
    "floor.default": arithmetic.function("floor"),
    "sign.default": arithmetic.function("sign"),
    "pow.Tensor_Scalar": arithmetic.power,
    "expand.default": layout.expand,
    "expand_as.default": layout.expand,
    "view.default": layout.reshape,
    "_unsafe_view.default": layout.reshape,
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
    "pixel_shuffle.default": layout.pixel_shuffle,
    "pixel_unshuffle.default": layout.pixel_unshuffle,
    "channel_shuffle.default": layout.channel_shuffle,
    "native_channel_shuffle.default": layout.channel_shuffle,
    "softmax.int": layers.softmax,
    "argmax.default": layout.arg_max,
    "slice.Tensor": layout.channel_slice,
    "select.int": layout.select,
    "stack.default": layout.stack,
    "narrow.default": layout.narrow,
    "dropout.default": layout.dropout,
    "feature_dropout.default": layout.dropout,
    "to.dtype": layout.cast,
    "to.dtype_layout": layout.cast,
    "_to_copy.default": layout.cast,
    "contiguous.default": layout.alias("self"),
    "alias.default": layout.alias("self"),
    "detach.default": layout.alias("self"),
    **dict.fromkeys(ROUNDED, layout.alias("self")),
    "clone.default": lambda call: Alias(call["self"], copies=True),
}

# Calls that read no tensor and always return the same values.
FACTORIES = frozenset(
    (
        *("ones.default", "zeros.default", "full.default", "eye.default", "eye.m", "scalar_tensor.default"),
        *("arange.default", "arange.start", "arange.start_step", "linspace.default"),
    )
)
# Calls that draw random numbers, as the first bases of a matrix decomposition: they are drawn once, while opening.
DRAWN = frozenset(("rand.default", "randn.default"))
# Calls that read only the shape and type of a tensor.
SHAPED = frozenset(
    (
        *("ones_like.default", "zeros_like.default", "full_like.default"),
        *("new_ones.default", "new_zeros.default", "new_full.default"),
    )
)


def plain_name(node: fx.Node) -> str:
    """An operator's name and overload without "aten.", those of `relu` for `relu_`, which writes to its argument."""
    name, _, overload = str(node.target).removeprefix("aten.").partition(".")
    return f"{name if name.startswith('_') else name.removesuffix('_')}.{overload}"


__all__ = [
    "DRAWN",
    "FACTORIES",
    "HANDLERS",
    "ROUNDED",
    "SHAPED",
    "TAKEN_APART",
    "Alias",
    "Call",
    "Chain",
    "Layer",
    "Parameter",
    "part",
]

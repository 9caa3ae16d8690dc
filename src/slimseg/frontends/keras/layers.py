"""One function per Keras layer class: from its configuration and weights to the Graph's nodes.

Convolutions are in convolutions.py; an operation, a TFOpLambda and a Lambda call functions of functions.py.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from torch import nn

from slimseg.errors import ModelError
from slimseg.frontends.keras import (
    activations,
    arithmetic,
    attention,
    convolutions,
    functions,
    lambdas,
    layout,
    normalisation,
)
from slimseg.frontends.keras.builder import Value, parameter
from slimseg.frontends.keras.pooling import average_pooling, global_pooling, max_pooling
from slimseg.frontends.keras.said import Said, pair, plain_number, require_channels_last
from slimseg.graph import ops

MOST_REPEATS = 64  # copies of a RepeatVector
MAX_SLOPES = 1 << 24  # values of a PReLU with one slope per value


def say(said: Said) -> Any:
    """Emit the nodes of one call of one layer; returns a value, or a list of values.

    Raises:
        ModelError: the layer has no equivalent; the message names the layer and its class.
    """
    layer = said.layer
    try:
        if layer.is_operation or (layer.is_operation is None and functions.knows(layer.class_name)):
            settings = {key: value for key, value in layer.config.items() if key != "name" and value is not None}
            return functions.call(said.builder, layer.class_name, said.args, {**settings, **said.kwargs})
        function = LAYERS.get(layer.class_name.rpartition(">")[2])
        if function is None:
            raise ModelError(f"the class {layer.class_name} has no counterpart in slimseg: give the .tflite instead")
        require_channels_last(said)
        return function(said)
    except ModelError as error:
        if layer.name in str(error):
            raise
        raise ModelError(f"layer {layer.name} ({layer.class_name}): {error}") from error


def identity(said: Said) -> Any:
    return said.inputs if len(said.inputs) > 1 else said.x


def activation(said: Said) -> Value:
    return activations.apply(said.builder, said.x, said.config["activation"])


def relu(said: Said) -> Value:
    config = said.config
    return activations.relu(
        said.builder,
        said.x,
        float(config.get("negative_slope") or 0.0),
        config.get("max_value"),
        float(config.get("threshold") or 0.0),
    )


def leaky_relu(said: Said) -> Value:
    slope = said.config.get("negative_slope", said.config.get("alpha", 0.3))
    return activations.leaky_relu(said.builder, said.x, float(plain_number(slope)))


def elu(said: Said) -> Value:
    return activations.elu(said.builder, said.x, float(plain_number(said.config.get("alpha", 1.0))))


def softmax(said: Said) -> Value:
    return activations.softmax(said.builder, said.x, said.config.get("axis", -1))


def prelu(said: Said) -> Value:
    """One slope per channel if height and width share slopes, else one per value."""
    (alpha,) = said.weights("alpha")
    x = said.x
    if alpha.ndim != len(x.shape) - 1:
        raise ModelError(f"slopes of shape {alpha.shape} do not fit a tensor of {x.keras_shape}")
    if alpha.size == alpha.shape[-1]:
        module: nn.Module = nn.PReLU(alpha.size)
        module.weight = parameter(alpha.reshape(-1))
        return said.emit(module, x)
    if math.prod(x.shape) > MAX_SLOPES:
        raise ModelError(f"it would have a slope for each of {math.prod(x.shape)} values: refused")
    slopes = np.broadcast_to(alpha, x.keras_shape[1:])
    return said.emit(ops.SpatialPReLU(parameter(slopes, (2, 0, 1))), x)


def dense(said: Said) -> Value:
    """A linear layer over the last dimension; on a map, a 1x1 convolution."""
    x, config = said.x, said.config
    names = ["kernel", "bias"] if config.get("use_bias", True) else ["kernel"]
    kernel, *bias = said.weights(*names)
    if kernel.ndim != 2 or kernel.shape[0] != x.keras_shape[-1]:
        raise ModelError(f"a kernel of {kernel.shape} does not fit a tensor of {x.keras_shape}")
    if len(x.shape) == 4:
        module: nn.Module = convolutions.module(kernel[None, None], bias, 1, (1, 1), (0, 0), (1, 1))
    else:
        module = nn.Linear(kernel.shape[0], kernel.shape[1], bool(bias), device="meta")
        module.weight = parameter(kernel, (1, 0))
        convolutions.set_bias(module, bias, kernel.shape[1])
    return activations.apply(said.builder, said.emit(module, x), config.get("activation"), suffix="activation")


def merge(function: Callable[..., Any]) -> Callable[[Said], Value]:
    """A handler for Add, Multiply, ...: combines inputs two by two; the last node gets the layer's name."""

    def emit(said: Said) -> Value:
        result, *others = said.inputs
        for count, other in enumerate(others, 1):
            result = function(said.builder, result, other, suffix="" if count == len(others) else f"part{count}")
        return result

    return emit


def average(said: Said) -> Value:
    total, *others = said.inputs
    for count, other in enumerate(others, 1):
        total = arithmetic.add(said.builder, total, other, suffix=f"sum{count}")
    return said.builder.affine(total, scale=1 / (len(others) + 1))


def concatenate(said: Said) -> Value:
    return layout.concat(said.builder, said.inputs, said.config.get("axis", -1))


def up_sampling(said: Said) -> Value:
    height, width = pair(said.config.get("size", 2))
    size = (said.x.shape[2] * height, said.x.shape[3] * width)
    return layout.resize(said.builder, said.x, size, said.config.get("interpolation", "nearest"))


def resizing(said: Said) -> Value:
    config = said.config
    return functions.resize(
        said.builder,
        said.x,
        (config["height"], config["width"]),
        config.get("interpolation", "bilinear"),
        bool(config.get("antialias")),
        crop_to_aspect_ratio=bool(config.get("crop_to_aspect_ratio")),
        pad_to_aspect_ratio=bool(config.get("pad_to_aspect_ratio")),
    )


def zero_padding(said: Said) -> Value:
    return layout.pad(said.builder, said.x, _amounts(said.config["padding"]))


def cropping(said: Said) -> Value:
    (top, bottom), (left, right) = _amounts(said.config["cropping"])
    return layout.pad(said.builder, said.x, ((-top, -bottom), (-left, -right)))


def center_crop(said: Said) -> Value:
    """Crops as TensorFlow does: of an odd number of pixels, one less before the middle."""
    rows, columns = (
        (length - int(said.config[name]), int(said.config[name]))
        for name, length in zip(("height", "width"), said.x.shape[2:], strict=True)
    )
    if min(rows[0], columns[0]) < 0:
        raise ModelError("a CenterCrop of a smaller map resizes it: give the .tflite instead")
    (top, bottom), (left, right) = ((extra // 2, extra - extra // 2) for extra, _ in (rows, columns))
    return layout.pad(said.builder, said.x, ((-top, -bottom), (-left, -right)))


def adaptive_average(said: Said) -> Value:
    return said.emit(nn.AdaptiveAvgPool2d(pair(said.config["output_size"])), said.x)


def _amounts(stored: Any) -> tuple[tuple[int, int], tuple[int, int]]:
    rows, columns = (stored, stored) if isinstance(stored, int) else stored
    return pair(rows), pair(columns)


def reshape(said: Said) -> Value:
    return layout.reshape(said.builder, said.x, [1, *said.config["target_shape"]])


def permute(said: Said) -> Value:
    return layout.transpose(said.builder, said.x, [0, *said.config["dims"]])


def repeat_vector(said: Said) -> Value:
    count, row = int(said.config["n"]), layout.expand_dims(said.builder, said.x, 1, suffix="row")
    if not 1 <= count <= MOST_REPEATS:
        raise ModelError(f"{count} repetitions are more than slimseg copies: give the .tflite instead")
    return layout.concat(said.builder, [row] * count, 1)


def flatten(said: Said) -> Value:
    return layout.flatten(said.builder, said.x)


def tf_op(said: Said) -> Any:
    """A call of a TensorFlow function in functional code: `tf.nn.relu6(x)`, `x + 3`, `x[..., :2]`."""
    name = str(said.config.get("function", "__operators__.getitem"))
    kwargs = dict(said.kwargs)
    args = list(said.args)
    if "slice_spec" in kwargs:
        args, kwargs = [args[0], kwargs["slice_spec"]], {}
    return functions.call(said.builder, name, args, kwargs)


def tf_op_layer(said: Said) -> Any:
    """The same as stored by TensorFlow 2.0 to 2.3: a node definition, and the constants among its arguments."""
    node = said.config["node_def"]
    if not isinstance(node, dict):
        said.builder.spend(len(node))
        node = json.loads(node)
    args: list[Any] = list(said.inputs)
    for position, value in sorted(said.config.get("constants", {}).items(), key=lambda item: int(item[0])):
        args.insert(int(position), value)
    if node["op"] == "ConcatV2":
        args = [args[:-1], args[-1]]
    return functions.call(said.builder, str(node["op"]), args, _attributes(node))


def _attributes(node: dict[str, Any]) -> dict[str, Any]:
    """A node definition's settings that affect the result: {"keep_dims": {"b": true}, "end_mask": {"i": "7"}}."""
    wanted = ("align_corners", "half_pixel_centers", "keep_dims", "begin_mask", "end_mask", "shrink_axis_mask")
    stored = {key: value for key, value in node.get("attr", {}).items() if key in wanted}
    return {key: bool(value["b"]) if "b" in value else int(value.get("i", 0)) for key, value in stored.items()}


def lambda_(said: Said) -> Any:
    """A Lambda; lambdas.py interprets its stored code without running it."""
    argument = said.inputs[0] if len(said.inputs) == 1 else said.inputs
    return lambdas.say(said.builder, said.layer, argument)


LAYERS: dict[str, Callable[[Said], Any]] = {
    "Conv2D": convolutions.convolution,
    "Convolution2D": convolutions.convolution,
    "DepthwiseConv2D": convolutions.depthwise,
    "SeparableConv2D": convolutions.separable,
    "Conv2DTranspose": convolutions.transposed,
    "Dense": dense,
    "BatchNormalization": normalisation.batch_normalization,
    "BatchNormalizationV1": normalisation.batch_normalization,
    "BatchNormalizationV2": normalisation.batch_normalization,
    "SyncBatchNormalization": normalisation.batch_normalization,
    "LayerNormalization": normalisation.layer_normalization,
    "RMSNormalization": normalisation.rms_normalization,
    "GroupNormalization": normalisation.group_normalization,
    "LayerScale": normalisation.layer_scale,
    "UnitNormalization": normalisation.unit_normalization,
    "MultiHeadAttention": attention.multi_head_attention,
    "Attention": attention.attention,
    "EinsumDense": attention.einsum_dense,
    "Dot": attention.dot,
    "RepeatVector": repeat_vector,
    "Activation": activation,
    "ReLU": relu,
    "LeakyReLU": leaky_relu,
    "PReLU": prelu,
    "ELU": elu,
    "Softmax": softmax,
    "Add": merge(arithmetic.add),
    "Subtract": merge(arithmetic.subtract),
    "Multiply": merge(arithmetic.multiply),
    "Maximum": merge(arithmetic.maximum),
    "Minimum": merge(arithmetic.minimum),
    "Average": average,
    "Concatenate": concatenate,
    "MaxPooling2D": max_pooling,
    "AveragePooling2D": average_pooling,
    "GlobalAveragePooling2D": global_pooling("mean"),
    "GlobalMaxPooling2D": global_pooling("max"),
    "UpSampling2D": up_sampling,
    "Resizing": resizing,
    "ZeroPadding2D": zero_padding,
    "Cropping2D": cropping,
    "CenterCrop": center_crop,
    "AdaptiveAveragePooling2D": adaptive_average,
    "Reshape": reshape,
    "Permute": permute,
    "Flatten": flatten,
    "Rescaling": normalisation.rescaling,
    "Normalization": normalisation.normalization,
    "TFOpLambda": tf_op,
    "SlicingOpLambda": tf_op,
    "TensorFlowOpLayer": tf_op_layer,
    "Lambda": lambda_,
    **dict.fromkeys(
        (
            "Identity", "Dropout", "StochasticDepth", "DropPath",
            "SpatialDropout2D", "GaussianNoise", "GaussianDropout", "AlphaDropout",
            "ActivityRegularization", "RandomFlip", "RandomRotation", "RandomZoom", "RandomContrast",
            "RandomBrightness", "RandomTranslation",
        ),
        identity,
    ),
}  # fmt: skip

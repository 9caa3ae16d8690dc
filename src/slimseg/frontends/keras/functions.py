"""Functions by their names in Keras operations, TensorFlow calls (TFOpLambda) and Lambda bodies.

`tf.nn.relu6`, `keras.ops.relu6`, `K.relu6` and the operation class `Relu6` share one entry: the last part of the name
determines the function. Only resizes depend on the library: TensorFlow 1 reads other pixels than TensorFlow 2.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

from slimseg.errors import ModelError
from slimseg.frontends.keras import activations, arithmetic, in_torch, layout
from slimseg.frontends.keras.builder import Builder, Value
from slimseg.frontends.keras.weights import snake_case
from slimseg.graph.ops import Coordinates

Function = Callable[..., Any]

# One spelling for arguments whose names differ between libraries; those in `_SILENT` do not affect the result.
_ALIASES = {
    "dim": "axis", "dimension": "axis", "keep_dims": "keepdims", "perm": "axes", "shape": "newshape",
    "features": "x", "logits": "x", "images": "x", "input": "x", "inputs": "x", "tensor": "x", "xs": "values",
    "tensors": "values", "alpha": "negative_slope", "clip_value_min": "low", "clip_value_max": "high",
    "x_min": "low", "x_max": "high", "min_value": "low", "max_value": "high", "interpolation": "method", "x1": "x",
    "x2": "y", "num_or_size_splits": "parts", "pad_width": "paddings", "block_size": "block_size",
}  # fmt: skip
_SILENT = ("name", "preserve_aspect_ratio", "dtype", "mask", "training")


def knows(name: str) -> bool:
    """Whether the table has a function for an operation's class name."""
    return snake_case(name) in FUNCTIONS or name == "Resize"


def call(b: Builder, name: str, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """Call the function `name` (dotted or in camel case) on values and constants.

    Raises:
        ModelError: the table does not have it, or its arguments are not understood.
    """
    last = name.rpartition(".")[2]
    last = snake_case(last) if last != last.lower() else last
    function = _resize_of(name, last, b) or FUNCTIONS.get(last)
    if function is None:
        raise ModelError(f"the function {name} has no counterpart in slimseg: give the .tflite instead")
    keep = {"relu": ("max_value", "negative_slope", "threshold"), "elu": ("alpha",), "cast": ("dtype",)}.get(last, ())
    named = {
        (key if key in keep else _ALIASES.get(key, key)): value
        for key, value in kwargs.items()
        if key in keep or key not in _SILENT
    }
    try:
        return function(b, *args, **named)
    except TypeError as error:
        raise ModelError(f"the function {name} is called in a way that slimseg does not know ({error})") from error


def _resize_of(name: str, last: str, b: Builder) -> Function | None:
    """A resize by TensorFlow's version: 1 reads at y·h/H (or aligns corners), 2 at (y + ½)·h/H − ½."""
    first = any(part in ("v1", "tf1") for part in name.split(".")) or b.version.startswith(("1", "2.0", "2.1"))
    if last in ("resize_bilinear", "resize_nearest_neighbor"):
        return _resize_v1("bilinear" if last == "resize_bilinear" else "nearest")
    if last == "resize_images" and "image" not in name.split("."):
        return _resize_by_factor
    if last == "resize_images" or (last == "resize" and first):
        return _resize_v1("bilinear")
    return {"resize": resize, "resize_v2": resize, "image_resize": resize}.get(last)


def resize(
    b: Builder,
    x: Value,
    size: Any,
    method: Any = "bilinear",
    antialias: bool = False,
    align_corners: bool = False,
    crop_to_aspect_ratio: bool = False,
    pad_to_aspect_ratio: bool = False,
    data_format: Any = None,
    fill_mode: Any = None,
    fill_value: Any = None,
    suffix: str = "",
) -> Value:
    """tf.image.resize of TensorFlow 2, keras.ops.image.resize; `size` (height, width) pixels.

    Smoothing before shrinking (`antialias`) has no effect if nothing shrinks, and keeping the aspect ratio has none if
    the ratio stays the same.
    """
    height, width = (int(side) for side in size)
    if antialias and (height < x.shape[2] or width < x.shape[3]):
        raise ModelError("a resize with antialias has no counterpart in slimseg: give the .tflite instead")
    if (crop_to_aspect_ratio or pad_to_aspect_ratio) and height * x.shape[3] != width * x.shape[2]:
        raise ModelError("a resize that keeps the aspect ratio has no counterpart in slimseg: give the .tflite instead")
    if align_corners:  # only TensorFlow 1 has this argument
        return layout.resize(b, x, size, _method(method), "align_corners", suffix=suffix)
    return layout.resize(b, x, size, _method(method), suffix=suffix)


def _method(method: Any) -> str:
    """The method's name, given by name or by TensorFlow's number."""
    text = str(method).rpartition(".")[2].lower()
    return {"0": "bilinear", "1": "nearest", "nearest_neighbor": "nearest"}.get(text, text)


def _resize_v1(usual: str) -> Function:
    def emit(
        b: Builder,
        x: Value,
        size: Any,
        method: Any = usual,
        align_corners: bool = False,
        half_pixel_centers: bool = False,
        suffix: str = "",
    ) -> Value:
        coordinates: Coordinates = "half_pixel" if half_pixel_centers else "asymmetric"
        return layout.resize(
            b, x, size, _method(method), "align_corners" if align_corners else coordinates, suffix=suffix
        )

    return emit


def _resize_by_factor(
    b: Builder, x: Value, height_factor: Any, width_factor: Any, data_format: Any = None, method: str = "nearest"
) -> Value:
    """keras.backend.resize_images"""
    size = (x.shape[2] * int(height_factor), x.shape[3] * int(width_factor))
    return layout.resize(b, x, size, _method(method))


def _shape(b: Builder, x: Value) -> tuple[int, ...]:
    return x.keras_shape


def _identity(b: Builder, x: Any, *ignored: Any, **settings: Any) -> Any:
    return x


def _cast(b: Builder, x: Any, dtype: Any = "float32") -> Any:
    """A cast of a value, or of a size that a Lambda computes."""
    if isinstance(x, Value):
        return arithmetic.cast(b, x, str(dtype).rpartition(".")[2])
    return int(x) if isinstance(x, int | float) and "int" in str(dtype) else x


def _reshape(b: Builder, x: Value, newshape: Sequence[Any]) -> Value:
    return layout.reshape(b, x, [each if isinstance(each, int) else None for each in newshape])


def _transpose(b: Builder, x: Value, axes: Any = None) -> Value:
    return layout.transpose(b, x, list(reversed(range(len(x.shape)))) if axes is None else axes)


def _stack_like_concat(b: Builder, values: Any, axis: int = -1) -> Value:
    return layout.concat(b, values, axis)


def _old_concat(b: Builder, first: Any, second: Any = -1, axis: int | None = None) -> Value:
    """tf.concat(values, axis)"""
    return layout.concat(b, first, second if axis is None else axis)


def _split(b: Builder, x: Value, parts: Any = None, axis: int = 0, indices_or_sections: Any = None) -> list[Value]:
    """A split: TensorFlow gives the lengths of the parts, Keras the positions where they begin."""
    if isinstance(indices_or_sections, list | tuple):
        bounds = [0, *indices_or_sections, x.shape[x.dim(axis)]]
        parts = [after - before for before, after in pairwise(bounds)]
    return layout.split(b, x, indices_or_sections if parts is None else parts, axis)


def _add_n(b: Builder, values: Sequence[Any]) -> Any:
    total = values[0]
    for value in values[1:]:
        total = arithmetic.add(b, total, value)
    return total


FUNCTIONS: dict[str, Function] = {
    **in_torch.FUNCTIONS,
    **{name: function for name, function in activations.ACTIVATIONS.items() if name != "exponential"},
    "add": arithmetic.add,
    "add_v2": arithmetic.add,
    "bias_add": arithmetic.add,
    "subtract": arithmetic.subtract,
    "sub": arithmetic.subtract,
    "multiply": arithmetic.multiply,
    "mul": arithmetic.multiply,
    "divide": arithmetic.divide,
    "truediv": arithmetic.divide,
    "true_divide": arithmetic.divide,
    "real_div": arithmetic.divide,
    "maximum": arithmetic.maximum,
    "minimum": arithmetic.minimum,
    "clip": arithmetic.clip,
    "clip_by_value": arithmetic.clip,
    "pow": arithmetic.power,
    "power": arithmetic.power,
    "radd": arithmetic.add,
    "rmul": arithmetic.multiply,
    "rsub": lambda b, x, y: arithmetic.subtract(b, y, x),
    "neg": arithmetic.unary("neg"),
    "negative": arithmetic.unary("neg"),
    "abs": arithmetic.unary("abs"),
    "absolute": arithmetic.unary("abs"),
    "exp": arithmetic.unary("exp"),
    "log": arithmetic.unary("log"),
    "sqrt": arithmetic.unary("sqrt"),
    "rsqrt": arithmetic.unary("rsqrt"),
    "square": arithmetic.unary("square"),
    "mean": arithmetic.reduction("mean"),
    "reduce_mean": arithmetic.reduction("mean"),
    "sum": arithmetic.reduction("sum"),
    "reduce_sum": arithmetic.reduction("sum"),
    "max": arithmetic.reduction("max"),
    "amax": arithmetic.reduction("max"),
    "reduce_max": arithmetic.reduction("max"),
    "min": arithmetic.reduction("min"),
    "amin": arithmetic.reduction("min"),
    "reduce_min": arithmetic.reduction("min"),
    "argmax": arithmetic.arg_max,
    "arg_max": arithmetic.arg_max,
    "cast": _cast,
    "reshape": _reshape,
    "expand_dims": layout.expand_dims,
    "squeeze": layout.squeeze,
    "transpose": _transpose,
    "permute_dimensions": _transpose,
    "concat": _old_concat,
    "concat_v2": _old_concat,
    "concatenate": _stack_like_concat,
    "stack": layout.stack,
    "split": _split,
    "getitem": layout.get_item,
    "get_item": layout.get_item,
    "strided_slice": layout.strided_slice,
    "pad": layout.pad_all,
    "depth_to_space": layout.depth_to_space,
    "space_to_depth": layout.space_to_depth,
    "shape": _shape,
    "int_shape": _shape,
    "add_n": _add_n,
    "stop_gradient": _identity,
    "batch_flatten": layout.flatten,
}

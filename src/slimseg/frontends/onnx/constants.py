"""Computes operators whose inputs are all constants; exporters mostly write shapes, sizes and slices in this way.

Sizes are checked before anything is allocated. The caller handles operators that are not in the table.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from slimseg.frontends.onnx.reader import Node
from slimseg.frontends.onnx.tensors import DTYPES, Array
from slimseg.frontends.work import LARGEST_CONSTANT, Work

Fold = Callable[[Node, Sequence[Any]], Array]


def fold(node: Node, inputs: Sequence[Array | None], work: Work) -> tuple[Array, ...] | None:
    """The results of a node, or None if its operator is not in the table.

    Raises:
        ValueError: a result would be larger than any weight, or the inputs make no sense.
        ModelError: all operators of the file together compute more than a network needs.
    """
    is_split = node.op == "Split" and inputs[0] is not None
    if not is_split and node.op not in FOLDS:
        return None
    if node.op not in _LOOKS_ONLY:
        work.compute(*(value.size for value in inputs if value is not None))
    if is_split:
        return _split(node, inputs[0], inputs)  # type: ignore[arg-type]
    with np.errstate(all="ignore"):
        result = np.asarray(FOLDS[node.op](node, inputs))
    work.compute(result.size if node.op not in _LOOKS_ONLY else 0)
    return (result,)


_LOOKS_ONLY = ("Constant", "Identity", "Shape", "Size")  # operators that read no values


def bounded(shape: Sequence[int], node: Node) -> tuple[int, ...]:
    """`shape`, if an array of that size may be made.

    Raises:
        ValueError: the array would be too large.
    """
    if min(shape, default=0) < 0 or math.prod(shape) > LARGEST_CONSTANT:
        raise ValueError(f"a constant of shape {tuple(shape)} is larger than any network has")
    return tuple(int(length) for length in shape)


def resolved_shape(old: Sequence[int], wanted: Sequence[int], allow_zero: bool = False) -> tuple[int, ...]:
    """Reshape's rule: 0 keeps a length, one -1 is computed from the others.

    Raises:
        ValueError: the values do not fit.
    """
    shape = [int(length) for length in wanted]
    if not allow_zero:
        shape = [old[i] if length == 0 else length for i, length in enumerate(shape)]
    if shape.count(-1) == 1:
        rest = -math.prod(shape)
        shape[shape.index(-1)] = math.prod(old) // rest if rest else 0
    if math.prod(shape) != math.prod(old) or min(shape, default=0) < 0:
        raise ValueError(f"{tuple(old)} does not fit into {tuple(wanted)}")
    return tuple(shape)


def unsqueezed_shape(shape: Sequence[int], axes: Sequence[int]) -> tuple[int, ...]:
    rank = len(shape) + len(axes)
    places = {int(axis) % rank for axis in axes}
    rest = iter(shape)
    return tuple(1 if place in places else next(rest) for place in range(rank))


def squeezed_shape(shape: Sequence[int], axes: Sequence[int] | None) -> tuple[int, ...]:
    gone = {int(axis) % len(shape) for axis in axes} if axes is not None else {i for i, n in enumerate(shape) if n == 1}
    if any(shape[axis] != 1 for axis in gone):
        raise ValueError(f"{tuple(shape)} cannot lose the dimensions {sorted(gone)}")
    return tuple(length for axis, length in enumerate(shape) if axis not in gone)


def axes_of(node: Node, inputs: Sequence[Array | None], position: int = 1) -> list[int] | None:
    """Axes: an attribute in older files, an input in newer ones."""
    if len(inputs) > position and (given := inputs[position]) is not None:
        return [int(axis) for axis in given.reshape(-1)]
    axes = node.attributes.get("axes")
    return None if axes is None else [int(axis) for axis in axes]


def _broadcast(function: Callable[..., Any]) -> Fold:
    def run(node: Node, inputs: Sequence[Any]) -> Array:
        bounded(np.broadcast_shapes(*(value.shape for value in inputs)), node)
        result: Array = function(*inputs)
        return result

    return run


def _variadic(function: Callable[[Array, Array], Array]) -> Fold:
    def run(node: Node, inputs: Sequence[Any]) -> Array:
        bounded(np.broadcast_shapes(*(value.shape for value in inputs)), node)
        result: Array = inputs[0]
        for value in inputs[1:]:
            result = function(result, value)
        return result

    return run


def _divide(a: Array, b: Array) -> Array:
    if a.dtype.kind == "f":
        return np.divide(a, b)
    if not b.all():
        raise ValueError("division by zero")
    return np.trunc(a / b).astype(a.dtype)


def _cast(node: Node, inputs: Sequence[Any]) -> Array:
    dtype = DTYPES[int(node.attributes["to"])]
    result: Array = inputs[0].astype(np.float32 if dtype.kind == "f" else dtype)
    return result


def _constant(node: Node, inputs: Sequence[Any]) -> Array:
    given = node.attributes
    if "value" in given:
        return np.asarray(given["value"])
    kinds = {"value_float": np.float32, "value_floats": np.float32, "value_int": np.int64, "value_ints": np.int64}
    return next(np.asarray(given[name], kind) for name, kind in kinds.items() if name in given)


def _constant_of_shape(node: Node, inputs: Sequence[Any]) -> Array:
    value = np.asarray(node.attributes.get("value", np.zeros(1, np.float32)))
    return np.full(bounded(inputs[0].reshape(-1).tolist(), node), value.reshape(-1)[0], value.dtype)


def _concat(node: Node, inputs: Sequence[Any]) -> Array:
    bounded((sum(value.size for value in inputs),), node)
    return np.concatenate(inputs, int(node.attributes["axis"]))


def _gather(node: Node, inputs: Sequence[Any]) -> Array:
    data, index = inputs
    axis = int(node.attributes.get("axis", 0))
    bounded((data.size // max(data.shape[axis], 1), index.size), node)
    result: Array = np.take(data, index, axis)
    return result


def slices(node: Node, inputs: Sequence[Array | None], rank: int) -> list[slice]:
    """One Python slice for each dimension of Slice's input."""
    if len(inputs) > 1:
        starts, ends, axes, steps = (
            None if value is None else [int(v) for v in value.reshape(-1)]
            for value in (*inputs[1:5], *(None,) * (5 - len(inputs)))
        )
    else:
        starts, ends, axes, steps = (node.attributes.get(name) for name in ("starts", "ends", "axes", "steps"))
    if starts is None or ends is None:
        raise ValueError("it lacks its starts or ends")
    axes = list(range(len(starts))) if axes is None else axes
    result = [slice(None)] * rank
    for axis, start, end, step in zip(axes, starts, ends, steps or [1] * len(starts), strict=True):
        # ONNX writes "backwards to the first value" as an end far below zero, which Python's slices accept, too.
        result[axis] = slice(start, end, step)
    return result


def _tile(node: Node, inputs: Sequence[Any]) -> Array:
    repeats = [int(value) for value in inputs[1]]
    bounded([length * times for length, times in zip(inputs[0].shape, repeats, strict=True)], node)
    return np.tile(inputs[0], repeats)


def _expand(node: Node, inputs: Sequence[Any]) -> Array:
    wanted = [int(length) for length in inputs[1]]
    return np.broadcast_to(inputs[0], bounded(np.broadcast_shapes(inputs[0].shape, tuple(wanted)), node))


def _range(node: Node, inputs: Sequence[Any]) -> Array:
    start, stop, step = (float(value.reshape(-1)[0]) for value in inputs)
    (count,) = bounded((max(0, math.ceil((stop - start) / step)),), node)
    return (start + step * np.arange(count)).astype(inputs[0].dtype)


def _reduce(function: Callable[..., Any]) -> Fold:
    def run(node: Node, inputs: Sequence[Any]) -> Array:
        axes, keep = axes_of(node, inputs), bool(node.attributes.get("keepdims", 1))
        result: Array = function(inputs[0], axis=None if axes is None else tuple(axes), keepdims=keep)
        return result.astype(inputs[0].dtype)

    return run


def _cumulative_sum(node: Node, inputs: Sequence[Any]) -> Array:
    values, axis = inputs[0], int(inputs[1].reshape(-1)[0])
    turned = np.flip(values, axis) if node.attributes.get("reverse") else values
    sums = np.cumsum(turned, axis, values.dtype) - (turned if node.attributes.get("exclusive") else 0)
    return np.flip(sums, axis) if node.attributes.get("reverse") else sums


def _gather_nd(node: Node, inputs: Sequence[Any]) -> Array:
    data, index = inputs
    if node.attributes.get("batch_dims"):
        raise ValueError("it gathers within batches")
    bounded((math.prod(index.shape[:-1]), math.prod(data.shape[index.shape[-1] :])), node)
    result: Array = data[tuple(np.moveaxis(index, -1, 0))]
    return result


def _scatter_nd(node: Node, inputs: Sequence[Any]) -> Array:
    if node.attributes.get("reduction", "none") != "none":
        raise ValueError("it adds to what is there")
    result: Array = inputs[0].copy()
    result[tuple(np.moveaxis(inputs[1], -1, 0))] = inputs[2]
    return result


def _triangle(node: Node, inputs: Sequence[Any]) -> Array:
    diagonal = int(inputs[1].reshape(-1)[0]) if len(inputs) > 1 else 0
    return np.triu(inputs[0], diagonal) if node.attributes.get("upper", 1) else np.tril(inputs[0], diagonal)


def _product(node: Node, inputs: Sequence[Any]) -> Array:
    """A product of matrices that takes no more steps than its inputs or a small table have values."""
    a, b = inputs
    if a.size * (b.shape[-1] if b.ndim > 1 else 1) > LARGEST_CONSTANT or b.size > LARGEST_CONSTANT:
        raise ValueError("a product of constants is larger than any table")
    result: Array = np.matmul(a, b)
    return result


def _outer(node: Node, inputs: Sequence[Any]) -> Array:
    """An einsum without a sum, as of positions and frequencies."""
    equation = str(node.attributes["equation"]).replace(" ", "")
    names, _, result = equation.partition("->")
    if not set(names) - {","} <= set(result) or "." in equation:
        raise ValueError("it sums products of constants")
    lengths = dict(zip(names.replace(",", ""), (length for each in inputs for length in each.shape), strict=True))
    bounded([lengths[name] for name in result], node)
    table: Array = np.einsum(equation, *inputs)
    return table


def _flattened(node: Node, inputs: Sequence[Any]) -> Array:
    axis, shape = int(node.attributes.get("axis", 1)), inputs[0].shape
    axis += len(shape) * (axis < 0)
    result: Array = inputs[0].reshape(math.prod(shape[:axis]), math.prod(shape[axis:]))
    return result


def _clipped(node: Node, inputs: Sequence[Any]) -> Array:
    given = [*inputs[1:], None, None]
    low, high = (
        node.attributes.get(name) if one is None else one for name, one in zip(("min", "max"), given, strict=False)
    )
    return np.asarray(inputs[0]) if low is None and high is None else np.clip(inputs[0], low, high)


def _quantize(node: Node, inputs: Sequence[Any]) -> Array:
    values = inputs[0]
    scale, zero = _scale_and_zero(node, inputs, np.dtype(np.uint8))
    bounded(np.broadcast_shapes(values.shape, scale.shape, zero.shape), node)
    kind = np.iinfo(zero.dtype)
    result: Array = np.clip(np.rint(values / scale) + zero, kind.min, kind.max).astype(zero.dtype)
    return result


def _dequantize(node: Node, inputs: Sequence[Any]) -> Array:
    scale, zero = _scale_and_zero(node, inputs, inputs[0].dtype)
    bounded(np.broadcast_shapes(inputs[0].shape, scale.shape, zero.shape), node)
    result: Array = (inputs[0].astype(np.float32) - zero.astype(np.float32)) * scale
    return result


def _scale_and_zero(node: Node, inputs: Sequence[Any], kind: np.dtype[Any]) -> tuple[Array, Array]:
    """Scale and zero point: one of each, or one per position along an axis, shaped to broadcast."""
    values, scale = inputs[:2]
    zero = inputs[2] if len(inputs) > 2 else np.zeros_like(scale, kind)
    if scale.ndim == 1 and scale.size > 1:
        axis = int(node.attributes.get("axis", 1)) % values.ndim
        shape = [-1 if dim == axis else 1 for dim in range(values.ndim)]
        scale, zero = scale.reshape(shape), zero.reshape(shape)
    return scale, zero


def _split(node: Node, values: Array, inputs: Sequence[Array | None]) -> tuple[Array, ...]:
    axis = int(node.attributes.get("axis", 0))
    ends = np.cumsum(split_lengths(node, inputs, values.shape[axis]))[:-1]
    return tuple(np.split(values, ends, axis))


def split_lengths(node: Node, inputs: Sequence[Array | None], length: int) -> list[int]:
    """The length of each part: as given, or equal parts with a shorter last one."""
    given = inputs[1] if len(inputs) > 1 and inputs[1] is not None else node.attributes.get("split")
    if given is not None:
        lengths = [int(value) for value in given]
    else:
        size = -(-length // len(node.outputs))
        lengths = [max(0, min(size, length - size * part)) for part in range(len(node.outputs))]
    if sum(lengths) != length or min(lengths) < 1 or len(lengths) != len(node.outputs):
        raise ValueError(f"{length} cannot be split into {lengths}")
    return lengths


def _unary(function: Callable[..., Any]) -> Fold:
    return lambda node, inputs: function(inputs[0])


def _extreme(function: Callable[..., Any]) -> Fold:
    def run(node: Node, inputs: Sequence[Any]) -> Array:
        axis, keep = int(node.attributes.get("axis", 0)), bool(node.attributes.get("keepdims", 1))
        result: Array = function(inputs[0], axis, keepdims=keep)
        return result

    return run


def _diagonal(node: Node, inputs: Sequence[Any]) -> Array:
    rows, columns = bounded(inputs[0].shape, node)
    return np.eye(rows, columns, int(node.attributes.get("k", 0)))


def _one_hot(node: Node, inputs: Sequence[Any]) -> Array:
    index, depth, values = inputs
    count, axis = int(depth.reshape(-1)[0]), int(node.attributes.get("axis", -1))
    bounded((index.size, count), node)
    found = index[..., None] % count == np.arange(count)
    return np.moveaxis(np.where(found, values[1], values[0]), -1, axis)


FOLDS: dict[str, Fold] = {
    "Constant": _constant,
    "ConstantOfShape": _constant_of_shape,
    "Identity": lambda node, inputs: inputs[0],
    "Shape": lambda node, inputs: np.asarray(
        inputs[0].shape[node.attributes.get("start", 0) : node.attributes.get("end")], np.int64
    ),
    "Size": lambda node, inputs: np.asarray(inputs[0].size, np.int64),
    "Cast": _cast,
    "Add": _broadcast(np.add),
    "Sub": _broadcast(np.subtract),
    "Mul": _broadcast(np.multiply),
    "Div": _broadcast(_divide),
    "Mod": _broadcast(np.mod),
    "Pow": _broadcast(lambda a, b: np.power(a, b.astype(a.dtype))),
    "Min": _variadic(np.minimum),
    "Max": _variadic(np.maximum),
    "Equal": _broadcast(np.equal),
    "Greater": _broadcast(np.greater),
    "Less": _broadcast(np.less),
    "GreaterOrEqual": _broadcast(np.greater_equal),
    "LessOrEqual": _broadcast(np.less_equal),
    "And": _broadcast(np.logical_and),
    "Or": _broadcast(np.logical_or),
    "Where": _broadcast(np.where),
    "Not": lambda node, inputs: np.logical_not(inputs[0]),
    "Neg": lambda node, inputs: np.negative(inputs[0]),
    "Abs": lambda node, inputs: np.abs(inputs[0]),
    "Sqrt": lambda node, inputs: np.sqrt(inputs[0]),
    "Exp": lambda node, inputs: np.exp(inputs[0]),
    "Log": lambda node, inputs: np.log(inputs[0]),
    "Reciprocal": lambda node, inputs: np.reciprocal(inputs[0]),
    "Sign": lambda node, inputs: np.sign(inputs[0]),
    "Sin": lambda node, inputs: np.sin(inputs[0]),
    "Cos": lambda node, inputs: np.cos(inputs[0]),
    "Tanh": lambda node, inputs: np.tanh(inputs[0]),
    "Sigmoid": lambda node, inputs: 1 / (1 + np.exp(-inputs[0])),
    "Relu": lambda node, inputs: np.maximum(inputs[0], 0),
    "Clip": _clipped,
    "CumSum": _cumulative_sum,
    "Trilu": _triangle,
    **{
        name: _unary(function)
        for name, function in (
            ("Acos", np.arccos),
            ("Asin", np.arcsin),
            ("Atan", np.arctan),
            ("Acosh", np.arccosh),
            ("Asinh", np.arcsinh),
            ("Atanh", np.arctanh),
            ("Cosh", np.cosh),
            ("Sinh", np.sinh),
            ("Tan", np.tan),
            ("IsNaN", np.isnan),
            ("IsInf", np.isinf),
            ("BitwiseNot", np.bitwise_not),
        )
    },
    **{
        name: _broadcast(function)
        for name, function in (
            ("Xor", np.logical_xor),
            ("BitwiseAnd", np.bitwise_and),
            ("BitwiseOr", np.bitwise_or),
            ("BitwiseXor", np.bitwise_xor),
        )
    },
    "Sum": _variadic(np.add),
    "CastLike": lambda node, inputs: inputs[0].astype(inputs[1].dtype),
    "EyeLike": _diagonal,
    "Dropout": lambda node, inputs: inputs[0],
    "ArgMax": _extreme(np.argmax),
    "ArgMin": _extreme(np.argmin),
    "OneHot": _one_hot,
    "MatMul": _product,
    "Einsum": _outer,
    "NonZero": lambda node, inputs: np.stack(np.nonzero(inputs[0])),
    "GatherND": _gather_nd,
    "ScatterND": _scatter_nd,
    "Flatten": _flattened,
    "Floor": lambda node, inputs: np.floor(inputs[0]),
    "Ceil": lambda node, inputs: np.ceil(inputs[0]),
    "Round": lambda node, inputs: np.rint(inputs[0]),
    "Concat": _concat,
    "Gather": _gather,
    "Slice": lambda node, inputs: inputs[0][tuple(slices(node, inputs, inputs[0].ndim))],
    "Reshape": lambda node, inputs: inputs[0].reshape(
        resolved_shape(inputs[0].shape, inputs[1].tolist(), bool(node.attributes.get("allowzero")))
    ),
    "Squeeze": lambda node, inputs: inputs[0].reshape(squeezed_shape(inputs[0].shape, axes_of(node, inputs))),
    "Unsqueeze": lambda node, inputs: inputs[0].reshape(unsqueezed_shape(inputs[0].shape, axes_of(node, inputs) or [])),
    "Transpose": lambda node, inputs: inputs[0].transpose(node.attributes.get("perm")),
    "Expand": _expand,
    "Tile": _tile,
    "Range": _range,
    "ReduceProd": _reduce(np.prod),
    "ReduceSum": _reduce(np.sum),
    "ReduceMean": _reduce(np.mean),
    "ReduceMax": _reduce(np.max),
    "ReduceMin": _reduce(np.min),
    "QuantizeLinear": _quantize,
    "DequantizeLinear": _dequantize,
}

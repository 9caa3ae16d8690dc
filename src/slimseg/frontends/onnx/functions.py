"""Operators as functions in plain torch, for `in_torch`: of their call, and of their inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from slimseg.frontends.aten.decompositions import comparisons, functions, positions, windows
from slimseg.frontends.onnx.builder import Call
from slimseg.frontends.onnx.constants import axes_of, slices

_FAR = 1e9  # below every score, so that softmax gives 0


def _same(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A function of the inputs alone."""
    return lambda call, *inputs: function(*inputs)


def expand(call: Call, x: Tensor, shape: Any) -> Tensor:
    return positions.expand(x, [int(length) for length in shape])


def tile(call: Call, x: Tensor, repeats: Any) -> Tensor:
    return positions.repeat(x, [int(times) for times in repeats])


def backwards(call: Call, x: Tensor, *given: Any) -> Tensor:
    """A slice with any step, also from the last value to the first."""
    for dim, part in enumerate(slices(call.node, [None, *given], x.ndim)):
        x = positions.taken(x, dim, range(x.shape[dim])[part])
    return x


def columns(call: Call, x: Tensor, size: Any, window: Any) -> Tensor:
    """The sum of overlapping windows."""
    given = {name: call.attribute(name, default) for name, default in (("dilations", (1, 1)), ("strides", (1, 1)))}
    pads = [int(amount) for amount in call.attribute("pads", (0, 0, 0, 0))]
    if len(size) != 2 or pads[:2] != pads[2:]:
        raise NotImplementedError("it does not make a map")
    return windows.fold(x, size.tolist(), window.tolist(), given["dilations"], pads[:2], given["strides"])


def scatter_nd(call: Call, data: Tensor, index: Any, updates: Tensor) -> Tensor:
    """A block of neighbouring values that is replaced, as x[:, :, :8, :8] = y."""
    rank = index.shape[-1]
    if index.ndim != rank + 1 or call.attribute("reduction", "none") != "none":
        raise NotImplementedError("it replaces no block of neighbouring values")
    starts = index[(0,) * rank].tolist()
    grid = np.stack(np.meshgrid(*map(np.arange, starts, np.add(starts, index.shape[:-1])), indexing="ij"), -1)
    if (grid != index).any():
        raise NotImplementedError("it replaces no block of neighbouring values")
    return _with_block(data, updates, starts, 0)


def _with_block(data: Tensor, block: Tensor, starts: Sequence[int], dim: int) -> Tensor:
    if dim == len(starts):
        return block
    length = block.shape[dim]
    if length == data.shape[dim]:
        return _with_block(data, block, starts, dim + 1)
    part = _with_block(data.narrow(dim, starts[dim], length), block, starts, dim + 1)
    return positions.slice_scatter(data, part, dim, starts[dim], starts[dim] + length)


def pad(call: Call, x: Tensor, pads: Any, value: Any = None, axes: Any = None) -> Tensor:
    dims = range(x.ndim) if axes is None else [int(axis) % x.ndim for axis in axes]
    amounts = dict(zip(dims, zip(pads[: len(dims)].tolist(), pads[len(dims) :].tolist(), strict=True), strict=True))
    flat = [amount for dim in reversed(range(x.ndim)) for amount in amounts.get(dim, (0, 0))]
    modes = {"edge": "replicate", "wrap": "circular"}
    mode = str(call.attribute("mode", "constant"))
    return positions.pad(x, flat, modes.get(mode, mode), value)


def einsum(call: Call, *tensors: Tensor) -> Tensor:
    return torch.einsum(str(call.attribute("equation")), *tensors)


def power(call: Call, x: Any, exponent: Any) -> Tensor:
    if isinstance(exponent, Tensor):
        return functions.power_of_tensor(float(x), exponent)
    return functions.power(x, float(exponent))


def cumulative_sum(call: Call, x: Tensor, axis: Any) -> Tensor:
    """A product with a triangle of ones."""
    dim = int(axis.reshape(-1)[0])
    if x.shape[dim] > 1024:
        raise NotImplementedError("too many positions")
    numbers = torch.arange(x.shape[dim])
    before = numbers.reshape(1, -1) <= numbers.reshape(-1, 1) - int(call.attribute("exclusive", 0))
    matrix = before.float()
    return positions.multiplied(x, dim, matrix.flip(0, 1) if call.attribute("reverse", 0) else matrix)


def reduced(function: Callable[[Tensor, list[int], bool], Tensor]) -> Callable[..., Tensor]:
    """Any reduction over some dimensions, or over all."""

    def run(call: Call, x: Tensor, *axes: Any) -> Tensor:
        given = axes_of(call.node, [None, *axes]) or list(range(x.ndim))
        return function(x, [axis % x.ndim for axis in given], bool(call.attribute("keepdims", 1)))

    return run


def _sum_of_squares(x: Tensor, dims: list[int], keep: bool) -> Tensor:
    return torch.sum(torch.square(x), dims, keep)


def normalised(call: Call, x: Tensor) -> Tensor:
    """Divided by its norm along a dimension."""
    dim = int(call.attribute("axis", -1))
    if int(call.attribute("p", 2)) == 1:
        return x / torch.sum(torch.abs(x), dim, True)
    return x / torch.sqrt(_sum_of_squares(x, [dim], True))


def shrink(call: Call, x: Tensor) -> Tensor:
    limit, bias = float(call.attribute("lambd", 0.5)), float(call.attribute("bias", 0.0))
    if bias == limit:
        return functions.softshrink(x, limit)
    return comparisons.greater(x, limit) * (x - bias) + comparisons.less(x, -limit) * (x + bias)


def attention(call: Call, query: Tensor, key: Tensor, value: Tensor, mask: Any = None) -> Tensor:
    """(batch, heads, length, depth), or (batch, length, heads · depth)."""
    if query.ndim == 3:
        heads = [int(call.attribute(f"{name}_num_heads")) for name in ("q", "kv", "kv")]
        query, key, value = (
            each.reshape(*each.shape[:2], count, -1).transpose(1, 2)
            for each, count in zip((query, key, value), heads, strict=True)
        )
        return attention(call, query, key, value, mask).transpose(1, 2).flatten(2)
    if (times := query.shape[1] // key.shape[1]) > 1:  # several heads of the query share one of the keys
        key, value = (positions.repeat_interleave(each, times, 1) for each in (key, value))
    scale = call.attribute("scale")
    scale = query.shape[-1] ** -0.5 if scale is None else float(scale)
    causal = torch.full((query.shape[2], key.shape[2]), -_FAR).triu(1) if call.attribute("is_causal", 0) else None
    if not (limit := float(call.attribute("softcap", 0.0))):
        mask = causal if mask is None else mask if causal is None else mask + causal
        return F.scaled_dot_product_attention(query, key, value, mask, scale=scale)
    scores = torch.tanh(query @ key.mT * (scale / limit)) * limit
    for added in (mask, causal):
        scores = scores if added is None else scores + added
    return torch.softmax(scores, -1) @ value


TABLE: Mapping[str, Callable[..., Tensor]] = {
    "Expand": expand,
    "Tile": tile,
    "Slice": backwards,
    "Col2Im": columns,
    "Pad": pad,
    "ScatterND": scatter_nd,
    "Einsum": einsum,
    "Pow": power,
    "CumSum": cumulative_sum,
    "Where": _same(comparisons.where),
    "Greater": _same(comparisons.greater),
    "GreaterOrEqual": _same(comparisons.greater_or_equal),
    "Less": _same(comparisons.less),
    "LessOrEqual": _same(comparisons.less_or_equal),
    "Equal": _same(comparisons.equal),
    "Not": _same(comparisons.negated),
    "And": _same(comparisons.both),
    "Or": _same(comparisons.either),
    "Ceil": _same(functions.ceil),
    "ReduceL1": reduced(lambda x, dims, keep: torch.sum(torch.abs(x), dims, keep)),
    "ReduceL2": reduced(lambda x, dims, keep: torch.sqrt(_sum_of_squares(x, dims, keep))),
    "ReduceSumSquare": reduced(_sum_of_squares),
    "ReduceLogSum": reduced(lambda x, dims, keep: torch.log(torch.sum(x, dims, keep))),
    "ReduceLogSumExp": reduced(torch.logsumexp),
    "LpNormalization": normalised,
    "Celu": lambda call, x: functions.celu(x, float(call.attribute("alpha", 1.0))),
    "Selu": _same(functions.selu),
    "Softsign": _same(lambda x: x / (torch.abs(x) + 1.0)),
    "Shrink": shrink,
    "ThresholdedRelu": lambda call, x: x * comparisons.greater(x, float(call.attribute("alpha", 1.0))),
    "Attention": attention,
}

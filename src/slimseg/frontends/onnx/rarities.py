"""Rarer operators as functions in plain torch, for `in_torch`: of their call, and of their inputs."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from slimseg.frontends.aten.decompositions import (
    comparisons,
    functions,
    gathering,
    ordering,
    positions,
    recurrent,
    sampling,
    statistics,
    trigonometry,
    whole,
)
from slimseg.frontends.onnx.arithmetic import is_training
from slimseg.frontends.onnx.builder import Call

_MODES = {"linear": 0, "bilinear": 0, "nearest": 1, "cubic": 2, "bicubic": 2}
_OUTSIDE = {"zeros": 0, "border": 1, "reflection": 2}
# ONNX orders the gates of an LSTM as input, output, forgetting, cell and those of a GRU as update, reset, new.
_GATES = {"LSTM": (0, 2, 3, 1), "GRU": (1, 0, 2), "RNN": (0,)}
_STEPS = {"LSTM": recurrent.lstm_step, "GRU": recurrent.gru_step, "RNN": recurrent.plain_step(torch.tanh)}
_USUAL = {"LSTM": ["sigmoid", "tanh", "tanh"], "GRU": ["sigmoid", "tanh"], "RNN": ["tanh"]}


def _same(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda call, *inputs: function(*inputs)


def several(together: Callable[[Any, Any], Tensor], mean: bool = False) -> Callable[..., Tensor]:
    """Of any number of values and constants."""

    def run(call: Call, *inputs: Any) -> Tensor:
        values = sorted(inputs, key=lambda each: not isinstance(each, Tensor))
        total: Tensor = functools.reduce(together, values)
        return total / len(values) if mean else total

    return run


def _larger(x: Tensor, other: Any) -> Tensor:
    return torch.maximum(x, other if isinstance(other, Tensor) else torch.full((), float(other)))


def _smaller(x: Tensor, other: Any) -> Tensor:
    return torch.minimum(x, other if isinstance(other, Tensor) else torch.full((), float(other)))


def top(result: int) -> Callable[..., Tensor]:
    """The largest or smallest values, or where they are."""

    def run(call: Call, x: Tensor, count: Any = None) -> Tensor:
        k = int(call.attribute("k", 0) if count is None else count.reshape(-1)[0])
        return ordering.largest(x, k, int(call.attribute("axis", -1)), bool(call.attribute("largest", 1)))[result]

    return run


def arg_extreme(smallest: bool) -> Callable[..., Tensor]:
    def run(call: Call, x: Tensor) -> Tensor:
        dim, keep = int(call.attribute("axis", 0)) % x.ndim, bool(call.attribute("keepdims", 1))
        x = x * -1.0 if smallest else x
        if not call.attribute("select_last_index", 0):
            return torch.argmax(x, dim, keep)
        return (x.shape[dim] - 1) - torch.argmax(positions.flip(x, [dim]), dim, keep).float()

    return run


def one_hot(call: Call, index: Tensor, depth: Any, *_: Any) -> Tensor:
    values = call.constant(2)
    off, on = (0.0, 1.0) if values is None else (float(each) for each in values.reshape(-1))
    dim = int(call.attribute("axis", -1)) % (index.ndim + 1)
    count = int(np.asarray(depth).reshape(-1)[0])
    numbers = torch.arange(count).float().reshape(-1, *(1,) * (index.ndim - dim))
    found = (index.float().unsqueeze(dim) == numbers).float()
    return found if (off, on) == (0.0, 1.0) else found * (on - off) + off


def hard_max(call: Call, x: Tensor) -> Tensor:
    """1 where the first of the largest values is, and 0 elsewhere."""
    dim = int(call.attribute("axis", -1)) % x.ndim
    numbers = torch.arange(x.shape[dim]).float().reshape(-1, *(1,) * (x.ndim - dim - 1))
    return (torch.argmax(x, dim, keepdim=True).float() == numbers).float()


def local_response(call: Call, x: Tensor) -> Tensor:
    """Divided by a power of the mean square of neighbouring channels; ONNX divides alpha by their number."""
    size = int(call.attribute("size"))
    before = (size - 1) // 2
    squares = F.pad(torch.square(x), (0, 0, 0, 0, before, size - 1 - before))
    rows = torch.arange(x.shape[1]).reshape(-1, 1)
    distance = torch.arange(squares.shape[1]).reshape(1, -1) - rows
    sums = positions.multiplied(squares, 1, ((distance >= 0) & (distance < size)).float())
    base = sums * (float(call.attribute("alpha", 1e-4)) / size) + float(call.attribute("bias", 1.0))
    return x / functions.power(base, float(call.attribute("beta", 0.75)))


def norm_pool(call: Call, x: Tensor) -> Tensor:
    p = float(call.attribute("p", 2))
    kernel = [int(each) for each in call.attribute("kernel_shape")]
    if call.attribute("auto_pad", "NOTSET") not in ("NOTSET", "VALID") or call.attribute("ceil_mode", 0):
        raise NotImplementedError("padding that depends on the size")
    pads = [int(each) for each in call.attribute("pads", (0, 0, 0, 0))]
    if pads[:2] != pads[2:] or set(call.attribute("dilations", (1, 1))) != {1}:
        raise NotImplementedError("other windows")
    steps = [int(each) for each in call.attribute("strides", (1, 1))]
    powers = torch.square(x) if p == 2 else torch.pow(torch.abs(x), p)
    sums = F.avg_pool2d(powers, kernel, steps, pads[:2], count_include_pad=True) * math.prod(kernel)
    return torch.sqrt(sums) if p == 2 else torch.pow(sums, 1 / p)


def global_norm_pool(call: Call, x: Tensor) -> Tensor:
    return statistics.vector_norm(x, float(call.attribute("p", 2)), [*range(2, x.ndim)], keepdim=True)


def normalised(call: Call, x: Tensor) -> Tensor:
    """Mean 0 and deviation 1 over some dimensions; that of the only image of a batch over its own."""
    dims = [int(axis) % x.ndim for axis in call.attribute("axes", (0, 2, 3))]
    dims = [dim for dim in dims if dim]
    centred = x - x.mean(dims, keepdim=True)
    return centred / (torch.sqrt(torch.square(centred).mean(dims, keepdim=True)) + 1e-9)


def triangle(call: Call, x: Tensor, diagonal: Any = None) -> Tensor:
    ones = torch.ones(x.shape[-2:])
    first = 0 if diagonal is None else int(np.asarray(diagonal).reshape(-1)[0])
    return x * (torch.triu(ones, first) if call.attribute("upper", 1) else torch.tril(ones, first))


def cropped_or_padded(call: Call, x: Tensor, shape: Any) -> Tensor:
    """The centre of each side, or zeros around it."""
    axes = [int(axis) % x.ndim for axis in call.attribute("axes", range(x.ndim))]
    for axis, wanted in zip(axes, shape.tolist(), strict=True):
        missing = int(wanted) - x.shape[axis]
        if missing < 0:
            x = x.narrow(axis, -missing // 2, int(wanted))
        elif missing:
            amounts = [0, 0] * (x.ndim - axis - 1) + [missing // 2, missing - missing // 2]
            x = positions.constant_pad(x, amounts)
    return x


def gathered(call: Call, x: Tensor, index: Any) -> Tensor:
    """Values at positions for each place; constant ones that are the same at every place are slices."""
    dim = int(call.attribute("axis", 0)) % x.ndim
    if isinstance(index, Tensor):
        return gathering.gather(x, dim, index)
    along = np.moveaxis(index % x.shape[dim], dim, -1)
    others = [each for each in range(x.ndim) if each != dim]
    if (along == along.reshape(-1, along.shape[-1])[0]).all() and all(index.shape[o] == x.shape[o] for o in others):
        return positions.taken(x, dim, along.reshape(-1, along.shape[-1])[0].tolist())
    return gathering.gather(x, dim, torch.tensor(index % x.shape[dim]))


def scattered(call: Call, x: Tensor, index: Any, updates: Any) -> Tensor:
    """New values at constant positions along a dimension."""
    dim = int(call.attribute("axis", 0)) % x.ndim
    if isinstance(index, Tensor) or call.attribute("reduction", "none") != "none":
        raise NotImplementedError("positions that are computed, or sums")
    along = np.moveaxis(index % x.shape[dim], dim, -1).reshape(-1, index.shape[dim])
    if (along != along[0]).any() or any(index.shape[o] != x.shape[o] for o in range(x.ndim) if o != dim):
        raise NotImplementedError("other positions at each place")
    new = updates if isinstance(updates, Tensor) else torch.full(index.shape, float(updates))
    length = x.shape[dim]
    replaced = {place: length + number for number, place in enumerate(along[0].tolist())}
    return positions.taken(torch.cat((x, new), dim), dim, [replaced.get(place, place) for place in range(length)])


def compressed(call: Call, x: Tensor, *_: Any) -> Tensor:
    axis, condition = call.attribute("axis"), call.constant(1)
    if axis is None or condition is None:
        raise NotImplementedError("it flattens the image")
    kept = [number for number, each in enumerate(condition.reshape(-1).tolist()) if each]
    return positions.taken(x, int(axis), kept)


def reversed_sequence(call: Call, x: Tensor, lengths: Any) -> Tensor:
    batch, time = int(call.attribute("batch_axis", 1)), int(call.attribute("time_axis", 0))
    if x.shape[batch] != 1:
        raise NotImplementedError("sequences of several lengths")
    count = int(lengths.reshape(-1)[0])
    return positions.taken(x, time, [*range(count)[::-1], *range(count, x.shape[time])])


def sampled(call: Call, x: Any, grid: Any) -> Tensor:
    corners = bool(call.attribute("align_corners", 0))
    mode = _MODES[str(call.attribute("mode", "linear"))]
    outside = _OUTSIDE[str(call.attribute("padding_mode", "zeros"))]
    return torch.grid_sampler(x, grid, mode, outside, corners)


def deformed(call: Call, x: Tensor, weight: Tensor, offset: Tensor, bias: Any = None, mask: Any = None) -> Tensor:
    pads = [int(each) for each in call.attribute("pads", (0, 0, 0, 0))]
    if pads[:2] != pads[2:]:
        raise NotImplementedError("its padding is not symmetric")
    steps, spread = ([int(each) for each in call.attribute(name, (1, 1))] for name in ("strides", "dilations"))
    groups, offsets = int(call.attribute("group", 1)), int(call.attribute("offset_group", 1))
    bias = torch.full((1,), bias) if isinstance(bias, float) else bias
    mask = torch.full((1,), mask) if isinstance(mask, float) else mask
    settings = (*steps, *pads[:2], *spread, groups, offsets)
    return sampling.deformable_convolution(x, weight, offset, mask, bias, *settings)  # type: ignore[arg-type]


def rotated(call: Call, x: Tensor, cosines: Tensor, sines: Tensor, places: Any = None) -> Tensor:
    """Rotary position embedding of (N, heads, length, depth), or of (N, length, heads · depth)."""
    if x.ndim == 3:
        heads = int(call.attribute("num_heads"))
        apart = x.reshape(*x.shape[:2], heads, -1).transpose(1, 2)
        return rotated(call, apart, cosines, sines, places).transpose(1, 2).flatten(2)
    if places is not None:
        cosines, sines = (each[places.reshape(-1).tolist()].unsqueeze(0) for each in (cosines, sines))
    depth = int(call.attribute("rotary_embedding_dim", 0)) or x.shape[-1]
    turned = x if depth == x.shape[-1] else x[..., :depth]
    cosines, sines = (each[..., : depth // 2].unsqueeze(1) for each in (cosines, sines))
    if call.attribute("interleaved", 0):
        first, second = turned[..., ::2], turned[..., 1::2]
    else:
        first, second = turned[..., : depth // 2], turned[..., depth // 2 :]
    pair = (first * cosines - second * sines, first * sines + second * cosines)
    whole_turn = torch.stack(pair, -1).flatten(-2) if call.attribute("interleaved", 0) else torch.cat(pair, -1)
    return whole_turn if turned is x else torch.cat((whole_turn, x[..., depth:]), -1)


def recurrent_layer(call: Call, x: Tensor, weight: Tensor, own: Tensor, bias: Any = None, *_: Any) -> Tensor:
    """(steps, batch, features) to (steps, directions, batch, hidden)."""
    kind, hidden = call.node.op, int(call.attribute("hidden_size"))
    direction = str(call.attribute("direction", "forward"))
    given = [str(each).lower() for each in call.attribute("activations", ())]
    states = [call.constant(place) for place in range(5, len(call.inputs))]
    if (
        any(each is not None and each.any() for each in states)
        or not _is_whole(call.constant(4) if len(call.inputs) > 4 else None, x.shape[0])
        or call.attribute("layout", 0)
        or call.attribute("clip") is not None
        or (given and given != _USUAL[kind] * (2 if direction == "bidirectional" else 1))
        or (kind == "GRU" and not call.attribute("linear_before_reset", 0))
        or x.shape[0] > recurrent.LONGEST
    ):
        raise NotImplementedError("its settings are not those of PyTorch's layer")
    results = []
    for way in range(len(weight)):
        parts = [_in_order(each, kind, hidden) for each in (weight[way], own[way])]
        biases = [] if bias is None else [_in_order(each, kind, hidden) for each in bias[way].chunk(2)]
        backwards = direction == "reverse" or way == 1
        zero = (None,) * (2 if kind == "LSTM" else 1)
        found = recurrent.one_way(x.transpose(0, 1), [*parts, *biases], zero, _STEPS[kind], backwards)
        results.append(found.transpose(0, 1).unsqueeze(1))
    return torch.cat(results, 1) if len(results) > 1 else results[0]


def _is_whole(lengths: Any, steps: int) -> bool:
    """Whether all sequences have all of the steps."""
    return lengths is None or bool((lengths == steps).all())


def _in_order(gates: Tensor, kind: str, hidden: int) -> Tensor:
    return torch.cat([gates[place * hidden : (place + 1) * hidden] for place in _GATES[kind]])


def normalised_by_the_image(call: Call, x: Tensor, scale: Tensor, shift: Tensor, *_: Any) -> Tensor:
    """Batch norm as in training: by the mean and variance of the images that it is given, which are one."""
    if x.ndim < 3 or not is_training(call):
        raise NotImplementedError("the handler's own")
    return F.instance_norm(x, None, None, scale, shift, True, 0.1, float(call.attribute("epsilon", 1e-5)))


def reduced_product(call: Call, x: Tensor, axes: Any = None) -> Tensor:
    given = call.attribute("axes") if axes is None else axes.reshape(-1).tolist()
    keep = bool(call.attribute("keepdims", 1))
    dims = sorted((int(axis) % x.ndim for axis in given), reverse=True) if given else []
    if not dims:
        raise NotImplementedError("over everything")
    for dim in dims:
        x = functions.product_along(x, dim, keep)
    return x


def with_weight_of_one_dimension(call: Call, x: Tensor, weight: Tensor, bias: Any = None) -> Tensor:
    """A convolution of lines or volumes."""
    rank = weight.ndim - 2
    pads = [int(each) for each in call.attribute("pads", (0,) * 2 * rank)]
    if rank == 2 or pads[:rank] != pads[rank:] or call.attribute("auto_pad", "NOTSET") != "NOTSET":
        raise NotImplementedError("its padding is not symmetric")
    steps, spread = ([int(each) for each in call.attribute(name, (1,) * rank)] for name in ("strides", "dilations"))
    bias = torch.full((1,), bias) if isinstance(bias, float) else bias
    convolution = F.conv1d if rank == 1 else F.conv3d
    groups = int(call.attribute("group", 1))
    return convolution(x, weight, bias, steps, pads[:rank], spread, groups)


def dilated_average(call: Call, x: Tensor) -> Tensor:
    """A depthwise convolution with equal weights."""
    kernel = [int(each) for each in call.attribute("kernel_shape")]
    if len(kernel) != 2 or any(call.attribute("pads", (0,))) or call.attribute("ceil_mode", 0):
        raise NotImplementedError("padding")
    steps, spread = ([int(each) for each in call.attribute(name, (1, 1))] for name in ("strides", "dilations"))
    weight = torch.full((x.shape[1], 1, *kernel), 1 / math.prod(kernel))
    return F.conv2d(x, weight, None, steps, 0, spread, x.shape[1])


def fourier(call: Call, x: Tensor, length: Any = None, axis: Any = None) -> Tensor:
    """Of real or complex values along a dimension; the last one holds the real and the imaginary part."""
    dim = int(call.attribute("axis", 1) if axis is None else np.asarray(axis).reshape(-1)[0]) % x.ndim
    count, inverse = x.shape[dim], bool(call.attribute("inverse", 0))
    wanted = count if length is None else int(np.asarray(length).reshape(-1)[0])
    if wanted != count or (call.attribute("onesided", 0) and inverse):
        raise NotImplementedError("another length, or the inverse of one side")
    if count > 1024:
        raise NotImplementedError("a long dimension")
    kept = count // 2 + 1 if call.attribute("onesided", 0) else count
    angle = torch.arange(kept).reshape(-1, 1) * torch.arange(count) % count * (2 * math.pi / count)
    scale = 1 / count if inverse else 1.0
    cosine, sine = torch.cos(angle) * scale, torch.sin(angle) * (scale if inverse else -scale)
    real = x[..., 0]
    parts = [positions.multiplied(real, dim, cosine), positions.multiplied(real, dim, sine)]
    if x.shape[-1] == 2:
        imaginary = x[..., 1]
        parts = [
            parts[0] - positions.multiplied(imaginary, dim, sine),
            parts[1] + positions.multiplied(imaginary, dim, cosine),
        ]
    return torch.stack(parts, -1)


def over_the_batch(reduce: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Reductions over some dimensions and the batch: those of the only image."""

    def run(call: Call, x: Tensor, axes: Any = None) -> Tensor:
        given = call.attribute("axes") if axes is None else axes.reshape(-1).tolist()
        dims = sorted(int(axis) % x.ndim for axis in given or range(x.ndim))
        return whole.over(reduce)(x, dims, bool(call.attribute("keepdims", 1)))

    return run


def remainder(call: Call, x: Any, other: Any) -> Tensor:
    return (functions.remainder_of_truncation if call.attribute("fmod", 0) else functions.remainder)(x, other)


TABLE: Mapping[str, Callable[..., Tensor]] = {
    "Acos": _same(trigonometry.arc_cosine),
    "Acosh": _same(trigonometry.inverse_hyperbolic_cosine),
    "Asin": _same(trigonometry.arc_sine),
    "Asinh": _same(trigonometry.inverse_hyperbolic_sine),
    "Atan": _same(trigonometry.arc_tangent),
    "Atanh": _same(trigonometry.inverse_hyperbolic_tangent),
    "Cosh": _same(trigonometry.hyperbolic_cosine),
    "Sinh": _same(trigonometry.hyperbolic_sine),
    "Tan": _same(trigonometry.tangent),
    "Round": _same(trigonometry.round_half_to_even),
    "Mod": remainder,
    "Xor": _same(comparisons.one_of_both),
    "IsNaN": _same(comparisons.is_no_number),
    "IsInf": _same(comparisons.is_infinite),
    "Mean": several(torch.add, mean=True),
    "Sum": several(torch.add),
    "Max": several(_larger),
    "Min": several(_smaller),
    "ArgMax": arg_extreme(smallest=False),
    "ArgMin": arg_extreme(smallest=True),
    "OneHot": one_hot,
    "Hardmax": hard_max,
    "LRN": local_response,
    "LpPool": norm_pool,
    "GlobalLpPool": global_norm_pool,
    "MeanVarianceNormalization": normalised,
    "Trilu": triangle,
    "CenterCropPad": cropped_or_padded,
    "GatherElements": gathered,
    "ScatterElements": scattered,
    "Scatter": scattered,
    "Compress": compressed,
    "ReverseSequence": reversed_sequence,
    "GridSample": sampled,
    "DeformConv": deformed,
    "RotaryEmbedding": rotated,
    "ReduceProd": reduced_product,
    "Conv": with_weight_of_one_dimension,
    "AveragePool": dilated_average,
    "DFT": fourier,
    "Swish": lambda call, x: x * torch.sigmoid(x * float(call.attribute("alpha", 1.0))),
    "BatchNormalization": normalised_by_the_image,
    "ReduceMean": over_the_batch(torch.mean),
    "ReduceSum": over_the_batch(torch.sum),
    "ReduceMax": over_the_batch(torch.amax),
    "ReduceMin": over_the_batch(torch.amin),
}

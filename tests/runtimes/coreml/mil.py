"""The operations of a saved ML Program, evaluated with torch after coremltools' documentation: Core ML needs macOS.

Every value is rounded to the type that the program gives it, and sums run in float32, as the Neural Engine's do.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

TYPES = {"fp16": torch.float16, "fp32": torch.float32, "int32": torch.int32, "bool": torch.bool}


class Program:
    """What an `.mlpackage` computes."""

    def __init__(self, path: Path) -> None:
        import coremltools
        from coremltools.converters.mil.frontend.milproto.load import load

        self.spec = coremltools.models.utils.load_spec(str(path))
        folder = str(path / "Data" / "com.apple.CoreML" / "weights")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.function = load(self.spec, self.spec.specificationVersion, folder).functions["main"]

    @property
    def kinds(self) -> list[str]:
        return [op.op_type for op in self.function.operations if op.op_type not in ("const", "cast")]

    def __call__(self, image: np.ndarray[Any, Any]) -> Tensor:
        """(1, height, width, 3) bytes, in the order of channels that the program asks for, to its output."""
        (name,) = self.function.inputs
        values: dict[Any, Any] = {self.function.inputs[name]: torch.from_numpy(image).permute(0, 3, 1, 2).float()}
        for op in self.function.operations:
            if op.op_type == "const":
                continue
            given = {key: _read(value, values) for key, value in op.inputs.items()}
            made = _constant(op) if op.op_type.startswith("constexpr_") else OPERATIONS[op.op_type](**given)
            for variable, value in zip(op.outputs, made if isinstance(made, tuple) else (made,), strict=True):
                expected = [side if isinstance(side, int | np.integer) else None for side in variable.shape]
                found = list(value.shape)
                assert len(found) == len(expected), (op.name, found, expected)
                assert all(e in (None, f) for e, f in zip(expected, found, strict=True)), (op.name, found, expected)
                values[variable] = value.to(_dtype(variable))

        (output,) = self.function.outputs
        return values[output]


def _dtype(variable: Any) -> torch.dtype:
    from coremltools.converters.mil.mil import types

    return TYPES[types.builtin_to_string(variable.dtype)]


def _constant(op: Any) -> Tensor:
    return torch.from_numpy(np.asarray(op.materialized_val_inference()))


def _read(variable: Any, values: dict[Any, Any]) -> Any:
    """A tensor in float32 or integers; Python's own numbers, lists and texts for settings."""
    if variable is None:
        return None
    if isinstance(variable, list | tuple):
        return [_read(each, values) for each in variable]
    if variable in values:
        value = values[variable]
        return value.float() if value.is_floating_point() else value
    value = variable.val
    if isinstance(value, np.ndarray):
        tensor = torch.from_numpy(np.ascontiguousarray(value))
        return tensor.float() if tensor.is_floating_point() else tensor
    return value.item() if isinstance(value, np.generic) else value


def _ints(value: Any) -> list[int]:
    return [int(each) for each in value]


def conv(x, weight, strides, pad_type, dilations, groups, pad=None, bias=None):
    top, bottom, left, right = _ints(pad) if pad_type == "custom" else (0, 0, 0, 0)
    assert pad_type in ("custom", "valid")
    return F.conv2d(F.pad(x, (left, right, top, bottom)), weight, bias, _ints(strides), 0, _ints(dilations), groups)


def conv_transpose(x, weight, strides, pad_type, dilations, groups, pad=None, bias=None, output_shape=None):
    top, bottom, left, right = _ints(pad) if pad_type == "custom" else (0, 0, 0, 0)
    full = F.conv_transpose2d(x, weight, bias, _ints(strides), 0, 0, groups, _ints(dilations))
    result = full[..., top : full.shape[2] - bottom, left : full.shape[3] - right]
    assert output_shape is None or _ints(output_shape) == list(result.shape)
    return result


def linear(x, weight, bias=None):
    return F.linear(x, weight, bias)


def matmul(x, y, transpose_x=False, transpose_y=False):
    return (x.mT if transpose_x else x) @ (y.mT if transpose_y else y)


def max_pool(x, kernel_sizes, strides, pad_type, pad=None, ceil_mode=False):
    assert not ceil_mode
    top, bottom, left, right = _ints(pad) if pad_type == "custom" else (0, 0, 0, 0)
    return F.max_pool2d(F.pad(x, (left, right, top, bottom), value=-np.inf), _ints(kernel_sizes), _ints(strides))


def avg_pool(x, kernel_sizes, strides, pad_type, pad=None, exclude_padding_from_average=False, ceil_mode=False):
    assert not ceil_mode
    top, bottom, left, right = _ints(pad) if pad_type == "custom" else (0, 0, 0, 0)
    around = (left, right, top, bottom)
    sums = F.avg_pool2d(F.pad(x, around), _ints(kernel_sizes), _ints(strides))
    if not exclude_padding_from_average:
        return sums
    return sums / F.avg_pool2d(F.pad(torch.ones_like(x), around), _ints(kernel_sizes), _ints(strides))


def sample(x: Tensor, dim: int, positions: Tensor) -> Tensor:
    """Linear interpolation along one side at positions, clamped to [0, length − 1], as MIL's notes have it."""
    positions = positions.double().clamp(0, x.shape[dim] - 1)
    low = positions.floor().long()
    high = (low + 1).clamp(max=x.shape[dim] - 1)
    share = (positions - low).float().reshape((-1, 1) if dim == 2 else (-1,))
    return x.index_select(dim, low) * (1 - share) + x.index_select(dim, high) * share


def resize_bilinear(x, target_size_height, target_size_width, sampling_mode):
    for dim, size in ((2, target_size_height), (3, target_size_width)):
        length, index = x.shape[dim], torch.arange(size, dtype=torch.float64)
        positions = {
            "STRICT_ALIGN_CORNERS": index * ((length - 1) / (size - 1 or np.nan)),
            "DEFAULT": index * ((length - length / size) / (size - 1 or np.nan)),
            "UNALIGN_CORNERS": index * (length / size) + 0.5 * (length / size) - 0.5,
        }[sampling_mode]
        if length == 1:
            positions = torch.zeros(size)
        assert not positions.isnan().any(), "one pixel of several: the documentation divides by nothing"
        x = sample(x, dim, positions)
    return x


def upsample_bilinear(x, scale_factor_height, scale_factor_width, align_corners, half_pixel_centers=None):
    assert half_pixel_centers in (None, not align_corners)
    size = [round(x.shape[2] * scale_factor_height), round(x.shape[3] * scale_factor_width)]
    return resize_bilinear(x, *size, "STRICT_ALIGN_CORNERS" if align_corners else "UNALIGN_CORNERS")


def upsample_nearest_neighbor(x, scale_factor_height, scale_factor_width):
    assert scale_factor_height == int(scale_factor_height)
    assert scale_factor_width == int(scale_factor_width)
    return x.repeat_interleave(int(scale_factor_height), 2).repeat_interleave(int(scale_factor_width), 3)


def slice_by_index(x, begin, end, stride=None, begin_mask=None, end_mask=None, squeeze_mask=None):
    rank = x.ndim
    none = [False] * rank
    assert not any(squeeze_mask if squeeze_mask is not None else none)
    for dim in range(rank):
        length = x.shape[dim]
        start = 0 if (begin_mask if begin_mask is not None else none)[dim] else int(begin[dim])
        stop = length if (end_mask if end_mask is not None else none)[dim] else int(end[dim])
        step = 1 if stride is None else int(stride[dim])
        x = x[(slice(None),) * dim + (slice(start, stop, step),)]
    return x


def pad(x, pad, mode, constant_val):
    assert mode == "constant"
    amounts = _ints(pad)
    pairs = [amounts[i : i + 2] for i in range(0, len(amounts), 2)]
    return F.pad(x, [amount for pair in reversed(pairs) for amount in pair], value=constant_val)


def depth_to_space(x, block_size):
    """TensorFlow's: the block's row and column are the slower part of a channel's number."""
    n, c, h, w = x.shape
    kept = c // block_size**2
    blocks = x.permute(0, 2, 3, 1).reshape(n, h, w, block_size, block_size, kept)
    return blocks.permute(0, 5, 1, 3, 2, 4).reshape(n, kept, h * block_size, w * block_size)


def space_to_depth(x, block_size):
    n, c, h, w = x.shape
    blocks = x.reshape(n, c, h // block_size, block_size, w // block_size, block_size)
    return blocks.permute(0, 3, 5, 1, 2, 4).reshape(n, c * block_size**2, h // block_size, w // block_size)


def split(x, axis, num_splits=None, split_sizes=None):
    return tuple(x.split(_ints(split_sizes), axis) if split_sizes is not None else x.chunk(num_splits, axis))


def prelu(x, alpha):
    return F.prelu(x, alpha)


def gelu(x, mode):
    return F.gelu(x, approximate="none" if mode == "EXACT" else "tanh")


def gather(x, indices, axis, batch_dims=0, validate_indices=False):
    return x.index_select(axis, indices)


def resample(x, coordinates, sampling_mode, padding_mode, padding_value, coordinates_mode, align_corners):
    assert (sampling_mode, coordinates_mode, padding_value) == ("bilinear", "normalized_minus_one_to_one", 0.0)
    outside = {"constant": "zeros", "border": "border"}[padding_mode]
    return F.grid_sample(x, coordinates, padding_mode=outside, align_corners=align_corners)


def batch_norm(x, mean, variance, gamma=None, beta=None, epsilon=1e-5):
    return F.batch_norm(x, mean, variance, gamma, beta, eps=epsilon)


def reduction(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda x, axes, keep_dims: function(x, tuple(_ints(axes)), keepdim=keep_dims)


def _tensor(value: Any, other: Any) -> Tensor:
    if isinstance(value, Tensor):
        return value
    return torch.tensor(value, dtype=other.dtype if isinstance(other, Tensor) else torch.float32)


def binary(function: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Any, Any], Tensor]:
    return lambda x, y: function(_tensor(x, y), _tensor(y, x))


OPERATIONS: dict[str, Callable[..., Any]] = {
    "conv": conv,
    "conv_transpose": conv_transpose,
    "linear": linear,
    "matmul": matmul,
    "max_pool": max_pool,
    "avg_pool": avg_pool,
    "batch_norm": batch_norm,
    "resize_bilinear": resize_bilinear,
    "upsample_bilinear": upsample_bilinear,
    "upsample_nearest_neighbor": upsample_nearest_neighbor,
    "slice_by_index": slice_by_index,
    "pad": pad,
    "depth_to_space": depth_to_space,
    "space_to_depth": space_to_depth,
    "split": split,
    "prelu": prelu,
    "gelu": gelu,
    "gather": gather,
    "resample": resample,
    "reduce_mean": reduction(torch.mean),
    "reduce_sum": reduction(torch.sum),
    "reduce_max": reduction(torch.amax),
    "reduce_min": reduction(torch.amin),
    "reduce_argmax": lambda x, axis, keep_dims, output_dtype="int32": x.argmax(axis, keep_dims),
    "add": binary(torch.add),
    "sub": binary(torch.sub),
    "mul": binary(torch.mul),
    "real_div": binary(torch.div),
    "maximum": binary(torch.maximum),
    "minimum": binary(torch.minimum),
    "abs": lambda x: x.abs(),
    "exp": lambda x: x.exp(),
    "log": lambda x, epsilon: (x + epsilon).log(),
    "sqrt": lambda x: x.sqrt(),
    "rsqrt": lambda x, epsilon: (x + epsilon).rsqrt(),
    "square": lambda x: x.square(),
    "inverse": lambda x, epsilon: 1 / (x + epsilon),
    "sin": lambda x: x.sin(),
    "cos": lambda x: x.cos(),
    "floor": lambda x: x.floor(),
    "sign": lambda x: x.sign(),
    "relu": lambda x: x.relu(),
    "relu6": lambda x: x.clamp(0, 6),
    "clip": lambda x, alpha, beta: x.clamp(alpha, beta),
    "leaky_relu": lambda x, alpha: F.leaky_relu(x, alpha),
    "elu": lambda x, alpha: F.elu(x, alpha),
    "sigmoid": lambda x: x.sigmoid(),
    "sigmoid_hard": lambda x, alpha, beta: (alpha * x + beta).clamp(0, 1),
    "silu": lambda x: F.silu(x),
    "tanh": lambda x: x.tanh(),
    "softmax": lambda x, axis: x.softmax(axis),
    "concat": lambda values, axis, interleave=False: torch.cat(values, axis),
    "reshape": lambda x, shape: x.reshape(_ints(shape)),
    "transpose": lambda x, perm: x.permute(_ints(perm)),
    "expand_dims": lambda x, axes: x.reshape(_expanded(x.shape, _ints(axes))),
    "squeeze": lambda x, axes=None: x.squeeze() if axes is None else x.squeeze(tuple(_ints(axes))),
    "cast": lambda x, dtype: x.to(TYPES[dtype]),
    "identity": lambda x: x,
}


def _expanded(shape: Any, axes: list[int]) -> list[int]:
    result = list(shape)
    for axis in sorted(axes):
        result.insert(axis, 1)
    return result

"""Products of matrices in all spellings, and what is a product with a constant matrix: most resizes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.nn import functional as F
from torch.utils._python_dispatch import _disable_current_modes

from slimseg.frontends.aten.call import Call
from slimseg.frontends.aten.decompositions.positions import multiplied

Number = int | float
_LARGEST_MATRIX = 1 << 22  # values


def add_product(self: Tensor, mat1: Tensor, mat2: Tensor, beta: Number = 1, alpha: Number = 1) -> Tensor:
    return _sum(self, torch.matmul(mat1, mat2), beta, alpha)


def add_products(self: Tensor, batch1: Tensor, batch2: Tensor, beta: Number = 1, alpha: Number = 1) -> Tensor:
    return _sum(self, torch.matmul(batch1, batch2), beta, alpha)


def _sum(first: Tensor, product: Tensor, beta: Number, alpha: Number) -> Tensor:
    product = product if alpha == 1 else product * alpha
    return product + (first if beta == 1 else first * beta)


def product(self: Tensor, other: Tensor) -> Tensor:
    """Matrices that are broadcast, and vectors, as matrices with the same dimensions before."""
    if self.ndim == 1 or other.ndim == 1:
        first, second = self.unsqueeze(0) if self.ndim == 1 else self, other.unsqueeze(1) if other.ndim == 1 else other
        result = torch.matmul(first, second)
        result = result.squeeze(-1) if other.ndim == 1 else result
        return result.squeeze(-1 if other.ndim == 1 else -2) if self.ndim == 1 else result
    if other.ndim > 2 and set(other.shape[:-2]) == {1} and self.ndim >= other.ndim:
        return torch.matmul(self, other.reshape(other.shape[-2:]))
    if self.ndim == 2 and other.ndim > 2:
        return torch.matmul(other.transpose(-2, -1), self.transpose(0, 1)).transpose(-2, -1)
    rank = max(self.ndim, other.ndim)
    full = [(1,) * (rank - each.ndim) + tuple(each.shape) for each in (self, other)]
    leading = [max(pair) for pair in zip(*full, strict=True)][:-2]
    wanted = [self.expand(*leading, *self.shape[-2:]), other.expand(*leading, *other.shape[-2:])]
    if [tuple(each.shape) for each in (self, other)] == [tuple(each.shape) for each in wanted]:
        raise NotImplementedError("nothing is broadcast")
    return torch.matmul(*wanted)


def with_constant(call: Call) -> dict[str, Any] | None:
    """The arguments of `einsum`, if one of two tensors is a constant without the batch of the other."""
    equation, tensors = str(call["equation"]).replace(" ", ""), list(call["tensors"])
    labels, arrow, result = equation.partition("->")
    parts = labels.split(",")
    constant = [tensor in call.parameters for tensor in tensors]
    if not arrow or "." in equation or sorted(constant) != [False, True]:
        return None
    if constant[0]:
        parts, tensors = parts[::-1], tensors[::-1]
    if parts[0][0] in parts[1] or result[0] != parts[0][0]:
        return None
    return {"x": tensors[0], "constant": tensors[1], "given": parts[0], "other": parts[1], "result": result}


def einsum(x: Tensor, constant: Tensor, given: str, other: str, result: str) -> Tensor:
    """A linear layer along one dimension, or a product with the constant as that of every image."""
    if len(other) == 2 and len(set(other) & set(given)) == 1:
        summed, made = (other[0], other[1]) if other[0] in given else (other[1], other[0])
        if made in result and summed not in result and given.replace(summed, made) == result:
            return multiplied(x, given.index(summed), constant if other[0] == made else constant.T)
    copies = constant.expand(x.shape[0], *constant.shape)  # one for each window, where windows are in the batch
    if copies.numel() > _LARGEST_MATRIX:
        raise NotImplementedError("many windows")
    return torch.einsum(f"{given},{given[0]}{other}->{result}", x, copies)


def summed_products(self: Tensor, other: Tensor, dims_self: Sequence[int], dims_other: Sequence[int]) -> Tensor:
    """A sum over some dimensions of both, of which the second has no batch."""
    dims, others = ([each % x.ndim for each in given] for x, given in ((self, dims_self), (other, dims_other)))
    if 0 in dims:
        raise NotImplementedError("a sum over the batch")
    count = math.prod(self.shape[each] for each in dims)
    kept = [length for each, length in enumerate(self.shape) if each not in dims]
    made = [length for each, length in enumerate(other.shape) if each not in others]
    rows = self.movedim(dims, [*range(-len(dims), 0)]).reshape(*kept, count)
    matrix = other.movedim(others, [*range(len(others))]).reshape(count, -1)
    return F.linear(rows, matrix.T).reshape(*kept, *made)


def running_sum(self: Tensor, dim: int, dtype: torch.dtype | None = None) -> Tensor:
    """A product with a matrix of ones below its diagonal."""
    length = self.shape[dim]
    if length**2 > _LARGEST_MATRIX:
        raise NotImplementedError("a long dimension")
    return multiplied(self, dim, torch.ones(length, length).tril())


def by_matrices(name: str, form: str) -> Callable[..., Tensor]:
    """Resizes that are linear in rows and in columns: a product with one matrix for each."""
    operator: OpOverload = getattr(getattr(torch.ops.aten, name), form)

    def resize(**given: Any) -> Tensor:
        source: Tensor = given.pop("input" if "input" in given else "self")
        with _disable_current_modes():
            rows, columns = (_resized(operator, given, side, length) for side, length in enumerate(source.shape[2:]))
        return multiplied(multiplied(source, 2, rows), 3, columns)

    return resize


def _resized(operator: OpOverload, given: Mapping[str, Any], side: int, length: int) -> Tensor:
    """The matrix that resizes one side: what becomes of rows of pixels of which one is 1 and all others are 0.

    An antialiased resize of maps that are one pixel wide gives wrong numbers in torch, so the pixels form rows.
    """
    own = dict(given)
    for name, neutral in (("output_size", 1), ("scale_factors", 1.0)):
        if given.get(name) is not None:
            own[name] = [neutral, given[name][side]]
    if "scales_h" in given:
        own.update(scales_h=None, scales_w=given[("scales_h", "scales_w")[side]])
    target = own["output_size"][1] if own.get("output_size") else int(length * own["scale_factors"][1])
    if length * max(length, target) > _LARGEST_MATRIX:
        raise NotImplementedError("a large matrix")
    pixels = torch.eye(length).reshape(length, 1, 1, length)
    resized: Tensor = operator(pixels, **own)
    return resized.reshape(length, -1).T.contiguous()


def by_lines(name: str) -> Callable[..., Tensor]:
    """Resizes of sequences and volumes: a product with one matrix for each side that they change."""
    operator: OpOverload = getattr(torch.ops.aten, name).vec

    def resize(**given: Any) -> Tensor:
        result: Tensor = given.pop("input" if "input" in given else "self")
        scales = given.pop("scale_factors", None) or _scales(given)
        sizes = given.pop("output_size", None)
        for side, length in enumerate(result.shape[2:]):
            if length**2 > _LARGEST_MATRIX:
                raise NotImplementedError("a large matrix")
            # Where both are known, the scale decides at which positions values are read.
            size = None if sizes is None else [int(sizes[side])]
            scale = None if scales is None else scales[side]
            with _disable_current_modes():
                pixels = torch.eye(length).reshape(1, length, length)
                matrix = _line(operator, pixels, size, scale, given)
                is_kept = torch.equal(matrix, pixels[0])
            if not is_kept:
                result = multiplied(result, 2 + side, matrix)
        return result

    return resize


def _scales(given: dict[str, Any]) -> list[float | None] | None:
    names = ["scales"] if "scales" in given else ["scales_d", "scales_h", "scales_w"]
    found = [given.pop(name, None) for name in names]
    return None if all(each is None for each in found) else found


def _line(
    operator: OpOverload, pixels: Tensor, size: list[int] | None, scale: float | None, given: Mapping[str, Any]
) -> Tensor:
    """The matrix that resizes one side, from what becomes of rows of pixels of which one is 1 and all others are 0."""
    scales = None if size is not None and scale is None else [scale]
    if size is not None and scales is not None:
        resized: Tensor = operator.overloadpacket.default(pixels, size, **given, scales=scale)
    else:
        resized = operator(pixels, size, **given, scale_factors=scales)
    return resized[0].T.contiguous()


def chosen_rows(
    weight: Tensor, indices: Tensor, padding_idx: int = -1, scale_grad_by_freq: bool = False, sparse: bool = False
) -> Tensor:
    """Rows of a small table at computed indices: a product of truth values with the table."""
    if len(weight) * indices.numel() > _LARGEST_MATRIX:
        raise NotImplementedError("a large table")
    is_row = indices.unsqueeze(-1).float() == torch.arange(len(weight)).float()
    return F.linear(is_row.float(), weight.T)


def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """A linear layer whose weight is one row, without a dimension for it, as that of an expected value."""
    if weight.ndim != 1:
        raise NotImplementedError("a computed weight")
    return F.linear(input, weight.unsqueeze(0), bias).squeeze(-1)


_RESIZES = (
    "upsample_bilinear2d", "upsample_bicubic2d", "_upsample_bilinear2d_aa", "_upsample_bicubic2d_aa",
    "upsample_nearest2d", "_upsample_nearest_exact2d",
)  # fmt: skip
_LINES = {
    "upsample_linear1d": "upsample_linear1d",
    "upsample_trilinear3d": "upsample_linear1d",
    "upsample_nearest1d": "upsample_nearest1d",
    "upsample_nearest3d": "upsample_nearest1d",
    "_upsample_nearest_exact1d": "_upsample_nearest_exact1d",
    "_upsample_nearest_exact3d": "_upsample_nearest_exact1d",
}
TABLE = {
    "addmm.default": add_product,
    "baddbmm.default": add_products,
    "linear.default": linear,
    "matmul.default": product,
    "einsum.default": einsum,
    "tensordot.default": summed_products,
    "cumsum.default": running_sum,
    "embedding.default": chosen_rows,
    **{f"{name}.{form}": by_lines(line) for name, line in _LINES.items() for form in ("vec", "default")},
    **{f"{name}.{form}": by_matrices(name, form) for name in _RESIZES for form in ("vec", "default")},
}
PREPARED = {"einsum.default": with_constant}

"""Products of matrices in all spellings, and what is a product with a constant matrix: most resizes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
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


def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """A linear layer whose weight is one row, without a dimension for it, as that of an expected value."""
    if weight.ndim != 1:
        raise NotImplementedError("a computed weight")
    return F.linear(input, weight.unsqueeze(0), bias).squeeze(-1)


_RESIZES = (
    "upsample_bilinear2d", "upsample_bicubic2d", "_upsample_bilinear2d_aa", "_upsample_bicubic2d_aa",
    "upsample_nearest2d", "_upsample_nearest_exact2d",
)  # fmt: skip
TABLE = {
    "addmm.default": add_product,
    "baddbmm.default": add_products,
    "linear.default": linear,
    "matmul.default": product,
    "einsum.default": einsum,
    "cumsum.default": running_sum,
    **{f"{name}.{form}": by_matrices(name, form) for name in _RESIZES for form in ("vec", "default")},
}
PREPARED = {"einsum.default": with_constant}

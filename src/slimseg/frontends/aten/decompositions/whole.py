"""Reductions over everything, or over the batch, too: those of the only image of a batch.

A single number keeps one dimension of length 1 for each of the values that it is computed with, so that every image of
a larger batch has a number of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from slimseg.frontends.aten.call import Call
from slimseg.frontends.aten.decompositions import statistics

Dims = int | Sequence[int] | None
Reduction = Callable[..., Tensor]


def with_rank(call: Call) -> dict[str, Any] | None:
    """The arguments of a reduction, and as `rank` the dimensions that a result without any gets."""
    given = {name: value for name, value in call.arguments.items() if name != "dtype"}
    if call.output_shape or not call.is_value("self"):
        return {**given, "rank": None}
    ranks = _ranks_of_readers(call.node)
    return {**given, "rank": ranks.pop() if ranks else 1} if len(ranks) < 2 else None


def _ranks_of_readers(node: fx.Node) -> set[int]:
    """The numbers of dimensions of what is computed from a single number."""
    found: set[int] = set()
    for reader in node.users:
        value = reader.meta.get("val")
        if isinstance(value, Tensor):
            found |= {value.ndim} if value.ndim else _ranks_of_readers(reader)
    return found


def over(reduce: Reduction, **settings: Any) -> Callable[..., Tensor]:
    """A decomposition of a reduction over some dimensions, over all if none is given."""

    def reduction(self: Tensor, dim: Dims = None, keepdim: bool = False, rank: int | None = None) -> Tensor:
        dims = [dim] if isinstance(dim, int) else [*(dim or range(self.ndim))]
        dims = sorted(each % self.ndim for each in dims) if self.ndim else []
        if dims and dims[0] != 0:
            raise NotImplementedError("the handler's own")
        shape = [1 if each in dims else length for each, length in enumerate(self.shape)]
        result = self
        if self.ndim and self.shape[0] != 1:  # this first dimension is no batch
            result = reduce(self.unsqueeze(0), [each + 1 for each in dims], True, **settings)
        elif dims[1:]:
            result = reduce(self, dims[1:], True, **settings)
        if rank is not None and len(dims) == self.ndim:
            return result.reshape((1,) * rank)
        kept = shape if keepdim else [length for each, length in enumerate(shape) if each not in dims]
        return result.reshape(kept)

    return reduction


def _over_all(reduce: Reduction) -> Callable[..., Tensor]:
    return lambda self, rank=None: over(reduce)(self, None, False, rank)


def variance(
    self: Tensor, dim: Dims = None, correction: float | None = None, keepdim: bool = False, rank: int | None = None
) -> Tensor:
    """Over all dimensions, the rest is that of `statistics`."""
    if dim not in (None, []) or rank is None:
        return statistics.variance(self, dim, correction, keepdim)
    values = self.reshape(1, -1) if self.shape[0] != 1 else self.flatten(1)
    return statistics.variance(values, 1, correction, True).reshape((1,) * rank)


def deviation(
    self: Tensor, dim: Dims = None, correction: float | None = None, keepdim: bool = False, rank: int | None = None
) -> Tensor:
    return torch.sqrt(variance(self, dim, correction, keepdim, rank))


def norm(
    self: Tensor, ord: float = 2, dim: Dims = None, keepdim: bool = False, dtype: Any = None, rank: int | None = None
) -> Tensor:
    if dim not in (None, []) or rank is None:
        return statistics.vector_norm(self, ord, dim, keepdim)
    values = self.reshape(1, -1) if self.shape[0] != 1 else self.flatten(1)
    return statistics.vector_norm(values, ord, 1, True).reshape((1,) * rank)


def size(self: Tensor, p: float = 2, rank: int | None = None) -> Tensor:
    return norm(self, p, rank=rank)


def mean_of_numbers(self: Tensor, dim: Dims = None, keepdim: bool = False, dtype: Any = None) -> Tensor:
    """No value that a trained network computes is NaN."""
    dims = [*range(1, self.ndim)] if dim is None else [dim] if isinstance(dim, int) else [*dim]
    return torch.mean(self, dims, keepdim)


def _norm_of_matrix(self: Tensor, dims: Sequence[int], keepdim: bool) -> Tensor:
    return torch.sqrt(torch.square(self).sum([*dims], keepdim=keepdim))


def matrix_norm(
    self: Tensor, ord: Any = "fro", dim: Sequence[int] = (-2, -1), keepdim: bool = False, dtype: Any = None
) -> Tensor:
    if ord != "fro":
        raise NotImplementedError("other norms than Frobenius's")
    return _norm_of_matrix(self, [each % self.ndim for each in dim], keepdim)


TABLE = {
    "mean.default": _over_all(torch.mean),
    "sum.default": _over_all(torch.sum),
    "max.default": _over_all(torch.amax),
    "min.default": _over_all(torch.amin),
    "mean.dim": over(torch.mean),
    "sum.dim_IntList": over(torch.sum),
    "amax.default": over(torch.amax),
    "amin.default": over(torch.amin),
    "var.correction": variance,
    "std.correction": deviation,
    "linalg_vector_norm.default": norm,
    "norm.Scalar": size,
    "nanmean.default": mean_of_numbers,
    "linalg_matrix_norm.str_ord": matrix_norm,
}
_REDUCTIONS = (
    *("mean.default", "sum.default", "max.default", "min.default", "mean.dim", "sum.dim_IntList"),
    *("amax.default", "amin.default", "var.correction", "std.correction", "linalg_vector_norm.default", "norm.Scalar"),
)
PREPARED = dict.fromkeys(_REDUCTIONS, with_rank)

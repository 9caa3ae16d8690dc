"""Reductions: variance, norms, logarithms of sums, and layers that normalise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

Dims = int | Sequence[int] | None


def _dims(x: Tensor, dim: Dims) -> list[int]:
    """Dimensions counted from the front; without any, all but the batch."""
    if dim is None or dim == []:
        return list(range(1, x.ndim))
    return [each % x.ndim for each in ([dim] if isinstance(dim, int) else dim)]


def variance(self: Tensor, dim: Dims = None, correction: float | None = None, keepdim: bool = False) -> Tensor:
    """The mean square of the distance from the mean, times n / (n - correction)."""
    dims = _dims(self, dim)
    count = math.prod(self.shape[each] for each in dims)
    result = torch.square(self - self.mean(dims, keepdim=True)).mean(dims, keepdim=keepdim)
    rest = count - (1 if correction is None else correction)
    return result if rest == count else result * (count / rest)


def deviation(self: Tensor, dim: Dims = None, correction: float | None = None, keepdim: bool = False) -> Tensor:
    return torch.sqrt(variance(self, dim, correction, keepdim))


def variance_or_not(self: Tensor, dim: Dims, unbiased: bool = True, keepdim: bool = False) -> Tensor:
    return variance(self, dim, int(unbiased), keepdim)


def deviation_or_not(self: Tensor, dim: Dims, unbiased: bool = True, keepdim: bool = False) -> Tensor:
    return deviation(self, dim, int(unbiased), keepdim)


def variance_and_mean(
    self: Tensor, dim: Dims = None, correction: float | None = None, keepdim: bool = False
) -> tuple[Tensor, Tensor]:
    return variance(self, dim, correction, keepdim), self.mean(_dims(self, dim), keepdim=keepdim)


def vector_norm(
    self: Tensor, ord: float = 2, dim: Dims = None, keepdim: bool = False, dtype: torch.dtype | None = None
) -> Tensor:
    dims = _dims(self, dim)
    if ord == 2:
        return torch.sqrt(torch.square(self).sum(dims, keepdim=keepdim))
    if ord == 1:
        return torch.abs(self).sum(dims, keepdim=keepdim)
    if abs(ord) == math.inf:
        return (torch.amax if ord > 0 else torch.amin)(torch.abs(self), dims, keepdim=keepdim)
    return torch.pow(torch.pow(torch.abs(self), ord).sum(dims, keepdim=keepdim), 1 / ord)


def norm(self: Tensor, p: float | None = None, dim: Dims = None, keepdim: bool = False) -> Tensor:
    return vector_norm(self, 2 if p is None else p, dim, keepdim)


def log_sum(self: Tensor, dim: Dims, keepdim: bool = False) -> Tensor:
    """log Σ exp(x) = m + log Σ exp(x - m), with the maximum m, so that nothing overflows."""
    dims = _dims(self, dim)
    most = torch.amax(self, dims, keepdim=True)
    result = most + torch.log(torch.exp(self - most).sum(dims, keepdim=True))
    return result if keepdim else result.squeeze(dims)


def log_softmax(self: Tensor, dim: int, dtype: torch.dtype | None = None) -> Tensor:
    return self - log_sum(self, [dim], keepdim=True)


def _log_softmax(self: Tensor, dim: int, half_to_float: bool) -> Tensor:
    return log_softmax(self, dim)


def _softmax(self: Tensor, dim: int, half_to_float: bool = False) -> Tensor:
    return torch.softmax(self, dim)


def cosine_similarity(x1: Tensor, x2: Tensor, dim: int = 1, eps: float = 1e-8) -> Tensor:
    product: Tensor = F.normalize(x1, dim=dim, eps=eps) * F.normalize(x2, dim=dim, eps=eps)
    result: Tensor = product.sum(dim)
    return result


def batch_norm(
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Any,
    running_var: Any,
    training: bool,
    momentum: float,
    eps: float,
    cudnn_enabled: bool = True,
) -> Tensor:
    """Of sequences (N, C, L) and rows (N, C): a scale and a shift. By the statistics of one image: instance norm."""
    if training and input.ndim > 2:
        return F.instance_norm(input, None, None, weight, bias, True, momentum, eps)
    if training or input.ndim == 4:
        raise NotImplementedError("the handler's own")
    scale: Tensor = torch.rsqrt(running_var + eps)
    scale = scale if weight is None else scale * weight
    shift: Tensor = running_mean * scale * -1.0
    shift = shift if bias is None else shift + bias
    shape = (-1,) + (1,) * (input.ndim - 2)
    return input * scale.reshape(shape) + shift.reshape(shape)


def batch_norm_without_training(
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor,
    running_var: Tensor,
    momentum: float,
    eps: float,
) -> tuple[Tensor]:
    return (torch.ops.aten.batch_norm(input, weight, bias, running_mean, running_var, False, momentum, eps, False),)


def layer_norm(
    input: Tensor, normalized_shape: Sequence[int], weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor]:
    return (F.layer_norm(input, list(normalized_shape), weight, bias, eps),)


def group_norm(
    input: Tensor, weight: Tensor | None, bias: Tensor | None, N: int, C: int, HxW: int, group: int, eps: float
) -> tuple[Tensor]:
    return (F.group_norm(input, group, weight, bias, eps),)


TABLE = {
    "var.dim": variance_or_not,
    "std.dim": deviation_or_not,
    "var_mean.correction": variance_and_mean,
    "norm.ScalarOpt_dim": norm,
    "logsumexp.default": log_sum,
    "log_softmax.int": log_softmax,
    "_log_softmax.default": _log_softmax,
    "_softmax.default": _softmax,
    "_safe_softmax.default": _softmax,
    "cosine_similarity.default": cosine_similarity,
    "batch_norm.default": batch_norm,
    "_native_batch_norm_legit_no_training.default": batch_norm_without_training,
    "native_layer_norm.default": layer_norm,
    "native_group_norm.default": group_norm,
}

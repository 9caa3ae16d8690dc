"""Attention with a mask that is computed or causal, or with keys that several heads share."""

from __future__ import annotations

import math

import torch
from torch import Tensor

_LOWEST = float(torch.finfo(torch.float32).min) / 2


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """softmax(query · keyᵀ · scale + mask) · value, in these steps."""
    if dropout_p:
        raise NotImplementedError("random numbers")
    if enable_gqa:
        key, value = (each.repeat_interleave(query.shape[-3] // each.shape[-3], -3) for each in (key, value))
    scores = torch.matmul(query * (query.shape[-1] ** -0.5 if scale is None else scale), key.transpose(-2, -1))
    if is_causal:
        later = torch.ones(query.shape[-2], key.shape[-2]).triu(1)
        scores = scores + later * _LOWEST
    if attn_mask is not None:
        scores = scores.masked_fill(~attn_mask, -math.inf) if attn_mask.dtype == torch.bool else scores + attn_mask
    return torch.matmul(torch.softmax(scores, -1), value)


TABLE = {"scaled_dot_product_attention.default": attention}

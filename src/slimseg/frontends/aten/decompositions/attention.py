"""Attention with a mask that is computed or causal, or with keys that several heads share."""

from __future__ import annotations

import torch
from torch import Tensor

_MASKED = -3e4  # is added to scores that do not count: exp gives 0, and 16 bits hold it


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
    scores = torch.matmul(query * (query.shape[-1] ** -0.5 if scale is None else scale), key.mT)
    if is_causal:
        attn_mask = torch.ones(scores.shape[-2:]).tril().bool()
    if attn_mask is not None:
        counts = attn_mask.dtype == torch.bool
        scores = scores + ((1.0 - attn_mask.float()) * _MASKED if counts else attn_mask)
    return torch.matmul(torch.softmax(scores, -1), value)


TABLE = {"scaled_dot_product_attention.default": attention}

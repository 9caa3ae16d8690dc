"""The two orders of dimensions: torch's and the Graph's NCHW, and NHWC, which images and most mobile files have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

TO_NHWC, TO_NCHW = (0, 2, 3, 1), (0, 3, 1, 2)  # for `permute`: the source dimension of each dimension of the result


def nhwc(value: Tensor) -> Tensor:
    """(N, C, H, W) as (N, H, W, C), sharing its memory; a value without 4 dimensions is returned as it is."""
    return value.permute(TO_NHWC) if value.ndim == 4 else value


def nchw(images: np.ndarray[Any, Any]) -> Tensor:
    """(N, H, W, C) as a tensor (N, C, H, W), sharing its memory."""
    return torch.from_numpy(images).permute(TO_NCHW)


def nhwc_shape(shape: Sequence[int]) -> tuple[int, ...]:
    """(N, C, H, W) to (N, H, W, C); a shape without 4 dimensions is returned as it is."""
    return tuple(shape[dim] for dim in TO_NHWC) if len(shape) == 4 else tuple(shape)

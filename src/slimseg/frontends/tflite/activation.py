"""Activations, softmax and argmax."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from slimseg.frontends.tflite.value import NHWC, Call, Value, filled, parameter
from slimseg.graph import ops


def plain(module: Callable[[], nn.Module]) -> Callable[[Call], Value]:
    """A handler for an activation without settings; it works in any order of dimensions."""
    return lambda call: call.result(module(), _anywhere(call))


def _anywhere(call: Call) -> Value:
    value = call.raw()
    return value if value.space is None else call.value(spaced=True)


def leaky_relu(call: Call) -> Value:
    return call.result(nn.LeakyReLU(float(call.option("alpha"))), _anywhere(call))


def gelu(call: Call) -> Value:
    return call.result(nn.GELU("tanh" if call.option("approximate") else "none"), _anywhere(call))


def prelu(call: Call) -> Value:
    """Slopes (1, 1, C) or (C): one per channel; (H, W, C): one per value."""
    source, slopes = call.value(spaced=True), call.constant(1)
    if source.rank != 4 or slopes.ndim > 4 or (slopes.ndim == 4 and slopes.shape[0] != 1):
        raise call.unknown(f"has slopes of {slopes.shape}")
    slopes = slopes.reshape((1,) * (3 - min(slopes.ndim, 3)) + slopes.shape[-3:])
    if slopes.shape[:2] == (1, 1) or bool(np.all(slopes == slopes[:1, :1])):
        return call.result(filled(nn.PReLU(slopes.shape[2]), slopes[0, 0], None), source)
    if source.space is not None:
        raise call.unknown("has a slope for every place between SPACE_TO_BATCH and BATCH_TO_SPACE")
    return call.result(ops.SpatialPReLU(torch.Tensor(parameter(slopes.transpose(2, 0, 1)).data)), source)


def softmax(call: Call) -> Value:
    source = call.in_any_order()
    beta = float(call.option("beta", 1.0))
    if beta not in (0.0, 1.0):  # 0: not set
        source = call.result(ops.Affine(torch.tensor(beta)), source, name=f"{call.name}_scaled")
    return call.result(nn.Softmax(source.order[-1]), source)


def arg_max(call: Call) -> Value:
    source, axis = call.value(), call.integers(1)
    if source.order != NHWC or axis not in ([3], [-1]):
        raise call.unknown(f"looks along axis {axis}, not along the channels of a map")
    return call.result(ops.ArgMax(), source)

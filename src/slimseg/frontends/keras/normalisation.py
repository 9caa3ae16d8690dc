"""Layers that normalise, shift and scale: batch, layer and group norm, and layers that preprocess the image."""

from __future__ import annotations

import math

import numpy as np
from torch import nn

from slimseg.errors import ModelError
from slimseg.frontends.keras.builder import Value, constant, parameter
from slimseg.frontends.keras.said import Said, plain_number
from slimseg.frontends.keras.stored import Array
from slimseg.graph import ops


def batch_normalization(said: Said) -> Value:
    config, x = said.config, said.x
    axis = config.get("axis", -1)
    axis = axis[0] if isinstance(axis, list) else axis
    if axis % len(x.shape) != len(x.shape) - 1:
        raise ModelError(f"a batch norm over axis {axis} has no counterpart in slimseg: give the .tflite instead")
    scaled, centred = config.get("scale", True), config.get("center", True)
    names = [*(["gamma"] if scaled else []), *(["beta"] if centred else []), "moving_mean", "moving_variance"]
    stored = dict(zip(names, said.weights(*names), strict=True))
    mean, variance = stored["moving_mean"], stored["moving_variance"]
    gamma, beta = stored.get("gamma", np.ones_like(mean)), stored.get("beta", np.zeros_like(mean))
    if len({values.shape for values in (mean, variance, gamma, beta)}) != 1 or mean.size != x.keras_shape[-1]:
        raise ModelError(f"its statistics do not fit a tensor of {x.keras_shape}")
    epsilon = float(config.get("epsilon", 1e-3))
    if len(x.shape) != 4:
        scale = gamma / np.sqrt(variance + epsilon)
        return said.builder.affine(x, scale, beta - mean * scale)
    norm = nn.BatchNorm2d(mean.size, epsilon, 1 - float(config.get("momentum", 0.99)))
    norm.weight, norm.bias = parameter(gamma), parameter(beta)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    norm.running_mean.copy_(parameter(mean).detach())
    norm.running_var.copy_(parameter(variance).detach())
    return said.emit(norm, x)


def layer_normalization(said: Said) -> Value:
    """Over one or several last dimensions; with `rms_scaling` without the mean."""
    config, x = said.config, said.x
    rank = len(x.shape)
    axes = config.get("axis", -1)
    given = sorted(int(axis) % rank for axis in (axes if isinstance(axes, list) else [axes]))
    if given != list(range(rank - len(given), rank)) or 0 in given:
        raise ModelError(f"a layer norm over {axes} has no counterpart in slimseg: give the .tflite instead")
    rms = bool(config.get("rms_scaling"))
    return _normalised(said, tuple(x.dim(axis) for axis in given), float(config.get("epsilon", 1e-3)), not rms)


def rms_normalization(said: Said) -> Value:
    config, x = said.config, said.x
    if config.get("axis", -1) not in (-1, [-1], len(x.shape) - 1):
        raise ModelError("an RMS norm over this axis has no counterpart in slimseg: give the .tflite instead")
    scale = said.weights("scale")[0]
    normal = said.emit(ops.Normalise((x.dim(-1),), float(config.get("epsilon", 1e-6)), centred=False), x, suffix="norm")
    return _scaled(said, normal, scale, None)


def group_normalization(said: Said) -> Value:
    """Of groups of channels; -1 groups are as many as channels."""
    config, x = said.config, said.x
    groups, channels = int(config.get("groups", 32)), x.keras_shape[-1]
    groups = channels if groups == -1 else groups
    if config.get("axis", -1) not in (-1, len(x.shape) - 1) or groups < 1 or channels % groups or len(x.shape) != 4:
        raise ModelError("a group norm that is not over channels has no counterpart in slimseg: give the .tflite")
    return _normalised(said, (1, 2, 3), float(config.get("epsilon", 1e-3)), groups=groups)


def unit_normalization(said: Said) -> Value:
    """x / √max(Σx², 10⁻¹²)"""
    x, axis = said.x, said.config.get("axis", -1)
    if axis not in (-1, [-1], len(x.shape) - 1):
        raise ModelError(f"a unit norm over {axis} has no counterpart in slimseg: give the .tflite instead")
    square = said.emit(ops.Unary("square"), x, suffix="square")
    total = said.emit(ops.Reduce("sum", (x.dim(-1),), keepdim=True), square, suffix="sum")
    positive = said.emit(nn.Hardtanh(1e-12, math.inf), total, suffix="positive")
    return said.emit(ops.Multiply(), x, said.emit(ops.Unary("rsqrt"), positive, suffix="inverse"))


def _normalised(said: Said, dims: tuple[int, ...], epsilon: float, centred: bool = True, groups: int = 1) -> Value:
    """The normalisation, and the scale and the shift that are learnt."""
    config = said.config
    has_scale, has_shift = bool(config.get("scale", True)), bool(config.get("center", True)) and centred
    names = [*(["gamma"] if has_scale else []), *(["beta"] if has_shift else [])]
    normal = ops.Normalise(dims, epsilon, groups, centred)
    if not names:
        return said.emit(normal, said.x)
    stored = dict(zip(names, said.weights(*names), strict=True))
    return _scaled(said, said.emit(normal, said.x, suffix="norm"), stored.get("gamma"), stored.get("beta"))


def _scaled(said: Said, x: Value, scale: Array | None, shift: Array | None) -> Value:
    for values in (scale, shift):
        if values is not None and values.shape != x.keras_shape[-values.ndim :]:
            raise ModelError(f"its weights of {values.shape} do not fit a tensor of {x.keras_shape}")
    given = [None if each is None else constant(each, x) for each in (scale, shift)]
    return said.emit(ops.Affine(*(None if each is None else nn.Parameter(each) for each in given)), x)


def rescaling(said: Said) -> Value:
    scale, offset = (plain_number(said.config.get(key)) for key in ("scale", "offset"))
    return said.builder.affine(said.x, scale, None if offset == 0 else offset)


def normalization(said: Said) -> Value:
    """(x − mean) / max(√variance, 10⁻⁷)"""
    config, x = said.config, said.x
    axis = config.get("axis", -1)
    if axis not in (-1, len(x.shape) - 1, [-1], [len(x.shape) - 1], None, []):
        raise ModelError(f"a normalisation over axis {axis} has no counterpart in slimseg: give the .tflite instead")
    mean, variance = (plain_number(config.get(key)) for key in ("mean", "variance"))
    if mean is None or variance is None:
        mean, variance = said.weights("mean", "variance")
    centre = np.asarray(mean, np.float64).reshape(-1)
    spread = np.maximum(np.sqrt(np.asarray(variance, np.float64).reshape(-1)), 1e-7)
    if config.get("invert"):
        return said.builder.affine(x, spread, centre)
    return said.builder.affine(x, 1 / spread, -centre / spread)


def layer_scale(said: Said) -> Value:
    """Each channel times a weight of its own, as in ConvNeXt."""
    (gamma,) = said.weights("gamma")
    shape = (-1, 1, 1) if len(said.x.shape) == 4 else (-1,)
    return said.emit(ops.Affine(parameter(gamma.reshape(shape))), said.x)

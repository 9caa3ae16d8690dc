"""Layers that shift and scale: batch norm, and layers that preprocess the image."""

from __future__ import annotations

import numpy as np
from torch import nn

from slimseg.errors import ModelError
from slimseg.frontends.keras.builder import Value, parameter
from slimseg.frontends.keras.said import Said, plain_number


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

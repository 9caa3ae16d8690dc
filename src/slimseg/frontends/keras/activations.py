"""Activations by their names in Keras and TensorFlow; each function takes the builder and a value."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from slimseg.errors import ModelError
from slimseg.frontends.keras import in_torch
from slimseg.frontends.keras.builder import Builder, Value
from slimseg.graph import ops

Activation = Callable[..., Value]
_SELU_ALPHA, _SELU_SCALE = 1.6732632423543772, 1.0507009873554805  # Klambauer et al. 2017


def apply(b: Builder, x: Value, stored: Any, suffix: str = "") -> Value:
    """The activation that a layer's configuration names: a string, or a serialised function or layer.

    Raises:
        ModelError: the table has no such activation.
    """
    name, settings = _named(stored)
    if name == "linear":
        return x
    if name not in ACTIVATIONS:
        raise ModelError(f"the activation {name} has no counterpart in slimseg: give the .tflite instead")
    return ACTIVATIONS[name](b, x, suffix=suffix and name, **settings)


def _named(stored: Any) -> tuple[str, dict[str, Any]]:
    if stored is None:
        return "linear", {}
    if isinstance(stored, str):
        return _short(stored), {}
    if isinstance(stored, dict):
        kind, config = str(stored.get("class_name")), stored.get("config")
        if kind == "function" and isinstance(config, str):
            return _short(config), {}
        if kind == "ReLU" and isinstance(config, dict):
            keys = ("max_value", "negative_slope", "threshold")
            return "relu", {key: config[key] for key in keys if config.get(key) is not None}
        if kind == "LeakyReLU" and isinstance(config, dict):
            return "leaky_relu", {"negative_slope": config.get("negative_slope", config.get("alpha", 0.3))}
        return kind.lower(), {}
    raise ModelError(f"the activation {stored!r} is not a name")


def _short(name: str) -> str:
    return name.rpartition(">")[2].rpartition(".")[2]


def relu(
    b: Builder,
    x: Value,
    negative_slope: float = 0.0,
    max_value: float | None = None,
    threshold: float = 0.0,
    suffix: str = "",
) -> Value:
    if threshold:
        raise ModelError(f"a ReLU with threshold {threshold} has no counterpart in slimseg: give the .tflite instead")
    if not negative_slope:
        return clip(b, x, 0.0, max_value, suffix=suffix)
    if max_value is None:
        return leaky_relu(b, x, negative_slope, suffix=suffix)
    return clip(
        b, leaky_relu(b, x, negative_slope, suffix=f"{suffix}_leaky".strip("_")), None, max_value, suffix=suffix
    )


def clip(b: Builder, x: Value, low: float | None, high: float | None, suffix: str = "") -> Value:
    """min(max(x, low), high), as ReLU or ReLU6 where it equals one of them."""
    if low == 0 and high is None:
        return b.emit(nn.ReLU(), x, suffix=suffix)
    if (low, high) == (0, 6):
        return b.emit(nn.ReLU6(), x, suffix=suffix)
    bounds = (float("-inf") if low is None else float(low), float("inf") if high is None else float(high))
    if not bounds[0] < bounds[1]:
        raise ModelError(f"a value is clipped to {bounds}, an empty range")
    return b.emit(nn.Hardtanh(*bounds), x, suffix=suffix)


def leaky_relu(b: Builder, x: Value, negative_slope: float = 0.2, suffix: str = "") -> Value:
    return b.emit(nn.LeakyReLU(float(negative_slope)), x, suffix=suffix)


def elu(b: Builder, x: Value, alpha: float = 1.0, suffix: str = "") -> Value:
    """α(eˣ − 1) below zero. TFLite's has α = 1, so another α is max(x, 0) + α·elu(min(x, 0))."""
    if alpha == 1:
        return b.emit(nn.ELU(), x, suffix=suffix)
    below = clip(b, x, None, 0.0, suffix=f"{suffix}_below".strip("_"))
    bent = b.emit(nn.ELU(), below, suffix=f"{suffix}_bent".strip("_"))
    scaled = b.affine(bent, scale=alpha, suffix=f"{suffix}_scaled".strip("_"))
    return b.emit(ops.Add(), clip(b, x, 0.0, None, suffix=f"{suffix}_above".strip("_")), scaled, suffix=suffix)


def selu(b: Builder, x: Value, suffix: str = "") -> Value:
    bent = elu(b, x, _SELU_ALPHA, suffix=f"{suffix}_elu".strip("_"))
    return b.affine(bent, scale=_SELU_SCALE, suffix=suffix)


def softmax(b: Builder, x: Value, axis: Any = -1, suffix: str = "") -> Value:
    if isinstance(axis, list | tuple) and len(axis) == 1:
        axis = axis[0]
    return b.emit(nn.Softmax(x.dim(axis)), x, suffix=suffix)


def gelu(b: Builder, x: Value, approximate: bool = False, suffix: str = "") -> Value:
    return b.emit(nn.GELU("tanh" if approximate else "none"), x, suffix=suffix)


def hard_sigmoid(b: Builder, x: Value, suffix: str = "") -> Value:
    """relu6(x + 3)/6; in Keras 2 it was clip(0.2x + 0.5, 0, 1)."""
    if not b.is_keras2:
        return b.emit(nn.Hardsigmoid(), x, suffix=suffix)
    line = b.affine(x, 0.2, 0.5, suffix=f"{suffix}_line".strip("_"))
    return b.emit(nn.Hardtanh(0.0, 1.0), line, suffix=suffix)


def softsign(b: Builder, x: Value, suffix: str = "") -> Value:
    """x / (1 + |x|)"""
    size = b.emit(ops.Unary("abs"), x, suffix=f"{suffix}_size".strip("_"))
    return b.emit(ops.Divide(), x, b.affine(size, shift=1.0, suffix=f"{suffix}_bound".strip("_")), suffix=suffix)


def linear(b: Builder, x: Value, suffix: str = "") -> Value:
    return x


def _plain(module: Callable[[], nn.Module]) -> Activation:
    def emit(b: Builder, x: Value, suffix: str = "") -> Value:
        return b.emit(module(), x, suffix=suffix)

    return emit


ACTIVATIONS: dict[str, Activation] = {
    **in_torch.ACTIVATIONS,
    "linear": linear,
    "identity": linear,
    "relu": relu,
    "relu6": _plain(nn.ReLU6),
    "leaky_relu": leaky_relu,
    "elu": elu,
    "selu": selu,
    "sigmoid": _plain(nn.Sigmoid),
    "tanh": _plain(nn.Tanh),
    "hard_tanh": _plain(lambda: nn.Hardtanh(-1.0, 1.0)),
    "silu": _plain(nn.SiLU),
    "swish": _plain(nn.SiLU),
    "gelu": gelu,
    "hard_sigmoid": hard_sigmoid,
    "hard_silu": _plain(nn.Hardswish),
    "hard_swish": _plain(nn.Hardswish),
    "softmax": softmax,
    "softsign": softsign,
    "exponential": _plain(lambda: ops.Unary("exp")),
}

"""One call of one layer, as the functions of layers.py get it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from slimseg.errors import ModelError
from slimseg.frontends.keras.builder import Builder, Value
from slimseg.frontends.keras.config import Layer
from slimseg.frontends.keras.stored import Array


@dataclass(frozen=True)
class Said:
    """`args` and `kwargs` hold values and constants; `stored` gives the layer's weights by name."""

    builder: Builder
    layer: Layer
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    stored: Callable[[Sequence[str]], list[Array]]

    @property
    def config(self) -> dict[str, Any]:
        return self.layer.config

    @property
    def inputs(self) -> list[Value]:
        """All tensors that the layer is called on."""
        return values_in(self.args)

    @property
    def x(self) -> Value:
        """The one tensor that the layer is called on."""
        found = self.inputs
        if not found:
            raise ModelError("it is called without a tensor")
        return found[0]

    def weights(self, *names: str) -> list[Array]:
        """The layer's weights; `names` are in the order in which Keras creates them.

        Raises:
            ModelError: they are quantised.
        """
        found = self.stored(names)
        if any(array.dtype.kind != "f" for array in found):
            raise ModelError("its weights are quantised: save the network in float32")
        return found

    def emit(self, module: nn.Module, *inputs: Value, suffix: str = "") -> Value:
        return self.builder.emit(module, *inputs, suffix=suffix)


def values_in(args: Any) -> list[Value]:
    if isinstance(args, Value):
        return [args]
    return [value for item in args for value in values_in(item)] if isinstance(args, list | tuple) else []


def pair(value: Any) -> tuple[int, int]:
    """One positive number for both sides, or two numbers, as two numbers."""
    sides = [value, value] if isinstance(value, int) else list(value)
    if len(sides) != 2 or not all(isinstance(side, int) and 0 <= side <= 1 << 16 for side in sides):
        raise ModelError(f"{value!r} should be one or two sizes in pixels")
    return sides[0], sides[1]


def require_channels_last(said: Said) -> None:
    if said.config.get("data_format") == "channels_first":
        raise ModelError("it stores channels first, unlike phones: save the network with channels last")


def plain_number(value: Any) -> Any:
    """The number itself, where some versions store the array that it became."""
    while isinstance(value, dict):
        value = value.get("value", value.get("config"))
    return value

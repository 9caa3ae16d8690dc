"""One ATen call, as a handler sees it, and the layers that a handler makes of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, fx, nn

CHANNELS_LAST = "channels_last."  # how names of parameters begin in a module that is called on (N, H, W, C)


@dataclass(frozen=True)
class Parameter:
    name: str
    tensor: Tensor


@dataclass(frozen=True)
class Layer:
    """A node to be made: its module, and the values that it reads."""

    module: Callable[[], nn.Module]
    inputs: tuple[fx.Node | int, ...]
    suffix: str  # the end of the node's name, if it has no parameters to be named after
    name: str = ""
    key: tuple[Any, ...] = ()  # layers with equal keys share one module (shared weights)


@dataclass(frozen=True)
class Chain:
    """Several nodes for one call; an integer among a layer's inputs is the index of an earlier layer of the chain."""

    layers: tuple[Layer, ...]


@dataclass(frozen=True)
class Alias:
    """A call that changes nothing at inference."""

    source: fx.Node
    copies: bool = False  # whether the result has memory of its own, which matters to in-place calls


class Call:
    """One ATen call with its arguments by name, defaults filled in."""

    def __init__(self, node: fx.Node, parameters: Mapping[fx.Node, Parameter]) -> None:
        self.node = node
        self.parameters = parameters
        schema = node.target._schema.arguments  # type: ignore[union-attr]
        self.arguments: dict[str, Any] = {argument.name: argument.default_value for argument in schema}
        self.arguments.update(zip(self.arguments, node.args, strict=False))
        self.arguments.update(node.kwargs)

    def __getitem__(self, name: str) -> Any:
        return self.arguments[name]

    def tensor(self, name: str) -> Tensor | None:
        """The parameter that an argument refers to; None if the argument is absent or computed."""
        value = self.arguments.get(name)
        parameter = self.parameters.get(value) if isinstance(value, fx.Node) else None
        return parameter.tensor if parameter else None

    def owner(self, name: str) -> str:
        """The path of the module that owns a parameter: `encoder.conv` for `encoder.conv.weight`."""
        parameter = self.parameters[self.arguments[name]]
        path = parameter.name.removeprefix("model.").removeprefix(CHANNELS_LAST)
        module, parametrised, _ = path.partition(".parametrizations.")  # weight normalisation and the like
        return module if parametrised else path.rpartition(".")[0] or parameter.name

    def is_value(self, name: str) -> bool:
        """Whether an argument is an activation (not a parameter, not a number)."""
        value = self.arguments.get(name)
        return isinstance(value, fx.Node) and value not in self.parameters

    def computes(self, *names: str) -> bool:
        """Whether an argument that should be a parameter (or absent) is computed instead."""
        return any(self.is_value(name) for name in names)

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self.arguments[name].meta["val"].shape)

    @property
    def output_shape(self) -> tuple[int, ...]:
        return tuple(self.node.meta["val"].shape)

    def key(self) -> tuple[Any, ...]:
        """Identity of operator, parameters and settings: a module that is called twice stays one module."""
        fixed = (value for value in self.arguments.values() if value not in self.values())
        return (str(self.node.target), *(str(value) for value in fixed))

    def values(self) -> list[fx.Node]:
        """The arguments that are activations."""
        return [self.arguments[name] for name in self.arguments if self.is_value(name)]


def pair(values: Sequence[int] | int) -> tuple[int, int]:
    if isinstance(values, int):
        return values, values
    items = [int(value) for value in values]
    return (items[0], items[0]) if len(items) == 1 else (items[0], items[1])

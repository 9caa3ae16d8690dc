"""Finds the stored arrays of each layer.

`.keras` stores a layer's arrays by position in `layers/<class name in snake case>_<count>/vars/`, where newer versions
also store the layer's name. `.h5` stores them by name in `model_weights/<layer>/`, and all arrays of a nested model in
that model's own group.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from slimseg.errors import ModelError
from slimseg.frontends.keras.config import Layer, Model
from slimseg.frontends.keras.stored import Array, Stored

CONTAINERS = ("layers", "_layer_checkpoint_dependencies")
_ANY = ""
_MOST_ALIKE = 100  # arrays with equal names in groups with equal names below one layer
# The names that Keras 3's DepthwiseConv2D stores, and ConvNeXt's LayerScale.
_OTHER_NAMES = {"depthwise_kernel": "kernel", "gamma": "variable"}
# The parts of MultiHeadAttention, and how Keras's versions call their groups.
_PARTS = {
    **{name: (f"{name}_dense", f"_{name}_dense") for name in ("query", "key", "value")},
    "attention_output": ("output_dense", "_output_dense"),
}


class Weights:
    """The stored arrays as one model sees them: the outermost model, or one nested in it."""

    def __init__(self, held: Stored, group: str = "", path: tuple[str, ...] = (), outer: Weights | None = None) -> None:
        self._held = held
        self._group = group  # the group of this model's arrays in a `.keras` file
        self._path = path  # names of the models around this one, and its own
        self._named: dict[tuple[str, str], str] = outer._named if outer else _groups_by_name(held)
        self._counted: dict[tuple[str, str], dict[int, str]] = outer._counted if outer else _groups_by_count(held)
        self._tails: dict[tuple[str, str, str], list[str]] = outer._tails if outer else _paths_by_tail(held)
        self._places: dict[int, dict[str, dict[str, int]]] = outer._places if outer else {}

    @property
    def count(self) -> int:
        """Number of values in all arrays together."""
        return sum(array.size for array in self._held.arrays.values())

    def nested(self, model: Model, layer: Layer) -> Weights:
        """The arrays of a model that is a layer of `model`."""
        group = self._layer_group(model, layer) if self._held.layout == "keras" else ""
        return Weights(self._held, group, (*self._path, layer.name), self)

    def of(self, model: Model, layer: Layer, names: Sequence[str]) -> list[Array]:
        """The arrays called `names`, which is also the order in which Keras creates them.

        `query/kernel` is the kernel of the layer's part that is called query.

        Raises:
            ModelError: the file does not have them.
        """
        if self._held.layout == "h5":
            return [self._by_name(layer, name) for name in names]
        group = self._layer_group(model, layer)
        places: Counter[str] = Counter()
        found = []
        for name in names:
            part = name.rpartition("/")[0]
            found.append(self._array(group, part, places[part]))
            places[part] += 1
        if any(array is None for array in found):
            raise ModelError(f"the weights of layer {layer.name} are not in the file: save the whole network again")
        return [array for array in found if array is not None]

    def _array(self, group: str, part: str, place: int) -> Array | None:
        """The array at a place of a layer's group or of one of its parts, which Keras keeps as `query_dense`."""
        groups = [f"{group}/{name}" for name in _PARTS.get(part, ())] if part else [group]
        found = (self._held.arrays.get(f"{each}/vars/{place}") for each in groups)
        return next((array for array in found if array is not None), None)

    def _layer_group(self, model: Model, layer: Layer) -> str:
        """The layer's group, by the name stored there; in older files, by its position among layers of its class."""
        for container in CONTAINERS:
            top = f"{self._group}/{container}".strip("/")
            if (top, layer.name) in self._named:
                return self._named[top, layer.name]
        kind = snake_case(layer.class_name)
        alike = self._alike(model)[kind]
        count = alike[layer.name]
        for container in CONTAINERS:
            top = f"{self._group}/{container}".strip("/")
            groups = self._counted.get((top, kind), {})
            if len(groups) == len(alike):  # Keras 2 numbers some layers with gaps, but in the same order
                return f"{top}/{list(groups.values())[count]}"
            if count in groups:
                return f"{top}/{groups[count]}"
        return f"{self._group}/{CONTAINERS[0]}/{kind}".strip("/")

    def _alike(self, model: Model) -> dict[str, dict[str, int]]:
        """The layers of this model by class, each with its position among those of the class."""
        if id(model) not in self._places:
            places = self._places[id(model)] = {}
            for layer in model.layers.values():
                alike = places.setdefault(snake_case(layer.class_name), {})
                alike[layer.name] = len(alike)
        return self._places[id(model)]

    def _by_name(self, layer: Layer, name: str) -> Array:
        """The array at model_weights/<outermost layer>/.../<layer>/kernel:0; the path may omit nested models' names."""
        part, _, name = name.rpartition("/")
        enclosing = (*self._path, layer.name)
        group = part or (layer.name if self._path else _ANY)
        names = (name, _OTHER_NAMES.get(name, ""))
        inner = next((found for each in names if (found := self._tails.get((enclosing[0], group, each)))), None)
        if not inner:
            raise ModelError(f"the {name} of layer {layer.name} is not in the file: save the whole network again")
        best = max(inner, key=lambda path: sum(part in path.split("/")[2:] for part in enclosing))
        return self._held.arrays[best]


def _groups_by_name(held: Stored) -> dict[tuple[str, str], str]:
    """(group of the model's layers, stored layer name) to the layer's group."""
    groups = {group.removesuffix("/vars"): name for group, name in held.names.items() if group.endswith("/vars")}
    return {(group.rpartition("/")[0], name): group for group, name in groups.items()}


def _groups_by_count(held: Stored) -> dict[tuple[str, str], dict[int, str]]:
    """(group of the model's layers, class in snake case) to its groups `conv2d`, `conv2d_1`, ... by number."""
    counted: dict[tuple[str, str], dict[int, str]] = {}
    for path in held.arrays:
        parts = path.split("/")
        for depth, part in enumerate(parts[:-1]):
            if part in CONTAINERS:
                kind, _, number = parts[depth + 1].rpartition("_")
                if not number.isdecimal() or len(number) > 6:
                    kind, number = parts[depth + 1], "0"
                counted.setdefault(("/".join(parts[: depth + 1]), kind), {})[int(number)] = parts[depth + 1]
    return {key: dict(sorted(groups.items())) for key, groups in counted.items()}


def _paths_by_tail(held: Stored) -> dict[tuple[str, str, str], list[str]]:
    """(outermost layer, innermost layer or any, weight name without `:0`) to the paths in an `.h5` file."""
    tails: dict[tuple[str, str, str], list[str]] = {}
    for path in held.arrays:
        parts = path.split("/")
        if len(parts) >= 3:
            for group in (parts[-2], _ANY):
                found = tails.setdefault((parts[1], group, parts[-1].partition(":")[0]), [])
                if len(found) < _MOST_ALIKE:
                    found.append(path)
    return tails


def snake_case(name: str) -> str:
    """Keras's snake case: SeparableConv2D is separable_conv2d."""
    name = re.sub(r"\W+", "", name)
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()

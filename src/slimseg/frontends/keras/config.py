"""The stored configuration of Keras 2 and Keras 3, Sequential and functional, as one structure.

Keras 2   inbound_nodes: [[["conv", 0, 0, {}], ...]]                      one list per call
Keras 3   inbound_nodes: [{"args": [{"class_name": "__keras_tensor__", "config": {"keras_history":
          ["conv", 0, 0]}}], "kwargs": {...}}]
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

from slimseg.errors import ModelError

MODELS = ("Functional", "Model", "Sequential")
MAX_LAYERS = 5000  # layers of one model
LONGEST_NAME = 1000  # characters


@dataclass(frozen=True)
class Ref:
    """One result of one call of a layer."""

    layer: str
    call: int = 0
    position: int = 0


@dataclass(frozen=True)
class Call:
    """Arguments of one call; `Ref`s among them stand for values."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    @cached_property
    def refs(self) -> list[Ref]:
        return [*_refs(self.args), *_refs(self.kwargs)]

    @cached_property
    def size(self) -> int:
        """The number of values in all its arguments."""
        return _size(self.args) + _size(self.kwargs)


@dataclass(frozen=True)
class Layer:
    name: str
    class_name: str
    config: dict[str, Any]
    calls: tuple[Call, ...] = ()
    is_operation: bool | None = False  # whether it is of keras.ops, not a layer ("Add" is both); None: unknown
    model: Model | None = None


@dataclass(frozen=True)
class Model:
    name: str
    layers: dict[str, Layer]
    inputs: tuple[Ref, ...]
    outputs: tuple[Ref, ...]


def parse(raw: Any) -> Model:
    """Read the stored configuration of a whole network.

    Raises:
        ModelError: it is a subclassed model, or no configuration at all.
    """
    if not isinstance(raw, dict) or "class_name" not in raw:
        raise ModelError("the stored configuration describes no network")
    if raw["class_name"] not in MODELS:
        raise ModelError(
            f"the network is a subclassed model ({raw['class_name']}), whose layers only its Python code knows: "
            "give its .tflite, or save it as a functional model"
        )
    return _model(raw["class_name"], raw["config"])


def _model(class_name: str, config: Any) -> Model:
    if class_name == "Sequential" or isinstance(config, list):
        return _sequential(config)
    _require_few(config["layers"])
    layers = [_layer(raw) for raw in config["layers"]]
    named = {layer.name: layer for layer in layers}
    if len(named) != len(layers):
        raise ModelError("two layers of the network have the same name")
    inputs, outputs = _ends(config["input_layers"]), _ends(config["output_layers"])
    return Model(str(config.get("name", "model")), named, inputs, outputs)


def _require_few(layers: Any) -> None:
    if len(layers) > MAX_LAYERS:
        raise ModelError(f"a model of {len(layers)} layers is larger than slimseg opens (limit {MAX_LAYERS})")


def _sequential(config: Any) -> Model:
    raw_layers = config if isinstance(config, list) else config["layers"]
    name = "sequential" if isinstance(config, list) else str(config.get("name", "sequential"))
    _require_few(raw_layers)
    layers = [_layer(raw) for raw in raw_layers]
    if not layers:
        raise ModelError(f"the model {name} has no layers")
    if layers[0].class_name != "InputLayer":
        shape = layers[0].config.get("batch_input_shape")
        if shape is None and not isinstance(config, list):
            shape = config.get("build_input_shape")
        layers.insert(0, Layer(f"{name}_input", "InputLayer", {"batch_shape": shape}))
    named: dict[str, Layer] = {layers[0].name: layers[0]}
    for before, layer in pairwise(layers):
        call = Call((Ref(before.name),), {})
        named[layer.name] = Layer(layer.name, layer.class_name, layer.config, (call,), model=layer.model)
    if len(named) != len(layers):
        raise ModelError(f"two layers of the model {name} have the same name")
    return Model(name, named, (Ref(layers[0].name),), (Ref(layers[-1].name),))


def _layer(raw: Any) -> Layer:
    class_name, config = str(raw["class_name"]), raw["config"]
    nested = _model(class_name, config) if class_name in MODELS else None
    name = raw.get("name") or (config["name"] if isinstance(config, dict) else nested and nested.name)
    if len(str(name)) > LONGEST_NAME:
        raise ModelError(f"a layer's name of {len(str(name))} characters is longer than slimseg allows")
    return Layer(
        str(name),
        class_name,
        config if isinstance(config, dict) else {},
        tuple(_call(node) for node in raw.get("inbound_nodes") or ()),
        _is_operation(raw),
        nested,
    )


def _is_operation(raw: dict[str, Any]) -> bool | None:
    """Whether it is one of keras.ops, by its module; Keras 3's `.h5` files omit that, but layers have "trainable"."""
    if raw.get("module"):
        return str(raw["module"]).startswith("keras.src.ops")
    calls, config = list(raw.get("inbound_nodes") or ()), raw["config"]
    may_be = len(calls) > 0 and isinstance(calls[0], dict) and isinstance(config, dict) and "trainable" not in config
    return None if may_be else False


def _ends(raw: Any) -> tuple[Ref, ...]:
    """The inputs or outputs of a model: ["conv", 0, 0], or a list (or dictionary) of such."""
    if isinstance(raw, dict):
        raw = list(raw.values())
    if _is_ref(raw):
        return (Ref(raw[0], raw[1], raw[2]),)
    ends = [end for item in raw for end in _ends(item)]
    if not ends:
        raise ModelError("the network has no input or no output")
    return tuple(ends)


def _is_ref(raw: Any) -> bool:
    """Whether it is ["conv", 0, 0], which Keras 2 follows by a dictionary of further arguments in calls."""
    return (
        isinstance(raw, list)
        and len(raw) in (3, 4)
        and isinstance(raw[0], str)
        and all(isinstance(number, int) for number in raw[1:3])
        and (len(raw) == 3 or isinstance(raw[3], dict))
    )


def _call(raw: Any) -> Call:
    if isinstance(raw, dict):
        return Call(
            tuple(_new_value(item) for item in raw["args"]), {k: _new_value(v) for k, v in raw["kwargs"].items()}
        )
    if _is_ref(raw):  # a TFOpLambda with one argument
        raw = [raw]
    values = [_old_value(item) for item in raw]
    kwargs = {key: _old_argument(value) for item in raw if len(item) == 4 for key, value in item[3].items()}
    return Call((values[0],) if len(values) == 1 else (values,), kwargs)


def _old_value(item: Any) -> Any:
    """An argument in Keras 2: ["conv", 0, 0, {...}], or ["_CONSTANT_VALUE", -1, 3.0, {...}]."""
    return item[2] if item[0] == "_CONSTANT_VALUE" else Ref(item[0], item[1], item[2])


def _old_argument(raw: Any) -> Any:
    if isinstance(raw, list):
        if raw and raw[0] == "_CONSTANT_VALUE":
            return raw[2]
        return Ref(*raw) if _is_ref(raw) and len(raw) == 3 else [_old_argument(item) for item in raw]
    if isinstance(raw, dict):
        if raw.get("class_name") == "__ellipsis__":
            return ...
        if {"start", "stop", "step"} <= raw.keys():
            return slice(raw["start"], raw["stop"], raw["step"])
        return {key: _old_argument(value) for key, value in raw.items()}
    return raw


def _new_value(raw: Any) -> Any:
    if isinstance(raw, list):
        return [_new_value(item) for item in raw]
    if not isinstance(raw, dict):
        return raw
    kind, config = raw.get("class_name"), raw.get("config") or {}
    if kind == "__keras_tensor__":
        return Ref(*config["keras_history"])
    if kind == "__ellipsis__":
        return ...
    if kind == "__slice__":
        return slice(*(_new_value(config[key]) for key in ("start", "stop", "step")))
    if kind in ("__tuple__", "__numpy__", "__tensor__"):
        return _new_value(config["value"] if isinstance(config, dict) else config)
    return {key: _new_value(value) for key, value in raw.items()}


def _size(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return 1 + sum(map(_size, inner))


def _refs(value: Any) -> list[Ref]:
    if isinstance(value, Ref):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    return [ref for item in value for ref in _refs(item)] if isinstance(value, list | tuple) else []

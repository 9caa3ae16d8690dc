"""The outputs of Keras itself for a network from a file. Runs in a separate child process.

Keras's loader imports and calls what a file names. So it is never given the file's configuration, but a new one with
the same layers: classes that slimseg knows, module names that are written here, and only numbers, strings and lists.
If a layer refers to anything else (a Lambda, a user's class, an object as a setting), there is no reference.
"""

from __future__ import annotations

import os
import warnings
import zipfile
from typing import Any

import numpy as np

from slimseg.errors import Unsupported
from slimseg.frontends.keras import stored

Array = np.ndarray[Any, Any]
MEMORY_BYTES = 4 << 30  # on top of six times the file's size, as Keras and PyTorch alone need some
_OPERATIONS = tuple(f"keras.src.ops.{name}" for name in ("core", "image", "math", "nn", "numpy"))
_EXECUTED = ("Lambda", "TFOpLambda", "TensorFlowOpLayer", "SlicingOpLambda")
_DROPPED = ("_initializer", "_regularizer", "_constraint")  # all weights come from the file, and nothing is trained
_MODELS = {"Functional": "keras.src.models.functional", "Sequential": "keras"}
_DTYPES = ("float16", "float32", "mixed_float16")


def run(path: str, image: Array) -> list[Array]:
    """Every output for a preprocessed image (1, height, width, channels).

    Raises:
        Unsupported: Keras must not or cannot build this network; the message says why.
        ModelError: the file is damaged.
    """
    stored.limit_memory(path, MEMORY_BYTES)
    os.environ["KERAS_BACKEND"] = "torch"  # the only backend that is certain to be installed
    config = cleaned(stored.contents(path).config)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import keras  # type: ignore[import-untyped]

        # Some versions compute transposed convolutions differently on PyTorch, and warn about it.
        warnings.filterwarnings("error", message="(?s).*inconsistencies across backends")
        model = keras.saving.deserialize_keras_object(config, safe_mode=True)
        _load_weights(model, path)
        values = model(image, training=False)
    found = values if isinstance(values, list | tuple) else [values]
    return [keras.ops.convert_to_numpy(each) for each in found]


def _load_weights(model: Any, path: str) -> None:
    """Load weights by the file's content, as its suffix can be wrong. A check before found no links to other files."""
    if zipfile.is_zipfile(path):
        model.load_weights(path)
        return
    import h5py
    from keras.src.legacy.saving import legacy_h5_format  # type: ignore[import-untyped]

    with h5py.File(path, "r") as file:
        legacy_h5_format.load_weights_from_hdf5_group(file["model_weights"], model)


def cleaned(raw: Any) -> dict[str, Any]:
    """The configuration of a Keras 3 model, reduced to what slimseg knows.

    Raises:
        Unsupported: it holds something unknown, or comes from Keras 2.
    """
    name, config = raw.get("class_name"), raw.get("config")
    if name == "Model":
        raise Unsupported("it was saved by Keras 2")
    if name not in _MODELS or not isinstance(config, dict):
        raise Unsupported(f"Keras would have to execute its class {str(name)[:100]!r}")
    told = {key: _plain(config[key]) for key in ("name", "input_layers", "output_layers") if key in config}
    if name == "Sequential" and "build_input_shape" in config:
        told["build_input_shape"] = _plain(config["build_input_shape"])
    told["layers"] = [_layer(each) for each in config.get("layers", ())]
    return _object(_MODELS[name], name, told)


def _layer(raw: Any) -> dict[str, Any]:
    from slimseg.frontends.keras import functions
    from slimseg.frontends.keras.layers import LAYERS

    name, module = str(raw.get("class_name")), str(raw.get("module", "keras.layers"))  # omitted in .h5 files
    if name in _MODELS:
        made = cleaned(raw)
    elif module in _OPERATIONS and functions.knows(name):
        made = _object(module, name, _settings(raw["config"]))
    elif module == "keras.layers" and name not in _EXECUTED and (name in LAYERS or name == "InputLayer"):
        made = _object("keras.layers", name, _settings(raw["config"]))
    else:
        raise Unsupported(f"Keras would have to execute its class {name[:100]!r}")
    if "name" in raw:
        made["name"] = _plain(raw["name"])
    if "inbound_nodes" in raw:
        made["inbound_nodes"] = [_call(each) for each in raw["inbound_nodes"]]
    return made


def _object(module: str, name: str, config: dict[str, Any]) -> dict[str, Any]:
    return {"module": module, "class_name": name, "config": config, "registered_name": None}


def _settings(config: dict[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in config.items() if not key.endswith(_DROPPED)}
    return {str(key): _dtype(value) if key == "dtype" else _plain(value) for key, value in kept.items()}


def _dtype(value: Any) -> str:
    """The name of a dtype policy, which is stored as text or in an object."""
    config = value.get("config") if isinstance(value, dict) else {"name": value}
    name = config.get("name") if isinstance(config, dict) else None
    if name not in _DTYPES:
        raise Unsupported(f"it computes in {str(name)[:100]!r}")
    return str(name)


def _call(raw: Any) -> dict[str, Any]:
    if not isinstance(raw, dict):
        raise Unsupported("it was saved by Keras 2")
    return {"args": _argument(raw["args"]), "kwargs": _argument(raw["kwargs"])}


def _argument(value: Any) -> Any:
    """An argument of a call; the only objects in it may be other layers' outputs."""
    if isinstance(value, list):
        return [_argument(each) for each in value]
    if not isinstance(value, dict):
        return _plain(value)
    if value.get("class_name") == "__keras_tensor__":
        config = value["config"]
        told = {key: _plain(config[key]) for key in ("shape", "dtype", "keras_history")}
        return {"class_name": "__keras_tensor__", "config": told}
    return {str(key): _argument(each) for key, each in value.items() if _is_plain_key(key)}


def _is_plain_key(key: str) -> bool:
    """Whether a key is plain. Raises Unsupported if it shows that the dictionary describes an object."""
    if key in ("class_name", "module", "registered_name"):
        raise Unsupported("Keras would have to build an object that is passed to a layer")
    return True


def _plain(value: Any) -> Any:
    """The value, if it consists of numbers, strings and lists of them.

    Raises:
        Unsupported: it is or contains a dictionary, from which Keras could build an object.
    """
    if isinstance(value, dict):
        raise Unsupported("Keras would have to build an object that a layer's settings describe")
    return [_plain(each) for each in value] if isinstance(value, list) else value

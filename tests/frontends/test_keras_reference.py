"""Keras is asked what it computes, with a configuration that can make it execute nothing."""

from __future__ import annotations

import copy
import json
import warnings
import zipfile

import pytest

import slimseg
from slimseg.errors import Unsupported
from slimseg.frontends.keras import reference

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Keras's own
    zoo = pytest.importorskip("keras_zoo", reason="Keras is not installed")


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    path = tmp_path_factory.mktemp("keras") / "net.keras"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        zoo.nested_and_shared().save(path)
    with zipfile.ZipFile(path) as archive:
        return json.loads(archive.read("config.json"))


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_a_file_is_compared_with_keras(suffix, tmp_path):
    path = tmp_path / f"net{suffix}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # HDF5 is called legacy
        zoo.with_random_weights(zoo.sequential()).save(path)
    checked = slimseg.load(path).source_check
    assert checked.runtime == "Keras", checked.reason
    assert checked.relative_difference < 1e-4


def layers(config):
    """Every layer's description, nested ones included."""
    for layer in config["config"]["layers"]:
        yield layer
        if "layers" in layer["config"]:
            yield from layers(layer)


def objects(value):
    """Every description of an object that Keras would build."""
    if isinstance(value, dict):
        if "class_name" in value:
            yield value
        for each in value.values():
            yield from objects(each)
    elif isinstance(value, list):
        for each in value:
            yield from objects(each)


def test_only_names_that_are_written_here_reach_keras(config):
    config = copy.deepcopy(config)
    for layer in layers(config):
        layer["build_config"] = {"module": "os", "class_name": "system", "config": {}}
        layer["registered_name"] = "os>system"
    allowed = ("keras", "keras.layers", "keras.src.models.functional", *reference._OPERATIONS)
    found = list(objects(reference.cleaned(config)))
    assert len(found) > 10
    for each in found:
        assert each["class_name"] == "__keras_tensor__" or each["module"] in allowed
        assert each.get("registered_name") is None
        assert "build_config" not in each


OBJECT = {"module": "os", "class_name": "system", "config": "true", "registered_name": None}


def spoilt(config, how):
    """The configuration with one layer that names something else to build."""
    result = copy.deepcopy(config)
    layer = next(each for each in layers(result) if each["class_name"] == "Conv2D" and "inbound_nodes" in each)
    how(layer)
    return result


@pytest.mark.parametrize(
    "how",
    [
        lambda layer: layer.update(module="os"),
        lambda layer: layer.update(module="keras.src.legacy"),
        lambda layer: layer.update(class_name="Lambda"),
        lambda layer: layer.update(class_name="mine>Conv2D"),
        lambda layer: layer["config"].update(activation=OBJECT),
        lambda layer: layer["config"].update(kernel_size=[OBJECT, 3]),
        lambda layer: layer["config"].update(dtype=OBJECT),
        lambda layer: layer["inbound_nodes"][0]["kwargs"].update(mask=OBJECT),
        lambda layer: layer["inbound_nodes"][0]["args"].append({"deep": [OBJECT]}),
    ],
)
def test_anything_else_ends_the_attempt(config, how):
    with pytest.raises(Unsupported):
        reference.cleaned(spoilt(config, how))


def test_settings_of_training_are_left_out(config):
    told = reference.cleaned(spoilt(config, lambda layer: layer["config"].update(kernel_initializer=OBJECT)))
    assert not any("system" in str(each["class_name"]) for each in objects(told))


def test_keras_2_is_not_asked(config):
    old = spoilt(config, lambda layer: layer.update(inbound_nodes=[[["image", 0, 0, {}]]]))
    with pytest.raises(Unsupported, match="Keras 2"):
        reference.cleaned(old)

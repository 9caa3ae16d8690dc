"""Walks a network's layers in the order of its connections, including nested models and layers called repeatedly."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from slimseg.errors import ModelError
from slimseg.frontends.keras import layers
from slimseg.frontends.keras.builder import Builder, Value
from slimseg.frontends.keras.config import Call, Layer, Model, Ref
from slimseg.frontends.keras.said import Said, values_in
from slimseg.frontends.keras.weights import Weights
from slimseg.frontends.outputs import Output, choose
from slimseg.graph.description import Description
from slimseg.graph.graph import Graph

SMALLEST_SIDE, LARGEST_SIDE = 1, 8192  # pixels of the input's height and width


def build(
    model: Model,
    weights: Weights,
    version: str,
    input_size: tuple[int, int] | None,
    path: Path,
    output: str | int | None = None,
) -> Graph:
    """The whole network as a Graph.

    Raises:
        ModelError: a layer has no equivalent, or the network does not take one image.
    """
    builder = Builder(version, path, weights.count)
    if len(model.inputs) != 1:
        raise ModelError(f"the network takes {len(model.inputs)} inputs, not one image")
    shape = _input_shape(model.layers[model.inputs[0].layer], input_size)
    outputs = _run(builder, model, [builder.input(shape)], weights, "")
    names = [ref.layer if ref.position == 0 else f"{ref.layer}.{ref.position}" for ref in model.outputs]
    chosen, note = choose([Output(name, value.shape) for name, value in zip(names, outputs, strict=True)], output)
    if note:
        builder.notes.append(note)
    graph = Graph(builder.finish(outputs[chosen]), shape, Description(), path.stem)
    graph.notes = tuple(dict.fromkeys(builder.notes))
    return graph


def _input_shape(layer: Layer, input_size: tuple[int, int] | None) -> tuple[int, ...]:
    raw = layer.config.get("batch_shape") or layer.config.get("batch_input_shape")
    if not isinstance(raw, list) or len(raw) != 4 or not isinstance(raw[3], int):
        raise ModelError(f"the network takes a tensor of shape {raw}, not one (height, width, channels) image")
    if raw[1] is None or raw[2] is None:
        if input_size is None:
            raise ModelError("the network takes images of any size: give `input_size` HEIGHTxWIDTH")
        raw = [raw[0], raw[1] or input_size[0], raw[2] or input_size[1], raw[3]]
    if not all(isinstance(side, int) and SMALLEST_SIDE <= side <= LARGEST_SIDE for side in raw[1:]):
        raise ModelError(f"the network takes images of {raw[1:]}, an empty size")
    return (1, raw[3], raw[1], raw[2])


def _run(builder: Builder, model: Model, inputs: Sequence[Value], weights: Weights, where: str) -> list[Value]:
    """Outputs of one model on `inputs`; `where` distinguishes its layers from those of other models."""
    builder.call()
    if len(inputs) != len(model.inputs):
        raise ModelError(f"the model {model.name} is called with {len(inputs)} inputs, not {len(model.inputs)}")
    results: dict[tuple[str, int], list[Value]] = {
        (ref.layer, ref.call): [value] for ref, value in zip(model.inputs, inputs, strict=True)
    }
    pending = list(reversed(model.outputs))
    waiting: set[tuple[str, int]] = set()
    while pending:
        ref = pending[-1]
        key = (ref.layer, ref.call)
        if key in results:
            pending.pop()
            continue
        layer, call = _call_of(model, ref)
        missing = [need for need in call.refs if (need.layer, need.call) not in results]
        if missing:
            if key in waiting:
                raise ModelError(f"layer {ref.layer} of the network depends on its own result")
            waiting.add(key)
            pending.extend(missing)
            continue
        builder.spend(call.size)
        results[key] = _say(builder, model, layer, _filled(call, results), weights, where)
    outputs = [_chosen(results, ref) for ref in model.outputs]
    if not all(isinstance(value, Value) for value in outputs):
        raise ModelError(f"the model {model.name} returns something that is not a tensor")
    return outputs


def _call_of(model: Model, ref: Ref) -> tuple[Layer, Call]:
    layer = model.layers.get(ref.layer)
    if layer is None or not 0 <= ref.call < len(layer.calls):
        raise ModelError(f"the network refers to a call of layer {ref.layer} that it does not have")
    return layer, layer.calls[ref.call]


def _say(builder: Builder, model: Model, layer: Layer, call: Call, weights: Weights, where: str) -> list[Value]:
    identity = f"{where}/{layer.name}"
    if layer.model is not None:
        return _run(builder, layer.model, values_in(call.args), weights.nested(model, layer), identity)
    said = Said(builder, layer, call.args, call.kwargs, lambda names: weights.of(model, layer, names))
    with builder.layer_named(identity, layer.name):
        result = layers.say(said)
    several = isinstance(result, list | tuple) and all(isinstance(value, Value) for value in result)
    return list(result) if several else [result]  # any other result is a size, such as tf.shape's


def _filled(call: Call, results: dict[tuple[str, int], list[Value]]) -> Call:
    def fill(value: Any) -> Any:
        if isinstance(value, Ref):
            return _chosen(results, value)
        if isinstance(value, list | tuple):
            return type(value)(fill(item) for item in value)
        return {key: fill(item) for key, item in value.items()} if isinstance(value, dict) else value

    return Call(fill(call.args), fill(call.kwargs))


def _chosen(results: dict[tuple[str, int], list[Value]], ref: Ref) -> Value:
    values = results[ref.layer, ref.call]
    if not 0 <= ref.position < len(values):
        raise ModelError(
            f"the network refers to result {ref.position} of layer {ref.layer}, which returns {len(values)}"
        )
    return values[ref.position]

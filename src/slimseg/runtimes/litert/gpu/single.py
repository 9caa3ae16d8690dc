"""Cuts one operator out of a file, as a file of its own, to ask the delegate about it alone.

Its activations become inputs; constants, and the conversions of constants from float16, come along.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from slimseg.tflite import costs, file


def cut(model: Any, index: int) -> bytes:
    """The bytes of a file with operator number `index` of the main graph of a `ModelT`."""
    return _Cut(model, index).bytes()


def likeness(model: Any, index: int) -> Hashable:
    """A key that two operators share if a delegate cannot tell them apart but by the values of weights."""
    tensors, operator = costs.Tensors(model), model.subgraphs[0].operators[index]
    code = model.operatorCodes[operator.opcodeIndex]
    options = operator.builtinOptions
    said = tuple(sorted((key, _plain(value)) for key, value in vars(options).items())) if options is not None else ()
    own = (costs.op_code(code), code.customCode, code.version, said, _plain(operator.customOptions))
    return own, tuple(_tensor(tensors, model, int(each)) for each in (*operator.inputs, *operator.outputs))


def _tensor(tensors: costs.Tensors, model: Any, index: int) -> Hashable:
    if index < 0:
        return None
    tensor = tensors.tensor(index)
    quantised = tensor.quantization is not None and tensor.quantization.scale is not None
    scales = len(tensor.quantization.scale) if quantised else 0
    data = model.buffers[tensor.buffer].data
    few = data is not None and len(data) <= 64  # axes, sizes, paddings: these decide
    content = bytes(data) if few else tensors.is_constant(index)
    return tensor.type, tensors.shape(index), scales, content


def _plain(value: Any) -> Hashable:
    return tuple(np.asarray(value).ravel().tolist()) if isinstance(value, np.ndarray | list) else value


class _Cut:
    """Copies an operator, and what it needs, into a new model."""

    def __init__(self, model: Any, index: int) -> None:
        self.old, self.graph = model, model.subgraphs[0]
        self.makers = {int(made): each for each in self.graph.operators for made in each.outputs}
        self.tensors = costs.Tensors(model)
        self.kept: dict[int, int] = {}  # new index of a tensor, by its old one
        self.new = schema.ModelT()
        self.new.version, self.new.operatorCodes = model.version, model.operatorCodes
        self.new.buffers = [schema.BufferT()]
        self.sub = schema.SubGraphT()
        self.sub.tensors, self.sub.operators, self.new.subgraphs = [], [], [self.sub]
        operator = self.graph.operators[index]
        inputs = [self._needed(int(each)) for each in operator.inputs]
        outputs = [self._tensor(int(each)) for each in operator.outputs]
        self._add(operator, inputs, outputs)
        activations = dict.fromkeys(self.tensors.activations(operator))
        self.sub.inputs = np.asarray([self.kept[each] for each in activations], np.int32)
        self.sub.outputs = np.asarray(outputs, np.int32)

    def bytes(self) -> bytes:
        return file.pack(self.new)

    def _needed(self, index: int) -> int:
        """The new index of a tensor that the operator reads, with the conversion that makes it of a constant."""
        if index < 0 or index in self.kept:
            return self.kept.get(index, -1)
        made = self._tensor(index)
        data = self.old.buffers[self.graph.tensors[index].buffer].data
        if self.tensors.is_constant(index) and (data is None or not len(data)):
            maker = self.makers[index]
            self._add(maker, [self._needed(int(each)) for each in maker.inputs], [made])
        return made

    def _tensor(self, index: int) -> int:
        old, copy = self.graph.tensors[index], schema.TensorT()
        vars(copy).update(vars(old))
        copy.buffer, data = 0, self.old.buffers[old.buffer].data
        if data is not None and len(data):
            buffer = schema.BufferT()
            buffer.data = data
            self.new.buffers.append(buffer)
            copy.buffer = len(self.new.buffers) - 1
        self.sub.tensors.append(copy)
        self.kept[index] = len(self.sub.tensors) - 1
        return self.kept[index]

    def _add(self, operator: Any, inputs: list[int], outputs: list[int]) -> None:
        copy = schema.OperatorT()
        vars(copy).update(vars(operator))
        copy.inputs, copy.outputs = np.asarray(inputs, np.int32), np.asarray(outputs, np.int32)
        self.sub.operators.append(copy)

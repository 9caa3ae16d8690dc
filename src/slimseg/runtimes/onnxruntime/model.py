"""An ONNX model under construction: nodes, constants, and the shapes of all values.

Opset 17 is the newest whose reductions have their axes as attributes, which every execution provider reads; ONNX
Runtime for mobile has it since version 1.12, and Qualcomm's provider and QNN's own converter take it whole. Opset 13 is
the least that has scales per channel.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

from slimseg.graph.description import Description
from slimseg.graph.layer_names import OperatorName
from slimseg.onnx_format import metadata

Array = np.ndarray[Any, Any]
Shape = tuple[int, ...]
Storage = Literal["float32", "float16", "float16 where exact"]
OPSET, IR_VERSION = 17, 8
_FEW = 128  # values; the operator that widens a constant costs more than so few values save
_LARGEST_HALF = 65504.0


class ModelBuilder:
    """Collects the parts of a model. A value is its name; a node has the name of its result."""

    def __init__(self, storage: Storage = "float32", reserved: Collection[str] = ()) -> None:
        """`reserved` are names of the graph's nodes, which inner values must not have."""
        self.storage = storage
        self.reserved = frozenset(reserved)
        self.model = ModelProto()
        self.graph = self.model.graph
        self._shapes: dict[str, Shape] = {}
        self._kinds: dict[str, int] = {}
        self._constants: set[str] = set()

    def input(self, name: str, shape: Sequence[int], kind: int = TensorProto.FLOAT) -> str:
        self._note(name, shape, kind)
        self.graph.input.append(helper.make_tensor_value_info(name, kind, shape))
        return name

    def node(
        self,
        op: str,
        inputs: Sequence[str],
        name: str,
        shape: Sequence[int],
        kind: int = TensorProto.FLOAT,
        **attributes: Any,
    ) -> str:
        """Add an operator whose only result is `name`, and return that. An empty input is an omitted one."""
        self._note(name, shape, kind)
        self.graph.node.append(helper.make_node(op, list(inputs), [name], name, **attributes))
        return name

    def constant(self, name: str, values: Array) -> str:
        """Add a constant, stored in 16 bits if the storage says so, and return its name; once per name."""
        if name in self._constants:
            return name
        self._constants.add(name)
        if not self._is_half(values):
            self._note(name, values.shape, helper.np_dtype_to_tensor_dtype(values.dtype))
            self.graph.initializer.append(numpy_helper.from_array(values, name))
            return name
        stored = self.free(f"{name}_half")
        self._note(stored, values.shape, TensorProto.FLOAT16)
        self.graph.initializer.append(numpy_helper.from_array(values.astype(np.float16), stored))
        return self.node("Cast", (stored,), name, values.shape, to=TensorProto.FLOAT)

    def _is_half(self, values: Array) -> bool:
        if self.storage == "float32" or values.dtype != np.float32 or values.size < _FEW:
            return False
        if not np.abs(values).max() <= _LARGEST_HALF:
            return False
        return self.storage == "float16" or bool((values.astype(np.float16).astype(np.float32) == values).all())

    def shape(self, name: str) -> Shape:
        return self._shapes[name]

    def made(self, first: int) -> list[str]:
        """The results of the nodes from number `first` on, without those that only widen a constant."""
        return [node.name for node in self.graph.node[first:] if node.name not in self._constants]

    def finish(self, name: str, output: str, description: Description, names: Mapping[str, OperatorName]) -> ModelProto:
        """The model with its output, the shapes of all its values, and slimseg's metadata."""
        self.graph.name = name
        self.graph.output.append(self._info(output))
        inner = [made for node in self.graph.node for made in node.output if made != output]
        self.graph.value_info.extend(map(self._info, inner))
        self.model.ir_version = IR_VERSION
        self.model.producer_name = "slimseg"
        self.model.opset_import.append(helper.make_opsetid("", OPSET))
        metadata.write(self.model, description, names)
        return self.model

    def _info(self, name: str) -> Any:
        return helper.make_tensor_value_info(name, self._kinds[name], self._shapes[name])

    def free(self, name: str) -> str:
        """`name` with underscores appended until no node of the graph has it."""
        while name in self.reserved:
            name += "_"
        return name

    def _note(self, name: str, shape: Sequence[int], kind: int) -> None:
        self._shapes[name], self._kinds[name] = tuple(int(length) for length in shape), kind

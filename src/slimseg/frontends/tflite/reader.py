"""Follows a file's operators in order and builds the Graph."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import fx, nn

from slimseg.errors import GraphError, ModelError, UnknownOperator, one_line
from slimseg.frontends.outputs import Output, choose
from slimseg.frontends.tflite import constants
from slimseg.frontends.tflite.operators import HANDLERS
from slimseg.frontends.tflite.preprocessing import implied
from slimseg.frontends.tflite.repeats import as_resizes
from slimseg.frontends.tflite.value import NCHW, NHWC, Array, Call, Value, natural
from slimseg.frontends.work import Work
from slimseg.graph import ops, propagation
from slimseg.graph.description import Description
from slimseg.graph.graph import Graph
from slimseg.graph.names import Names, node_name
from slimseg.graph.output import output_kind
from slimseg.tflite import costs, file, saturation

_LARGEST_VALUE = 1 << 27  # values of one activation: half a GiB
_MOST_LAYERS = 6_000  # layers of one network; one operator can become several
_LONGEST_SPACE = 1000  # operators between SPACE_TO_BATCH and BATCH_TO_SPACE
_INTEGERS = ("int8", "uint8", "int16")
_IMAGE_CHANNELS = (1, 3, 4)


def from_file(path: Path, input_size: tuple[int, int] | None = None, output: str | int | None = None) -> Graph:
    """Open a `.tflite`: float32, float16, or quantised ones with their weights de-quantised (see `Graph.notes`).

    The description is the embedded one, or else what the file implies: the preprocessing from an 8-bit input, and the
    kind of output from the last layers.

    Raises:
        UnknownOperator: the file holds an operator outside the vocabulary; the message names it.
        ModelError: the file is missing, damaged, or no network from one image to one map.
    """
    described, model = file.opened(path)
    try:
        graph = _Reader(model, described).graph(output)
    except (UnknownOperator, GraphError) as error:
        kind = UnknownOperator if isinstance(error, UnknownOperator) else ModelError
        raise kind(f"{path}: {error}; `slimseg profile` can still profile it") from error
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from error
    except Exception as error:  # a damaged file can hold any nonsense that still parses
        raise ModelError(
            f"{path} is damaged, or holds a network that slimseg cannot rebuild ({one_line(error)})"
        ) from error
    graph.is_quantised = described.integer
    graph.weights = "float16" if "float16" in described.weights else "float32"
    if described.description is not None:
        graph.description = described.description
        return graph
    preprocessing, guess = implied(described.inputs[0])
    graph.description = Description(preprocessing, (), output_kind(graph))
    graph.guess = guess
    return graph


class _Reader:
    """Reads one file into a Graph."""

    def __init__(self, model: Any, described: file.File) -> None:
        self.tensors = costs.Tensors(model)
        self.model = model
        self.main = model.subgraphs[0]
        self.path = described.path
        self.described = described
        self.root = nn.Module()
        self.nodes = fx.Graph()
        self.values: dict[int, Value | Array] = {}
        self.names = Names()
        self.work = Work("", described.size_bytes)
        self.readers = self._readers()

    def graph(self, output: str | int | None) -> Graph:
        self._require_known()
        shape = self._input()
        for operator, told in zip(self.main.operators, self.described.operators, strict=True):
            self._operator(operator, told)
        result, index, note = self._output(output)
        self.nodes.output(result.node)
        graph = Graph(fx.GraphModule(self.root, self.nodes), shape, name=self.path.stem)
        graph = as_resizes(graph)
        graph.notes = self._notes(note)
        # The file that runs in the user's app; comparable only if its input and output are the Graph's.
        comparable = not self.planar_input and index == 0 and self.values[int(self.main.outputs[0])] is result
        graph.source = self.path if comparable else None
        return graph

    def _require_known(self) -> None:
        """Refuse unknown operators by name, before any work is done."""
        unknown: dict[str, str] = {}
        for operator in self.main.operators or []:
            op = self.tensors.op_name(operator)
            if op not in HANDLERS and not all(self.tensors.is_constant(i) for i in self.tensors.inputs(operator)):
                unknown.setdefault(op, self._tensor_name(int(operator.outputs[0])))
        if unknown:
            listed = ", ".join(f"{op} ({name})" for op, name in list(unknown.items())[:3])
            raise UnknownOperator(f"the operator {listed} is outside what slimseg can rewrite")

    def _input(self) -> tuple[int, ...]:
        """Make the placeholder; an image with channels first is recognised by its small number of channels."""
        indices = [int(index) for index in self.main.inputs]
        if len(indices) != 1:
            raise ModelError(f"takes {len(indices)} inputs, not one image")
        shape = self.tensors.shape(indices[0])
        signature = self.main.tensors[indices[0]].shapeSignature
        if len(shape) != 4 or shape[0] != 1:
            raise ModelError(f"takes a tensor of {shape}, not one (1, height, width, channels) image")
        if signature is not None and any(int(side) < 0 for side in signature[1:3]) and min(shape[1:3]) < 8:
            raise ModelError("has no fixed input size: export it for one size")
        planar = shape[1] in _IMAGE_CHANNELS and shape[3] not in _IMAGE_CHANNELS
        order = NCHW if planar else NHWC
        node = self.nodes.placeholder(self._name(self._tensor_name(indices[0])))
        node.meta["shape"] = tuple(shape[order.index(dim)] for dim in range(4))
        self.values[indices[0]] = Value(node, order)
        self.planar_input = planar
        return node.meta["shape"]  # type: ignore[no-any-return]

    def _operator(self, operator: Any, told: file.Operator) -> None:
        op = self.tensors.op_name(operator)
        indices = [int(index) for index in operator.inputs] if operator.inputs is not None else []
        outputs = [int(index) for index in operator.outputs]
        self._require_places(op, indices, outputs)
        inputs = tuple(self._given(index) if index >= 0 else None for index in indices)
        output_shapes = tuple(self.tensors.shape(index) for index in outputs)
        if not any(isinstance(value, Value) for value in inputs):
            folded = constants.fold(op, inputs, operator.builtinOptions, output_shapes[0], self.work)  # type: ignore[arg-type]
            if folded is not None:
                self.values[outputs[0]] = folded
                return
        if op == "SHAPE":
            self.values[outputs[0]] = np.asarray(self.tensors.shape(indices[0]), np.int32)
            return
        name = node_name(self._tensor_name(outputs[0]))
        call = Call(
            op=op,
            name=name,
            layer=name if told.name == told.result else node_name(told.name),
            inputs=inputs,
            options=operator.builtinOptions,
            output_shapes=output_shapes,
            custom=b"" if operator.customOptions is None else bytes(operator.customOptions),
            emit=self._emit,
            # slimseg's int8 files leave a ReLU behind a transposed convolution to the range of its result
            saturates=saturation.activation(self.tensors.tensor(outputs[0])) if op == "TRANSPOSE_CONV" else 0,
            crops=self._crops(operator) if op == "SPACE_TO_BATCH_ND" else None,
        )
        handler = HANDLERS.get(op)
        if handler is None:
            raise call.unknown("is outside what slimseg can rewrite")
        results = handler(call)
        for index, value in zip(outputs, results if isinstance(results, tuple) else (results,), strict=False):
            self._check(call, value, self.tensors.shape(index))
            self.values[index] = value

    def _require_places(self, op: str, inputs: Sequence[int], outputs: Sequence[int]) -> None:
        """The runtime crashes if a result overwrites a constant, and mostly refuses one that overwrites an input."""
        for index in outputs:
            data = self.model.buffers[self.main.tensors[index].buffer].data
            if index in inputs or (data is not None and len(data)):
                over = "its own input" if index in inputs else "a constant"
                name = self._tensor_name(index)
                raise ModelError(f"is damaged: the operator {op} writes its result {name} over {over}")

    def _check(self, call: Call, value: Value, shape: tuple[int, ...]) -> None:
        """The result's shape must be the one that the file states: else the file, or this reader, is wrong."""
        if value.space is not None:
            return
        own = tuple(value.node_shape[dim] for dim in value.order)
        if own != shape:
            raise call.damaged(f"outputs {own}, while the file states {shape}")

    def _given(self, index: int) -> Value | Array:
        if index not in self.values:
            tensor = self.main.tensors[index]
            data = self.model.buffers[tensor.buffer].data
            if tensor.sparsity is not None:
                raise ModelError(f"stores {self._tensor_name(index)} sparsely: export it with dense weights")
            if data is None or (not len(data) and 0 not in self.tensors.shape(index)):
                raise ModelError(f"reads {self._tensor_name(index)} before it is computed")
            dtype = costs.dtype_name(tensor)
            self.work.compute(2 * len(data))  # twice, as a byte may hold two int4 values
            try:
                self.values[index] = constants.decoded(data, dtype, self.tensors.shape(index), tensor.quantization)
            except ModelError as error:
                raise ModelError(f"the constant {self._tensor_name(index)} {error}") from error
        return self.values[index]

    def _emit(self, module: nn.Module, sources: Sequence[fx.Node], name: str) -> fx.Node:
        shape = propagation.shape_of(module, [source.meta["shape"] for source in sources])
        if int(np.prod(shape, dtype=np.int64)) > _LARGEST_VALUE:
            raise ModelError(f"makes a tensor of {shape} at {name}, more than any network for images needs")
        if len(self.names) > _MOST_LAYERS:
            raise ModelError(f"becomes more than {_MOST_LAYERS} layers, more than any network for images needs")
        self.work.store(module)
        name = self._name(name)
        self.root.add_module(name, module)
        node: fx.Node = self.nodes.create_node("call_module", name, tuple(sources), name=name)
        node.meta["shape"] = shape
        node.meta["integer"] = isinstance(module, ops.ArgMax) or all(s.meta.get("integer", False) for s in sources)
        return node

    def _name(self, text: str) -> str:
        return self.names.new(node_name(text))

    def _readers(self) -> dict[int, Any]:
        """For each tensor, the first operator that reads it."""
        found: dict[int, Any] = {}
        for operator in self.main.operators or []:
            for index in self.tensors.inputs(operator):
                found.setdefault(index, operator)
        return found

    def _tensor_name(self, index: int) -> str:
        name = (self.main.tensors[index].name or b"").decode(errors="replace")
        return "".join(letter for letter in name if letter.isprintable()) or f"tensor_{index}"

    def _crops(self, operator: Any) -> tuple[int, ...] | None:
        """The crop (top, bottom, left, right) of the BATCH_TO_SPACE after a SPACE_TO_BATCH."""
        index = int(operator.outputs[0])
        for _ in range(_LONGEST_SPACE):
            reader = self.readers.get(index)
            if reader is None:
                return None
            if self.tensors.op_name(reader) == "BATCH_TO_SPACE_ND":
                crops = self._given(int(reader.inputs[2]))
                return None if isinstance(crops, Value) else tuple(int(n) for n in crops.reshape(-1))
            index = int(reader.outputs[0])
        return None

    def _output(self, wanted: str | int | None) -> tuple[Value, int, str | None]:
        """The output to use, its index in the file, and a note about the other outputs."""
        given = [(place, self.values.get(int(index))) for place, index in enumerate(self.main.outputs)]
        found = [(place, value) for place, value in given if isinstance(value, Value)]
        shapes = [tuple(value.node.meta["shape"]) for _, value in found]
        names = [self._tensor_name(int(self.main.outputs[place])) for place, _ in found]
        chosen, note = choose([Output(*each) for each in zip(names, shapes, strict=True)], wanted)
        place, result = found[chosen]
        if result.space is not None:
            raise ModelError("ends between SPACE_TO_BATCH and BATCH_TO_SPACE")
        if result.order not in (natural(result.rank), NCHW[: result.rank]):
            result = Value(self._emit_transposed(result), natural(result.rank))
        return result, place, note

    def _emit_transposed(self, result: Value) -> fx.Node:
        dims = [0] * 4
        for before, after in zip(result.order, NHWC, strict=True):
            dims[after] = before
        return self._emit(ops.Transpose(tuple(dims)), [result.node], f"{result.node.name}_transposed")

    def _notes(self, on_outputs: str | None) -> tuple[str, ...]:
        notes = []
        stored = {costs.dtype_name(self.main.tensors[i]) for op in self.main.operators for i in self.tensors.inputs(op)}
        made = {costs.dtype_name(self.main.tensors[int(i)]) for op in self.main.operators for i in op.outputs}
        if made & set(_INTEGERS):
            notes.append("it is quantised: opened as a float32 network with its weights de-quantised")
        elif stored & {"int8", "int4"}:
            notes.append("its weights are quantised: opened as a float32 network with its weights de-quantised")
        elif "float16" in stored:
            notes.append("its weights are stored as float16: opened as a float32 network")
        if self.planar_input:
            notes.append("its input is channels first (NCHW); files that slimseg writes have NHWC input")
        if on_outputs:
            notes.append(on_outputs)
        return tuple(notes)

"""An ONNX file as plain values: nodes, constants, inputs, outputs. The protobuf is parsed; nothing is executed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, ValueInfoProto

from slimseg.errors import ModelError, printable
from slimseg.frontends.onnx.local_functions import Functions
from slimseg.frontends.onnx.tensors import Array, TensorReader
from slimseg.frontends.work import Work
from slimseg.graph.description import Description
from slimseg.graph.graph import Weights
from slimseg.graph.layer_names import OperatorName
from slimseg.graph.numbers import as_written
from slimseg.onnx_format import metadata, parsing

LONGEST_NAME = 1000  # characters of a node's name; nothing depends on the rest
_DOMAINS = ("", "ai.onnx")
# onnxruntime's operators that compute what ONNX's own of the same name do, for more types.
_OWN = ("QuantizeLinear", "DequantizeLinear")


@dataclass(frozen=True)
class Node:
    """One operator call; an empty input name is an omitted argument."""

    op: str  # with the domain if it is not ONNX's own: "com.microsoft.FusedConv"
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any]

    def __str__(self) -> str:
        return f"{self.op} {printable((self.name or next(iter(self.outputs), ''))[:100])!r}"


@dataclass(frozen=True)
class Branch:
    """One of the two ways of an If: names that it makes are unlike any outside of it."""

    nodes: tuple[Node, ...]
    constants: dict[str, Array]
    outputs: tuple[str, ...]

    def read_outside(self) -> set[str]:
        """Names of values that are made outside of it."""
        made = {name for node in self.nodes for name in node.outputs} | set(self.constants)
        return {name for node in self.nodes for name in node.inputs if name}.union(self.outputs) - made


@dataclass(frozen=True)
class Input:
    name: str
    kind: int  # TensorProto.DataType
    shape: tuple[int | None, ...]  # None: an open length


@dataclass(frozen=True)
class Model:
    path: Path
    opset: int
    nodes: tuple[Node, ...]
    constants: dict[str, Array]
    inputs: tuple[Input, ...]
    outputs: tuple[str, ...]
    weights: Weights  # the precision of the file's weights
    work: Work  # how much may still be computed for the file
    description: Description | None  # the one that slimseg wrote into the file
    names: Mapping[str, OperatorName]  # of operators by result, see `graph.layer_names`


def read(path: Path) -> Model:
    """Parse an `.onnx` file.

    Raises:
        ModelError: the file is missing, too large, damaged, or no ONNX file.
    """
    return _model(path, parsing.parse(path))


def _model(path: Path, proto: ModelProto) -> Model:
    reader, graph = TensorReader(path), proto.graph
    if graph.sparse_initializer:
        raise ModelError(f"{path} holds sparse weights, which slimseg cannot open: export it with dense weights")
    constants = {tensor.name: reader.read(tensor) for tensor in graph.initializer}
    nodes = _nodes(graph, reader, {}, Functions.of(path, proto))
    opset = max((entry.version for entry in proto.opset_import if entry.domain in _DOMAINS), default=1)
    return Model(
        path,
        opset,
        nodes,
        constants,
        tuple(_input(value) for value in graph.input if value.name not in constants),
        tuple(value.name for value in graph.output),
        "float16" if reader.halves else "float32",
        Work(f"{path} ", reader.size_bytes),
        metadata.description(proto),
        metadata.names(proto),
    )


def _nodes(graph: GraphProto, reader: TensorReader, names: Mapping[str, str], functions: Functions) -> tuple[Node, ...]:
    """The operators; `names` says how values are called here that have another name in the file."""
    return tuple(_node(each, reader, {**names, **own}, functions) for each, own in functions.expanded(graph.node))


def _node(node: NodeProto, reader: TensorReader, names: Mapping[str, str], functions: Functions) -> Node:
    is_own = node.domain in _DOMAINS or (node.domain == "com.microsoft" and node.op_type in _OWN)
    op = _text(node.op_type if is_own else f"{node.domain}.{node.op_type}")
    inputs, outputs = (tuple(names.get(name, name) for name in given) for given in (node.input, node.output))
    attributes = {attribute.name: _attribute(attribute, reader) for attribute in node.attribute}
    if op == "If":
        attributes = {each.name: _branch(each, reader, names, f"{outputs[0]}/", functions) for each in node.attribute}
        inputs += tuple(sorted(set().union(*(branch.read_outside() for branch in attributes.values()))))
    return Node(op, node.name[:LONGEST_NAME], inputs, outputs, attributes)


def _branch(
    attribute: AttributeProto, reader: TensorReader, names: Mapping[str, str], prefix: str, functions: Functions
) -> Branch:
    graph = attribute.g
    made = [*(tensor.name for tensor in graph.initializer), *(name for node in graph.node for name in node.output)]
    inside = {**names, **{name: f"{prefix}{attribute.name}/{name}" for name in made if name}}
    constants = {inside[tensor.name]: reader.read(tensor) for tensor in graph.initializer}
    outputs = tuple(inside.get(value.name, value.name) for value in graph.output)
    return Branch(_nodes(graph, reader, inside, functions), constants, outputs)


def _attribute(attribute: AttributeProto, reader: TensorReader) -> Any:
    """An attribute's value; None if it holds graphs."""
    if attribute.type == AttributeProto.TENSOR:
        return reader.read(attribute.t)
    value = onnx.helper.get_attribute_value(attribute) if attribute.type in _PLAIN else None
    if isinstance(value, float):
        return as_written(value)
    return _text(value.decode()) if isinstance(value, bytes) else value


def _text(value: str) -> str:
    """Text that may appear in messages, without characters that control a terminal.

    Raises:
        ValueError: the text holds such characters.
    """
    if not value.isprintable() or len(value) > 100:
        raise ValueError(f"ONNX does not have the word {value[:100]!r}")
    return value


_PLAIN = (
    AttributeProto.FLOAT,
    AttributeProto.INT,
    AttributeProto.STRING,
    AttributeProto.FLOATS,
    AttributeProto.INTS,
)


def _input(value: ValueInfoProto) -> Input:
    kind = value.type.tensor_type
    dims = (dim.dim_value if dim.WhichOneof("value") == "dim_value" else None for dim in kind.shape.dim)
    return Input(value.name, kind.elem_type, tuple(dim if dim and dim > 0 else None for dim in dims))


def every(nodes: Iterable[Node]) -> Iterator[Node]:
    """The operators, and those in their branches."""
    for node in nodes:
        yield node
        for branch in node.attributes.values():
            if isinstance(branch, Branch):
                yield from every(branch.nodes)

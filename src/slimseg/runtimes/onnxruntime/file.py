"""What an `.onnx` file states about itself: operators, inputs, outputs, slimseg's description. Nothing is run."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from slimseg.errors import ModelError
from slimseg.graph.description import Description
from slimseg.graph.layer_names import OperatorName
from slimseg.onnx_format import metadata, parsing
from slimseg.tensors import TensorInfo

Shape = tuple[int, ...]
WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_CONVERSIONS = ("QuantizeLinear", "DequantizeLinear")
_KINDS: dict[int, str] = {TensorProto.FLOAT: "float32", TensorProto.FLOAT16: "float16", TensorProto.INT8: "int8"}
_MOST_CHANNELS = 4  # of an image: a last dimension that short, after longer ones, makes an input NHWC


@dataclass(frozen=True)
class Constant:
    """A constant of the file; `kind` is a `TensorProto.DataType`."""

    shape: Shape
    kind: int


@dataclass(frozen=True)
class Operator:
    """One operator, in the file's order."""

    op: str
    name: str  # of the node; in files of slimseg the layer that it computes
    inputs: tuple[str, ...]  # activations
    constants: tuple[Constant, ...]  # weights and other constants, also if they are stored in 8 or 16 bits
    result: str  # its first output
    covers: tuple[str, ...] = ()  # graph nodes that it computes, see `graph.layer_names`
    node: str = ""  # the node's own name

    @property
    def converts(self) -> bool:
        """Whether it only converts between floats and 8 bits."""
        return self.op in _CONVERSIONS


@dataclass(frozen=True)
class File:
    """An `.onnx` on disk."""

    path: Path
    size_bytes: int
    operators: tuple[Operator, ...]  # those that read activations
    inputs: tuple[TensorInfo, ...]  # channels last, as an app's image; a length of 0 is left open
    outputs: tuple[TensorInfo, ...]  # maps channels last
    description: Description | None
    is_nhwc: bool  # whether the file itself takes (1, height, width, channels)
    weights: str  # stored type of the weights of convolutions and matrix products
    is_int8: bool  # whether convolutions read 8-bit activations
    shapes: dict[str, Shape] = field(repr=False, default_factory=dict)  # of values, as far as the file states them


def read(path: str | Path) -> File:
    """Everything that a file states about itself.

    Raises:
        ModelError: the file is missing, damaged, no ONNX file, or keeps its weights in other files.
    """
    path = Path(path)
    try:
        found = path.stat()
    except OSError as error:
        raise ModelError(f"{path} cannot be opened: {error.strerror}") from error
    return _read(path, found.st_mtime_ns, found.st_size)


@functools.lru_cache(maxsize=64)
def _read(path: Path, _mtime_ns: int, size: int) -> File:
    model = parsing.parse(path)
    if any(each.data_location == TensorProto.EXTERNAL for each in model.graph.initializer):
        raise ModelError(f"{path} keeps its weights in other files: export it as one file")
    try:
        return _Reader(path, model).file(size)
    except (ValueError, KeyError, TypeError, IndexError) as error:  # a damaged file may parse and hold nonsense
        raise ModelError(f"{path} is damaged or not an ONNX file: export the model again") from error


class _Reader:
    """Follows the nodes of one model."""

    def __init__(self, path: Path, model: ModelProto) -> None:
        self.path, self.model = path, model
        self.graph: GraphProto = model.graph
        self.stored = {each.name: each for each in self.graph.initializer}
        self.constants = {name: Constant(tuple(each.dims), each.data_type) for name, each in self.stored.items()}
        self.made_by: dict[str, NodeProto] = {}
        self.names = metadata.names(model)
        self.shapes = {each.name: _shape(each) for each in (*self.graph.value_info, *self.graph.input)}
        self.shapes |= {each.name: _shape(each) for each in self.graph.output}

    def file(self, size: int) -> File:
        operators = tuple(each for node in self.graph.node if (each := self._operator(node)) is not None)
        images = [each for each in self.graph.input if each.name not in self.stored]
        if not images or not self.graph.output:
            raise ModelError(f"{self.path} has no input or no output: give a network that takes an image")
        is_nhwc = _is_nhwc(_shape(images[0]))
        return File(
            path=self.path,
            size_bytes=size,
            operators=operators,
            inputs=tuple(self._info(each, is_nhwc) for each in images),
            outputs=tuple(self._info(each, is_nhwc) for each in self.graph.output),
            description=metadata.description(self.model),
            is_nhwc=is_nhwc,
            weights=self._weights(operators),
            is_int8=any(self._reads_integers(each) for each in operators if each.op in WEIGHTED),
            shapes=self.shapes,
        )

    def _operator(self, node: NodeProto) -> Operator | None:
        """The operator; None for one that only reads constants, whose result is a constant then."""
        for name in node.output:
            self.made_by[name] = node
        given = [name for name in node.input if name]
        result = node.output[0] if node.output else ""
        if not any(name not in self.constants for name in given):
            first = self.constants[given[0]] if given else Constant((), TensorProto.UNDEFINED)
            self.constants |= dict.fromkeys(node.output, first)  # a Cast or DequantizeLinear of stored weights
            return None
        known = self.names.get(result, OperatorName(node.name or result))
        is_ours = self.model.producer_name == "slimseg"
        return Operator(
            op=node.op_type,
            name=known.name,
            inputs=tuple(name for name in given if name not in self.constants),
            constants=tuple(self.constants[name] for name in given if name in self.constants),
            result=result,
            covers=known.covers or ((result,) if is_ours else ()),
            node=node.name,
        )

    def _reads_integers(self, operator: Operator) -> bool:
        makers = (self.made_by.get(name) for name in operator.inputs)
        return any(maker is not None and maker.op_type == "DequantizeLinear" for maker in makers)

    def _weights(self, operators: tuple[Operator, ...]) -> str:
        values: dict[str, int] = {}
        for operator in (each for each in operators if each.op in WEIGHTED and each.constants):
            weight = operator.constants[0]
            kind = _KINDS.get(weight.kind, "float32")
            values[kind] = values.get(kind, 0) + int(np.prod(weight.shape))
        total = sum(values.values())
        told = [kind for kind, count in sorted(values.items(), key=lambda pair: -pair[1]) if count >= 0.01 * total]
        return " and ".join(told) or "float32"

    def _info(self, value: object, is_nhwc: bool) -> TensorInfo:
        shape, name = _shape(value), value.name  # type: ignore[attr-defined]
        kind = value.type.tensor_type.elem_type  # type: ignore[attr-defined]
        scale, zero = self._scale(name)
        return TensorInfo(
            name=name,
            shape=shape if is_nhwc or len(shape) != 4 else (shape[0], *shape[2:], shape[1]),
            dtype=str(helper.tensor_dtype_to_np_dtype(kind)),
            scale=scale,
            zero_point=zero,
        )

    def _scale(self, name: str) -> tuple[float, int]:
        """Scale and zero point of an 8-bit input or output; 0.0 and 0 for any other value."""
        maker = self.made_by.get(name)
        readers = [node for node in self.graph.node if name in node.input]
        node = maker if maker is not None else next(iter(readers), None)
        if node is None or node.op_type != ("DequantizeLinear" if maker is None else "QuantizeLinear"):
            return 0.0, 0
        scale, zero = (numpy_helper.to_array(self.stored[each]) for each in node.input[1:3])
        return float(scale.reshape(-1)[0]), int(zero.reshape(-1)[0])


def _shape(value: object) -> Shape:
    """A value's shape, with 0 for a length that the file leaves open; an open batch is one image."""
    dims = value.type.tensor_type.shape.dim  # type: ignore[attr-defined]
    lengths = [dim.dim_value if dim.WhichOneof("value") == "dim_value" else 0 for dim in dims]
    return tuple(1 if place == 0 and not length else int(length) for place, length in enumerate(lengths))


def _is_nhwc(shape: Shape) -> bool:
    return (
        len(shape) == 4 and 0 < shape[3] <= _MOST_CHANNELS and all(not side or side > shape[3] for side in shape[1:3])
    )

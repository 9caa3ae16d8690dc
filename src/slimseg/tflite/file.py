"""What a `.tflite` file states about itself: operators with shapes and costs, inputs, outputs, slimseg's description.

The file is parsed with the official schema; nothing is run. Layout of activations: NHWC.
"""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from slimseg.disk import atomic
from slimseg.errors import ModelError, SlimsegError
from slimseg.graph.description import Description
from slimseg.graph.layer_names import OperatorName
from slimseg.tensors import TensorInfo
from slimseg.tflite import arena, bounds, compact, costs, metadata, operator_names, windows

IDENTIFIER = b"TFL3"
MAX_FILE_BYTES = 1 << 30
_ARITHMETIC = frozenset({"ADD", "SUB", "MUL", "DIV", "MAXIMUM", "MINIMUM"})


@dataclass(frozen=True)
class Operator:
    """One operator of the file's main graph, in the file's order."""

    index: int
    op: str  # e.g. "CONV_2D"
    name: str  # in files of slimseg, the layer (graph node) that it computes; else its first output tensor
    input_shapes: tuple[tuple[int, ...], ...]  # activations only
    output_shape: tuple[int, ...]
    macs: int
    params: int
    memory_bytes: int  # activations read and written, weights read
    dtype: str  # type of its output
    inputs: tuple[int, ...]  # tensor indices of the activations it reads
    outputs: tuple[int, ...]
    activated: bool = False  # has a fused activation
    input_dtypes: tuple[str, ...] = ()  # types of `inputs`
    result: str = ""  # name of its first output tensor: in files of slimseg, the graph node that gives this value
    covers: tuple[str, ...] = ()  # graph nodes that it computes, see `graph.layer_names`

    @property
    def tabular(self) -> bool:
        """Whether it is arithmetic of one 8-bit tensor and a constant, which the delegate may turn into a table."""
        return self.op in _ARITHMETIC and self.dtype in ("int8", "uint8") and len(self.inputs) == 1


@dataclass(frozen=True)
class File:
    """A `.tflite` on disk."""

    path: Path
    size_bytes: int
    operators: tuple[Operator, ...]
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    description: Description | None
    params: int  # number of parameters; a tensor that several operators share counts once
    integer: bool = False  # whether it stores integer weights
    weights: str = "float32"  # stored type of the weights of convolutions and matrix products, or "float16 and int8"
    main_signature: int = 0  # position of the signature of the main graph

    @property
    def macs(self) -> int:
        return sum(operator.macs for operator in self.operators)


def read(path: str | Path) -> File:
    """Everything that a file states about itself.

    Raises:
        ModelError: the file is missing, not a `.tflite`, or damaged.
    """
    path = Path(path)
    found = stat(path)
    return _read(path, found.st_mtime_ns, found.st_size)


@functools.lru_cache(maxsize=64)
def _read(path: Path, _mtime_ns: int, size: int) -> File:
    return _described(_parsed(path, size), path, size)


def opened(path: Path) -> tuple[File, Any]:
    """What a file states about itself, and its `ModelT`. Raises: ModelError, as `read`."""
    size = stat(path).st_size
    model = _parsed(path, size)
    return _described(model, path, size), model


def _parsed(path: Path, size: int) -> Any:
    if size > MAX_FILE_BYTES:
        raise ModelError(f"{path} is larger than {MAX_FILE_BYTES >> 30} GiB: is it the right file?")
    return parse(path.read_bytes(), path)


def _described(model: Any, path: Path, size: int) -> File:
    graph = model.subgraphs[0]
    try:
        tensors = costs.Tensors(model)
        if graph.inputs is None or not len(graph.inputs):
            raise ModelError(f"{path} has no input: give a network that takes an image")
        for operator in graph.operators or []:
            if fault := windows.fault(tensors, operator):
                raise ModelError(f"{path}: the operator {tensors.op_name(operator)} {fault}")
        if excess := arena.excess(tensors, graph, size):
            raise ModelError(f"{path} {excess}")
        return File(
            path=path,
            size_bytes=size,
            operators=_operators(tensors, model),
            inputs=tuple(_info(graph.tensors[index]) for index in graph.inputs),
            outputs=tuple(_info(graph.tensors[index]) for index in graph.outputs),
            description=_description(model),
            params=tensors.total_params(),
            integer=tensors.has_integer_weights(),
            weights=tensors.weights(),
            main_signature=_main_signature(model),
        )
    except SlimsegError:
        raise
    except Exception as error:  # a damaged file may parse and still have invalid values
        raise _damaged(path) from error


def main_signature(path: str | Path) -> int:
    """Position of the signature of the main graph; 0 in a file without signatures. Raises: ModelError."""
    return read(path).main_signature


def operators(path: str | Path) -> tuple[Operator, ...]:
    """The operators of the file's main graph, in order. Raises: ModelError."""
    return read(path).operators


def read_description(path: str | Path) -> Description | None:
    """The description that slimseg embedded, or None in a file that slimseg did not write. Raises: ModelError."""
    return read(path).description


def embed_description(data: bytes, description: Description) -> bytes:
    """A copy of the model's bytes with `description` in the metadata buffer "slimseg", replacing an older one."""
    model = parse(data, Path("model"))
    metadata.write(model, metadata.DESCRIPTION, description.to_json().encode())
    return pack(model)


def with_output(data: bytes, place: int) -> bytes:
    """A copy of the model's bytes with output number `place` as its only output."""
    model = parse(data, Path("model"))
    graph = model.subgraphs[0]
    kept = int(graph.outputs[place])
    graph.outputs = np.asarray([kept], np.int32)
    for signature in model.signatureDefs or []:
        if signature.subgraphIndex == 0:
            signature.outputs = [each for each in signature.outputs or [] if each.tensorIndex == kept]
    return pack(model)


def parse(data: bytes, path: Path) -> Any:
    """The schema's `ModelT` of a file's bytes.

    Raises:
        ModelError: the file is not a `.tflite`, or damaged.
    """
    if data[4:8] != IDENTIFIER:
        raise ModelError(f"{path} is not a .tflite model (its header lacks the mark TFL3): give a .tflite file")
    try:
        bounds.check(data, str(path))
        model = schema.ModelT.InitFromPackedBuf(data, 0)
        if not model.subgraphs or not model.buffers or model.subgraphs[0].tensors is None:
            raise ValueError("no graph")
        _inline_buffers(model, data)
    except SlimsegError:
        raise
    except Exception as error:  # struct, numpy and the schema raise many kinds of errors on invalid data
        raise _damaged(path) from error
    return model


def _inline_buffers(model: Any, data: bytes) -> None:
    """Load buffers that are stored after the flatbuffer (as quantisers store large ones) into the model."""
    for buffer in model.buffers:
        if buffer.offset > 1:
            if buffer.offset + buffer.size > len(data):
                raise ValueError("a buffer lies outside the file")
            buffer.data = np.frombuffer(data, np.uint8, buffer.size, buffer.offset)
            buffer.offset = buffer.size = 0


def pack(model: Any) -> bytes:
    """The bytes of a `ModelT`."""
    return compact.pack(model, IDENTIFIER)


def save(data: bytes, path: str | Path) -> None:
    """Replace `path` by `data` in one step: an interrupted write leaves the old file.

    Raises:
        OutputError: `path` cannot be written.
    """
    atomic.write(data, path, durable=False)


def stat(path: Path) -> os.stat_result:
    """Size and times of a file. Raises: ModelError if it cannot be opened."""
    try:
        found = path.stat()
    except OSError as error:
        raise ModelError(f"{path} cannot be opened: {error.strerror}") from error
    if not path.is_file():
        raise ModelError(f"{path} is not a file: give a .tflite model")
    return found


def _damaged(path: Path) -> ModelError:
    return ModelError(f"{path} is a damaged or truncated .tflite model: copy or export it again")


def _operators(tensors: costs.Tensors, model: Any) -> tuple[Operator, ...]:
    named = zip(model.subgraphs[0].operators or [], operator_names.of_operators(model), strict=True)
    return tuple(_operator(tensors, index, *each) for index, each in enumerate(named))


def _operator(tensors: costs.Tensors, index: int, operator: Any, name: OperatorName) -> Operator:
    activations = tensors.activations(operator)
    outputs = [int(i) for i in operator.outputs]
    first = tensors.tensor(outputs[0])
    return Operator(
        index=index,
        op=tensors.op_name(operator),
        name=name.name,
        input_shapes=tuple(tensors.shape(i) for i in activations),
        output_shape=tensors.shape(outputs[0]),
        macs=tensors.macs(operator),
        params=tensors.params(operator),
        memory_bytes=tensors.memory_bytes(operator),
        dtype=costs.dtype_name(first),
        inputs=tuple(activations),
        outputs=tuple(outputs),
        input_dtypes=tuple(costs.dtype_name(tensors.tensor(i)) for i in activations),
        result=first.name.decode(errors="replace"),
        covers=name.covers,
        activated=bool(getattr(operator.builtinOptions, "fusedActivationFunction", 0)),
    )


def _info(tensor: Any) -> TensorInfo:
    scale, zero_point = _quantisation(tensor.quantization)
    return TensorInfo(
        name=tensor.name.decode(errors="replace"),
        shape=tuple(int(n) for n in tensor.shape) if tensor.shape is not None else (),
        dtype=costs.dtype_name(tensor),
        scale=scale,
        zero_point=zero_point,
    )


def _quantisation(parameters: Any) -> tuple[float, int]:
    """Scale and zero point of a tensor that is quantised per tensor; 0.0 and 0 for any other."""
    if parameters is None or parameters.scale is None or len(parameters.scale) != 1:
        return 0.0, 0
    zeros = parameters.zeroPoint
    return float(parameters.scale[0]), 0 if zeros is None or not len(zeros) else int(zeros[0])


def _main_signature(model: Any) -> int:
    graphs = [int(signature.subgraphIndex) for signature in model.signatureDefs or []]
    return graphs.index(0) if 0 in graphs else 0


def _description(model: Any) -> Description | None:
    data = metadata.read(model, metadata.DESCRIPTION)
    return None if data is None else Description.from_json(data.decode(errors="replace"))

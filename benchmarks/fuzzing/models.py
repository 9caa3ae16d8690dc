"""Mutations of networks as such: a file that parses, and says something else than its converter meant."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import onnx
from ai_edge_litert import schema_py_generated as schema
from onnx import AttributeProto, TensorProto

from fuzzing import documents, plain
from fuzzing.values import FLOATS, TEXTS, Random, chosen, integer

_CODES = [value for value in vars(schema.BuiltinOperator).values() if isinstance(value, int)]
_ONNX_OPS = (
    "Conv", "ConvTranspose", "Relu", "Add", "Mul", "Concat", "Reshape", "Transpose", "Resize", "Upsample", "Slice",
    "Split", "Pad", "MaxPool", "AveragePool", "GlobalAveragePool", "Softmax", "ArgMax", "ReduceMean", "ReduceMax",
    "Gather", "Shape", "ConstantOfShape", "Expand", "Tile", "Gemm", "MatMul", "Loop", "If", "Cast", "Range", "Where",
    "DepthToSpace", "SpaceToDepth", "BatchNormalization", "QuantizeLinear", "DequantizeLinear", "Einsum", "Unknown",
)  # fmt: skip


def tflite_mutated(random: Random, data: bytes) -> bytes:
    """A `.tflite` with one to three things changed; what cannot be written so is mutated as bytes."""
    try:
        model = schema.ModelT.InitFromPackedBuf(data, 0)
        for _ in range(int(random.integers(1, 4))):
            chosen(random, _TFLITE)(random, model)
        import flatbuffers

        builder = flatbuffers.Builder(1 << 16)
        builder.Finish(model.Pack(builder), b"TFL3")
        return bytes(builder.Output())
    except Exception:  # numbers that do not fit their field
        return plain.mutated(random, data)


def _tensor(random: Random, model: Any) -> Any:
    return chosen(random, model.subgraphs[0].tensors)


def _operator(random: Random, model: Any) -> Any:
    return chosen(random, model.subgraphs[0].operators)


def _shape(random: Random, model: Any) -> None:
    tensor = _tensor(random, model)
    shape = [] if tensor.shape is None else [int(side) for side in tensor.shape]
    kind = random.random()
    if kind < 0.7 and shape:
        at = int(random.integers(len(shape)))
        shape[at] = integer(random, shape[at])
    elif kind < 0.85:
        shape = shape[::-1]
    else:
        shape = shape[:-1] if random.random() < 0.5 else [*shape, 1, 2]
    tensor.shape = np.asarray(shape, np.int32)


def _type(random: Random, model: Any) -> None:
    _tensor(random, model).type = int(random.integers(0, 20))


def _buffer(random: Random, model: Any) -> None:
    _tensor(random, model).buffer = int(random.integers(0, len(model.buffers) + 2))


def _data(random: Random, model: Any) -> None:
    buffer = chosen(random, model.buffers)
    old = b"" if buffer.data is None else bytes(buffer.data)
    new = chosen(random, (b"", old[: len(old) // 2], old + old, plain.mutated(random, old or b"0000"), b"\xff" * 64))
    buffer.data = np.frombuffer(new, np.uint8)


def _numbers_in_constants(random: Random, model: Any) -> None:
    """Shapes, axes, paddings and sizes are small constants of integers."""
    small = [each for each in model.buffers if each.data is not None and len(each.data) in (4, 8, 12, 16, 32)]
    if small:
        buffer = chosen(random, small)
        values = np.frombuffer(bytes(buffer.data), np.int32).copy()
        at = int(random.integers(len(values)))
        values[at] = np.int64(integer(random, int(values[at]))).astype(np.int32)
        buffer.data = np.frombuffer(values.tobytes(), np.uint8)


def _wiring(random: Random, model: Any) -> None:
    operator = _operator(random, model)
    ends = chosen(random, ("inputs", "outputs"))
    indices = [int(index) for index in getattr(operator, ends)]
    if indices:
        count = len(model.subgraphs[0].tensors)
        indices[int(random.integers(len(indices)))] = int(random.integers(-2, count + 2))
    if random.random() < 0.2:
        indices = indices[:-1] if random.random() < 0.5 else indices * 2
    setattr(operator, ends, np.asarray(indices, np.int32))


def _cycle(random: Random, model: Any) -> None:
    first, second = _operator(random, model), _operator(random, model)
    inputs = np.array(first.inputs, np.int32)
    if len(inputs):
        inputs[0] = int(second.outputs[0])
        first.inputs = inputs


def _code(random: Random, model: Any) -> None:
    if random.random() < 0.5:
        _operator(random, model).opcodeIndex = int(random.integers(0, len(model.operatorCodes) + 1))
        return
    entry = chosen(random, model.operatorCodes)
    entry.builtinCode = chosen(random, _CODES)
    entry.deprecatedBuiltinCode = min(entry.builtinCode, 127)


def _options(random: Random, model: Any) -> None:
    """Strides, paddings, dilations, axes: one of them, extreme."""
    options = _operator(random, model).builtinOptions
    names = [name for name, value in vars(options).items() if isinstance(value, int | float)] if options else []
    if names:
        name = chosen(random, names)
        old = getattr(options, name)
        setattr(options, name, chosen(random, FLOATS) if isinstance(old, float) else integer(random, int(old)))


def _order(random: Random, model: Any) -> None:
    _rearrange(random, model.subgraphs[0].operators)


def _rearrange(random: Random, operators: list[Any]) -> None:
    """Two change places, one comes again, or one goes."""
    at, other = (int(random.integers(len(operators))) for _ in range(2))
    kind = random.random()
    if kind < 0.4:
        operators[at], operators[other] = operators[other], operators[at]
    elif kind < 0.7:
        operators.insert(at, operators[other])
    elif len(operators) > 1:
        del operators[at]


def _scales(random: Random, model: Any) -> None:
    quantised = [each for each in model.subgraphs[0].tensors if each.quantization is not None]
    tensor = chosen(random, quantised or model.subgraphs[0].tensors)
    tensor.quantization = tensor.quantization or schema.QuantizationParametersT()
    values = tensor.quantization
    kind = random.random()
    if kind < 0.5:
        values.scale = np.asarray([chosen(random, FLOATS) for _ in range(int(random.integers(0, 5)))], np.float32)
    elif kind < 0.8:
        values.zeroPoint = np.asarray([integer(random) for _ in range(int(random.integers(0, 5)))], np.int64)
    else:
        values.quantizedDimension = integer(random)


def _name(random: Random, model: Any) -> None:
    name = chosen(random, TEXTS).encode("utf-8", "surrogatepass")
    _tensor(random, model).name = name
    if random.random() < 0.3:
        for tensor in model.subgraphs[0].tensors:
            tensor.name = name


def _ends(random: Random, model: Any) -> None:
    graph, count = model.subgraphs[0], len(model.subgraphs[0].tensors)
    some = np.asarray([int(random.integers(0, count + 1)) for _ in range(int(random.integers(0, 4)))], np.int32)
    setattr(graph, chosen(random, ("inputs", "outputs")), some)


def _described(random: Random, model: Any) -> None:
    """The description that slimseg embeds."""
    for entry in model.metadata or []:
        buffer = model.buffers[entry.buffer]
        if buffer.data is not None:
            buffer.data = np.frombuffer(documents.json_mutated(random, bytes(buffer.data)), np.uint8)


_TFLITE = (
    _shape, _shape, _type, _buffer, _data, _numbers_in_constants, _numbers_in_constants, _wiring, _wiring, _cycle,
    _code, _options, _options, _order, _scales, _name, _ends, _described,
)  # fmt: skip


def onnx_mutated(random: Random, data: bytes) -> bytes:
    """An `.onnx` with one to three things changed."""
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
        for _ in range(int(random.integers(1, 4))):
            chosen(random, _ONNX)(random, model)
        return bytes(model.SerializeToString())
    except Exception:  # numbers that do not fit their field
        return plain.mutated(random, data)


def _onnx_op(random: Random, model: Any) -> None:
    chosen(random, model.graph.node).op_type = chosen(random, _ONNX_OPS)


def _onnx_wiring(random: Random, model: Any) -> None:
    node, other = chosen(random, model.graph.node), chosen(random, model.graph.node)
    names = [*other.input, *other.output, "", "nobody"]
    ends = node.input if random.random() < 0.7 else node.output
    if len(ends):
        ends[int(random.integers(len(ends)))] = chosen(random, names)


def _onnx_attribute(random: Random, model: Any) -> None:
    with_some = [node for node in model.graph.node if len(node.attribute)]
    if not with_some:
        return
    attribute = chosen(random, chosen(random, with_some).attribute)
    if attribute.type == AttributeProto.INTS and len(attribute.ints):
        at = int(random.integers(len(attribute.ints)))
        attribute.ints[at] = integer(random, attribute.ints[at])
    elif attribute.type == AttributeProto.INT:
        attribute.i = integer(random, attribute.i)
    elif attribute.type == AttributeProto.FLOAT:
        attribute.f = chosen(random, FLOATS)
    else:
        attribute.s = chosen(random, TEXTS[:15]).encode()
    if random.random() < 0.1:
        attribute.type = int(random.integers(0, 12))


def _onnx_weights(random: Random, model: Any) -> None:
    if not model.graph.initializer:
        return
    tensor = chosen(random, model.graph.initializer)
    kind = random.random()
    if kind < 0.4 and len(tensor.dims):
        at = int(random.integers(len(tensor.dims)))
        tensor.dims[at] = integer(random, tensor.dims[at])
    elif kind < 0.5:
        tensor.dims.append(integer(random))
    elif kind < 0.65:
        tensor.data_type = int(random.integers(0, 20))
    elif kind < 0.8:
        tensor.raw_data = plain.mutated(random, tensor.raw_data or b"0000")
    elif kind < 0.9 and len(tensor.raw_data) in (8, 16, 24, 32, 64):
        places = len(tensor.raw_data) // 8
        values = [integer(random) for _ in range(places)]
        tensor.raw_data = struct.pack(f"<{places}q", *values)
    else:
        tensor.data_location = TensorProto.EXTERNAL
        entry = tensor.external_data.add()
        entry.key, entry.value = "location", chosen(random, ("/etc/passwd", "../x", "weights.bin", "", "/dev/zero"))


def _onnx_input(random: Random, model: Any) -> None:
    dims = chosen(random, model.graph.input).type.tensor_type.shape.dim
    if len(dims):
        chosen(random, dims).dim_value = integer(random)


def _onnx_order(random: Random, model: Any) -> None:
    nodes = list(model.graph.node)
    _rearrange(random, nodes)
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _onnx_names(random: Random, model: Any) -> None:
    chosen(random, model.graph.node).name = chosen(random, TEXTS[:19])
    if random.random() < 0.3:
        chosen(random, model.graph.output).name = chosen(random, ("nobody", model.graph.input[0].name))


def _onnx_version(random: Random, model: Any) -> None:
    chosen(random, model.opset_import).version = chosen(random, (0, 1, 6, 9, 10, 11, 13, 18, 21, 99, -1))


_ONNX = (
    _onnx_op, _onnx_wiring, _onnx_wiring, _onnx_attribute, _onnx_attribute, _onnx_weights, _onnx_weights, _onnx_input,
    _onnx_order, _onnx_names, _onnx_version,
)  # fmt: skip

"""Makes an int8 file take the image's bytes unchanged, (1, H, W, 3) uint8.

    Given   x int8, scale 1/s, zero point m − 128        real x = (byte − m) / s, so that x = byte − 128
    Result  byte uint8, scale 1/s, zero point m  →  DEQUANTIZE  →  QUANTIZE  →  x                            (exact)

QUANTIZE alone converts uint8 to int8, too, but XNNPACK leaves it to a built-in kernel, which took 0.10 ms for 192x256
pixels. XNNPACK fuses the two operators into one conversion of 0.03 ms, and the network remains one delegated part.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from slimseg.errors import ModelError
from slimseg.tflite import file, operator_codes

Op, Options = schema.BuiltinOperator, schema.BuiltinOptions


def ranges(source: file.File) -> dict[str, tuple[float, float]]:
    """The range of the input for which one int8 step is one grey level, by the name of the input's tensor.

    Raises:
        ModelError: the file does not take an RGB image, does not state its preprocessing, or its preprocessing differs
            between channels.
    """
    if source.description is None:
        raise ModelError(f"{source.path} does not state how its input is normalised: write it with slimseg")
    preprocessing = source.description.preprocessing
    if source.inputs[0].shape[-1] != 3 or not preprocessing.takes_bytes:
        raise ModelError(
            f"{source.path} cannot have byte input: it needs (byte - {preprocessing.mean}) / {preprocessing.std} in "
            f"{preprocessing.channel_order}; fold that into its first convolution (graph.image_input.fold)"
        )
    return {source.inputs[0].name: preprocessing.byte_range}


def taking_bytes(data: bytes) -> bytes:
    """The int8 file with uint8 input, which XNNPACK converts."""
    model = file.parse(data, Path("model"))
    graph = model.subgraphs[0]
    old = int(graph.inputs[0])
    signed = graph.tensors[old]
    unsigned, real = copy.deepcopy(signed), copy.deepcopy(signed)
    unsigned.type = schema.TensorType.UINT8
    unsigned.quantization.zeroPoint = np.asarray([int(signed.quantization.zeroPoint[0]) + 128], np.int64)
    real.type, real.quantization = schema.TensorType.FLOAT32, None
    signed.name, real.name = signed.name + b"_int8", signed.name + b"_real"
    graph.tensors += [unsigned, real]
    new = len(graph.tensors) - 2
    graph.operators[:0] = [
        _operator(model, Op.DEQUANTIZE, new, new + 1, schema.DequantizeOptionsT(), Options.DequantizeOptions),
        _operator(model, Op.QUANTIZE, new + 1, old, schema.QuantizeOptionsT(), Options.QuantizeOptions),
    ]
    graph.inputs = np.asarray([new], np.int32)
    for signature in model.signatureDefs or []:
        for entry in signature.inputs:
            entry.tensorIndex = new if entry.tensorIndex == old else entry.tensorIndex
    return file.pack(model)


def _operator(model: Any, code: int, source: int, target: int, options: Any, kind: int) -> Any:
    operator = schema.OperatorT()
    operator.opcodeIndex = operator_codes.index(model, code)
    operator.inputs, operator.outputs = np.asarray([source], np.int32), np.asarray([target], np.int32)
    operator.builtinOptions, operator.builtinOptionsType = options, kind
    return operator

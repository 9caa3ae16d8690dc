"""Operators in front of and behind a network that bring its file into the form that `ImageSegmenter` takes.

    Given   image: int8 or int16, or bytes that are not the image's
    Result  image: float32 → QUANTIZE → integers; for int8 that differs from the image's bytes by 128, the bytes
    Given   scores (1, H·W) or (1, H·W, classes) or (1, H, W)
    Result  scores → RESHAPE → (1, H, W, classes)
    Given   one channel p: the probability of the second of two classes, or its logit z
    Result  [p] → 1x1 convolution → [1 − p, p], or [z] → [0, z], whose softmax is [1 − σ(z), σ(z)]     (exact)

The last is a matter of taste: of one channel `ImageSegmenter` makes a category mask that is 0 where the class is and
255 elsewhere, of two channels class indices, as for any other network.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as tflite

from slimseg.errors import Unsupported
from slimseg.graph.description import Description
from slimseg.graph.preprocessing import Preprocessing
from slimseg.runtimes.litert import file
from slimseg.runtimes.litert.quantising import byte_input
from slimseg.runtimes.litert.tasks.ends import Ends

Op, Type = tflite.BuiltinOperator, tflite.TensorType


def fitted(data: bytes, description: Description, two_channels: bool = True) -> bytes:
    """The same network in the form that `ImageSegmenter` takes, as far as operators at its ends can do that.

    Args:
        data: a `.tflite` file.
        description: what its input wants and its output means.
        two_channels: give a network of one channel a second one, so that its category mask is class indices.

    Raises:
        ModelError: not a `.tflite`, or damaged.
        Unsupported: its output has no place for every pixel of the input, it has several inputs or outputs, or its
            input is whole numbers that MediaPipe would not feed.
    """
    ends = Ends(file.parse(data, Path("model")))
    if is_shifted_bytes(ends.input, description.preprocessing):
        ends = Ends(file.parse(byte_input.taking_bytes(data), Path("model")))
    elif ends.input.type != Type.FLOAT32 and not is_bytes(ends.input, description.preprocessing):
        if _has_no_scale(ends.input):
            raise Unsupported("its input is whole numbers without a scale, other than the image's RGB bytes")
        ends.before(Op.QUANTIZE, tflite.QuantizeOptionsT(), type=Type.FLOAT32, quantization=None)
    if description.output_kind != "mask":
        _scores(ends, description, two_channels)
    return file.pack(ends.model)


def is_bytes(tensor: Any, preprocessing: Preprocessing) -> bool:
    """Whether a file's input is the image's bytes themselves: its scale says so, or it has none and takes them."""
    if _has_no_scale(tensor):
        return tensor.type == Type.UINT8 and preprocessing == Preprocessing.of(0.0, 1.0)
    return bool(tensor.type == Type.UINT8 and _says(tensor, preprocessing, 0))


def _has_no_scale(tensor: Any) -> bool:
    return tensor.quantization is None or tensor.quantization.scale is None or not len(tensor.quantization.scale)


def is_shifted_bytes(tensor: Any, preprocessing: Preprocessing) -> bool:
    """Whether a file's input is the image's bytes less 128."""
    return bool(tensor.type == Type.INT8 and _says(tensor, preprocessing, -128))


def _says(tensor: Any, preprocessing: Preprocessing, shift: int) -> bool:
    """Whether scale and zero point are those of (byte − mean) / std, where a stored number is the byte + `shift`."""
    quantised = tensor.quantization
    if not preprocessing.takes_bytes or quantised is None or quantised.scale is None or len(quantised.scale) != 1:
        return False
    same_scale = math.isclose(float(quantised.scale[0]) * preprocessing.std[0], 1, rel_tol=1e-5)
    return same_scale and int(quantised.zeroPoint[0]) == preprocessing.mean[0] + shift


def _scores(ends: Ends, description: Description, two_channels: bool) -> None:
    shape = _rows(tuple(int(side) for side in ends.output.shape), tuple(int(side) for side in ends.input.shape[1:3]))
    if len(ends.output.shape) != 4:
        target = ends.constant("scores_shape", np.asarray(shape, np.int32))
        options = tflite.ReshapeOptionsT()
        options.newShape = np.asarray(shape, np.int32)
        ends.behind(Op.RESHAPE, options, (target,), shape=np.asarray(shape, np.int32), shapeSignature=None)
    split = two_channels and shape[-1] == 1
    if ends.output.type not in (Type.FLOAT32, Type.INT8, Type.UINT8) or (split and ends.output.type != Type.FLOAT32):
        ends.behind(Op.DEQUANTIZE, tflite.DequantizeOptionsT(), type=Type.FLOAT32, quantization=None)
    if split:
        _second_channel(ends, shape, description.output_kind == "probabilities")


def _rows(shape: tuple[int, ...], size: tuple[int, ...]) -> tuple[int, int, int, int]:
    """(1, height, width, channels) of scores of `shape`; what is flat has the pixels of the input, `size`.

    Raises:
        Unsupported: it is flat and has other pixels.
    """
    if len(shape) == 4:
        return shape[0], shape[1], shape[2], shape[3]
    height, width = size
    if len(shape) == 3 and shape[1] != height * width:
        return shape[0], shape[1], shape[2], 1
    if math.prod(shape) % (height * width):
        raise Unsupported(
            f"the output is {math.prod(shape)} numbers for an input of {height}x{width}, not one per pixel: "
            "give the model an output of (1, height, width, classes)"
        )
    return 1, height, width, math.prod(shape) // (height * width)


def _second_channel(ends: Ends, shape: tuple[int, int, int, int], probabilities: bool) -> None:
    """[p] to [1 − p, p], or [z] to [0, z]."""
    first, bias = (-1.0, 1.0) if probabilities else (0.0, 0.0)
    weight = ends.constant("second_channel_weight", np.asarray([first, 1], np.float32).reshape(2, 1, 1, 1))
    offset = ends.constant("second_channel_bias", np.asarray([bias, 0], np.float32))
    options = tflite.Conv2DOptionsT()
    options.strideH = options.strideW = options.dilationHFactor = options.dilationWFactor = 1
    options.padding = tflite.Padding.VALID
    both = np.asarray((*shape[:3], 2), np.int32)
    ends.behind(Op.CONV_2D, options, (weight, offset), shape=both, shapeSignature=None)

"""Adds operators before and after a network, so that its file has the form that `ImageSegmenter` accepts.

    Given   image: int8 or int16, or uint8 other than the image's bytes
    Result  image: float32 → QUANTIZE → integers; if int8 values are the image's bytes less 128, the bytes themselves
    Given   scores (1, H·W) or (1, H·W, classes) or (1, H, W)
    Result  scores → RESHAPE → (1, H, W, classes)
    Given   one channel p: the probability of the second of two classes, or its logit z
    Result  [p] → 1x1 convolution → [1 − p, p], or [z] → [0, z], whose softmax is [1 − σ(z), σ(z)]     (exact)

The last is optional: from one channel `ImageSegmenter` makes a category mask that is 0 for the class and 255 elsewhere;
from two channels it makes class indices, as for any other network.
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
from slimseg.runtimes.litert.quantising import byte_input
from slimseg.runtimes.litert.tasks.ends import Ends
from slimseg.tflite import file

Op, Type = tflite.BuiltinOperator, tflite.TensorType


def fitted(data: bytes, description: Description, two_channels: bool = True) -> bytes:
    """The same network in the form that `ImageSegmenter` accepts, as far as operators before and after it suffice.

    Args:
        data: a `.tflite` file.
        description: preprocessing of its input and meaning of its output.
        two_channels: give a network of one channel a second one, so that its category mask has class indices.

    Raises:
        ModelError: the file is not a `.tflite`, or damaged.
        Unsupported: the size of its output is not a multiple of the input's pixels, it has several inputs or outputs,
            or its input is integers that MediaPipe cannot provide.
    """
    ends = Ends(file.parse(data, Path("model")))
    if is_shifted_bytes(ends.input, description.preprocessing):
        ends = Ends(file.parse(byte_input.taking_bytes(data), Path("model")))
    elif ends.input.type != Type.FLOAT32 and not is_bytes(ends.input, description.preprocessing):
        if _has_no_scale(ends.input):
            raise Unsupported("its input has integers without a scale that are not the image's RGB bytes")
        ends.before(Op.QUANTIZE, tflite.QuantizeOptionsT(), type=Type.FLOAT32, quantization=None)
    if description.output_kind != "mask":
        _scores(ends, description, two_channels)
    return file.pack(ends.model)


def is_bytes(tensor: Any, preprocessing: Preprocessing) -> bool:
    """Whether a file's input is the image's bytes: by its scale, or without a scale by preprocessing with no effect."""
    if _has_no_scale(tensor):
        return tensor.type == Type.UINT8 and preprocessing == Preprocessing.of(0.0, 1.0)
    return bool(tensor.type == Type.UINT8 and _says(tensor, preprocessing, 0))


def _has_no_scale(tensor: Any) -> bool:
    return tensor.quantization is None or tensor.quantization.scale is None or not len(tensor.quantization.scale)


def is_shifted_bytes(tensor: Any, preprocessing: Preprocessing) -> bool:
    """Whether a file's input is the image's bytes less 128."""
    return bool(tensor.type == Type.INT8 and _says(tensor, preprocessing, -128))


def _says(tensor: Any, preprocessing: Preprocessing, shift: int) -> bool:
    """Whether scale and zero point are those of (byte − mean) / std with stored values of byte + `shift`."""
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
    """The shape (1, height, width, channels) of scores of `shape`; flat scores have the pixels of the input, `size`.

    Raises:
        Unsupported: the number of flat scores is not a multiple of the input's pixels.
    """
    if len(shape) == 4:
        return shape[0], shape[1], shape[2], shape[3]
    height, width = size
    if len(shape) == 3 and shape[1] != height * width:
        return shape[0], shape[1], shape[2], 1
    if math.prod(shape) % (height * width):
        raise Unsupported(
            f"the output has {math.prod(shape)} numbers for an input of {height}x{width}, not one per pixel: "
            "give the model an output of (1, height, width, classes)"
        )
    return 1, height, width, math.prod(shape) // (height * width)


def _second_channel(ends: Ends, shape: tuple[int, int, int, int], probabilities: bool) -> None:
    """Add a convolution from [p] to [1 − p, p], or from [z] to [0, z]."""
    first, bias = (-1.0, 1.0) if probabilities else (0.0, 0.0)
    weight = ends.constant("second_channel_weight", np.asarray([first, 1], np.float32).reshape(2, 1, 1, 1))
    offset = ends.constant("second_channel_bias", np.asarray([bias, 0], np.float32))
    options = tflite.Conv2DOptionsT()
    options.strideH = options.strideW = options.dilationHFactor = options.dilationWFactor = 1
    options.padding = tflite.Padding.VALID
    both = np.asarray((*shape[:3], 2), np.int32)
    ends.behind(Op.CONV_2D, options, (weight, offset), shape=both, shapeSignature=None)

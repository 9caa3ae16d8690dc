"""Checks a file before native code loads it."""

from __future__ import annotations

import numpy as np

from slimseg import memory_bounds
from slimseg.errors import ModelError
from slimseg.tensors import TensorInfo
from slimseg.tflite.file import File


def check(described: File) -> None:
    """Refuse a file that cannot run, or would use up the machine's memory.

    Raises:
        ModelError: an input has no fixed size or is not numeric, or tensors are larger than memory.
    """
    for tensor in described.inputs:
        _check_input(described, tensor)
    largest = max((operator.memory_bytes for operator in described.operators), default=0)
    if largest > memory_bounds.spared_bytes():
        raise ModelError(
            f"{described.path} needs {largest / 1e9:.0f} GB of memory for the tensors of one operator, "
            "more than this machine has free: check the sizes in the file"
        )


def _check_input(described: File, tensor: TensorInfo) -> None:
    if any(size < 1 for size in tensor.shape):
        shape = "x".join(str(size) for size in tensor.shape)
        raise ModelError(
            f"{described.path}: input {tensor.name} has no fixed size ({shape}): export the model with one"
        )
    try:
        numeric = np.dtype(tensor.dtype).kind in "biuf"
    except TypeError:
        numeric = False
    if not numeric:
        raise ModelError(
            f"{described.path}: input {tensor.name} holds {tensor.dtype} values instead of numbers: "
            "give a model whose inputs are images"
        )

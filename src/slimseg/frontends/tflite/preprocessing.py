"""The preprocessing that the type of a file's input implies, from an image's bytes to the network's values.

float32                       implies nothing: the default, unless the user gives mean and std
uint8, int8 with a scale      real = scale · (byte − zero point), the same for all channels
integers without a scale      the bytes themselves: the network preprocesses them itself
"""

from __future__ import annotations

from slimseg.graph.preprocessing import Preprocessing
from slimseg.tensors import TensorInfo

_INTEGERS = ("uint8", "int8", "int16", "uint16", "int32", "uint32", "int64")


def implied(image: TensorInfo) -> tuple[Preprocessing, str]:
    """The preprocessing, and a note if it is a guess, else an empty string."""
    offset = 128 if image.dtype == "int8" else 0  # an int8 input takes the byte minus 128
    if image.dtype in _INTEGERS and not image.scale:
        note = (
            "its int8 input has no scale: understood as the image's bytes minus 128, without a division"
            if offset
            else ""
        )
        return Preprocessing.of(float(offset), 1.0), f"{note}; give `mean` and `std` if that is wrong" if note else ""
    if image.dtype not in ("uint8", "int8"):
        return Preprocessing(), ""
    mean, std = float(image.zero_point + offset), 1 / image.scale
    return Preprocessing.of(mean, std), (
        f"its {image.dtype} input has scale {image.scale:.6g} and zero point {image.zero_point}: understood as mean "
        f"{mean:g} and std {std:.6g} of every channel; give `mean` and `std` if it was trained with values per channel"
    )

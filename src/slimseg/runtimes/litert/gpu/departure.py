"""The first layer whose values on the GPU depart from the CPU's: found by running the beginnings of a file.

A delegate shows no values between its layers, so each candidate becomes the output of a file that ends with it. An
error goes through all layers behind it, so that a binary search finds the first: about eight files for a network of
200 operators.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from slimseg.disk import scratch
from slimseg.results import Departure
from slimseg.runtimes.litert import session
from slimseg.runtimes.litert.gpu.alone import relative_difference
from slimseg.tensors import dequantise
from slimseg.tflite import file, prefix

TOLERANCE = 0.02  # largest difference that rounding explains, as a share of the layer's largest value
Array = np.ndarray[Any, Any]
Predict = Callable[[Path, Array], Array]


def first(path: Path, image: Array, predict: Predict) -> Departure | None:
    """The first operator that departs on one input (1, H, W, C) of the file; None if its own output agrees.

    Args:
        predict: outputs of a file on the GPU.

    Raises:
        ModelError: the file is damaged.
        RuntimeFailure: a part of it was refused.
    """
    found, model = file.opened(path)
    candidates = [each for each in found.operators if each.dtype in ("float32", "int8", "uint8") and each.inputs]
    known: dict[int, float] = {}

    def difference(place: int) -> float:
        if place not in known:
            with scratch.folder() as folder:
                part = folder / "beginning.tflite"
                file.save(prefix.until(model, candidates[place].index), part)
                known[place] = _difference(part, image, predict)
        return known[place]

    low, high = 0, len(candidates) - 1
    if not candidates or difference(high) <= TOLERANCE:
        return None
    while low < high:
        middle = (low + high) // 2
        if difference(middle) > TOLERANCE:
            high = middle
        else:
            low = middle + 1
    before = candidates[low - 1].name if low else ""
    return Departure(candidates[low].name, difference(low), before)


def _difference(path: Path, image: Array, predict: Predict) -> float:
    output = file.read(path).outputs[0]
    own, truth = predict(path, image), session.predict(path, image, raw=True)
    return relative_difference(dequantise(own, output), dequantise(truth, output))

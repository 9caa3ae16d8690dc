"""Finds the layers of a file whose values on an NPU depart from those on the CPU.

LiteRT's plugin can make every value of the network an output of the network that Qualcomm's compiler gets, each with
the number of its tensor in the file. One simulated inference then gives all of them. A layer that is off passes that
on, so what counts is how much a layer adds to the difference of its inputs.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slimseg.disk import scratch
from slimseg.results import Departure
from slimseg.results.placement import LayerDifference
from slimseg.runtimes import child
from slimseg.runtimes.litert.npu import compiler, simulator
from slimseg.runtimes.litert.npu.socs import Soc
from slimseg.tflite import file

CLEARLY_OFF_PERCENT = 5.0  # of a layer's values: more than rounding to float16 or to 8 bits explains
EVERY_VALUE = "--qualcomm_dump_tensor_ids=-1"
_DUMPED = re.compile(r"_litert_(\d+)_dump$")


def first(found: Sequence[LayerDifference]) -> Departure | None:
    """The first layer that is clearly off."""
    before = ""
    for each in found:
        if each.difference_percent > CLEARLY_OFF_PERCENT:
            return Departure(each.name, each.difference_percent / 100, before)
        before = each.name
    return None


def differences(
    path: Path, value: NDArray[Any], soc: Soc, timeout_s: float | None = None
) -> tuple[LayerDifference, ...]:
    """For every operator whose value both have, in the file's order, how far the simulated NPU's is from the CPU's.

    Args:
        value: one input (1, height, width, channels), in the file's own type.

    Raises: as `simulator.predict`.
    """
    operators = file.operators(path)
    with scratch.folder() as folder:
        dlc = simulator.translated(path, soc, folder, EVERY_VALUE)
        found: dict[int, tuple[float, float]] = child.shared(simulator.PURPOSE).call(
            f"{__name__}:compared", str(compiler.installed().folder), dlc, soc, str(path), value,
            timeout_s=timeout_s, about=path,
        )  # fmt: skip
    result = []
    for each in operators:
        if each.outputs[0] in found:
            off, largest = found[each.outputs[0]]
            read = [found[tensor] for tensor in each.inputs if tensor in found]
            before = max((share for share, _ in read), default=0.0)
            largest = max(largest, *(size for _, size in read)) if read else largest
            result.append(LayerDifference(each.name, each.op, 100 * off, 100 * max(0.0, off - before), largest))
    return tuple(result)


def compared(folder: str, dlc: str, soc: Soc, path: str, value: NDArray[Any]) -> dict[int, tuple[float, float]]:
    """By number of a tensor, the difference as a share of the CPU's values, and the largest of them. In the child."""
    from slimseg.runtimes.litert.npu.qnn import Network

    network = Network(Path(folder), Path(dlc), soc.number, soc.takes_floats)
    outputs = network.run(value)
    last = file.operators(path)[-1].outputs[0]
    theirs = {int(found[1]): each.value for each in outputs if (found := _DUMPED.search(each.name))}
    for each in outputs:
        if not _DUMPED.search(each.name):
            theirs[last] = each.value
    network.close()
    return _compared(path, value, theirs)


def _compared(path: str, value: NDArray[Any], theirs: Mapping[int, NDArray[Any]]) -> dict[int, tuple[float, float]]:
    from ai_edge_litert.interpreter import Interpreter

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "intended for debugging purposes only"
        interpreter = Interpreter(model_path=path, experimental_preserve_all_tensors=True)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], value)
    interpreter.invoke()
    found = {}
    for detail in interpreter.get_tensor_details():
        index = detail["index"]
        if index in theirs and theirs[index].size:
            ours = interpreter.get_tensor(index)
            if ours.size == theirs[index].size:
                scale, zero_point = detail["quantization"]
                found[index] = _share(ours, theirs[index], zero_point), _largest(ours, scale or 1.0, zero_point)
    return found


def _largest(ours: NDArray[Any], scale: float, zero_point: int) -> float:
    return float(scale * np.abs(ours.astype(np.float64) - zero_point).max())


def _share(ours: NDArray[Any], theirs: NDArray[Any], zero_point: int) -> float:
    truth = ours.ravel().astype(np.float64) - zero_point
    off = theirs.ravel().astype(np.float64) - zero_point - truth
    size = float(np.sqrt(np.mean(np.square(truth))))
    share = float(np.sqrt(np.mean(np.square(off)))) / (size or 1.0)
    return share if np.isfinite(share) else float("inf")

"""Measures the activations of a float `.tflite` on images: minima and maxima, and histograms between given limits.

Both are measured in the child, one image at a time, by an interpreter that keeps every tensor.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from slimseg.errors import DataError, ModelError
from slimseg.runtimes import child
from slimseg.runtimes.quantiser import Ranges
from slimseg.tflite import costs, file, tensor_names

Array = np.ndarray[Any, Any]
BINS = 2048
_CHUNK_BYTES = 64 << 20  # most bytes of samples per message to the child
_VALUES = 1 << 17  # most values per tensor and image that a histogram counts, evenly spread


def extremes(path: str | Path, samples: Sequence[Array], threads: int = 1) -> dict[str, Array]:
    """Minimum and maximum of every float activation on each sample, (samples, 2), by tensor name.

    Args:
        samples: inputs of the file, each (1, H, W, C) or (H, W, C) float32, preprocessed.

    Raises:
        DataError: there is no sample, or one has a wrong shape.
        ModelError: the file is missing or damaged, or an activation is not finite.
        RuntimeFailure: the runtime refused the file or crashed.
    """

    def measured(batch: Array) -> dict[str, Array]:
        target = "slimseg.runtimes.litert.quantising.activations:_extremes"
        found: dict[str, Array] = child.call(target, str(path), batch, threads, about=path)
        return found

    parts = [measured(batch) for batch in _batches(path, samples)]
    result = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    for name, values in result.items():
        if not np.isfinite(values).all():
            raise ModelError(f"{path} computes NaN or infinity in {name} on the images: train or export it again")
    return result


def histograms(path: str | Path, samples: Sequence[Array], ends: Ranges, threads: int = 1) -> dict[str, Array]:
    """Histogram of every float activation over all samples, (BINS,) counts, by tensor name.

    Of a large tensor only evenly spaced values are counted, with a different offset for each sample.

    Args:
        ends: (low, high) of the histogram of each tensor; values outside are counted in the outer bins.

    Raises:
        DataError, ModelError, RuntimeFailure: as `extremes`.
    """
    target = "slimseg.runtimes.litert.quantising.activations:_histograms"
    total: dict[str, Array] = {}
    for batch in _batches(path, samples):
        counts: dict[str, Array] = child.call(target, str(path), batch, dict(ends), threads, about=path)
        total = {name: value + total.get(name, 0) for name, value in counts.items()}
    return total


def values(path: str | Path, sample: Array, names: Sequence[str], threads: int = 1) -> dict[str, Array]:
    """Values for one input, by tensor name; names that are no float activations of the file are left out.

    Raises:
        ModelError, DataError, RuntimeFailure: as `extremes`.
    """
    target = "slimseg.runtimes.litert.quantising.activations:_values"
    batch = _checked(path, sample, file.read(path).inputs[0].shape)[None]
    found: dict[str, Array] = child.call(target, str(path), batch, set(names), threads, about=path)
    return found


def names(path: str | Path) -> tuple[str, ...]:
    """Names of all float activations. Raises: ModelError."""
    return tuple(_activations(str(path)).values())


def _batches(path: str | Path, samples: Sequence[Array]) -> list[Array] | Any:
    """Samples in batches (N, 1, H, W, C) of the size of a message; a lazy sequence is read batch by batch."""
    shape = file.read(path).inputs[0].shape
    if not len(samples):
        raise DataError(f"{path} cannot be quantised without an image for calibration: give at least one")
    step = max(1, _CHUNK_BYTES // (4 * math.prod(shape)))
    return (
        np.stack([_checked(path, samples[index], shape) for index in range(start, min(start + step, len(samples)))])
        for start in range(0, len(samples), step)
    )


def _checked(path: str | Path, sample: Array, shape: tuple[int, ...]) -> Array:
    if tuple(sample.shape) not in (shape, shape[1:]):
        raise DataError(f"{path} needs inputs of shape {shape}, not {tuple(sample.shape)}")
    return np.asarray(sample, np.float32).reshape(shape)


def _values(path: str, samples: Array, names: set[str], threads: int) -> dict[str, Array]:
    """The part of `values` that runs in the child."""
    found: dict[str, Array] = {}

    def look(name: str, value: Array, _number: int) -> None:
        if name in names:
            found[name] = value.copy()

    _run(path, samples, threads, look)
    return found


def _extremes(path: str, samples: Array, threads: int) -> dict[str, Array]:
    """The part of `extremes` that runs in the child."""
    found: dict[str, list[tuple[float, float]]] = {}

    def look(name: str, value: Array, _number: int) -> None:
        found.setdefault(name, []).append((value.min(), value.max()))

    _run(path, samples, threads, look)
    return {name: np.asarray(ends, np.float64) for name, ends in found.items()}


def _histograms(path: str, samples: Array, ends: dict[str, tuple[float, float]], threads: int) -> dict[str, Array]:
    """The part of `histograms` that runs in the child."""
    counts = {name: np.zeros(BINS, np.int64) for name in ends}

    def look(name: str, value: Array, number: int) -> None:
        low, high = ends[name]
        if high > low:
            bins = ((_part(value, number) - low) * (BINS / (high - low))).astype(np.int32)
            counts[name] += np.bincount(np.clip(bins, 0, BINS - 1), minlength=BINS)

    _run(path, samples, threads, look)
    return counts


def _part(value: Array, number: int) -> Array:
    """At most `_VALUES` of a tensor's values, evenly spaced, with the same share of each channel."""
    step = -(-value.size // _VALUES)
    while math.gcd(step, value.shape[-1] if value.ndim else 1) > 1:
        step += 1
    return value.reshape(-1)[number % step :: step]


def _run(path: str, samples: Array, threads: int, look: Callable[[str, Array, int], None]) -> None:
    """Call `look` with every float activation of every sample: its name, its values, and the sample's number."""
    from ai_edge_litert.interpreter import Interpreter

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "intended for debugging purposes only"
        interpreter = Interpreter(model_path=path, num_threads=threads, experimental_preserve_all_tensors=True)
    interpreter.allocate_tensors()
    names = _activations(path)
    wanted = [each["index"] for each in interpreter.get_tensor_details() if each["index"] in names]
    for number, sample in enumerate(samples):
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], sample)
        interpreter.invoke()
        for index in wanted:
            value = interpreter.get_tensor(index)
            if value.size:
                look(names[index], value, number)


def _activations(path: str) -> dict[int, str]:
    """Names of the file's float activations, its input included, by tensor index."""
    model = file.parse(Path(path).read_bytes(), Path(path))
    tensor_names.make_unique(model)
    graph = model.subgraphs[0]
    computed = {int(i) for i in graph.inputs} | {int(i) for op in graph.operators for i in op.outputs}
    tensors = costs.Tensors(model)
    return {
        index: graph.tensors[index].name.decode(errors="replace")
        for index in computed
        if costs.dtype_name(graph.tensors[index]) == "float32" and not tensors.is_constant(index)
    }

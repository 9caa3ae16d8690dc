"""Static int8 of any float `.tflite`: ai-edge-quantizer, with our own pass for the ranges of activations.

    Given   float file, samples (1, H, W, C) float32, or ranges {tensor name: (min, max)} learnt elsewhere
    Result  weights int8 symmetric per output channel, activations int8 asymmetric per tensor, biases int32

The range of a tensor is the mean over samples of its minimum and of its maximum: like the moving average of
ai-edge-quantizer's calibrator, but independent of the samples' order. Measuring it here also takes files that
its calibrator cannot (without a signature, or with operator codes from before schema 3a).
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from slimseg.errors import DataError, ModelError
from slimseg.runtimes import child
from slimseg.runtimes.litert import byte_input, costs, dead_filters, file, spelling, weak_addends

Array = np.ndarray[Any, Any]
Ranges = Mapping[str, tuple[float, float]]
Io = Literal["float32", "int8", "image"]
_CHUNK_BYTES = 64 << 20  # of samples per message to the child


def quantize_int8(
    float_path: str | Path,
    out_path: str | Path,
    samples: Sequence[Array],
    io: Io = "float32",
    ranges: Ranges | None = None,
    threads: int = 1,
    timeout_s: float | None = None,
    within: child.Child | None = None,
) -> None:
    """Write `out_path` as the int8 form of `float_path`, description included (the quantiser keeps metadata).

    Args:
        samples: inputs of the file, each (1, H, W, C) or (H, W, C) float32, preprocessed.
        io: "float32" keeps float input and output, quantised and dequantised by the file itself; "image" takes the
            RGB bytes (uint8) as they are and gives int8, for a preprocessing that `takes_bytes`
            (`techniques.image_input.fold` brings most networks there).
        ranges: (min, max) by tensor name, taking precedence over those measured on `samples`.

    Raises:
        ModelError: the file is missing, damaged or already quantised, or cannot take bytes.
        DataError: no sample, or one of the wrong shape.
        OutputError: `out_path` cannot be written.
        RuntimeFailure: the runtime or the quantiser refused the file.
    """
    source = file.read(float_path)
    if source.inputs[0].dtype != "float32" or any(operator.dtype == "int8" for operator in source.operators):
        raise ModelError(f"{float_path} is quantised already: give the float model")
    given = {**(byte_input.ranges(source) if io == "image" else {}), **(ranges or {})}
    measured = measure_ranges(float_path, samples, threads, timeout_s, within)
    target = "slimseg.runtimes.litert.quantizer:_quantise"
    data: bytes = (within or child.shared()).call(
        target, str(float_path), {**measured, **given}, io, timeout_s=timeout_s, about=float_path
    )
    if io == "image":
        data = byte_input.taking_bytes(data)
    file.save(data, out_path)


def measure_ranges(
    path: str | Path,
    samples: Sequence[Array],
    threads: int = 1,
    timeout_s: float | None = None,
    within: child.Child | None = None,
) -> dict[str, tuple[float, float]]:
    """Mean minimum and maximum of every float activation of `path` over `samples`, by tensor name.

    Raises:
        DataError: no sample, or one of the wrong shape.
        ModelError, RuntimeFailure: as for `quantize_int8`.
    """
    shape = file.read(path).inputs[0].shape
    if not len(samples):
        raise DataError(f"{path} cannot be quantised without a sample image: give at least one")
    for sample in samples:
        if tuple(sample.shape) not in (shape, shape[1:]):
            raise DataError(f"{path} wants samples of {shape}, not {tuple(sample.shape)}")
    step = max(1, _CHUNK_BYTES // (4 * int(np.prod(shape))))
    total: dict[str, Array] = {}
    for start in range(0, len(samples), step):
        batch = np.stack([np.asarray(each, np.float32).reshape(shape) for each in samples[start : start + step]])
        sums: dict[str, Array] = (within or child.shared()).call(
            "slimseg.runtimes.litert.quantizer:_sum_ranges", str(path), batch, threads, timeout_s=timeout_s, about=path
        )
        total = {name: value + total.get(name, 0.0) for name, value in sums.items()}
    return {name: (float(low), float(high)) for name, (low, high) in ((n, v / len(samples)) for n, v in total.items())}


def _sum_ranges(path: str, samples: Array, threads: int) -> dict[str, Array]:
    """Sums over `samples` (N, 1, H, W, C) of [min, max] of every float activation. For the child."""
    from ai_edge_litert.interpreter import Interpreter

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "intended for debugging purposes only"
        interpreter = Interpreter(model_path=path, num_threads=threads, experimental_preserve_all_tensors=True)
    interpreter.allocate_tensors()
    wanted = _activations(path)
    details = [each for each in interpreter.get_tensor_details() if each["index"] in wanted]
    sums = {wanted[each["index"]]: np.zeros(2) for each in details}
    for sample in samples:
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], sample)
        interpreter.invoke()
        for each in details:
            value = interpreter.get_tensor(each["index"])
            sums[wanted[each["index"]]] += (value.min(), value.max())
    return sums


def _activations(path: str) -> dict[int, str]:
    """Names of the float tensors that the file computes or is given, by index."""
    model = file.parse(Path(path).read_bytes(), Path(path))
    graph = model.subgraphs[0]
    computed = {int(i) for i in graph.inputs} | {int(i) for op in graph.operators for i in op.outputs}
    tensors = costs.Tensors(model)
    return {
        index: graph.tensors[index].name.decode(errors="replace")
        for index in computed
        if costs.dtype_name(graph.tensors[index]) == "float32" and not tensors.is_constant(index)
    }


def _quantise(path: str, ranges: Ranges, io: str) -> bytes:
    """The quantised file's bytes. For the child."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from ai_edge_quantizer import quantizer, recipe

        logging.getLogger().setLevel(logging.ERROR)
        modern, added = _modern(Path(path), ranges)
        worker = quantizer.Quantizer(modern, recipe.static_wi8_ai8())
        if io == "float32":
            for end in ("INPUT", "OUTPUT"):
                worker.update_quantization_recipe(".*", end, algorithm_key=quantizer.AlgorithmName.NO_QUANTIZE)
        calibration = {
            name: {"min": np.array([[low]]), "max": np.array([[high]])}
            for name, (low, high) in {**added, **ranges}.items()
        }
        result = worker.quantize(calibration, enable_progress_bar=False, enable_progress_report=False)
    model = file.parse(bytes(result.quantized_model), Path(path))
    weak_addends.strengthen(model)
    return file.pack(model)  # shares what the quantiser repeats


def _modern(path: Path, ranges: Ranges) -> tuple[bytes, Ranges]:
    """The file as ai-edge-quantizer expects it and as XNNPACK runs it best in 8 bits, and ranges of what that adds.

    The quantiser takes old operator codes for ADD and fails without signatures.
    """
    model = file.parse(path.read_bytes(), path)
    model.signatureDefs = model.signatureDefs or []
    for entry in model.operatorCodes:
        entry.builtinCode = costs.op_code(entry)
    added = spelling.for_int8(model)
    dead_filters.revive(model, {**added, **ranges})
    return file.pack(model), added

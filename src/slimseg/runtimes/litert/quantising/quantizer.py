"""Every post-training scheme for any float `.tflite`: litert-quantizer, with slimseg's own calibrated ranges.

    scheme        weights                       activations                      operators compute in
    float16       float16                       float32                          float32, from converted weights
    weight-only   int8 per output channel       float32                          float32, from dequantised weights
    dynamic       int8 per output channel       float32, int8 within operators   int8, ranges found at run time
    int8          int8 per output channel       int8 asymmetric per tensor       int8
    int16x8       int8 per output channel       int16 symmetric per tensor       int8 x int16

Weights are symmetric, biases int32 (int64 with int16 activations). Zero points of 16-bit tensors must be 0 in LiteRT's
kernels, so a range is made symmetric with its larger side; XNNPACK has no kernels for int16x8, and the built-in ones
are unoptimised loops.
"""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from slimseg.errors import ModelError
from slimseg.runtimes import child
from slimseg.runtimes.litert.quantising import (
    activations,
    byte_input,
    dead_filters,
    float_islands,
    integer_kernels,
    narrow_outputs,
    spelling,
    weak_addends,
)
from slimseg.runtimes.litert.quantising.spelling import transposed
from slimseg.runtimes.quantiser import STATIC, Ends, Ranges, Scheme
from slimseg.tflite import costs, file, tensor_names

Array = np.ndarray[Any, Any]
_ALL = ".*"
_ENDS = ("INPUT", "OUTPUT")
_ROUNDS = 20  # most rounds of widening ranges: each may make the next layer's range too narrow
_CONVERSIONS = ("QUANTIZE", "DEQUANTIZE")


def quantize(
    float_path: str | Path,
    out_path: str | Path,
    scheme: Scheme,
    ranges: Ranges | None = None,
    io: Ends = "float32",
    keep_float: Collection[str] = (),
) -> None:
    """Quantise `float_path` with a scheme and write `out_path`, with the description (the quantiser keeps metadata).

    Args:
        ranges: (min, max) of every activation by tensor name; for the static schemes only.
        io: "float32" keeps float input and output, which the file itself quantises and dequantises. "int8" has int8
            input and output. "image" takes RGB bytes (uint8) unchanged and gives int8; it needs a preprocessing that
            `takes_bytes`, which `graph.image_input.fold` gives most networks. Schemes other than int8 have only
            "float32".
        keep_float: names of operators, or of the tensors that they compute; these operators stay in float32, between
            conversions.

    Raises:
        ModelError: the file is missing, damaged or already quantised, has weights that are not finite, or cannot take
            bytes.
        OutputError: `out_path` cannot be written.
        RuntimeFailure: the runtime or the quantiser refused the file.
        ValueError: a static scheme has no ranges, or the scheme does not have this `io`.
    """
    source = check(float_path)
    if scheme in STATIC and not ranges:
        raise ValueError(f"{scheme} needs the ranges of activations")
    if io != "float32" and scheme != "int8":
        raise ValueError(f"{scheme} has float32 input and output only, not {io}")
    given = byte_input.ranges(source) if io == "image" else {}
    _write(source, out_path, scheme, {**given, **(ranges or {})}, io, keep_float)


def quantize_int8(
    float_path: str | Path,
    out_path: str | Path,
    samples: Sequence[Array],
    io: Ends = "float32",
    ranges: Ranges | None = None,
    threads: int = 1,
) -> None:
    """Quantise to int8 with ranges that are calibrated on `samples`.

    Args:
        samples: inputs of the file, each (1, H, W, C) or (H, W, C) float32, preprocessed.
        ranges: (min, max) by tensor name, used in place of calibrated ranges.

    All other arguments are those of `quantize`.

    Raises:
        DataError: there is no sample, or one has a wrong shape.
        ModelError, OutputError, RuntimeFailure: as for `quantize`.
    """
    source = check(float_path)
    image = byte_input.ranges(source) if io == "image" else {}  # refuses a wrong file before the calibration
    measured = measure_ranges(float_path, samples, threads)
    _write(source, out_path, "int8", {**measured, **image, **(ranges or {})}, io)


def _write(
    source: file.File, out_path: str | Path, scheme: Scheme, ranges: Ranges, io: Ends, keep_float: Collection[str] = ()
) -> None:
    """The part of `quantize` after its checks."""
    target = "slimseg.runtimes.litert.quantising.quantizer:_quantise"
    kept = {*keep_float, *(each.result for each in source.operators if each.name in keep_float)}
    kept |= transposed.kept_together(source.operators, kept)
    data: bytes = child.call(target, str(source.path), scheme, ranges, io, tuple(sorted(kept)), about=source.path)
    if io == "image":
        data = byte_input.taking_bytes(data)
    file.save(data, out_path)


def measure_ranges(path: str | Path, samples: Sequence[Array], threads: int = 1) -> dict[str, tuple[float, float]]:
    """Mean minimum and maximum of every float activation of `path` over `samples`, by tensor name.

    litert-quantizer's calibrator takes a moving average instead, which depends on the samples' order. This function
    also accepts files that the calibrator refuses (without a signature, or with operator codes older than schema 3a).

    Raises:
        DataError: there is no sample, or one has a wrong shape.
        ModelError, RuntimeFailure: as for `quantize`.
    """
    found = activations.extremes(path, samples, threads)
    return {name: (float(low), float(high)) for name, (low, high) in ((n, e.mean(0)) for n, e in found.items())}


def check(path: str | Path) -> file.File:
    """What a file states about itself, if it can be quantised.

    Raises:
        ModelError: the file is missing, damaged or quantised already, or has weights that are not finite.
    """
    source = file.read(path)
    if source.integer or any(_is_quantised(operator) for operator in source.operators):
        raise ModelError(f"{path} is already quantised: give the float model")
    if source.inputs[0].dtype != "float32":
        raise ModelError(f"{path} has {source.inputs[0].dtype} input: give a model with a float32 input")
    place = _not_finite(file.parse(Path(path).read_bytes(), Path(path)))
    if place is not None:
        name = source.operators[place].name
        raise ModelError(f"{path} has NaN or infinite weights in {name}: train or export it again")
    return source


def _is_quantised(operator: file.Operator) -> bool:
    return operator.op in _CONVERSIONS or operator.dtype in ("int8", "int16")


def _not_finite(model: Any) -> int | None:
    """The number of the operator that reads the first constant with NaN or infinity; None if there is none."""
    tensors = costs.Tensors(model)
    for place, operator in enumerate(model.subgraphs[0].operators or []):
        for index in (int(each) for each in operator.inputs if each >= 0):
            data = model.buffers[tensors.tensor(index).buffer].data
            if data is None or costs.dtype_name(tensors.tensor(index)) != "float32":
                continue
            if not np.isfinite(np.frombuffer(bytes(data), np.float32)).all():
                return place
    return None


def _quantise(path: str, scheme: Scheme, ranges: Ranges, io: Ends, keep_float: Collection[str]) -> bytes:
    """The quantised file's bytes. Runs in the child."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from litert_quantizer import quantizer

        logging.getLogger().setLevel(logging.ERROR)
        source, added = _modern(Path(path), ranges, keep_float) if scheme == "int8" else (_plain(Path(path)), {})
        calibration = {**ranges, **added} if scheme in STATIC else {}
        given = file.parse(source, Path(path))
        if scheme == "int8":
            keep_float = {*keep_float, *float_islands.names(given)}
        for _ in range(_ROUNDS):
            if scheme == "int8":
                calibration = integer_kernels.with_kept_ranges(given, calibration)
            model = _quantised(quantizer.Quantizer(source), scheme, calibration, io, keep_float, Path(path))
            wider = narrow_outputs.widened(model, calibration) if scheme == "int8" else {}
            if not wider:
                break
            calibration |= wider
    if scheme == "int8":
        integer_kernels.use(model, keep_float)
        transposed.separate(model)
        weak_addends.strengthen(model)
    return file.pack(model)  # stores what the quantiser repeats only once


def _quantised(worker: Any, scheme: Scheme, ranges: Ranges, io: Ends, keep_float: Collection[str], path: Path) -> Any:
    """The file as quantised by litert-quantizer, as a `ModelT`."""
    _configure(worker, scheme, io, keep_float)
    calibration = {name: {"min": np.array([[low]]), "max": np.array([[high]])} for name, (low, high) in ranges.items()}
    result = worker.quantize(
        calibration if scheme in STATIC else None, enable_progress_bar=False, enable_progress_report=False
    )
    return file.parse(bytes(result.quantized_model), path)


def _configure(worker: Any, scheme: Scheme, io: Ends, keep_float: Collection[str]) -> None:
    """Add the rules of the recipe; if several match an operator, the last applies.

    A rule's regular expression is searched for in the names of the operator's outputs, each followed by a semicolon.
    """
    from litert_quantizer import quantizer

    algorithms = quantizer.AlgorithmName
    if scheme == "float16":
        from litert_quantizer import recipe_manager

        half = recipe_manager.RecipeManager()
        half.add_weight_only_config(_ALL, "*", num_bits=16, algorithm_key=algorithms.FLOAT_CASTING)
        worker.load_quantization_recipe(half.get_quantization_recipe())
    elif scheme == "dynamic":
        worker.add_dynamic_config(_ALL, "*", num_bits=8)
    elif scheme == "weight-only":
        worker.add_weight_only_config(_ALL, "*", num_bits=8)
    else:
        worker.add_static_config(_ALL, "*", activation_num_bits=16 if scheme == "int16x8" else 8, weight_num_bits=8)
    if keep_float:
        names = "|".join(re.escape(name) for name in keep_float)
        worker.update_quantization_recipe(f"(?:^|;)(?:{names});", "*", algorithm_key=algorithms.NO_QUANTIZE)
    if scheme in STATIC:  # the quantiser fails at the value of the border; `integer_kernels` converts it afterwards
        worker.update_quantization_recipe(_ALL, "PADV2", algorithm_key=algorithms.NO_QUANTIZE)
    for end in _ENDS if scheme in STATIC else ():
        if io == "float32":
            worker.update_quantization_recipe(_ALL + ";", end, algorithm_key=algorithms.NO_QUANTIZE)
        else:
            worker.add_static_config(_ALL + ";", end, activation_num_bits=8, weight_num_bits=8)


def _plain(path: Path) -> bytes:
    return file.pack(_parsed(path))


def _modern(path: Path, ranges: Ranges, leave: Collection[str] = ()) -> tuple[bytes, Ranges]:
    """The file rewritten for XNNPACK's 8-bit kernels, and ranges of the tensors that this adds or limits.

    Operators named in `leave`, which stay in float, are not rewritten.
    """
    model = _parsed(path)
    added = spelling.for_int8(model, leave, ranges)
    dead_filters.revive(model, {**ranges, **added})
    return file.pack(model), added


def _parsed(path: Path) -> Any:
    """The file in the form that litert-quantizer needs: it reads old operator codes as ADD, and needs signatures."""
    model = file.parse(path.read_bytes(), path)
    model.signatureDefs = model.signatureDefs or []
    for entry in model.operatorCodes:
        entry.builtinCode = costs.op_code(entry)
    tensor_names.make_unique(model)
    return model

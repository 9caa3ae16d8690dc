"""Runs an `.onnx` file in onnxruntime. Imports no torch, so that the child process starts without waiting for it."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
_NHWC = (0, 2, 3, 1)


def run(path: str, image: Array) -> list[Array]:
    """Every output of an `.onnx` file for an NCHW image. Runs in the child process."""
    import onnxruntime  # type: ignore[import-untyped]

    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    given = session.get_inputs()[0]
    is_nhwc = given.shape[1] != image.shape[1] and given.shape[3] == image.shape[1]
    values = image.transpose(_NHWC) if is_nhwc else image
    kinds = {"tensor(float16)": np.float16, "tensor(double)": np.float64, "tensor(uint8)": np.uint8}
    kind = kinds.get(given.type, np.float32)
    values = np.rint(values).clip(0, 255).astype(kind) if kind == np.uint8 else values.astype(kind)
    results = session.run(None, {given.name: np.ascontiguousarray(values)})
    return [np.asarray(value) for value in results if isinstance(value, np.ndarray)]

"""The GPU delegate on a software driver, and small files for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as tflite

from slimseg.graph.description import Description
from slimseg.runtimes.litert.gpu.processor import GPU, Gpu
from slimseg.tflite.schema import ModelBuilder

Op, Options = tflite.BuiltinOperator, tflite.BuiltinOptions
_SHAPE = (1, 4, 4, 4)


@pytest.fixture(scope="session")
def gpu() -> Gpu:
    """The delegate, where a Vulkan driver works; its child process lives for all tests."""
    if how := GPU.missing():
        pytest.skip(f"the GPU delegate cannot be asked: {how}")
    return GPU


@pytest.fixture
def chain(tmp_path: Path) -> Callable[[str], Path]:
    """Writes a row of operators: "s" SIN and "a" ABS, which are taken, "n" L2_NORMALIZATION, which is refused, and "p",
    the product of a value with itself, which ends the delegate's process."""

    def build(row: str) -> Path:
        builder = ModelBuilder()
        first = last = builder.tensor("x", _SHAPE)
        for number, letter in enumerate(row):
            made = builder.tensor(f"{letter}{number}", _SHAPE)
            _add(builder, letter, last, made)
            last = made
        path = tmp_path / f"{row}.tflite"
        path.write_bytes(builder.finish([first], [last], Description()))
        return path

    return build


def _add(builder: ModelBuilder, letter: str, source: int, result: int) -> None:
    if letter == "p":
        options = tflite.BatchMatMulOptionsT()
        builder.operator(Op.BATCH_MATMUL, (source, source), result, options, Options.BatchMatMulOptions)
    elif letter == "n":
        builder.operator(Op.L2_NORMALIZATION, (source,), result, tflite.L2NormOptionsT(), Options.L2NormOptions)
    else:
        builder.operator({"s": Op.SIN, "a": Op.ABS}[letter], (source,), result)


@pytest.fixture(scope="session")
def noise() -> np.ndarray:
    return np.random.default_rng(0).standard_normal(_SHAPE, np.float32)

"""Weights of 8 bits in the file; the arithmetic stays that of the program.

    palettised   w ≈ table[index], 256 values per layer, found by k-means      constexpr_lut_to_dense
    linear       w ≈ (q − z) · s,  one scale per output channel                constexpr_affine_dequantize

Both operations came with iOS 16. Activations stay 16 bits wide, so neither needs calibration images.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

_VALUES = 256
_ITERATIONS = 30
_BINS = 64  # wide enough that even small layers have some numbers in each

WeightStorage = Literal["float", "palettised", "linear"]


def compressed(coremltools: ModuleType, model: Any, storage: WeightStorage) -> Any:
    """The model with its weights stored so; layers of fewer than 2048 weights (coremltools' limit) stay as they are."""
    if storage == "float":
        return model
    import coremltools.optimize.coreml as optimise

    if storage == "palettised":
        # coremltools' own k-means asks for scikit-learn where a layer is small.
        table = optimise.OpPalettizerConfig(mode="custom", lut_function=palette)
        return optimise.palettize_weights(model, optimise.OptimizationConfig(global_config=table))
    linear = optimise.OpLinearQuantizerConfig(mode="linear_symmetric", dtype="int8", granularity="per_channel")
    return optimise.linear_quantize_weights(model, optimise.OptimizationConfig(global_config=linear))


def palette(weights: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.uint8]]:
    """(table (256,), indices like `weights`): Lloyd's k-means on numbers.

    Up to 256 different numbers are stored as they are.
    """
    values, where, counts = np.unique(weights, return_inverse=True, return_counts=True)
    table = np.zeros(_VALUES)
    if len(values) <= _VALUES:
        table[: len(values)] = values
        return table.astype(weights.dtype), where.reshape(weights.shape).astype(np.uint8)
    exact = values.astype(np.float64)
    table = _companded(exact, counts)
    for _ in range(_ITERATIONS):
        nearest = _nearest(exact, table)
        total = np.bincount(nearest, counts, _VALUES)
        sums = np.bincount(nearest, counts * exact, _VALUES)
        table = np.sort(np.where(total > 0, sums / np.maximum(total, 1), table))
    rounded = table.astype(weights.dtype)
    return rounded, _nearest(exact, table)[where].reshape(weights.shape).astype(np.uint8)


def _companded(values: NDArray[np.float64], counts: NDArray[Any]) -> NDArray[np.float64]:
    """Where k-means begins: as dense as the cube root of the density, best for many values (Panter and Dite, 1951)."""
    density, edges = np.histogram(values, _BINS, weights=counts)
    share = np.concatenate([[0.0], np.cumsum(np.cbrt(density))])
    return np.asarray(np.interp((np.arange(_VALUES) + 0.5) / _VALUES, share / share[-1], edges), np.float64)


def _nearest(values: NDArray[Any], table: NDArray[Any]) -> NDArray[np.int64]:
    """Index of the entry of a sorted table that is nearest to each value."""
    return np.searchsorted((table[1:] + table[:-1]) / 2, values)

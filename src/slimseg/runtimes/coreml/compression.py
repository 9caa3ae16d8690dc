"""Stores weights in 8 bits in the file; the precision of the arithmetic does not change.

    palettised   w ≈ table[index], 256 values per layer, found by k-means      constexpr_lut_to_dense
    linear       w ≈ (q − z) · s,  one scale per output channel                constexpr_affine_dequantize

Both operations need iOS 16. Activations keep 16 bits, so no calibration images are needed.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

_VALUES = 256
_ITERATIONS = 30
_BINS = 64  # bins of the histogram of weights; so few that small layers have weights in most of them

WeightStorage = Literal["float", "palettised", "linear"]


def compressed(coremltools: ModuleType, model: Any, storage: WeightStorage) -> Any:
    """The model with compressed weights; layers of fewer than 2048 weights (coremltools' limit) are not changed."""
    if storage == "float":
        return model
    import coremltools.optimize.coreml as optimise

    if storage == "palettised":
        # coremltools' own k-means needs scikit-learn for small layers.
        table = optimise.OpPalettizerConfig(mode="custom", lut_function=palette)
        return optimise.palettize_weights(model, optimise.OptimizationConfig(global_config=table))
    linear = optimise.OpLinearQuantizerConfig(mode="linear_symmetric", dtype="int8", granularity="per_channel")
    return optimise.linear_quantize_weights(model, optimise.OptimizationConfig(global_config=linear))


def palette(weights: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.uint8]]:
    """A table (256,) and indices of the shape of `weights`, by Lloyd's k-means in one dimension.

    If there are at most 256 different weights, they are stored exactly.
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
    """Initial table of k-means, with entries as dense as the cube root of the weights' density.

    That is optimal for large tables (Panter and Dite, 1951).
    """
    density, edges = np.histogram(values, _BINS, weights=counts)
    share = np.concatenate([[0.0], np.cumsum(np.cbrt(density))])
    return np.asarray(np.interp((np.arange(_VALUES) + 0.5) / _VALUES, share / share[-1], edges), np.float64)


def _nearest(values: NDArray[Any], table: NDArray[Any]) -> NDArray[np.int64]:
    """Index of the entry of a sorted table that is nearest to each value."""
    return np.searchsorted((table[1:] + table[:-1]) / 2, values)

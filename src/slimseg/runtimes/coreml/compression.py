"""Weights of 8 bits in the file; the arithmetic stays that of the program.

    palettised   w ≈ table[index], 256 values per layer, found by k-means      constexpr_lut_to_dense
    linear       w ≈ (q − z) · s,  one scale per output channel                constexpr_affine_dequantize

Both operations came with iOS 16. Activations stay 16 bits wide, so neither needs calibration images.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any, Literal

WeightStorage = Literal["float", "palettised", "linear"]


def compressed(coremltools: ModuleType, model: Any, storage: WeightStorage) -> Any:
    """The model with its weights stored so; layers of fewer than 2048 weights (coremltools' limit) stay as they are."""
    if storage == "float":
        return model
    import coremltools.optimize.coreml as optimise

    if storage == "palettised":
        table = optimise.OpPalettizerConfig(mode="kmeans", nbits=8)
        return optimise.palettize_weights(model, optimise.OptimizationConfig(global_config=table))
    linear = optimise.OpLinearQuantizerConfig(mode="linear_symmetric", dtype="int8", granularity="per_channel")
    return optimise.linear_quantize_weights(model, optimise.OptimizationConfig(global_config=linear))

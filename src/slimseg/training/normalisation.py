"""Batch norm after an edit: its mean and variance are of features that no longer exist, so they are measured anew.

No gradient is needed and a hundred images are enough; of a network whose channels were cut it brings back the
greater part of what was lost (Li et al., "EagleEye: Fast Sub-net Evaluation for Efficient Neural Network Pruning",
2020, section 3.3, "adaptive batch normalization").
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import chain

import torch
from torch import Tensor, nn


@torch.no_grad()
def recalibrate(module: nn.Module, batches: Iterable[Tensor], chosen: Callable[[str], bool] = lambda _: True) -> None:
    """Set the statistics of batch norm layers to their averages over some batches; weights stay as they are.

    Args:
        module: changed in place; left in eval mode.
        batches: preprocessed images (N, 3, H, W); none: all statistics stay as they are.
        chosen: by the layer's name, whether it is measured; the others keep what they have.
    """
    layers = [layer for name, layer in module.named_modules() if isinstance(layer, nn.BatchNorm2d) and chosen(name)]
    module.eval()
    images = iter(batches)
    first = next(images, None) if layers else None
    if first is None:
        return  # nothing to measure, or to measure it on: what they have is better than nothing
    momentum = [layer.momentum for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # a plain average over all batches
        layer.train()
    try:
        for batch in chain([first], images):
            module(batch)
    finally:
        module.eval()
        for layer, was in zip(layers, momentum, strict=True):
            layer.momentum = was

"""Recalibrate batch norms after an edit: their mean and variance describe the old features, so they are measured anew.

No gradient is needed, and a hundred images are enough. In a network whose channels were pruned it recovers most of the
lost accuracy (Li et al., "EagleEye: Fast Sub-net Evaluation for Efficient Neural Network Pruning", 2020, section 3.3,
"adaptive batch normalization").
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import chain

import torch
from torch import Tensor, nn


@torch.no_grad()
def recalibrate(module: nn.Module, batches: Iterable[Tensor], chosen: Callable[[str], bool] = lambda _: True) -> None:
    """Set the statistics of batch norm layers to their averages over some batches; weights do not change.

    Args:
        module: changed in place; left in eval mode.
        batches: preprocessed images (N, 3, H, W); without any, all statistics stay as they are.
        chosen: whether to measure the layer of a name; other layers keep their statistics.
    """
    layers = [layer for name, layer in module.named_modules() if isinstance(layer, nn.BatchNorm2d) and chosen(name)]
    module.eval()
    images = iter(batches)
    first = next(images, None) if layers else None
    if first is None:
        return  # there is no layer or no image: old statistics are better than none
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

"""One layout for the weights of all layers that mix channels: (groups, outputs and inputs of a group, taps)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from slimseg.graph.ops import Mixing


def by_channels(layer: Mixing) -> Tensor:
    """The layer's weights, detached: (groups, outputs / groups, inputs / groups, taps of the kernel)."""
    if isinstance(layer, nn.Linear):
        return layer.weight.detach()[None, ..., None]
    grouped = torch.unflatten(layer.weight.detach().flatten(2), 0, (layer.groups, -1))
    return grouped.transpose(1, 2) if isinstance(layer, nn.ConvTranspose2d) else grouped


def as_stored(layer: Mixing, weight: Tensor) -> Tensor:
    """Weights in the layout of `by_channels`, converted back to the layer's own layout."""
    ordered = weight.transpose(1, 2) if isinstance(layer, nn.ConvTranspose2d) else weight
    return ordered.reshape(layer.weight.shape)

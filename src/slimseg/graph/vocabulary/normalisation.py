"""Normalisation by an image's own statistics: the core of layer, instance, group and RMS norm."""

from __future__ import annotations

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from slimseg.graph.channel_trace import Channels, ChannelTrace
from slimseg.graph.vocabulary.operator import Operator
from slimseg.graph.vocabulary.rules import from_the_front, same_shape


class Normalise(nn.Module):
    """(x − mean) / √(variance + ε), with the mean and the variance over some dimensions of each image.

    Instance norm is `dims` (2, 3), layer norm of the channels of a map (1,), of a sequence (N, tokens, features) (2,),
    group norm (1, 2, 3) with `groups`. The learnt scale and shift of these layers are an `Affine` after this one.
    (Ba et al., "Layer Normalization", 2016, eq. 3; Wu & He, "Group Normalization", 2018, eq. 1 and 7.)

    Args:
        dims: dimensions that are normalised together, without the batch.
        epsilon: ε.
        groups: number of groups of neighbouring channels that are normalised apart from each other.
        centred: if False, x / √(mean of x² + ε), as in RMS norm (Zhang & Sennrich, 2019, eq. 4).
    """

    def __init__(self, dims: tuple[int, ...], epsilon: float, groups: int = 1, centred: bool = True) -> None:
        super().__init__()
        self.dims = tuple(sorted(map(from_the_front, dims)))
        self.epsilon = epsilon
        self.groups = groups
        self.centred = centred

    def forward(self, x: Tensor) -> Tensor:
        if self.centred and self.groups == 1 and self._is_over_neighbours(x) and not torch.compiler.is_exporting():
            # One kernel instead of five, forwards and backwards. A `.pt2` does not depend on the order in memory.
            return F.layer_norm(x.movedim(1, -1), (x.shape[1],), eps=self.epsilon).movedim(-1, 1)
        if self.groups == 1:
            return self._normal(x, self.dims)
        batch, channels, *pixels = x.shape
        apart = x.reshape(batch, self.groups, channels // self.groups, *pixels)
        return self._normal(apart, tuple(dim + 1 for dim in self.dims)).reshape(x.shape)

    def _is_over_neighbours(self, x: Tensor) -> bool:
        """Whether the values that are normalised together, the channels of a pixel, lie side by side in memory."""
        return self.dims == (1,) and x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last)

    def _normal(self, x: Tensor, dims: tuple[int, ...]) -> Tensor:
        centred = x - x.mean(dims, keepdim=True) if self.centred else x
        return centred * torch.rsqrt(centred.square().mean(dims, keepdim=True) + self.epsilon)

    def extra_repr(self) -> str:
        return f"dims={self.dims}, epsilon={self.epsilon}, groups={self.groups}, centred={self.centred}"


def _channels(trace: ChannelTrace, node: fx.Node, layer: Normalise) -> Channels | None:
    """Channels that share no statistics can leave alone: those of an instance norm."""
    return None if 1 in layer.dims else trace.source(node)


OPERATORS = (Operator(Normalise, same_shape, channels=_channels),)

"""The low-rank form of a k×k convolution: 1x1 -> k×k -> 1x1 on fewer channels (article, section 3.1).

    Given   y = W ∗ x,  W of shape (O, I, k, k)
    Result  y ≈ U · (G ∗ (Vᵀ · x)),  V (I, r), G (s, r, k, k), U (O, s): Tucker's form over outputs and inputs,

            W[o, i] ≈ Σ_ab U[o, a] G[a, b] V[i, b],    UᵀU = 1, VᵀV = 1

For given V the best U are the s leading left singular vectors of W projected on V, unfolded to O × (r·k²); V follows
from U in the same way. Starting from the singular vectors of W itself, a few iterations converge (higher-order
orthogonal iteration: De Lathauwer et al., 2000). The core is the projection of W on both, G = Uᵀ W V. With r = I and
s = O the form is exact.
Kim et al., "Compression of Deep Convolutional Neural Networks for Fast and Low Power Mobile Applications", 2016, eq. 3.

MACs per output pixel fall from O·I·k² to I·r·stride² + s·r·k² + s·O. Ranks are multiples of 8, for which kernels are
fastest. On the decoder of camvid_unet this form with a quarter of the channels approximates W better than one depthwise
+ pointwise pair, and is faster in int8.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from slimseg.blocks.bottleneck import LowRankConv2d
from slimseg.graph.shapes import pair

STEP = 8
PARTS = (2, 4, 8)  # divisors: a half, a quarter or an eighth of the channels is kept
TURNS = 3  # iterations

Ranks = tuple[int, int]  # (r, s): input and output channels of the core


def ranks_worth_trying(convolution: nn.Conv2d) -> list[Ranks]:
    """Ranks that need fewer MACs than the convolution itself, most accurate first."""
    height, width = pair(convolution.kernel_size)
    full = convolution.in_channels * convolution.out_channels * height * width
    tried = [(_part(convolution.in_channels, part), _part(convolution.out_channels, part)) for part in PARTS]
    return [ranks for ranks in dict.fromkeys(tried) if macs(convolution, ranks) < full]


def macs(convolution: nn.Conv2d, ranks: Ranks) -> int:
    """Multiply-accumulates per output pixel of the low-rank form."""
    (height, width), (down, across), (r, s) = pair(convolution.kernel_size), pair(convolution.stride), ranks
    return convolution.in_channels * r * down * across + r * s * height * width + s * convolution.out_channels


def low_rank(convolution: nn.Conv2d, ranks: Ranks) -> LowRankConv2d:
    """The low-rank form nearest to a convolution's weights (Frobenius norm, a local optimum)."""
    weight = convolution.weight.detach().double()
    outputs, inputs = _factors(weight, ranks)
    block = LowRankConv2d(
        convolution.in_channels,
        convolution.out_channels,
        ranks,
        pair(convolution.kernel_size),
        pair(convolution.stride),
        pair(convolution.padding),
        pair(convolution.dilation),
        convolution.bias is not None,
    )
    with torch.no_grad():
        block.reduce.weight.copy_(inputs.T[:, :, None, None])
        block.core.weight.copy_(torch.einsum("oihw,oa,ib->abhw", weight, outputs, inputs))
        block.expand.weight.copy_(outputs[:, :, None, None])
        if convolution.bias is not None and block.expand.bias is not None:
            block.expand.bias.copy_(convolution.bias)
    return block


def _factors(weight: Tensor, ranks: Ranks) -> tuple[Tensor, Tensor]:
    """(U, V) of shape (O, s) and (I, r) for weights (O, I, k, k)."""
    inputs = _leading(weight.transpose(0, 1), ranks[0])
    for _ in range(TURNS):
        outputs = _leading(torch.einsum("oihw,ib->obhw", weight, inputs), ranks[1])
        inputs = _leading(torch.einsum("oihw,oa->iahw", weight, outputs), ranks[0])
    return outputs, inputs


def _leading(values: Tensor, count: int) -> Tensor:
    """The leading left singular vectors (n, count) of values (n, ...), from the small matrix values · valuesᵀ."""
    flat = values.flatten(1)
    vectors: Tensor = torch.linalg.eigh(flat @ flat.T).eigenvectors
    return vectors[:, -count:]


def _part(channels: int, part: int) -> int:
    return max(STEP, round(channels / part / STEP) * STEP)

"""Depthwise separable convolution, and a sum of several of them.

Howard et al., "MobileNets", 2017, section 3.1: a k×k convolution factorised into a depthwise k×k and a pointwise
1x1. Guo et al., "Network Decoupling", 2018, eq. 5: any convolution is a sum of such pairs.
"""

from __future__ import annotations

from torch import Tensor, nn

from slimseg.graph.ops import Add


class SeparableConv2d(nn.Module):
    """Σ_r pointwise_r(depthwise_r(x)), r = 1..`rank`: (N, in, H, W) to (N, out, H', W').

    Only the first pointwise has the bias.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: tuple[int, int],
        stride: tuple[int, int] = (1, 1),
        padding: tuple[int, int] = (0, 0),
        dilation: tuple[int, int] = (1, 1),
        bias: bool = True,
        rank: int = 1,
    ) -> None:
        super().__init__()
        self.rank = rank
        for r in range(rank):
            depthwise = nn.Conv2d(
                in_channels, in_channels, kernel_size, stride, padding, dilation, groups=in_channels, bias=False
            )
            self.add_module(f"depthwise{_number(r)}", depthwise)
            self.add_module(f"pointwise{_number(r)}", nn.Conv2d(in_channels, out_channels, 1, bias=bias and r == 0))
            if r:
                self.add_module(f"sum{_number(r)}", Add())

    def pairs(self) -> list[tuple[nn.Conv2d, nn.Conv2d]]:
        """(depthwise, pointwise) for each r."""
        return [
            (self.get_submodule(f"depthwise{_number(r)}"), self.get_submodule(f"pointwise{_number(r)}"))  # type: ignore[misc]
            for r in range(self.rank)
        ]

    def forward(self, x: Tensor) -> Tensor:
        total: Tensor | None = None
        for r, (depthwise, pointwise) in enumerate(self.pairs()):
            value = pointwise(depthwise(x))
            total = value if total is None else self.get_submodule(f"sum{_number(r)}")(total, value)
        assert total is not None
        return total


def _number(r: int) -> str:
    return "" if r == 0 else str(r + 1)

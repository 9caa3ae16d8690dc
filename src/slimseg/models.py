"""Small segmentation networks to train, for example as students of a larger network.

    graph = slimseg.models.build(["road", "car", "tree"], input_size=(256, 320), block="shuffle")
    graph.module.train()                                # a torch.fx.GraphModule, to be trained like any nn.Module

The encoder has one kind of block and goes down to stride 16 or 32. The decoder is a light feature pyramid (Lin et al.,
"Feature Pyramid Networks", 2017): a 1x1 convolution reduces every level to a few channels, and the coarser level is
resized and added. The classifier works at stride 4, before the last resize, on 16 times fewer pixels than the output.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, get_args

from torch import Tensor, nn

from slimseg.blocks.convolution import ConvNorm, depthwise, rounded
from slimseg.blocks.inverted_residual import InvertedResidual
from slimseg.blocks.residual import BasicBlock
from slimseg.blocks.shuffle import ShuffleDownUnit, ShuffleUnit
from slimseg.errors import ModelError
from slimseg.graph.description import Description
from slimseg.graph.edit import trace
from slimseg.graph.graph import Graph
from slimseg.graph.ops import Add, Resize
from slimseg.graph.preprocessing import Preprocessing, in_bytes

Block = Literal["inverted residual", "residual", "shuffle", "separable"]

STEM = 16  # channels at stride 2
STAGES = {4: (24, 2), 8: (40, 3), 16: (80, 4), 32: (128, 3)}  # by stride: channels and blocks, at width 1
DECODER = 48  # channels at width 1
_FINEST = 4  # stride of the classifier


def build(
    classes: int | Sequence[str],
    input_size: tuple[int, int] = (256, 256),
    block: Block = "inverted residual",
    width: float = 1.0,
    stride: Literal[16, 32] = 16,
    mean: float | Sequence[float] | None = None,
    std: float | Sequence[float] | None = None,
) -> Graph:
    """An untrained encoder-decoder: (1, 3, height, width) to logits (1, classes, height, width).

    Weights are drawn from torch's generator (`torch.manual_seed` repeats them).

    Args:
        classes: number of classes, or their names, which are then stored in every file.
        input_size: height and width in pixels, each a multiple of `stride`.
        block: the encoder's blocks: MobileNetV2's inverted residuals, ResNet's basic blocks, ShuffleNetV2's units, or
            plain depthwise separable convolutions (MobileNet).
        width: factor on all channel counts, which are rounded to multiples of 8, or of 16 for shuffle units.
        stride: stride of the coarsest features.
        mean, std: input = (byte - mean) / std, one number or one per channel; by default the input is in [0, 1].

    Raises:
        ModelError: no network can be built from an argument.
    """
    names = () if isinstance(classes, int) else tuple(str(name) for name in classes)
    count = classes if isinstance(classes, int) else len(names)
    _check(count, input_size, block, width, stride)
    network = EncoderDecoder(count, input_size, block, width, stride)
    graph = trace(network.eval(), (1, 3, *input_size), f"{block} {width:g}")
    means, stds, note = in_bytes(mean, std)
    graph.description = Description(Preprocessing.of(means, stds), names)
    graph.notes = (note,) if note else ()
    return graph


def _check(count: int, input_size: tuple[int, int], block: str, width: float, stride: int) -> None:
    if count < 2:
        raise ModelError(f"a segmentation network cannot be built for {count} classes: give 2 or more")
    if block not in get_args(Block):
        raise ModelError(f"block {block!r} is unknown: give one of {', '.join(get_args(Block))}")
    if stride not in (16, 32):
        raise ModelError(f"stride {stride!r} is unknown: give 16 or 32")
    if not 0 < width <= 16:
        raise ModelError(f"width {width!r} cannot multiply numbers of channels: give a number above 0 and up to 16")
    if len(input_size) != 2 or any(side < stride or side % stride for side in input_size):
        raise ModelError(f"input size {input_size!r} does not fit: give height and width as multiples of {stride}")


class EncoderDecoder(nn.Module):
    """(N, 3, H, W) to logits (N, classes, H, W)."""

    def __init__(self, classes: int, input_size: tuple[int, int], block: Block, width: float, stride: int) -> None:
        super().__init__()
        channels = rounded(STEM * width)
        self.stem = ConvNorm(3, channels, 3, 2)
        self.stages, self.lateral, self.resizes, self.sums = (nn.ModuleList() for _ in range(4))
        middle = rounded(DECODER * width)
        for step, (base, blocks) in STAGES.items():
            if step > stride:
                break
            outputs = rounded(base * width, 16 if block == "shuffle" else 8)  # a shuffle unit's branch has half
            self.stages.append(_stage(block, channels, outputs, blocks))
            self.lateral.append(ConvNorm(outputs, middle, activation=None))
            if step > _FINEST:
                self.resizes.append(Resize((2 * input_size[0] // step, 2 * input_size[1] // step)))
                self.sums.append(Add())
            channels = outputs
        self.smooth = nn.Sequential(depthwise(middle), ConvNorm(middle, middle))
        self.classifier = nn.Conv2d(middle, classes, 1)
        self.resize = Resize(input_size)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        levels = []
        for stage, lateral in zip(self.stages, self.lateral, strict=True):
            x = stage(x)
            levels.append(lateral(x))
        y = levels.pop()
        for resize, add in zip(reversed(self.resizes), reversed(self.sums), strict=True):
            y = add(levels.pop(), resize(y))
        return self.resize(self.classifier(self.smooth(y)))  # type: ignore[no-any-return]


def _stage(block: Block, inputs: int, outputs: int, blocks: int) -> nn.Sequential:
    """`blocks` blocks, of which the first has stride 2."""
    make = _MAKERS[block]
    return nn.Sequential(make(inputs, outputs, 2), *(make(outputs, outputs, 1) for _ in range(blocks - 1)))


def _separable(inputs: int, outputs: int, stride: int) -> nn.Module:
    return nn.Sequential(depthwise(inputs, stride, nn.ReLU), ConvNorm(inputs, outputs))


def _shuffle(inputs: int, outputs: int, stride: int) -> nn.Module:
    return ShuffleUnit(outputs) if stride == 1 else ShuffleDownUnit(inputs, outputs, stride)


_MAKERS: dict[Block, Callable[[int, int, int], nn.Module]] = {
    "inverted residual": InvertedResidual,
    "residual": BasicBlock,
    "shuffle": _shuffle,
    "separable": _separable,
}

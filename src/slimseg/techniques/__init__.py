"""The techniques, in the order in which they are tried: those that need least from the user come first.

References such as "(article, section 3.1)" are to the article that `technique.ARTICLE` names.
"""

from __future__ import annotations

from slimseg.techniques.activations import ActivationSpelling
from slimseg.techniques.alignment import FewerChannels, PaddedChannels
from slimseg.techniques.banded_attention import BandedAttention
from slimseg.techniques.bands import Bands
from slimseg.techniques.batch_norm import BatchNorm
from slimseg.techniques.cancel import Cancel
from slimseg.techniques.channels import Channels
from slimseg.techniques.concat_to_sum import ConcatToSum
from slimseg.techniques.depth_to_space import LateDepthToSpace
from slimseg.techniques.dilation import Dilation
from slimseg.techniques.fewer_heads import FewerHeads
from slimseg.techniques.full_resolution import FullResolution
from slimseg.techniques.groups import FewerGroups
from slimseg.techniques.half_branch import HalfBranch
from slimseg.techniques.hard_swish import HardSwish
from slimseg.techniques.head import Head
from slimseg.techniques.input_alignment import InputAlignment
from slimseg.techniques.input_size import InputSize
from slimseg.techniques.late_resize import LateResize
from slimseg.techniques.linear_activations import LinearActivations
from slimseg.techniques.linked_sum import LinkedSum
from slimseg.techniques.merging import Merging
from slimseg.techniques.pooled_attention import PooledAttention
from slimseg.techniques.rows import RowConstants
from slimseg.techniques.separable import Separable
from slimseg.techniques.shortcut import Shortcut
from slimseg.techniques.softmax import TwoClassSoftmax
from slimseg.techniques.stages import StageBlocks
from slimseg.techniques.technique import Found, Settings, Site, Technique
from slimseg.techniques.transposed import Transposed
from slimseg.techniques.upsampling import Upsampling

# They change the network's output, and come first: no other technique needs to consider the layers that they remove.
HEADS: tuple[Technique, ...] = (Head(), TwoClassSoftmax())
# They write the same function in another way, and come last: training and approximations work better on the plain form.
REWRITES: tuple[Technique, ...] = (
    Cancel(),
    ActivationSpelling(),
    Merging(),
    ConcatToSum(),
    FewerGroups(),
    Transposed(),
    LateDepthToSpace(),
    Bands(),
    RowConstants(),
    PaddedChannels(),
)
EXACT: tuple[Technique, ...] = (*HEADS, *REWRITES)
# They need images or labels to recover accuracy; each site states which of the two, and so whether a budget allows it.
APPROXIMATE: tuple[Technique, ...] = (
    Upsampling(),
    Separable(),
    LinkedSum(),
    LinearActivations(),
    HardSwish(),
    BatchNorm(),
    PooledAttention(),
    BandedAttention(),
    FewerHeads(),
    FewerChannels(),
    FullResolution(),
    Dilation(),
    LateResize(),
    StageBlocks(),
    HalfBranch(),
    Shortcut(),  # last: other techniques start at the sums that it removes
)
TECHNIQUES: tuple[Technique, ...] = (*EXACT, InputSize(), *APPROXIMATE, Channels())

# A diagnosis finds and prices these, but a plan does not use them: it chooses the input's size by InputSize.
ONLY_DIAGNOSED: tuple[Technique, ...] = (InputAlignment(),)
DIAGNOSED: tuple[Technique, ...] = (*TECHNIQUES, *ONLY_DIAGNOSED)


def named(name: str) -> Technique:
    """The technique called `name`."""
    return next(technique for technique in DIAGNOSED if technique.name == name)


__all__ = [
    "APPROXIMATE",
    "DIAGNOSED",
    "EXACT",
    "HEADS",
    "ONLY_DIAGNOSED",
    "REWRITES",
    "TECHNIQUES",
    "Found",
    "Settings",
    "Site",
    "Technique",
    "named",
]

"""The techniques, in the order in which they are tried: what asks least of the user first.

"The article", whose sections the techniques name, is `technique.ARTICLE`.
"""

from __future__ import annotations

from slimseg.techniques.activations import ActivationSpelling
from slimseg.techniques.alignment import FewerChannels, PaddedChannels
from slimseg.techniques.bands import Bands
from slimseg.techniques.cancel import Cancel
from slimseg.techniques.channels import Channels
from slimseg.techniques.concat_to_sum import ConcatToSum
from slimseg.techniques.depth_to_space import LateDepthToSpace
from slimseg.techniques.dilation import Dilation
from slimseg.techniques.full_resolution import FullResolution
from slimseg.techniques.groups import FewerGroups
from slimseg.techniques.head import Head
from slimseg.techniques.input_alignment import InputAlignment
from slimseg.techniques.input_size import InputSize
from slimseg.techniques.late_resize import LateResize
from slimseg.techniques.linear_activations import LinearActivations
from slimseg.techniques.linked_sum import LinkedSum
from slimseg.techniques.merging import Merging
from slimseg.techniques.rows import RowConstants
from slimseg.techniques.separable import Separable
from slimseg.techniques.shortcut import Shortcut
from slimseg.techniques.softmax import TwoClassSoftmax
from slimseg.techniques.stages import StageBlocks
from slimseg.techniques.technique import Found, Settings, Site, Technique
from slimseg.techniques.transposed import Transposed
from slimseg.techniques.upsampling import Upsampling

# What leaves the network, and how: first of all, since nothing else sees what they take away.
HEADS: tuple[Technique, ...] = (Head(), TwoClassSoftmax())
# Other ways to write the same function: last of all, since training and approximation read the plain form better.
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
# What needs images or labels to recover from; which of the two, and so what a budget allows, each site says itself.
APPROXIMATE: tuple[Technique, ...] = (
    Upsampling(),
    Separable(),
    LinkedSum(),
    LinearActivations(),
    FewerChannels(),
    FullResolution(),
    Dilation(),
    LateResize(),
    StageBlocks(),
    Shortcut(),  # last: the sums that it takes away are where others start
)
TECHNIQUES: tuple[Technique, ...] = (*EXACT, InputSize(), *APPROXIMATE, Channels())

# Found and priced by a diagnosis, but not planned as edits: an input's size is chosen among all sizes (InputSize).
ONLY_DIAGNOSED: tuple[Technique, ...] = (InputAlignment(),)
DIAGNOSED: tuple[Technique, ...] = (*TECHNIQUES, *ONLY_DIAGNOSED)


def named(name: str) -> Technique:
    """The technique of that name."""
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

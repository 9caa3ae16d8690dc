"""The article's techniques, in the order in which they are tried: what asks least of the user first."""

from __future__ import annotations

from slimseg.techniques.head import Head
from slimseg.techniques.input_size import InputSize
from slimseg.techniques.separable import Separable
from slimseg.techniques.technique import Found, LayerTimes, Site, Technique
from slimseg.techniques.upsampling import Upsampling

TECHNIQUES: tuple[Technique, ...] = (Head(), InputSize(), Upsampling(), Separable())


def named(name: str) -> Technique:
    """The technique of that name."""
    return next(technique for technique in TECHNIQUES if technique.name == name)


__all__ = ["TECHNIQUES", "Found", "LayerTimes", "Site", "Technique", "named"]

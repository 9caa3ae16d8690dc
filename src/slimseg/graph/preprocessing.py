"""How image bytes become the network's input: part of the model, carried into every artefact."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from slimseg.errors import ModelError

ChannelOrder = Literal["rgb", "bgr"]


@dataclass(frozen=True)
class Preprocessing:
    """`input = (byte - mean) / std` per channel, bytes 0-255 in `channel_order`.

    The default maps bytes to [0, 1]. `mean` and `std` are in the units of bytes and given in `channel_order`.
    """

    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (255.0, 255.0, 255.0)
    channel_order: ChannelOrder = "rgb"

    @classmethod
    def of(
        cls,
        mean: float | Sequence[float] | None = None,
        std: float | Sequence[float] | None = None,
        channel_order: str = "rgb",
    ) -> Preprocessing:
        """Build from one number or one per channel.

        Raises:
            ModelError: wrong number of values, one that is not finite, a std that is not positive, or an unknown order.
        """
        if channel_order not in ("rgb", "bgr"):
            raise ModelError(f"channel order {channel_order!r} is unknown: give rgb or bgr")
        means = _three("mean", 0.0 if mean is None else mean)
        stds = _three("std", 255.0 if std is None else std)
        if not all(math.isfinite(value) for value in means):
            raise ModelError(f"mean {means} must be a finite number in every channel")
        if not all(math.isfinite(value) and value > 0 for value in stds):
            raise ModelError(f"std {stds} must be positive and finite in every channel")
        return cls(means, stds, channel_order)  # type: ignore[arg-type]

    @property
    def takes_bytes(self) -> bool:
        """Whether an 8-bit input can be the image's bytes themselves: one scale, and a zero point that is a byte.

        `real = (byte - mean) / std` is then what scale 1/std and zero point `mean` say.
        """
        uniform = len(set(self.mean)) == len(set(self.std)) == 1 and self.channel_order == "rgb"
        return uniform and self.mean[0] in range(256)

    @property
    def byte_range(self) -> tuple[float, float]:
        """The input's value for the bytes 0 and 255, where they are the same in every channel."""
        return (0 - self.mean[0]) / self.std[0], (255 - self.mean[0]) / self.std[0]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def _three(name: str, value: float | Sequence[float]) -> tuple[float, float, float]:
    values = [float(value)] * 3 if isinstance(value, int | float) else [float(v) for v in value]
    if len(values) == 1:
        values = values * 3
    if len(values) != 3:
        raise ModelError(f"{name} needs 1 or 3 values, not {len(values)}")
    return values[0], values[1], values[2]

"""How image bytes become the network's input: part of the model, carried into every artefact."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from slimseg.errors import ModelError

ChannelOrder = Literal["rgb", "bgr"]
BYTE = 255.0  # the largest byte, which is 1 in images in [0, 1]
_LEAST_STD = 0.02  # smallest plausible std of images in [0, 1]; inverses such as 1/255 lie below


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
            raise ModelError(f"mean {means} is not a finite number in every channel: give finite numbers")
        if not all(math.isfinite(value) and value > 0 for value in stds):
            raise ModelError(f"std {stds} is not positive and finite in every channel: give positive numbers")
        return cls(means, stds, channel_order)  # type: ignore[arg-type]

    @property
    def takes_bytes(self) -> bool:
        """Whether an 8-bit input can be the image's bytes themselves: one scale for all channels, `mean` a byte, RGB.

        `(byte - mean) / std` is then the byte dequantised with scale 1/std and zero point `mean`.
        """
        uniform = len(set(self.mean)) == len(set(self.std)) == 1 and self.channel_order == "rgb"
        return uniform and self.mean[0] in range(256)

    @property
    def byte_range(self) -> tuple[float, float]:
        """The input's values for the bytes 0 and 255, if they are the same in every channel: those of channel 0."""
        return (0 - self.mean[0]) / self.std[0], (255 - self.mean[0]) / self.std[0]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def in_bytes(
    mean: float | Sequence[float] | None, std: float | Sequence[float] | None
) -> tuple[Sequence[float] | None, Sequence[float] | None, str]:
    """Convert a user's mean and std to units of bytes, with a note if they were in another unit.

    Most networks are trained on images in [0, 1], with a mean of about 0.5 and a std of about 0.2. No network has such
    values in units of bytes, so values like these are multiplied by 255. A std of 1 with a mean of 0 stays as it is:
    the network reads plain bytes. `Preprocessing` itself takes every number in units of bytes.

    Returns:
        mean, std (None if not given) and the note, which may be empty.

    Raises:
        ModelError: mean and std are in different units, std is the inverse of a std, or `Preprocessing.of` refuses one.
    """
    checked = Preprocessing.of(mean, std)
    means, stds = (None if mean is None else checked.mean), (None if std is None else checked.std)
    if stds and max(stds) < _LEAST_STD:
        raise ModelError(
            f"std {_said(stds)} looks like a factor, but bytes are divided by std: give its inverse, "
            f"{_said([1 / each for each in stds])}"
        )
    mean_in_unit = bool(means and any(means) and max(map(abs, means)) <= 1)
    mean_in_bytes = bool(means and max(map(abs, means)) > 1)
    std_in_unit = bool(stds and max(stds) <= 1 and (min(stds) < 1 or mean_in_unit))
    if (std_in_unit and mean_in_bytes) or (mean_in_unit and stds and not std_in_unit and set(stds) != {BYTE}):
        raise ModelError(
            f"mean {_said(checked.mean)} and std {_said(checked.std)} differ in unit: give both in bytes (0-255), "
            "where input = (byte - mean) / std, or both for images in [0, 1]"
        )
    if not (mean_in_unit or std_in_unit):
        raw = stds is not None and set(stds) == {1.0} and not any(checked.mean)
        return (
            means,
            stds,
            "std 1: the network gets unchanged bytes 0-255; for [0, 1] give std 255" if raw else "",
        )
    new = {"mean": _times_byte(means, mean_in_unit), "std": _times_byte(stds, std_in_unit)}
    both = " and ".join(f"{name} {_said(each)}" for name, each in new.items() if each)
    return new["mean"], new["std"], f"mean and std are understood as for images in [0, 1]; in bytes they are {both}"


def _times_byte(values: Sequence[float] | None, is_in_unit: bool) -> Sequence[float] | None:
    return [BYTE * value for value in values] if values and is_in_unit else values


def _said(values: Sequence[float]) -> str:
    """The values as text; one number if all are equal."""
    return ",".join(f"{value:.6g}" for value in (values[:1] if len(set(values)) == 1 else values))


def _three(name: str, value: float | Sequence[float]) -> tuple[float, float, float]:
    values = [float(value)] * 3 if isinstance(value, int | float) else [float(v) for v in value]
    if len(values) == 1:
        values = values * 3
    if len(values) != 3:
        raise ModelError(f"{name} needs 1 or 3 values, not {len(values)}")
    return values[0], values[1], values[2]

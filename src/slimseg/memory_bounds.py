"""How much memory one image may take: a file of a few kilobytes can ask for any amount.

The bounds are absolute, and in proportion to what is really there: the input and the weights.
"""

from __future__ import annotations

LARGEST_VALUE_BYTES = 1 << 30  # the output of one layer: 64 channels at 2048x2048
MOST_BYTES_AT_ONCE = 4 << 30  # of all values that are alive together
MODEST_BYTES = 1 << 28  # at once: what takes more has an input or weights that explain it
MOST_TIMES_WHAT_IS_THERE = 256  # the bytes of its input and weights; attention over an image takes about 20 times those


def excess(made_bytes: int, peak_bytes: int, there_bytes: int, size: tuple[int, int], where: str) -> str:
    """What is too much, as the end of a sentence about the file; empty where nothing is.

    Args:
        made_bytes: what the layer `where` makes; `peak_bytes` are alive at once up to it.
        there_bytes: of the input and of the weights.
        size: height and width of the input in pixels.
    """
    if made_bytes > LARGEST_VALUE_BYTES or peak_bytes > MOST_BYTES_AT_ONCE:
        return f"needs {_gigabytes(max(made_bytes, peak_bytes))} for one image by {where}: use a smaller input"
    if peak_bytes > max(MODEST_BYTES, MOST_TIMES_WHAT_IS_THERE * there_bytes):
        said = f"{_gigabytes(peak_bytes)} for an image of {size[0]}x{size[1]} pixels by {where}"
        return f"needs {said}: it is damaged, or made to take memory"
    return ""


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB"

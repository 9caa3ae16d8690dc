"""Numbers for people to read: milliseconds, megabytes, giga-MACs, ratios. All units are decimal."""

from __future__ import annotations

import math

_MINUS = "−"


def milliseconds(ms: float) -> str:
    """Three significant digits, "266 ms", "12.1 ms", "0.90 ms", "0.053 ms"; in seconds from 10 s on."""
    if not math.isfinite(ms):
        return "–"
    if abs(ms) >= 10_000:
        return f"{_digits(ms / 1000)} s"
    return f"{_digits(ms)} ms"


def saved(ms: float) -> str:
    """A saving as a change of the time: 83.1 -> "−83.1 ms"; a loss has a plus."""
    sign = _MINUS if ms >= 0 else "+"
    return sign + milliseconds(abs(ms))


def with_error(saving_ms: float, error_ms: float | None) -> str:
    """A saving and, where it is known, its standard error: "−0.24 ms ±0.01"."""
    if not error_ms:
        return saved(saving_ms)
    return f"{saved(saving_ms)} ±{error_ms:.{min(3, max(0, -math.floor(math.log10(error_ms))))}f}"


def noise(error_ms: float) -> str:
    """The range of differences that mean nothing: "±0.02 ms", twice the standard error."""
    return f"±{milliseconds(2 * error_ms)}"


def size(count: int) -> str:
    """Bytes: "812 B", "34.2 kB", "3.90 MB"."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale:
            return f"{_digits(count / scale)} {unit}"
    return f"{count} B"


def count(number: int) -> str:
    """MACs or parameters: "24.1 G", "7.85 M", "320 k"; zero is a dash."""
    if number == 0:
        return "–"
    for unit, scale in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= scale:
            return f"{_digits(number / scale)} {unit}"
    return str(number)


def percent(value: float | None, digits: int = 1) -> str:
    """A value in 0-100, without the sign; None is a dash."""
    return "–" if value is None or not math.isfinite(value) else f"{value:.{digits}f}"


def points(change: float) -> str:
    """A difference of two percentages: "−0.7", "+1.2"."""
    rounded = round(change, 1)
    return f"{_MINUS if rounded < 0 else '+' if rounded > 0 else '±'}{abs(rounded):.1f}"


def share(fraction: float) -> str:
    """A fraction in 0-1 as percent: "31.4%"."""
    return f"{100 * fraction:.1f}%"


def times(ratio: float) -> str:
    """A factor: "22.1×", "6.10×"."""
    return f"{_digits(ratio)}×" if math.isfinite(ratio) else "–"


def quotient(before: float, after: float) -> float:
    """before / after; infinity if `after` is zero."""
    return before / after if after else math.inf


def duration(seconds: float) -> str:
    """Wall-clock time: "48 s", "12 min 5 s", "1 h 3 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def shape(dimensions: tuple[int, ...]) -> str:
    return "×".join(str(d) for d in dimensions)


def _digits(value: float) -> str:
    """Three significant digits, fewer below one: "266", "12.1", "0.90", "0.053"."""
    if value == 0:
        return "0"
    magnitude = math.floor(math.log10(abs(value)))
    decimals = min(max(0, 2 - magnitude), 2 if magnitude >= -1 else 3)
    # Rounding can reach the next power of ten: 9.999 is "10.0", not "10.00".
    if decimals and abs(round(value, decimals)) >= 10 ** (magnitude + 1):
        decimals -= 1
    return f"{value:.{decimals}f}"

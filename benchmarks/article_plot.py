"""One claim as an SVG: a row per case, what was measured as dots, what was claimed as a band."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, LEFT, TOP, ROW = 760, 300, 64, 20
RIGHT = 24
COLOURS = {"float32": "#1f6fb4", "int8": "#d1661a"}


@dataclass(frozen=True)
class Row:
    """Claimed (low, high), and the measured value by precision; None where there is none."""

    label: str
    claimed: tuple[float, float]
    measured: dict[str, float | None]
    macs: float | None = None


def draw(title: str, axis: str, rows: Sequence[Row], logarithmic: bool) -> str:
    """The SVG's text; on a logarithmic axis every value is positive."""
    low, high = _span(rows, logarithmic)
    scale = math.log2 if logarithmic else float
    start, length = scale(low), scale(high) - scale(low)

    def x(value: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (scale(min(max(value, low), high)) - start) / length

    height = TOP + ROW * len(rows) + 40
    bottom = TOP + ROW * len(rows)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        'font-family="system-ui, sans-serif" font-size="12" fill="#222">',
        f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>',
        f'<text x="12" y="22" font-size="14" font-weight="600">{escape(title)}</text>',
        _legend(any(row.macs for row in rows)),
    ]
    for tick in _ticks(low, high, logarithmic):
        colour = "#888" if tick == (1 if logarithmic else 0) else "#e2e2e2"
        parts += [
            f'<line x1="{x(tick):.1f}" x2="{x(tick):.1f}" y1="{TOP}" y2="{bottom}" stroke="{colour}"/>',
            f'<text x="{x(tick):.1f}" y="{bottom + 15}" text-anchor="middle" fill="#555">'
            f"{_tick_label(tick, logarithmic)}</text>",
        ]
    for index, row in enumerate(rows):
        parts += _row(row, TOP + ROW * index + ROW / 2, x)
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{height - 7}" text-anchor="middle" fill="#555">{escape(axis)}</text></svg>')
    return "\n".join(parts) + "\n"


def _row(row: Row, y: float, x: Callable[[float], float]) -> list[str]:
    left, right = x(row.claimed[0]), x(row.claimed[1])
    parts = [
        f'<text x="{LEFT - 10}" y="{y + 4}" text-anchor="end">{escape(row.label)}</text>',
        f'<rect x="{left:.1f}" y="{y - 7}" width="{max(right - left, 2):.1f}" height="14" fill="#7aa87a" '
        'fill-opacity="0.28"/>',
    ]
    if row.macs:
        parts.append(f'<path d="M{x(row.macs):.1f} {y - 7}v14" stroke="#777" stroke-width="2"/>')
    for name, value in row.measured.items():
        if value is not None:
            parts.append(
                f'<circle cx="{x(value):.1f}" cy="{y}" r="4.5" fill="{COLOURS[name]}"><title>{name}: {value:.2f}'
                "</title></circle>"
            )
    return parts


def _legend(macs: bool) -> str:
    entries = [f'<circle cx="{LEFT + 6}" cy="42" r="4.5" fill="{COLOURS["float32"]}"/>']
    entries.append(f'<text x="{LEFT + 15}" y="46">float32</text>')
    entries.append(f'<circle cx="{LEFT + 76}" cy="42" r="4.5" fill="{COLOURS["int8"]}"/>')
    entries.append(f'<text x="{LEFT + 85}" y="46">int8</text>')
    entries.append(f'<rect x="{LEFT + 124}" y="35" width="18" height="14" fill="#7aa87a" fill-opacity="0.28"/>')
    entries.append(f'<text x="{LEFT + 148}" y="46">claimed</text>')
    if macs:
        entries.append(f'<path d="M{LEFT + 212} 35v14" stroke="#777" stroke-width="2"/>')
        entries.append(f'<text x="{LEFT + 220}" y="46">by MACs</text>')
    return "".join(entries)


def _span(rows: Sequence[Row], logarithmic: bool) -> tuple[float, float]:
    """Of everything finite that is shown, and of 1x (or 0)."""
    values = [1.0 if logarithmic else 0.0]
    for row in rows:
        values += [value for value in row.measured.values() if value is not None]
        values += [value for value in (*row.claimed, row.macs) if value and math.isfinite(value)]
    if logarithmic:
        return 2 ** math.floor(math.log2(min(values)) - 0.01), 2 ** math.ceil(math.log2(max(values)) + 0.01)
    return math.floor(min(values) - 0.5), math.ceil(max(values) + 0.5)


def _ticks(low: float, high: float, logarithmic: bool) -> list[float]:
    if logarithmic:
        first, last = round(math.log2(low)), round(math.log2(high))
        return [2.0**power for power in range(first, last + 1, max(1, (last - first) // 8))]
    step = max(1, int(high - low) // 8)
    return [float(value) for value in range(math.ceil(low / step) * step, int(high) + 1, step)]


def _tick_label(tick: float, logarithmic: bool) -> str:
    if not logarithmic:
        return f"{tick:g}"
    return f"{tick:g}x" if tick >= 1 else f"1/{1 / tick:g}x"

"""The table of forms: a row for each, at 80 columns; what to give, and what there is not."""

from __future__ import annotations

import io

from rich.console import Console

from slimseg.report.heads import show_heads
from slimseg.results import HeadTrial

TRIALS = (
    HeadTrial("litert int8", "as it is (probabilities at 512x512)", 12.3, 14.5, 7_434_240),
    HeadTrial("litert int8", "mask at 512x512", 10.0, 10.5, 675_840, 0.02),
    HeadTrial("ncnn", "as it is (probabilities at 512x512)", 20.0, 22.0, 7_434_240),
    HeadTrial("ncnn", "mask", reason="ncnn has no argmax"),
)


def test_rows() -> None:
    console = Console(file=io.StringIO(), width=80, color_system=None)
    show_heads(TRIALS, console=console)
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert "litert int8 probabilities at 512x512 12.3 ms 14.5 ms 7.43 MB as it is" in lines
    assert "mask at 512x512 10.0 ms 10.5 ms 676 kB 0.02%" in lines
    assert "litert int8: use mask at 512x512: 10.5 ms" in text
    assert "ncnn, no mask: ncnn has no argmax." in text
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= 80

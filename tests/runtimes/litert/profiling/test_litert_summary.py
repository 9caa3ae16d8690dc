"""Statistics against the text of LiteRT's own tool (`LiteRtGetProfileSummary`), made of the same events."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import pytest

from slimseg.runtimes import child
from slimseg.runtimes.litert.profiling.summary import node_types
from slimseg.runtimes.litert.profiling.trace import BUILTIN, TOTAL, Event, Trace
from slimseg.runtimes.run_statistics import statistics

RUNS = 6
ROUNDED = 0.00051  # the tool prints three decimals, of milliseconds and of percent


class Official(NamedTuple):
    numbers: list[float]
    name: str


def rows(text: str, title: str) -> dict[str, Official]:
    """One section's lines by what stands in their first column."""
    section = re.split(r"=+ ", text.partition(title)[2])[0]
    found = {}
    for line in section.splitlines():
        match = re.match(r"\s*(\S.*?)\s{2,}([\d. %]+?)(?:\s{2,}(\[\w+\]:\d+))?$", line)
        if match and "%" in match[2]:
            key = match[3] or match[1]
            found[key] = Official([float(number.rstrip("%")) for number in match[2].split()], match[1])
    return found


def split(events: list[Event]) -> list[list[Event]]:
    """One list per run."""
    runs: list[list[Event]] = []
    for event in events:
        if event.tag == "Invoke" and event.type == TOTAL:
            runs.append([])
        if runs:
            runs[-1].append(event)
    return runs


@pytest.fixture(scope="module", params=["tiny", "prisma-net"])
def recorded(request: pytest.FixtureRequest) -> tuple[Trace, str]:
    path: Path = (
        request.getfixturevalue("tiny_mask")
        if request.param == "tiny"
        else request.getfixturevalue("shared") / "models" / "prisma-net.tflite"
    )
    events, text = child.call("slimseg.runtimes.litert.profiling.events:record", str(path), RUNS)
    runs = split(events)
    assert len(runs) == RUNS
    return Trace.of(runs), text


def test_every_kernel_has_the_official_statistics(recorded: tuple[Trace, str]) -> None:
    trace, text = recorded
    official = rows(text, " Run Order ")
    whole_us = trace.elapsed_us.sum()
    kernels = [kernel for kernel in trace.kernels if kernel.type != BUILTIN]
    assert max(Counter(kernel.index for kernel in kernels).values()) == 1  # one part: indices are names
    cumulative = 0.0
    for position, kernel in enumerate(trace.kernels):
        key = f"[{'Builtin' if kernel.type == BUILTIN else 'Delegate'}]:{kernel.index}"
        _, first, average, share, running, _, calls = official[key].numbers
        own = statistics(trace.elapsed_us[:, position])
        cumulative += trace.elapsed_us[:, position].sum() / whole_us
        assert official[key].name.removeprefix("Delegate/") == kernel.tag
        assert (own.first_ms, own.average_ms) == pytest.approx((first, average), abs=ROUNDED)
        assert (share, running) == pytest.approx(
            (100 * trace.elapsed_us[:, position].sum() / whole_us, 100 * cumulative), abs=ROUNDED
        )
        assert own.times_called == calls == RUNS


def test_node_types_are_the_official_ones(recorded: tuple[Trace, str]) -> None:
    trace, text = recorded
    official = rows(text, " Summary by node type ")
    own = node_types(trace)
    assert {kind.kernel for kind in own} == {name.removeprefix("Delegate/") for name in official}
    for kind in own:
        name = kind.kernel if kind.delegate == "built-in" else f"Delegate/{kind.kernel}"
        count, average, share, _, _, calls = official[name].numbers
        assert (kind.count, kind.times_called) == (count, calls)
        assert kind.average_ms == pytest.approx(average, abs=ROUNDED)
        assert 100 * kind.share == pytest.approx(share, abs=ROUNDED)
    assert own[-1].cumulative == pytest.approx(1)
    assert [kind.share for kind in own] == sorted((kind.share for kind in own), reverse=True)


def test_extremes_are_the_official_ones(recorded: tuple[Trace, str]) -> None:
    """The tool's "Delegate Statistics" has whole microseconds by kind: count, mean, minimum, maximum, total."""
    trace, text = recorded
    lines = text.partition("Delegate Statistics")[2].splitlines()
    checked = 0
    for line in lines:
        match = re.match(r"Delegate/(.+?)\s{2,}(\d+)\s+([\d.]+)\s+(\d+)\s+(\d+)\s+(\d+)$", line)
        if match:
            positions = [i for i, kernel in enumerate(trace.kernels) if kernel.tag == match[1]]
            own = [statistics(trace.elapsed_us[:, i]) for i in positions]
            assert sum(each.times_called for each in own) == int(match[2])
            assert min(each.min_ms for each in own) * 1e3 == pytest.approx(int(match[4]))
            assert max(each.max_ms for each in own) * 1e3 == pytest.approx(int(match[5]))
            assert trace.elapsed_us[:, positions].sum() == int(match[6])
            checked += 1
    assert checked == len({kernel.tag for kernel in trace.kernels if kernel.type != BUILTIN})


def test_the_standard_deviation_is_the_populations() -> None:
    own = statistics(Trace.of([run(2), run(4), run(4), run(6)]).elapsed_us[:, 0])
    assert (own.first_ms, own.average_ms, own.min_ms, own.max_ms) == (0.002, 0.004, 0.002, 0.006)
    assert own.std_ms == pytest.approx(2**0.5 / 1e3)
    assert own.times_called == 4


def run(elapsed_us: int, nested: bool = False) -> list[Event]:
    inner = [Event("CONV_2D", BUILTIN, 0, 1, 5, subgraph=1)] if nested else []
    return [Event("Invoke", TOTAL, 0, elapsed_us + 1), Event("IF", BUILTIN, 0, elapsed_us), *inner]


def test_kernels_of_nested_subgraphs_are_their_operators() -> None:
    trace = Trace.of([run(10, nested=True), run(12)])
    assert [kernel.tag for kernel in trace.kernels] == ["IF"]
    assert trace.total_us.tolist() == [11, 13]


def test_changing_kernels_are_refused() -> None:
    other = [Event("Invoke", TOTAL, 0, 3), Event("WHILE", BUILTIN, 0, 2)]
    with pytest.raises(RuntimeError, match="different kernels"):
        Trace.of([run(1), other])
    with pytest.raises(RuntimeError, match="as a whole"):
        Trace.of([[Event("IF", BUILTIN, 0, 2)]])

"""Times on a machine that has other work to do: simulated, so that no test hangs on what this one does."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from slimseg.planning.pricing.whatif import Price
from slimseg.runtimes import benchmark, calm
from slimseg.runtimes.benchmark import Timing, in_turns
from slimseg.runtimes.calm import Seen
from slimseg.runtimes.turns import Turns

WANTED = 30  # rounds
SLICE_MS = 4.0  # that other work runs for when it takes the processor


class Machine:
    """A clock on which runs take what they need, and whatever other work takes on top.

    Args:
        busy: how likely it is in a millisecond of work that other work takes the processor.
        slower: how many times longer everything takes, by milliseconds since the start.
    """

    def __init__(self, busy: float = 0.0, slower: Callable[[float], float] = lambda now_ms: 1.0) -> None:
        self.random = np.random.default_rng(0)
        self.busy, self.slower = busy, slower
        self.clock_ms = self.own_ms = 0.0

    def run(self, needs_ms: float) -> None:
        needs_ms *= self.slower(self.clock_ms) * (1 + 0.01 * self.random.random())
        self.own_ms += needs_ms
        taken = self.random.binomial(max(1, round(needs_ms)), self.busy) if self.busy else 0
        self.clock_ms += needs_ms + SLICE_MS * taken

    def perf_counter_ns(self) -> int:
        return round(1e6 * self.clock_ms)

    def thread_time_ns(self) -> int:
        return round(1e6 * self.own_ms)

    def perf_counter(self) -> float:
        return self.clock_ms / 1e3


class Network:
    def __init__(self, machine: Machine, needs_ms: float) -> None:
        self.machine, self.needs_ms = machine, needs_ms
        self.runs = 0

    def invoke(self) -> None:
        self.runs += 1
        self.machine.run(self.needs_ms)


def timed(monkeypatch: pytest.MonkeyPatch, machine: Machine, *needs_ms: float) -> tuple[Timing, ...]:
    monkeypatch.setattr(calm, "time", machine)
    monkeypatch.setattr(benchmark, "time", machine)
    networks = [Network(machine, each) for each in needs_ms]
    seconds = WANTED * sum(needs_ms) / len(needs_ms) / 1e3
    return in_turns([str(each) for each in needs_ms], networks, seconds, None, 300)


@pytest.fixture(autouse=True)
def _threads_have_clocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calm, "_FINE_CLOCK", True)


def test_a_quiet_machine_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    timings = timed(monkeypatch, Machine(), 2.0, 1.6)
    assert WANTED - 2 <= len(timings[0].rounds_ms) <= WANTED  # and none more
    assert calm.of_all(each.seen for each in timings) is None
    for timing in timings:
        assert timing.calm_ms == timing.median_ms
        assert timing.own_ms == timing.rounds_ms
        assert all(timing.counting)


@pytest.mark.parametrize("needs_ms", [(2.0, 1.6), (40.0, 33.0)], ids=["short", "long"])
def test_other_work_does_not_count(monkeypatch: pytest.MonkeyPatch, needs_ms: tuple[float, float]) -> None:
    """Of a network of 40 ms not one run is left alone; of one of 2 ms one in three."""
    first, second = timed(monkeypatch, Machine(busy=0.4), *needs_ms)
    assert len(first.rounds_ms) >= 2 * 7  # twice the fewest: disturbed rounds were repeated
    assert first.median_ms > 1.3 * needs_ms[0]  # what is told without looking
    assert (first.calm_ms, second.calm_ms) == pytest.approx(needs_ms, rel=0.02)
    assert benchmark.ratio(first, second) == first.calm_ms / second.calm_ms
    disturbed = calm.of_all([first.seen, second.seen])
    assert disturbed is not None
    assert disturbed.taken_share > 0.3
    assert disturbed.disturbed_share > 0.5
    assert f"other processes took {disturbed.taken_share:.0%} of the processor" in disturbed.said


def test_patience_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """No run of such a network is ever left alone: repeating all of them would take long and tell little."""
    (timing,) = timed(monkeypatch, Machine(busy=0.9), 500.0)
    more_ms = sum(timing.rounds_ms[7:])
    assert 5000 < more_ms < 5000 + 4 * max(timing.rounds_ms)
    assert timing.calm_ms == pytest.approx(500.0, rel=0.02)


def test_a_machine_that_slows_down_midway(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is taken, but from the 60th millisecond on everything takes five times as long."""
    first, second = timed(monkeypatch, Machine(slower=lambda now_ms: 5.0 if now_ms > 60 else 1.0), 2.0, 1.6)
    assert (first.calm_ms, second.calm_ms) == pytest.approx((2.0, 1.6), rel=0.02)
    disturbed = calm.of_all([first.seen, second.seen])
    assert disturbed is not None
    assert (disturbed.taken_share, disturbed.disturbed_share > 0.4) == (0.0, True)


def test_an_edit_is_priced_as_on_a_quiet_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    price = Price.of(*timed(monkeypatch, Machine(busy=0.5), 30.0, 27.0))
    assert price.saving_ms == pytest.approx(3.0, rel=0.1)
    assert price.wins > 0.9
    assert price.error_ms is not None
    assert 0 < price.error_ms < 0.3


def test_what_several_threads_lose_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(busy=0.5)
    monkeypatch.setattr(calm, "time", machine)
    _, spent_ms, taken_ms = calm.timed(lambda: machine.run(30.0), threads=2)
    assert spent_ms > 33
    assert taken_ms == 0.0
    assert calm.timed(lambda: machine.run(30.0), threads=1)[2] > 0


def test_runs_with_a_profiler_are_repeated_until_enough_count(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(busy=0.2)
    monkeypatch.setattr(calm, "time", machine)
    network = Network(machine, 2.0)

    def parts() -> list[float]:
        start_ms = machine.own_ms
        machine.run(1.5)
        machine.run(0.5)
        return [1.5, machine.own_ms - start_ms - 1.5]

    turns = Turns(parts, network, 1, 1)
    blocks: list[int] = []
    turns.take(12, blocks.append)
    assert blocks == [3, 2, 1]
    assert 12 < len(turns.told) <= 24
    assert np.median(turns.plain_ms()) == pytest.approx(2.0, rel=0.02)
    assert turns.seen.disturbance() is not None


def test_parts_without_a_whole_run_left_alone() -> None:
    """Every run was interrupted, each in another part of it."""
    parts = np.tile([1.0, 2.0, 3.0], (6, 1))
    for run in range(6):
        parts[run, run % 3] += 10.0
    counting, between = calm.undisturbed_rows(parts, np.full(6, 0.1), np.full(6, 10.0), 4)
    assert counting.tolist() == [[1.0, 2.0, 3.0]] * 4
    assert between.tolist() == [0.1] * 4
    parts[2] = [1.1, 2.0, 3.0]
    whole, _ = calm.undisturbed_rows(parts, np.zeros(6), np.array([10.0, 10, 0, 10, 10, 10]), 1)
    assert whole.tolist() == [[1.1, 2.0, 3.0]]


def test_what_was_seen_adds_up() -> None:
    both = Seen(90.0, 0.0, 9, 0) + Seen(10.0, 10.0, 1, 1)
    assert both == Seen(100.0, 10.0, 10, 1)
    found = calm.together(None, both.disturbance(), drift=2.0)
    assert found is not None
    assert (found.taken_share, found.disturbed_share, found.drift) == (0.1, 0.1, 2.0)
    assert "changed by a factor of 2.0" in found.said
    assert calm.together(None, None, drift=1.1) is None

"""Corrections of the float32 network before int8; each is tried as a separate file.

    equalise        channels of similar ranges (equalise.py), scales up to 8; if these reach the bound, also up to 64
    bias            biases that undo the shifts by rounding (bias_correction.py)
    both            bias, on the better of the equalised networks
    auto            the three in turn, as long as int8 loses more than `ENOUGH`

Only int8 benefits from them: files of other schemes are not made from a corrected network.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Literal, get_args

from slimseg.errors import SlimsegError, UserError
from slimseg.graph.graph import Graph
from slimseg.quantisation.bench import Base, Bench, Trial, bytes_of_values
from slimseg.quantisation.bias_correction import bias_corrected
from slimseg.quantisation.equalise import Equalised, equalised
from slimseg.quantisation.schemes import AUTO, Attempt, drop
from slimseg.results import QuantisedFile

Correct = Literal["none", "equalise", "bias", "both", "auto"]
CORRECTIONS: tuple[Correct, ...] = get_args(Correct)
IMAGES = 32
_VALUES_HELD = 8  # values held at once, as large as the largest: a layer's inputs and outputs, and skip connections
BOUNDS = (8.0, 64.0)  # largest scales: for most networks, and for those whose channels differ by a factor of 1000
ENOUGH = 0.1  # points of mIoU that int8 may lose before `auto` corrects anything
ENOUGH_CHANGED = 0.5  # the same without labels, in percent of pixels: good int8 files change as many, at borders


def check(correct: str, schemes: set[str]) -> None:
    """Check the user's choice of a correction.

    Raises:
        UserError: the name is unknown, or is given although no file becomes int8.
    """
    if correct not in CORRECTIONS:
        raise UserError(f"`correct` {correct!r} must be one of {', '.join(CORRECTIONS)}")
    if correct not in (AUTO, "none") and "int8" not in schemes:
        raise UserError(
            f"`correct` {correct} applies to int8 only, not to `scheme` {'/'.join(sorted(schemes))}: leave it out"
        )


def is_enough(baseline: QuantisedFile, row: QuantisedFile) -> bool:
    """Whether a file loses so little that a correction would make no measurable difference."""
    lost = drop(baseline, row)
    return lost is None or lost <= (ENOUGH if baseline.miou is not None else ENOUGH_CHANGED)


def loss(baseline: QuantisedFile, trial: Trial) -> float:
    """What a file loses, in points of mIoU or percent of pixels (`drop`); infinite if there is no file."""
    lost = drop(baseline, trial.row)
    return float("inf") if lost is None or trial.path is None else lost


def tried(bench: Bench, graph: Graph, attempt: Attempt, correct: Correct, baseline: QuantisedFile) -> list[Trial]:
    """The corrected networks' files, timed and judged.

    Args:
        graph: the float32 network that `attempt` was made from; not changed.
        attempt: int8 with the method of finding ranges that did best without corrections.
    """
    return bench.timed(_Search(bench, graph, attempt, correct, baseline).run(), baseline.latency_ms)


class _Search:
    """Tries one correction after the other; `found` are the trials so far."""

    def __init__(self, bench: Bench, graph: Graph, attempt: Attempt, correct: Correct, baseline: QuantisedFile) -> None:
        self.bench, self.graph, self.attempt = bench, graph, attempt
        self.correct, self.baseline = correct, baseline
        self.images = bench.tensor(IMAGES)  # equalisation takes them one by one
        self.together = bench.tensor(IMAGES, _VALUES_HELD * max(bytes_of_values(graph)))
        self.found: list[Trial] = []
        self.levelled: dict[str, Graph] = {}

    def run(self) -> list[Trial]:
        if self.correct != "bias":
            self._equalise()
        if self.correct in ("bias", AUTO) and not self._is_done():
            self._try("bias", lambda: bias_corrected(self.graph, self.together))
        if self.correct in ("both", AUTO) and not self._is_done():
            name = self._better()
            if name is not None:
                self._try(name.replace("equalise", "both"), lambda: bias_corrected(self.levelled[name], self.together))
        return self.found

    def _is_done(self) -> bool:
        return self.correct == AUTO and any(is_enough(self.baseline, trial.row) for trial in self.found if trial.path)

    def _equalise(self) -> None:
        """Equalise with the smaller bound, and with the larger one only if scales reached the smaller."""
        for bound in BOUNDS:
            made: list[Equalised] = []
            name = "equalise" if bound == BOUNDS[0] else f"equalise {bound:g}"

            def level(bound: float = bound, made: list[Equalised] = made) -> Graph:
                made.append(equalised(self.graph, self.images, bound))
                return made[0].graph

            self._try(name, level)
            if not made or max((pair.spread for pair in made[0].pairs), default=1.0) < bound or self._is_done():
                return

    def _better(self) -> str | None:
        trials = [trial for trial in self.found if trial.attempt.corrected in self.levelled]
        return min(trials, key=lambda trial: loss(self.baseline, trial)).attempt.corrected if trials else None

    def _try(self, name: str, correction: Callable[[], Graph]) -> None:
        attempt = replace(self.attempt, corrected=name)
        assert attempt.ranges is not None
        self.bench.progress.say(f"Correcting the network before int8: {name}")
        try:
            graph = correction()
            base = self.bench.written(graph, name, attempt.ranges)
        except SlimsegError as error:
            self.found.append(self.bench.failed(attempt, Base(self.bench.source.quantised_from), error))
            return
        self.levelled[name] = graph
        self.found.append(self.bench.judged(self.bench.tried(attempt, base)))

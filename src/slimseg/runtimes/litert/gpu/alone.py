"""Asks the delegate about single operators of a file, each in a file of its own.

An operator that is taken may still be computed wrongly, which the delegate suspects when it prints that its own program
is invalid. Then the operator's values are compared with the CPU's.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable
from typing import Any

import numpy as np

from slimseg.disk import scratch
from slimseg.errors import RuntimeFailure
from slimseg.runtimes.litert import session
from slimseg.runtimes.litert.gpu import single
from slimseg.runtimes.litert.gpu.delegate import PATIENCE_S, Delegate
from slimseg.tflite import file
from slimseg.tflite.file import File

WRONG = 0.02  # difference to the CPU, as a share of the largest value, that rounding to float16 does not explain


class Alone:
    """The delegate's verdicts on the operators of one file; those that are alike are asked about once."""

    def __init__(self, delegate: Delegate, found: File, model: Any) -> None:
        self.delegate, self.found, self.model = delegate, found, model
        self._refused: dict[Hashable, str] = {}
        self._wrong: dict[Hashable, str] = {}

    def refused(self, numbers: Collection[int]) -> dict[int, str]:
        """Why these operators are not taken, by number; without those that are."""
        return self._told(self._refused, numbers)

    def wrong(self, numbers: Collection[int]) -> dict[int, str]:
        """Why the values of these operators are not to be trusted, by number; without those that are right."""
        self.refused(numbers)
        return self._told(self._wrong, numbers)

    def _told(self, known: dict[Hashable, str], numbers: Collection[int]) -> dict[int, str]:
        reasons = {}
        for number in sorted(numbers):
            key = single.likeness(self.model, number)
            if key not in self._refused:
                self._ask(key, number)
            if known[key]:
                reasons[number] = known[key]
        return reasons

    def _ask(self, key: Hashable, number: int) -> None:
        data = single.cut(self.model, number)
        answer = self.delegate.compiled(data, f"{self.found.path}: {self.found.operators[number].name}")
        self._refused[key] = self._without_names(answer.why)
        self._wrong[key] = self._departs(data) if answer.takes_all and answer.said.doubts else ""

    def _without_names(self, reason: str) -> str:
        """A reason without the name of a tensor at its end, which the delegate adds to some."""
        start, _, last = reason.rpartition(" ")
        names = {(tensor.name or b"").decode(errors="replace") for tensor in self.model.subgraphs[0].tensors}
        return start if last in names else reason

    def _departs(self, data: bytes) -> str:
        """How far an operator's values on the GPU are from the CPU's, on noise; empty if they agree."""
        with scratch.folder() as folder:
            path = folder / "operator.tflite"
            file.save(data, path)
            given = session.random_input(file.read(path).inputs[0])
            try:
                computed = self.delegate.run(path, given, PATIENCE_S)
            except RuntimeFailure as failure:
                return str(failure)
            truth = session.run_alone(path, given)
        difference = relative_difference(computed, truth)
        return "" if difference <= WRONG else f"it is taken, but computed wrongly: off by {100 * difference:.0f}%"


def relative_difference(value: np.ndarray[Any, Any], truth: np.ndarray[Any, Any]) -> float:
    """The largest difference, as a share of the largest value; infinite where one is finite and the other is not."""
    value, truth = value.astype(np.float64), truth.astype(np.float64)
    finite = np.isfinite(truth)
    if not np.array_equal(np.isfinite(value), finite):
        return float("inf")
    if not finite.any():
        return 0.0
    return float(np.abs(value - truth)[finite].max() / max(np.abs(truth[finite]).max(), 1e-6))

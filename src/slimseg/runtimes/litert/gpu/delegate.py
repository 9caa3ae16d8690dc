"""Asks LiteRT's GPU delegate, in a child process that has the variables of one Vulkan driver.

The delegate says on standard error what it does not take, so every answer is the delegate's error together with what it
printed. A driver that crashes ends the child alone.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from slimseg.errors import RuntimeFailure
from slimseg.runtimes import child
from slimseg.runtimes.litert.gpu import messages
from slimseg.runtimes.litert.gpu.driver import Driver
from slimseg.runtimes.litert.gpu.messages import Said
from slimseg.tflite import file
from slimseg.tflite.schema import ModelBuilder

Array = np.ndarray[Any, Any]
PATIENCE_S = 300.0  # seconds that a file may take to compile; software drivers take about one
_JOB = "slimseg.runtimes.litert.gpu.job"


@dataclass(frozen=True)
class Answer:
    """What came of compiling one file for the GPU alone."""

    said: Said
    error: str = ""  # LiteRT's error; empty if the GPU takes all of the file
    crash: str = ""  # how the process ended, if it did

    @property
    def takes_all(self) -> bool:
        """Whether the GPU takes all of the file."""
        return not self.error and not self.crash

    @property
    def why(self) -> str:
        """Why the GPU does not take all of it, in the delegate's own words; empty if it does."""
        if self.crash:
            return f"the delegate crashes on it: {self.crash}"
        reasons = dict.fromkeys(each.reason for each in self.said.refusals)
        return "" if self.takes_all else "; ".join(reasons) or "; ".join(self.said.faults[:2]) or self.error


class Delegate:
    """The delegate on one driver, in a child process that all delegates on this driver share."""

    def __init__(self, driver: Driver) -> None:
        self.driver = driver
        self._started: child.Child | None = None

    def compiled(self, model: Path | bytes, about: str | Path) -> Answer:
        """Compile a file, or a file's bytes, for the GPU."""
        process = self._child()
        target = str(model) if isinstance(model, Path) else model
        try:
            error = process.call(f"{_JOB}:takes", target, timeout_s=PATIENCE_S, about=about)
        except RuntimeFailure as failure:
            return Answer(Said(), crash=messages.crash(str(failure)))
        return Answer(messages.read(process.printed), error)

    def run(self, path: Path, inputs: Array, timeout_s: float | None) -> Array:
        """Outputs of a file for `inputs` (N, H, W, C), both in the file's own types.

        Raises:
            RuntimeFailure: the delegate refused the file, crashed or ran out of time.
        """
        result: Array = self._child().call(f"{_JOB}:run", str(path), inputs, timeout_s=timeout_s, about=path)
        return result

    def _child(self) -> child.Child:
        process = child.shared(f"gpu {self.driver}", self.driver.environment())
        if process.pid is None and self.driver.loader:
            process.call(f"{_JOB}:load", str(self.driver.loader), timeout_s=PATIENCE_S)
        return process


@dataclass(frozen=True)
class Device:
    """The GPU that a driver shows, or why there is none."""

    driver: Driver
    name: str = ""
    is_software: bool = True
    fault: str = ""  # why it does not compute; empty if it does

    def __str__(self) -> str:
        return f"{self.name}, {'in software' if self.is_software else 'a real GPU'}"


@functools.lru_cache(maxsize=8)
def device(driver: Driver) -> Device:
    """Try a driver on a file of one operator."""
    answer = Delegate(driver).compiled(_smallest(), "the driver's test")
    said = answer.said
    if answer.takes_all and said.adapter:
        return Device(driver, said.adapter, said.is_software)
    return Device(driver, fault=answer.why or "it shows no GPU")


def _smallest() -> bytes:
    from ai_edge_litert import schema_py_generated as tflite

    from slimseg.graph.description import Description

    builder = ModelBuilder()
    image, result = builder.tensor("x", (1, 4, 4, 4)), builder.tensor("y", (1, 4, 4, 4))
    builder.operator(tflite.BuiltinOperator.ABS, (image,), result)
    return builder.finish([image], [result], Description())


def chunks(path: Path, inputs: Array) -> list[Array]:
    """`inputs` in parts whose outputs fit into a message of the child."""
    output = file.read(path).outputs[0]
    per_image = max(1, inputs[:1].nbytes, int(np.prod(output.shape)) * np.dtype(output.dtype).itemsize)
    step = max(1, (64 << 20) // per_image)
    return [inputs[start : start + step] for start in range(0, len(inputs), step)]

"""Qualcomm's NPUs as processors: placement and compilation by LiteRT's plugin, numbers by Qualcomm's simulator."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from slimseg.disk import scratch
from slimseg.results import Departure
from slimseg.results.placement import Compilation, LayerDifference, LayerPlacement, Placement
from slimseg.runtimes.litert import placing
from slimseg.runtimes.litert.npu import compiler, departure, libraries, simulator
from slimseg.runtimes.litert.npu.socs import Soc
from slimseg.runtimes.processor import Processor
from slimseg.tflite import file

_US = "Simulated (Accelerator exec time us)"
_FASTEST_US, _SLOWEST_US = (f"Simulated (Accelerator exec time us ({end} estimate))" for end in ("lower", "upper"))


@dataclass(frozen=True)
class Npu(Processor):
    """The NPU of one of Qualcomm's chips."""

    soc: Soc

    @property
    def name(self) -> str:  # type: ignore[override]
        return f"npu:{self.soc.name.lower()}"

    @property
    def title(self) -> str:  # type: ignore[override]
        sold = f", {self.soc.title}" if self.soc.title else ""
        return f"Qualcomm's NPU (Hexagon v{self.soc.hexagon}) of {self.soc.name}{sold}"

    def missing(self) -> str:
        return libraries.missing()

    def answers(self) -> str:
        found = libraries.find()
        return "" if found is None else f"LiteRT's compiler plugin with {found.package}"

    def place(self, path: Path) -> Placement:
        """Placement by LiteRT's plugin, with what the compiler reports if it takes any operator."""
        placement = self.partition(path)
        if not placement.taken:
            return placement
        with scratch.folder() as folder:
            compilation = compiler.compiled(path, self.soc, folder / path.name)
        if placement.is_whole and self.soc.is_estimated:
            compilation = self._estimated(path, compilation)
        return replace(placement, compilation=compilation)

    def partition(self, path: Path) -> Placement:
        """The placement alone, without compiling the network: a quarter of a second. Raises: as `place`."""
        found = compiler.partition(path, self.soc)
        operators = file.operators(path)
        taken = {each.index for each in operators} - found.refused.keys()
        return Placement(
            model=path.name,
            processor=self.name,
            judge=f"LiteRT's compiler plugin with the libraries of {compiler.installed().package}",
            is_own_verdict=True,
            layers=tuple(
                LayerPlacement(each.name, each.op, self.name if each.index in taken else "cpu", reason)
                for each in operators
                for reason in [found.refused.get(each.index, "")]
            ),
            partitions=found.parts,
            copies=placing.copies(operators, taken),
        )

    @property
    def computes(self) -> bool:
        return not self.missing()

    def predict(
        self, path: Path, inputs: NDArray[Any], threads: int = 1, timeout_s: float | None = None
    ) -> NDArray[Any]:
        """As `Runtime.predict`, with Qualcomm's simulator, which uses threads of its own."""
        return simulator.predict(path, inputs, self.soc, timeout_s)

    @property
    def halves(self) -> bool:
        return self.soc.takes_floats

    def first_departure(self, path: Path, image: NDArray[Any]) -> Departure | None:
        return departure.first(self.differences(path, image))

    def differences(self, path: Path, image: NDArray[Any]) -> tuple[LayerDifference, ...]:
        """For every layer, in the file's order, how far its values on the simulated NPU are from the CPU's.

        Args:
            image: one input (1, height, width, channels), in the file's own type.

        Raises: as `predict`.
        """
        return departure.differences(path, image, self.soc)

    def _estimated(self, path: Path, compilation: Compilation) -> Compilation:
        said = simulator.estimate(path, self.soc)
        if not said.get(_US):
            return compilation
        return replace(
            compilation,
            estimated_ms=said[_US] / 1000,
            estimated_fastest_ms=said.get(_FASTEST_US, 0) / 1000 or None,
            estimated_slowest_ms=said.get(_SLOWEST_US, 0) / 1000 or None,
        )

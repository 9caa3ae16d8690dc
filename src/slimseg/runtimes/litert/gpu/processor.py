"""The processor "gpu" of `.tflite` files: LiteRT's GPU delegate, asked on any Vulkan driver of this machine."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from slimseg.errors import DataError, Unsupported, UserError
from slimseg.results.export import Departure
from slimseg.results.placement import Placement
from slimseg.runtimes.processor import Processor

if TYPE_CHECKING:  # imported on first use: most commands never ask the GPU
    from slimseg.runtimes.litert.gpu.delegate import Delegate, Device

_NO_DRIVER = "no Vulkan driver was found"


@dataclass(frozen=True)
class Gpu(Processor):
    """A phone's GPU, by the delegate that computes on it.

    Attributes:
        driver: a Vulkan driver that the user named: its manifest, its library, or the folder with them.
    """

    driver: Path | None = None

    name = "gpu"
    title = "LiteRT's GPU delegate"

    def with_driver(self, path: Path) -> Processor:
        return replace(self, driver=path)

    def missing(self) -> str:
        from slimseg.runtimes.litert.gpu import driver

        device, why = self._device()
        return "" if device else f"{why}: {driver.INSTALL}"

    def answers(self) -> str:
        device, _ = self._device()
        return str(device) if device else ""

    @property
    def computes(self) -> bool:
        return self._device()[0] is not None

    @property
    def is_timed(self) -> bool:
        device, _ = self._device()
        return device is not None and not device.is_software

    def place(self, path: Path) -> Placement:
        """As `Processor.place`; without a driver that works, from the list of `static.py`.

        Raises:
            ModelError: the file is damaged.
            UserError: the driver that the user named is missing, or does not work.
        """
        from slimseg.runtimes.litert.gpu import static, verdict

        device, why = self._device()
        return static.placement(path, why) if device is None else verdict.placement(_delegate(device), path)

    def predict(
        self, path: Path, inputs: NDArray[Any], threads: int = 1, timeout_s: float | None = None
    ) -> NDArray[Any]:
        """As `Processor.predict`; layers that the delegate does not take run on the CPU."""
        import numpy as np

        from slimseg.runtimes.litert.gpu import delegate
        from slimseg.tflite import file

        found = file.read(path)
        if inputs.shape[1:] != found.inputs[0].shape[1:]:
            raise DataError(f"{path} needs inputs of shape (N, *{found.inputs[0].shape[1:]}), not {inputs.shape}")
        device, why = self._device()
        if device is None:
            raise Unsupported(f"{self.title} cannot compute on this machine: {why}")
        its = _delegate(device)
        parts = [its.run(path, part, timeout_s) for part in delegate.chunks(path, inputs)]
        output = found.outputs[0]
        return np.concatenate(parts) if parts else np.zeros((0, *output.shape[1:]), output.dtype)

    @property
    def halves(self) -> bool:
        return True

    def first_departure(self, path: Path, image: NDArray[Any]) -> Departure | None:
        from slimseg.runtimes.litert.gpu import departure

        return departure.first(path, image, self.predict)

    def _device(self) -> tuple[Device | None, str]:
        """The first device that works, or why there is none.

        Raises:
            UserError: the driver that the user named does not work.
        """
        from slimseg.runtimes.litert.gpu import delegate, driver

        faults = []
        for each in driver.candidates(self.driver):
            device = delegate.device(each)
            if not device.fault:
                return device, ""
            if each.said:
                raise UserError(f"the Vulkan driver {each} does not work with {self.title}: {device.fault}")
            faults.append(f"the Vulkan driver {each} does not work: {device.fault}")
        return None, faults[0] if faults else _NO_DRIVER


def _delegate(device: Device) -> Delegate:
    from slimseg.runtimes.litert.gpu.delegate import Delegate

    return Delegate(device.driver)


GPU = Gpu()

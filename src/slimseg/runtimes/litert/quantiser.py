"""LiteRT's quantiser."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from slimseg.runtimes.litert.quantising import activations, byte_input, quantizer
from slimseg.runtimes.quantiser import Array, Ends, Quantiser, Ranges, Scheme
from slimseg.tflite import file


class LiteRTQuantiser(Quantiser):
    """Quantises `.tflite` files with litert-quantizer."""

    def check(self, path: Path) -> None:
        quantizer.check(path)

    def quantise(
        self,
        float_path: Path,
        path: Path,
        scheme: Scheme,
        ranges: Ranges | None = None,
        ends: Ends = "float32",
        keep_float: Collection[str] = (),
    ) -> None:
        quantizer.quantize(float_path, path, scheme, ranges, ends, keep_float)

    def quantise_int8(
        self,
        float_path: Path,
        path: Path,
        samples: Sequence[Array],
        ends: Ends = "float32",
        ranges: Ranges | None = None,
    ) -> None:
        quantizer.quantize_int8(float_path, path, samples, io=ends, ranges=ranges)

    def byte_range(self, path: Path) -> dict[str, tuple[float, float]]:
        return byte_input.ranges(file.read(path))

    def extremes(self, path: Path, samples: Sequence[Array], threads: int = 1) -> dict[str, Array]:
        return activations.extremes(path, samples, threads)

    def histograms(self, path: Path, samples: Sequence[Array], limits: Ranges, threads: int = 1) -> dict[str, Array]:
        return activations.histograms(path, samples, limits, threads)


QUANTISER = LiteRTQuantiser()

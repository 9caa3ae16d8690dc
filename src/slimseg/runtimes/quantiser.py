"""The interface of a runtime's quantiser, which makes files of 8 or 16 bits from a float file of the runtime."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from numpy.typing import NDArray

Array = NDArray[Any]
Ranges = Mapping[str, tuple[float, float]]  # (low, high) of activations, by name of the tensor
# What is quantised, and how; see `commands/quantize.py`.
Scheme = Literal["float16", "dynamic", "weight-only", "int8", "int16x8"]
SCHEMES: tuple[Scheme, ...] = get_args(Scheme)
STATIC: tuple[Scheme, ...] = ("int8", "int16x8")  # activations have fixed ranges, which must be calibrated
# Types of an int8 file's input and output: both float32, both 8-bit, or an image's bytes in and 8 bits out ("image").
Ends = Literal["float32", "int8", "image"]


class Quantiser(ABC):
    """Quantises a runtime's float files whose weights are in 32 bits, and measures activations to find their ranges.

    Raises:
        DataError: there is no sample, or one has a wrong shape.
        ModelError: a file is missing or damaged, or cannot be quantised.
        OutputError: a file cannot be written.
        RuntimeFailure: the runtime or its quantiser refused a file.
    """

    @abstractmethod
    def check(self, path: Path) -> None:
        """Check that a file can be quantised.

        Raises:
            ModelError: it is quantised already, or has weights that are not finite.
        """

    @abstractmethod
    def quantise(
        self,
        float_path: Path,
        path: Path,
        scheme: Scheme,
        ranges: Ranges | None = None,
        ends: Ends = "float32",
        keep_float: Collection[str] = (),
    ) -> None:
        """Quantise a file with a scheme, and write the result to `path`.

        Args:
            ranges: range of every activation; for the static schemes only.
            ends: types of the input and output; only int8 has others than float32. "image" needs a file that takes
                bytes, see `byte_range`.
            keep_float: names of operators, or of their results, that stay in float32.
        """

    @abstractmethod
    def quantise_int8(
        self,
        float_path: Path,
        path: Path,
        samples: Sequence[Array],
        ends: Ends = "float32",
        ranges: Ranges | None = None,
    ) -> None:
        """Quantise a file to int8 with ranges that are calibrated on samples, and write the result to `path`.

        Args:
            samples: preprocessed inputs (1, height, width, channels) float32.
            ends: types of the input and output.
            ranges: used in place of calibrated ranges.
        """

    @abstractmethod
    def byte_range(self, path: Path) -> dict[str, tuple[float, float]]:
        """The range of the input for which one step of int8 is one grey level of an image.

        Raises:
            ModelError: the file does not take an image's bytes.
        """

    @abstractmethod
    def extremes(self, path: Path, samples: Sequence[Array], threads: int = 1) -> dict[str, Array]:
        """Minimum and maximum of every activation of a float file on each sample, (samples, 2), by name of the tensor.

        Args:
            samples: preprocessed inputs ([1,] height, width, channels) float32.

        Raises:
            ModelError: an activation is not finite.
        """

    @abstractmethod
    def histograms(self, path: Path, samples: Sequence[Array], limits: Ranges, threads: int = 1) -> dict[str, Array]:
        """Histogram of every activation of a float file over all samples, (bins,) counts, by name of the tensor.

        Args:
            samples: as for `extremes`.
            limits: both ends of each histogram, for every activation.
        """

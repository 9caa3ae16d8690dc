"""From options to what the library takes: networks, images, sizes, numbers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from slimseg.cli.showing import note
from slimseg.errors import UserError

if TYPE_CHECKING:  # nothing that takes long to import, so that --help is quick
    from slimseg.graph.description import Description
    from slimseg.graph.graph import Graph
    from slimseg.runtimes.processor import Processor
    from slimseg.training.data import Folder


@dataclass(frozen=True)
class Opening:
    """A model as the command line names it, and what the user says of it."""

    model: str
    weights: Path | None = None
    input_size: str | None = None
    mean: str | None = None
    std: str | None = None
    channel_order: str | None = None
    output_kind: str | None = None
    output: str | None = None

    def load(self, say_notes: bool = True) -> Graph:
        """The network; what there is to know about how it was opened is said, unless the result says so.

        Raises:
            UserError: it cannot be opened, or an option makes no sense.
        """
        from slimseg.frontends import load

        graph = load(
            self.model,
            None if self.input_size is None else size(self.input_size, "--input-size"),
            weights=self.weights,
            mean=numbers("--mean", self.mean),
            std=numbers("--std", self.std),
            channel_order=self.channel_order,
            output_kind=self.output_kind,
            output=self.output,
        )
        for text in graph.notes if say_notes else ():
            note(f"{graph.name}: {text}")
        if not graph.source_check.runtime:  # else the result says it
            note(f"{graph.name}: {graph.source_check}")
        return graph

    def describe(self) -> Description:
        """What a `.tflite` says of itself, overruled by what the user says.

        Raises:
            UserError: the file is damaged, or an option makes no sense.
        """
        from slimseg.frontends import describe, guessed_preprocessing
        from slimseg.graph.preprocessing import in_bytes

        means, stds = numbers("--mean", self.mean), numbers("--std", self.std)
        description = describe(
            self.model,
            mean=means,
            std=stds,
            channel_order=self.channel_order,
            output_kind=self.output_kind,
            output=self.output,
        )
        guess = guessed_preprocessing(self.model)[1] if means is None and stds is None else ""
        for text in filter(None, (in_bytes(means, stds)[2], guess)):
            note(f"{self.model}: {text}")
        return description


def images(data: Path | None, foreground: str | None) -> Folder | None:
    """The folder of images, if there is one. Raises: UserError."""
    if data is None:
        if foreground is not None:
            raise UserError("--foreground describes masks and needs a folder of them: give --data")
        return None
    from slimseg.training.data import open_folder

    return open_folder(data, foreground)


def runtime_named(name: str | None) -> str | None:
    """The runtime that was asked for, if one was. Raises: UserError."""
    if name is None:
        return None
    from slimseg.runtimes.registry import named

    return named(name).name


def processors_named(model: str, on: str | None, text: str | None, driver: Path | None) -> tuple[Processor, ...]:
    """The processors beside the CPU that were asked for, of the model's runtime. Raises: UserError."""
    from slimseg.deployment import DEFAULT_RUNTIME
    from slimseg.runtimes import registry

    if text is None:
        if driver is not None:
            raise UserError("--vulkan-driver is for the GPU delegate: add --processor gpu")
        return ()
    own = registry.of(model).name if registry.runs_unchanged(model) else DEFAULT_RUNTIME
    return registry.processors(registry.known(on or own), text, driver)


def size(text: str, option: str) -> tuple[int, int]:
    """Height and width in pixels. Raises: UserError."""
    height, _, width = text.strip().lower().partition("x")
    if not (height.isdigit() and width.isdigit()):
        raise UserError(f"{option} {text!r} is not a size: give HEIGHTxWIDTH, for example 256x320")
    return int(height), int(width)


def numbers(option: str, text: str | None) -> list[float] | None:
    """One number or several with commas between. Raises: UserError."""
    if text is None:
        return None
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise UserError(f"{option} {text!r} must be one number, or three separated by commas") from None

"""Quantisation-aware training: the float network is the teacher of its int8 form.

    ranges    only ranges are trained, starting from calibration: they balance clipping against rounding
    all       weights, biases and ranges are trained; batch norms are folded into the weights (`file_form`)
    weights   ranges are frozen, so that weights settle on grids that no longer change

Small networks converge badly if weights and ranges are trained together to the end, so the last phase freezes the
ranges, as Jain et al. freeze thresholds ("Trained Quantization Thresholds", 2020, section 5.2). The file gets exactly
what was learnt: the ranges replace the quantiser's calibration, the weights are those that the file rounds, and the
network evaluated here gives the same outputs as the file (`arithmetic`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from slimseg.disk import scratch
from slimseg.errors import Unsupported
from slimseg.graph import image_input
from slimseg.graph.graph import Graph
from slimseg.graph.orders import nchw, nhwc
from slimseg.planning.choosing.scores import logits_of
from slimseg.progress import Progress
from slimseg.quantisation import calibration, grids
from slimseg.quantisation.carried import carried
from slimseg.quantisation.network import QuantisedNetwork, file_form
from slimseg.runtimes import deployed, host, registry
from slimseg.runtimes.quantiser import Ends
from slimseg.tflite import file
from slimseg.training import distil
from slimseg.training.batches import Batches, translated
from slimseg.training.data import Folder
from slimseg.training.loop import Schedule, TrainingLog, train

Ranges = Mapping[str, tuple[float, float]]


@dataclass(frozen=True)
class Phase:
    """One part of the freezing schedule."""

    name: str
    share: float  # share of the steps and of the time, 0-1
    learning_rate: float
    ranges: bool  # whether ranges are trained
    weights: bool  # whether weights are trained


PHASES = (
    Phase("ranges", 0.1, 1e-2, ranges=True, weights=False),
    Phase("ranges and weights", 0.6, 1e-3, ranges=True, weights=True),
    Phase("weights", 0.3, 3e-4, ranges=False, weights=True),
)
STEPS = 1000
CALIBRATION_IMAGES = 100


class QuantisationAwareTraining:
    """Trains the int8 form of one network, and writes it.

    `graph` is the network in the form of its file. Its input is RGB bytes if the normalisation can be folded into the
    first layer. `network` computes the same as its int8 file.
    """

    def __init__(
        self,
        graph: Graph,
        folder: Folder,
        with_labels: bool,
        seed: int,
        progress: Progress,
        method: calibration.Method = "mse",
        teacher: Graph | None = None,
        weight_bits: int = 8,
        io: Ends | None = None,
    ) -> None:
        """`method` finds the initial ranges.

        `teacher` is any network with the same classes, whose input size may differ; by default `graph` in float32.
        `io` is the type of the file's input and output; by default an image's bytes if possible, else float32.

        Raises:
            Unsupported: the graph cannot be written.
            ModelError, RuntimeFailure: its file cannot be quantised.
        """
        torch.manual_seed(seed)
        self.graph, self.io = _taking_bytes(graph) if io is None else (_of(graph, io), io)
        self.seed = seed
        self.progress = progress
        self.images = folder.sample_images(CALIBRATION_IMAGES, seed=seed)
        with scratch.folder() as work:
            path = work / "float.tflite"
            deployed.write_float(self.graph, path)
            given = registry.of(path).quantiser().byte_range(path) if self.io == "image" else {}
            samples = host.prepared(self.graph, self.images)
            self.ranges: Ranges = {**calibration.observe(path, samples, {method}).ranges(method), **given}
            found = grids.probe(path)
        self.network = QuantisedNetwork(self.graph, found, self.ranges, given, weight_bits)
        self.student = QuantisedNetwork(logits_of(self.graph), found, self.ranges, given, weight_bits)
        self.student.factors = self.network.factors
        self.teacher = logits_of((teacher or graph).copy())
        self.batches = iter(Batches(self.graph, folder, with_labels, seed, self.teacher.input_size))

    def train(self, steps: int = STEPS, seconds: float = float("inf")) -> list[TrainingLog]:
        """Train all phases, with at most `steps` steps and `seconds` seconds in total."""
        logs = []
        for phase in PHASES:
            for name, parameter in self.student.named_parameters():
                learns = phase.ranges if name.startswith("factors.") else phase.weights
                parameter.requires_grad_(learns and name not in self._fixed)
            schedule = Schedule(
                max(1, round(phase.share * steps)), phase.learning_rate, time_limit_s=phase.share * seconds
            )
            what = f"quantisation-aware training, {phase.name}"
            logs.append(train(self.student, self._loss, self.batches, schedule, self.progress, what, seed=self.seed))
        return logs

    @property
    def _fixed(self) -> set[str]:
        return {f"factors.{self.graph.input.name}"} if self.io == "image" else set()

    def _loss(self, batch: distil.Batch) -> Tensor:
        images = batch.images if batch.large is None else batch.large
        distil.follow(self.teacher, images)
        mine, its = (each.description.preprocessing for each in (self.graph, self.teacher))
        with torch.no_grad():
            expected = self.teacher(translated(images, mine, its))
        self.student.train()
        try:
            return distil.class_loss(self.student(batch.images), expected, batch, distil.Weights())
        finally:
            self.student.eval()

    def write(self, float_path: Path, path: Path) -> None:
        """Write the trained network in float32 to `float_path`, and in int8 with the learnt ranges to `path`.

        Raises:
            OutputError: a file cannot be written.
        """
        deployed.write_float(self.graph, float_path)
        ranges = {**self.ranges, **self.network.ranges()}
        its, quantiser = registry.of(path), registry.of(float_path).quantiser()
        quantised = path.with_suffix(float_path.suffix) if its.carries else path
        quantiser.quantise_int8(float_path, quantised, host.prepared(self.graph, self.images[:1]), self.io, ranges)
        if its.carries:
            carried(quantised, float_path, "int8", its)

    def masks(self, images: Sequence[NDArray[np.uint8]], float_path: Path) -> list[NDArray[np.uint8]]:
        """The network's class masks of RGB images, at the images' sizes: the int8 file must give the same."""
        app = host.App(file.read(float_path), self.graph.description)
        self.network.eval()
        found = []
        for image in images:
            with torch.no_grad():
                inputs = nchw(app.pipeline(image)[None])
                output = self.network(inputs)
            value = nhwc(output)
            found.append(app.mask(value[0].numpy(), (image.shape[0], image.shape[1])))
        return found


def _taking_bytes(graph: Graph) -> tuple[Graph, Ends]:
    try:
        return _of(graph, "image"), "image"
    except Unsupported:
        return _of(graph, "float32"), "float32"


def _of(graph: Graph, io: Ends) -> Graph:
    """The graph in the form of its file, with the normalisation folded if `io` is "image".

    Raises:
        Unsupported: the graph cannot take bytes, or cannot be written.
    """
    return file_form(image_input.fold(graph) if io == "image" else graph)

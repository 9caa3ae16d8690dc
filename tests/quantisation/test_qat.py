"""Quantisation-aware training on drawn shapes, and the file that comes of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from slimseg.commands.evaluate import predictions
from slimseg.graph import edit
from slimseg.graph.graph import Graph
from slimseg.progress import Silent
from slimseg.quantisation import qat
from slimseg.quantisation.qat import QuantisationAwareTraining
from slimseg.tflite import file
from slimseg.training.data import open_folder, read_pair
from slimseg.training.loop import Schedule


def agreement(training: QuantisationAwareTraining, folder: Path, out: Path) -> float:
    """Of the file's masks with the trained network's, in percent of the validation pixels."""
    float_path, path = out / "float.tflite", out / "int8.tflite"
    training.write(float_path, path)
    val = open_folder(folder).val
    description = file.read_description(path)
    assert description is not None
    theirs = [mask for _, _, mask in predictions(path, val, description, None, 1, Silent())]
    mine = training.masks([read_pair(val, index)[0] for index in range(len(val.images))], float_path)
    return 100 * float(np.mean([np.mean(a == b) for a, b in zip(mine, theirs, strict=True)]))


def test_it_learns_and_ships_what_it_trained(shapes_graph: Graph, shapes: Path, tmp_path: Path) -> None:
    training = QuantisationAwareTraining(shapes_graph, open_folder(shapes), True, 0, Silent())
    before = training.network.ranges()
    logs = training.train(steps=10)
    assert [log.steps for log in logs] == [1, 6, 3]
    moved = [leader for leader, ends in training.network.ranges().items() if ends != before[leader]]
    assert len(moved) > 0.5 * len(before)
    assert training.graph.input.name not in moved, "a byte is a byte"
    assert agreement(training, shapes, tmp_path) >= 99.9
    assert file.read(tmp_path / "int8.tflite").inputs[0].dtype == "uint8"


def test_the_original_is_left_alone(shapes_graph: Graph, shapes: Path) -> None:
    before = {name: value.clone() for name, value in shapes_graph.module.state_dict().items()}
    QuantisationAwareTraining(shapes_graph, open_folder(shapes), True, 0, Silent()).train(steps=2)
    assert all(torch.equal(value, before[name]) for name, value in shapes_graph.module.state_dict().items())


def test_a_teacher_of_another_size(shapes_graph: Graph, shapes: Path) -> None:
    small = edit.at_input_size(shapes_graph, (64, 80))
    training = QuantisationAwareTraining(small, open_folder(shapes), False, 0, Silent(), teacher=shapes_graph)
    batch = next(training.batches)
    assert batch.large is not None
    assert batch.large.shape[2:] == (128, 160)
    assert torch.isfinite(training._loss(batch))


def test_phases_are_one_schedule() -> None:
    assert sum(phase.share for phase in qat.PHASES) == pytest.approx(1)
    assert not qat.PHASES[-1].ranges
    assert Schedule(1).precision == "32-true", "bfloat16 would round the rounded"

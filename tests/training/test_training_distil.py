"""Distillation: blocks learn alone from the teacher's features, equal parts are computed once, the whole follows."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from slimseg.graph import edit
from slimseg.graph.graph import Graph
from slimseg.graph.ops import Concat
from slimseg.progress import Silent
from slimseg.training import distil, losses
from slimseg.training.data import IGNORED
from slimseg.training.loop import Schedule, train


class Net(nn.Module):
    """A stem, a middle to be replaced, a skip past it, a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1, stride=2)
        self.act = nn.ReLU()
        self.middle = nn.Conv2d(8, 8, 3, padding=1)
        self.middle_act = nn.ReLU()
        self.cat = Concat()
        self.head = nn.Conv2d(16, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.stem(x))
        return self.head(self.cat(self.middle_act(self.middle(x)), x))


def block() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.Conv2d(8, 8, 1))


@pytest.fixture
def teacher() -> Graph:
    torch.manual_seed(0)
    graph = edit.trace(Net(), (1, 3, 16, 16), "teacher")
    graph.module.requires_grad_(False)
    return graph


@pytest.fixture
def student(teacher: Graph) -> Graph:
    graph = edit.replace(teacher, ["act"], "middle", block())
    for name, parameter in graph.module.named_parameters():
        parameter.requires_grad_(name.startswith("middle"))
    return graph


PAIR = distil.BlockPair("act", "middle_act")


def batches(labels: bool = False) -> Iterator[distil.Batch]:
    generator = torch.Generator().manual_seed(0)
    while True:
        images = torch.randn(4, 3, 16, 16, generator=generator)
        yield distil.Batch(images, torch.randint(0, 4, (4, 16, 16), generator=generator) if labels else None)


def new_layers(layer: str) -> bool:
    return layer.startswith("middle")


def test_freeze_except(student: Graph) -> None:
    distil.freeze_except(student, new_layers)
    trained = {name for name, parameter in student.module.named_parameters() if parameter.requires_grad}
    assert trained
    assert all(name.startswith("middle") for name in trained)


def test_a_perfect_block_has_no_mimic_loss(teacher: Graph) -> None:
    assert float(distil.mimic_loss(teacher, teacher.copy(), [PAIR])(next(batches()))) == pytest.approx(0, abs=1e-9)


def test_a_block_is_fed_with_the_teachers_features(teacher: Graph, student: Graph) -> None:
    batch = next(batches())
    before = float(distil.mimic_loss(teacher, student, [PAIR])(batch).detach())
    with torch.no_grad():
        student.module.get_submodule("stem").weight.zero_()
    assert float(distil.mimic_loss(teacher, student, [PAIR])(batch).detach()) == before


def test_mimicking_trains_the_block_and_nothing_else(teacher: Graph, student: Graph) -> None:
    reference = {name: value.clone() for name, value in teacher.module.state_dict().items()}
    distil.freeze_except(student, new_layers)
    log = train(
        student.module, distil.mimic_loss(teacher, student, [PAIR]), batches(), Schedule(120), Silent(), "mimicking"
    )
    assert log.last_loss < 0.7 * log.first_loss
    assert all(torch.equal(reference[name], value) for name, value in teacher.module.state_dict().items())
    assert torch.equal(student.module.get_submodule("stem").weight, reference["stem.weight"])


def test_shared_values_are_those_before_the_first_edit(teacher: Graph, student: Graph) -> None:
    assert distil.shared_values(teacher, student) == {"stem", "act"}


@pytest.mark.parametrize("why", ["trainable", "changed"])
def test_a_layer_that_may_differ_is_not_shared(teacher: Graph, student: Graph, why: str) -> None:
    stem = student.module.get_submodule("stem")
    if why == "trainable":
        stem.requires_grad_(True)
    else:
        stem.bias.data += 1
    assert distil.shared_values(teacher, student) == set()


def test_layers_without_weights_are_compared_by_their_settings(teacher: Graph) -> None:
    other = teacher.copy()
    other.module.act = nn.LeakyReLU(0.3)
    third = teacher.copy()
    third.module.act = nn.LeakyReLU(0.1)
    for graph in (other, third):
        graph.module.requires_grad_(False)
    assert "act" not in distil.shared_values(other, third)
    assert "act" in distil.shared_values(other, other.copy())


def test_computing_the_shared_part_once_changes_no_value(teacher: Graph, student: Graph) -> None:
    batch = next(batches(labels=True))
    loss = distil.distil_loss(teacher, student, ["middle_act"], distil.Weights())
    shared = loss(batch)
    shared.backward()
    gradients = [p.grad.clone() for p in student.module.parameters() if p.grad is not None]
    student.module.zero_grad()
    student.module.get_submodule("stem").requires_grad_(True)  # now nothing is shared
    apart = distil.distil_loss(teacher, student, ["middle_act"], distil.Weights())(batch)
    apart.backward()
    student.module.get_submodule("stem").weight.grad = student.module.get_submodule("stem").bias.grad = None
    others = [p.grad for p in student.module.parameters() if p.grad is not None]
    assert float(shared.detach()) == pytest.approx(float(apart.detach()), rel=1e-5)
    assert gradients
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(gradients, others, strict=True))


def test_distilling_brings_the_student_to_the_teacher(teacher: Graph, student: Graph) -> None:
    images = torch.randn(8, 3, 16, 16, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        wanted = teacher(images).argmax(1)
        before = float((student(images).argmax(1) == wanted).float().mean())
    distil.freeze_except(student, new_layers)
    loss = distil.distil_loss(teacher, student, ["middle_act"], distil.Weights())
    train(student.module, loss, batches(), Schedule(200, learning_rate=2e-2), Silent(), "distilling")
    with torch.no_grad():
        after = float((student(images).argmax(1) == wanted).float().mean())
    assert after > before + 0.02


def test_without_labels_what_the_teacher_is_sure_of_stands_for_them(teacher: Graph, student: Graph) -> None:
    images = next(batches()).images
    loss = distil.distil_loss(teacher, student, [], distil.Weights(lovasz=0.0))
    with torch.no_grad():
        sure = losses.sure_classes(teacher(images))
    assert float(loss(distil.Batch(images)).detach()) == pytest.approx(float(loss(distil.Batch(images, sure)).detach()))
    ignored = loss(distil.Batch(images, torch.full((4, 16, 16), IGNORED)))
    assert float(ignored.detach()) < float(loss(distil.Batch(images, (sure + 1) % 4)).detach())


def test_a_large_teacher_is_asked_for_the_classes(teacher: Graph, student: Graph) -> None:
    batch = distil.Batch(torch.randn(2, 3, 16, 16), None, torch.randn(2, 3, 32, 32))
    large = edit.at_input_size(teacher, (32, 32))
    weights = distil.Weights(features=0.0, labels=0.0, lovasz=0.0)
    given = distil.distil_loss(teacher, student, [], weights, large)(batch).detach()
    with torch.no_grad():
        expected = losses.distillation(student(batch.images), large(batch.large))
        without = losses.distillation(student(batch.images), teacher(batch.images))
    assert float(given) == pytest.approx(float(expected))
    assert float(given) != pytest.approx(float(without))


def test_every_image_is_shared_when_student_and_teacher_are_equal_and_frozen(teacher: Graph) -> None:
    student = teacher.copy()
    student.module.requires_grad_(False)
    value = distil.distil_loss(teacher, student, [], distil.Weights())(next(batches()))
    assert float(value) == pytest.approx(0, abs=1e-6)

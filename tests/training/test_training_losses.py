"""Losses against values worked out by hand or by their definition."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from slimseg.training import losses
from slimseg.training.data import IGNORED


def logits_of(masks: torch.Tensor, classes: int, sure: float = 30.0) -> torch.Tensor:
    return sure * F.one_hot(masks.clamp(max=classes - 1), classes).movedim(-1, 1).float()


def test_cross_entropy_leaves_ignored_pixels_out() -> None:
    logits = torch.zeros(1, 4, 2, 2)
    masks = torch.tensor([[[0, 1], [IGNORED, 3]]])
    assert float(losses.cross_entropy(logits, masks)) == pytest.approx(math.log(4))
    logits[:, :, 1, 0] = 100 * torch.randn(4)  # the ignored pixel
    assert float(losses.cross_entropy(logits, masks)) == pytest.approx(math.log(4))


def test_cross_entropy_of_a_batch_without_labels_does_not_poison_the_weights() -> None:
    logits = torch.randn(1, 3, 2, 2, requires_grad=True)
    value = losses.cross_entropy(logits, torch.full((1, 2, 2), IGNORED))
    value.backward()
    assert math.isfinite(float(value.detach()))
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


def test_logits_below_the_masks_size_are_resized() -> None:
    masks = torch.randint(0, 3, (2, 8, 12))
    value = losses.cross_entropy(torch.randn(2, 3, 4, 6), masks)
    assert value.ndim == 0


def test_lovasz_is_one_minus_iou_for_sure_predictions() -> None:
    masks = torch.tensor([[[0, 0, 1, 1]]])
    predicted = torch.tensor([[[0, 1, 1, 1]]])
    # class 0: IoU 1/2; class 1: IoU 2/3
    wanted = 1 - (1 / 2 + 2 / 3) / 2
    assert float(losses.lovasz_softmax(logits_of(predicted, 3), masks)) == pytest.approx(wanted, abs=1e-5)
    assert float(losses.lovasz_softmax(logits_of(masks, 3), masks)) == pytest.approx(0, abs=1e-5)


def test_lovasz_without_any_label_is_zero_with_a_gradient() -> None:
    logits = torch.randn(1, 3, 2, 2, requires_grad=True)
    value = losses.lovasz_softmax(logits, torch.full((1, 2, 2), IGNORED))
    value.backward()
    assert float(value.detach()) == 0


def test_distillation_is_hintons_formula() -> None:
    student, teacher = torch.randn(2, 5, 3, 4), torch.randn(2, 5, 3, 4)
    temperature = 3.0
    p, q = (teacher / temperature).softmax(1), (student / temperature).softmax(1)
    wanted = temperature**2 * (p * (p / q).log()).sum(1).mean()
    assert torch.allclose(losses.distillation(student, teacher, temperature), wanted, atol=1e-5)
    assert float(losses.distillation(teacher, teacher, temperature)) == pytest.approx(0, abs=1e-6)
    shifted = teacher + torch.randn(2, 1, 3, 4)  # softmax does not see a shift
    assert float(losses.distillation(shifted, teacher)) == pytest.approx(0, abs=1e-5)


def test_one_channel_is_the_logit_of_the_second_of_two_classes() -> None:
    student, teacher = torch.randn(2, 2, 3, 4), torch.randn(2, 2, 3, 4)
    wanted = losses.distillation(student, teacher)
    one, other = student[:, 1:] - student[:, :1], teacher[:, 1:] - teacher[:, :1]
    assert torch.allclose(losses.distillation(one, other), wanted, atol=1e-5)
    # the head technique makes one channel of two: the teacher then still has both
    assert torch.allclose(losses.distillation(one, teacher), wanted, atol=1e-5)


def test_mimicry_is_zero_for_equal_and_one_for_the_mean() -> None:
    teacher = torch.randn(4, 6, 8, 8) * torch.logspace(0, 0.5, 6).reshape(1, 6, 1, 1)
    assert float(losses.mimicry(teacher, teacher)) == 0
    mean = teacher.mean((0, 2, 3), keepdim=True).expand_as(teacher)
    assert float(losses.mimicry(mean, teacher)) == pytest.approx(1, abs=0.2)


def test_a_silent_channel_does_not_drown_the_rest() -> None:
    teacher = torch.randn(4, 6, 8, 8)
    teacher[:, 0] *= 1e-4
    student = teacher.clone()
    student[:, 0] += 0.1
    assert float(losses.mimicry(student, teacher)) < 0.1


def test_mimicry_of_a_dead_channel_stays_finite() -> None:
    teacher = torch.zeros(2, 3, 4, 4)
    assert math.isfinite(float(losses.mimicry(torch.zeros_like(teacher), teacher)))


def test_mimicry_resizes_where_the_input_size_changed() -> None:
    teacher = torch.ones(1, 2, 8, 8) * torch.tensor([1.0, 2.0]).reshape(1, 2, 1, 1)
    assert float(losses.mimicry(teacher[:, :, :4, :4], teacher)) == pytest.approx(0, abs=1e-6)


def test_sure_classes_leave_out_what_is_doubtful() -> None:
    logits = torch.tensor([[4.0, 0.0], [0.0, 0.1], [0.0, 5.0]]).reshape(1, 3, 1, 2)
    assert losses.sure_classes(logits).tolist() == [[[0, 2]]]
    assert losses.sure_classes(logits, least=0.999).tolist() == [[[IGNORED, IGNORED]]]
    one_channel = torch.tensor([9.0, -9.0, 0.1]).reshape(1, 1, 1, 3)
    assert losses.sure_classes(one_channel).tolist() == [[[1, 0, IGNORED]]]

"""Augmentation: images and masks move together, labels stay labels, a seed repeats it."""

from __future__ import annotations

import torch

from slimseg.training import augment
from slimseg.training.data import IGNORED

SIZE = (32, 48)


def scenes(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Grey levels that say which class a pixel has: 0, 0.25, 0.5, 0.75 in vertical stripes and blocks."""
    masks = torch.randint(0, 4, (count, SIZE[0] // 8, SIZE[1] // 8)).repeat_interleave(8, 1).repeat_interleave(8, 2)
    return (masks / 4).unsqueeze(1).expand(-1, 3, -1, -1).contiguous(), masks


def without_colour() -> torch.nn.Module:
    steps = augment.augmentation(SIZE)
    for step in steps.children():
        if "Color" in type(step).__name__:
            step.p = 0.0
            step.p_batch = 0.0
    return steps


def test_masks_follow_their_images() -> None:
    torch.manual_seed(0)
    images, masks = scenes(16)
    moved, labels = augment.apply(without_colour(), images, masks)
    assert labels is not None
    assert moved.shape == images.shape
    assert labels.shape == masks.shape
    assert not torch.equal(moved, images)
    known = labels != IGNORED
    # bilinear resampling blurs the borders of blocks; inside they must agree
    agree = (moved[:, 0] * 4 - labels).abs() < 0.05
    assert float(agree[known].float().mean()) > 0.8
    assert float(known.float().mean()) > 0.8


def test_resampling_makes_up_no_classes() -> None:
    torch.manual_seed(0)
    images, _ = scenes(16)
    masks = torch.where(images[:, 0] > 0.4, 10, 0)
    for _ in range(5):
        _, labels = augment.apply(augment.augmentation(SIZE), images, masks)
        assert labels is not None
        assert set(labels.unique().tolist()) <= {0, 10, IGNORED}


def test_ignored_stays_ignored() -> None:
    torch.manual_seed(0)
    images, masks = scenes(4)
    _, labels = augment.apply(augment.augmentation(SIZE), images, torch.full_like(masks, IGNORED))
    assert labels is not None
    assert labels.unique().tolist() == [IGNORED]


def test_a_seed_repeats_it_and_values_stay_in_range() -> None:
    images, masks = scenes(8)
    results = []
    for _ in range(2):
        torch.manual_seed(7)
        results.append(augment.apply(augment.augmentation(SIZE), images, masks))
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])
    assert float(results[0][0].min()) >= 0
    assert float(results[0][0].max()) <= 1


def test_without_geometry_only_colours_change() -> None:
    torch.manual_seed(0)
    images, masks = scenes(16)
    changed, labels = augment.apply(augment.augmentation(SIZE, geometry=False), images, masks)
    assert torch.equal(labels, masks)
    assert not torch.equal(changed, images)


def test_images_without_masks() -> None:
    images, _ = scenes(2)
    changed, labels = augment.apply(augment.augmentation(SIZE), images, None)
    assert labels is None
    assert changed.shape == images.shape

"""The training script learns, and its result does not depend on when it ran."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from slimseg.demonstration import train


@pytest.fixture(scope="module")
def scenes() -> tuple[Tensor, Tensor]:
    """Images and masks."""
    return train.draw(8, seed=0)


def test_a_short_training_lowers_the_loss(
    scenes: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(train, "PHASES", ((0.125, 51, 4e-3),))
    train.train(*scenes)
    losses = [float(line.rsplit(" ", 1)[1]) for line in capsys.readouterr().out.splitlines()]
    assert losses[-1] < 0.6 * losses[0]


def test_training_repeats(scenes: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "PHASES", ((0.125, 4, 4e-3), (0.25, 2, 1e-3)))
    first, second = (train.train(*scenes).state_dict() for _ in range(2))
    for name, value in first.items():
        torch.testing.assert_close(second[name], value, rtol=1e-3, atol=1e-4)

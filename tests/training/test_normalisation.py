"""Batch norm measured anew, against statistics worked out by hand."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from slimseg.training.normalisation import recalibrate


def net() -> nn.Sequential:
    torch.manual_seed(0)
    first, second = nn.BatchNorm2d(4, momentum=0.3), nn.BatchNorm2d(5)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), first, nn.ReLU(), nn.Conv2d(4, 5, 1), second).eval()
    for layer in (first, second):
        layer.running_mean.copy_(torch.randn(layer.num_features))
        layer.running_var.copy_(torch.rand(layer.num_features) + 1)
        layer.weight.data.copy_(torch.randn(layer.num_features))
    return model


def batches() -> list[Tensor]:
    return list(torch.randn(9, 3, 8, 8, generator=torch.Generator().manual_seed(1)).mul(3).add(1).split([4, 4, 1]))


def average(values: list[Tensor]) -> Tensor:
    return torch.stack(values).mean(0)


def test_statistics_are_the_averages_over_the_batches() -> None:
    model = net()
    recalibrate(model, batches())
    with torch.no_grad():
        features = [model[0](images) for images in batches()]
        torch.testing.assert_close(model[1].running_mean, average([each.mean((0, 2, 3)) for each in features]))
        torch.testing.assert_close(model[1].running_var, average([each.var((0, 2, 3)) for each in features]))
        # The second sees the first as it is in training: normalised by each batch's own statistics.
        mean_var = [(each.mean((0, 2, 3), True), each.var((0, 2, 3), correction=0, keepdim=True)) for each in features]
        scale, shift = model[1].weight[:, None, None], model[1].bias[:, None, None]
        normed = [
            (x - mean) / (var + 1e-5).sqrt() * scale + shift for x, (mean, var) in zip(features, mean_var, strict=True)
        ]
        seconds = [model[3](each.relu()) for each in normed]
    torch.testing.assert_close(model[4].running_mean, average([each.mean((0, 2, 3)) for each in seconds]))
    torch.testing.assert_close(model[4].running_var, average([each.var((0, 2, 3)) for each in seconds]))


def test_only_the_chosen_layers_are_measured_and_weights_stay() -> None:
    model, before = net(), {name: value.clone() for name, value in net().state_dict().items()}
    recalibrate(model, batches(), lambda name: name == "4")
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"4.running_mean", "4.running_var", "4.num_batches_tracked"}
    with torch.no_grad():
        features = [model[:4](images) for images in batches()]
    torch.testing.assert_close(model[4].running_mean, average([each.mean((0, 2, 3)) for each in features]))


def test_settings_are_as_before() -> None:
    model = net().train()
    recalibrate(model, batches())
    assert not any(layer.training for layer in model.modules())
    assert (model[1].momentum, model[4].momentum) == (0.3, 0.1)
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())


def test_a_second_time_changes_nothing() -> None:
    model = net()
    recalibrate(model, batches())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    recalibrate(model, batches())
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, before[name])


def test_without_images_or_layers_nothing_changes() -> None:
    def never() -> Iterator[Tensor]:
        raise AssertionError("no image is needed")
        yield

    model, before = net(), net().state_dict()
    recalibrate(model, [])
    recalibrate(model, never(), lambda name: False)
    assert not model.training
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])


def test_settings_are_as_before_when_images_do_not_fit() -> None:
    model = net()
    with pytest.raises(RuntimeError):
        recalibrate(model, [*batches(), torch.randn(1, 5, 8, 8)])
    assert not any(layer.training for layer in model.modules())
    assert model[1].momentum == 0.3


def test_it_brings_back_features_that_were_scaled() -> None:
    model = net()
    recalibrate(model, batches())
    with torch.no_grad():
        before = model(batches()[0])
        model[0].weight.mul_(5)
        model[0].bias.mul_(5).add_(2)
        assert (model(batches()[0]) - before).abs().mean() > 0.5
        recalibrate(model, batches())
        torch.testing.assert_close(model(batches()[0]), before, atol=1e-2, rtol=1e-2)

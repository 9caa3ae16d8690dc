"""Modules as training code hands them over: wrapped, scripted, fake-quantised, deciding by their own buffers."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import slimseg
from slimseg.errors import ModelError

SIZE = (16, 16)


def small() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 1)).eval()


class Around(nn.Module):
    """A network, and what its `forward` does with the scores."""

    def __init__(self, after: Callable[[nn.Module, Tensor], object]) -> None:
        super().__init__()
        self.net = small()
        self.after = after
        self.register_buffer("probability", torch.tensor([1.0, 0.0]))

    def forward(self, x: Tensor) -> object:
        return self.after(self, self.net(x))


@dataclass
class Result:
    logits: Tensor
    loss: Tensor | None = None


def by_buffers(module: nn.Module, y: Tensor) -> Tensor:
    if module.probability[0] > 0:
        y = y * 2
    if module.probability.sum().item() > 9 or bool((module.probability == 5).any()):
        y = y + 1
    return y * int(module.probability[1] + 3)


def checked(module: nn.Module, y: Tensor) -> Tensor:
    if torch.isnan(y).any():
        raise ValueError("no number")
    return y


def one_by_one(module: nn.Module, y: Tensor) -> Tensor:
    return torch.stack([torch.relu(each.unsqueeze(0))[0] for each in y])


def cached(module: nn.Module, y: Tensor) -> Tensor:
    if not hasattr(module, "columns"):
        module.columns = torch.linspace(0, 1, y.shape[-1])
    return y * module.columns


def with_spectral_norm() -> nn.Module:
    net = small()
    nn.utils.parametrizations.spectral_norm(net[0])
    nn.utils.parametrizations.weight_norm(net[3])
    return net.eval()


def scripted(tmp_path: Path) -> nn.Module:
    return torch.jit.script(small())


def traced_and_saved(tmp_path: Path) -> nn.Module:
    torch.jit.trace(small(), torch.zeros(1, 3, *SIZE)).save(tmp_path / "traced.pt")
    return torch.jit.load(tmp_path / "traced.pt")


def frozen(tmp_path: Path) -> nn.Module:
    return torch.jit.freeze(torch.jit.script(small()))


def within_another(tmp_path: Path) -> nn.Module:
    return nn.Sequential(torch.jit.script(small()), nn.Sigmoid())


WRAPPED: dict[str, Callable[[], nn.Module]] = {
    "DataParallel": lambda: nn.DataParallel(small()),
    "compiled": lambda: torch.compile(small()),
    "averaged": lambda: torch.optim.swa_utils.AveragedModel(small()),
    "parametrised": with_spectral_norm,
    "dataclass": lambda: Around(lambda module, y: Result(y)),
    "decides by buffers": lambda: Around(by_buffers),
    "checks its numbers": lambda: Around(checked),
    "goes through the batch": lambda: Around(one_by_one),
    "keeps positions": lambda: Around(cached),
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch.compile's own
@pytest.mark.parametrize("name", WRAPPED)
def test_a_wrapped_module_is_opened_as_it_computes(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    module = WRAPPED[name]()
    graph = slimseg.load(module, SIZE)
    assert graph.opaque() == []
    assert graph.source_check.relative_difference is not None
    assert graph.source_check.relative_difference < 1e-5
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("build", [scripted, traced_and_saved, frozen, within_another])
def test_torchscript_is_opened_with_its_names(build: Callable[[Path], nn.Module], tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        module = build(tmp_path)
    graph = slimseg.load(module, SIZE)
    assert graph.opaque() == []
    assert graph.source_check.relative_difference is not None
    assert graph.source_check.relative_difference < 1e-5
    assert sum(each.requires_grad for each in graph.module.parameters()) >= 4
    if build is not frozen:
        assert "0_3" in "".join(each.name for each in graph.layers()).replace("layer", "0")


def test_fake_quantisation_is_left_out_and_said() -> None:
    module = nn.Sequential(small(), torch.ao.quantization.FakeQuantize()).eval()
    with torch.no_grad():
        module(torch.randn(1, 3, *SIZE))
    module.apply(torch.ao.quantization.disable_observer)
    graph = slimseg.load(module, SIZE)
    assert graph.opaque() == []
    assert graph.is_quantised
    assert any("without the rounding" in note for note in graph.notes)


def test_a_module_converted_to_8_bits_is_refused_in_one_sentence() -> None:
    class Converted(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x

    Converted.__module__ = "torch.ao.nn.quantized.modules.conv"
    with pytest.raises(ModelError, match="give the network before `convert`"):
        slimseg.load(nn.Sequential(Converted()), SIZE)


def test_what_the_image_decides_is_refused_without_a_dump(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ModelError, match="free of data-dependent control flow"):
        slimseg.load(Around(lambda module, y: y * 2 if y.max() > 1 and module.probability[0] > 0 else y), SIZE)
    assert capfd.readouterr() == ("", "")

"""`.mlpackage` folders: read back, remarked upon, and never said to have been run where they were not."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from slimseg.errors import UserError
from slimseg.graph.graph import Graph
from slimseg.runtimes.coreml import exporter, package
from slimseg.runtimes.exporter import Request

Ask = Callable[..., Request]
SIZE = (32, 48)

with_coremltools = pytest.mark.skipif(not package.available(), reason="coremltools is not installed")


@with_coremltools
@pytest.mark.parametrize(("target", "precision"), [("coreml", "float16"), ("coreml:float32", "float32")])
def test_ends_and_what_is_not_verified(ask: Ask, target: str, precision: str) -> None:
    artefact = exporter.write(ask(target)).artefact
    assert artefact.precision == precision
    assert artefact.takes_pixels
    assert artefact.input is not None
    assert artefact.output is not None
    assert (artefact.input.shape, artefact.output.shape) == ((1, 3, *SIZE), (1, 4, *SIZE))
    assert any("macOS" in sentence for sentence in artefact.not_verified)
    assert any("Read back" in sentence for sentence in artefact.verified)


@with_coremltools
def test_layers_beyond_float16_are_named(ask: Ask, graph: Graph) -> None:
    with torch.no_grad():
        graph.module.get_submodule("layer_0").weight.mul_(1e5)
    artefact = exporter.write(ask("coreml")).artefact
    assert "layers in float32" in artefact.precision
    assert any("exceed the range of float16" in sentence for sentence in artefact.remarks)


@with_coremltools
def test_drawn_images_are_said_to_be_drawn(ask: Ask) -> None:
    artefact = exporter.write(ask("coreml", with_images=False)).artefact
    assert any("synthetic images" in sentence for sentence in artefact.not_verified)


def test_without_coremltools(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "coremltools", None)
    with pytest.raises(UserError, match="coreml"):
        exporter.write(ask("coreml"))


@with_coremltools
def test_the_package_is_where_it_should_be(ask: Ask, tmp_path: Path) -> None:
    written = exporter.write(ask("coreml"))
    assert written.path.is_dir()
    assert written.path.name == "model.mlpackage"

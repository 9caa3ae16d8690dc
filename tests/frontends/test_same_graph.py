"""The same network is the same Graph, whichever format it came from: the same layers with the same settings."""

from __future__ import annotations

import io
import warnings
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
import small_networks
import torch
from signature import Step, signature
from torch import nn

import slimseg
from slimseg.graph.fold import fold_scales
from slimseg.graph.graph import Graph
from slimseg.runtimes.litert.writing.writer import write

NAMES = [network.__name__ for network in small_networks.NETWORKS]
# The TorchScript exporter cannot export these.
NOT_IN_TORCH_SCRIPT = ("RmsNorm",)
# slimseg writes these to .tflite with values of four dimensions in another order, which then stay in that order.
OTHER_ORDER_IN_TFLITE = ("LinearAttention",)


@pytest.fixture(scope="module")
def opened() -> dict[str, tuple[nn.Module, Graph]]:
    """Each network, and its Graph from PyTorch."""
    networks = {network.__name__: small_networks.built(network) for network in small_networks.NETWORKS}
    return {name: (network, slimseg.load(network, small_networks.SIZE)) for name, network in networks.items()}


def same(network: nn.Module, graph: Graph, other: Graph, fold: bool = False) -> None:
    """Two Graphs of a network are the same, and compute what the network computes."""
    one, two = ((fold_scales(each) if fold else each) for each in (graph, other))
    steps: list[list[Step]] = [signature(one), signature(two)]
    assert steps[0] == steps[1]
    image = torch.randn(1, 3, *small_networks.SIZE)
    with torch.no_grad():
        torch.testing.assert_close(other(image), network(image), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_opaque(name: str, opened: dict[str, tuple[nn.Module, Graph]]) -> None:
    network, graph = opened[name]
    assert not graph.opaque()
    same(network, graph, graph)


@pytest.mark.parametrize("name", NAMES)
def test_exported_programs(name: str, opened: dict[str, tuple[nn.Module, Graph]], tmp_path: Path) -> None:
    network, graph = opened[name]
    path = tmp_path / "network.pt2"
    torch.export.save(torch.export.export(network, (torch.zeros(1, 3, *small_networks.SIZE),)), path)
    same(network, graph, slimseg.load(path, verify=False))


@pytest.mark.parametrize("opset", [14, 17])
@pytest.mark.parametrize("name", [name for name in NAMES if name not in NOT_IN_TORCH_SCRIPT])
def test_onnx_from_torch_script(
    name: str, opset: int, opened: dict[str, tuple[nn.Module, Graph]], tmp_path: Path
) -> None:
    """Before opset 17, layer norms are written out as arithmetic."""
    network, graph = opened[name]
    path = _exported(network, tmp_path / "network.onnx", dynamo=False, opset_version=opset)
    same(network, graph, slimseg.load(path, verify=False), fold=_is_folded_by_exporters(network))


@pytest.mark.parametrize("name", NAMES)
def test_onnx_from_exported_programs(name: str, opened: dict[str, tuple[nn.Module, Graph]], tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    network, graph = opened[name]
    path = _exported(network, tmp_path / "network.onnx", dynamo=True, external_data=False)
    same(network, graph, slimseg.load(path, verify=False), fold=_is_folded_by_exporters(network))


@pytest.mark.parametrize("name", [name for name in NAMES if name not in OTHER_ORDER_IN_TFLITE])
def test_tflite(name: str, opened: dict[str, tuple[nn.Module, Graph]], tmp_path: Path) -> None:
    """slimseg's own files, in which scales and shifts are folded."""
    network, graph = opened[name]
    write(graph, tmp_path / "network.tflite")
    same(network, graph, slimseg.load(tmp_path / "network.tflite", verify=False), fold=True)


def _is_folded_by_exporters(network: nn.Module) -> bool:
    return any(isinstance(layer, nn.BatchNorm2d) for layer in network.modules())


def _exported(network: nn.Module, path: Path, **settings: object) -> Path:
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        torch.onnx.export(network, (torch.zeros(1, 3, *small_networks.SIZE),), path, **settings)  # type: ignore[arg-type]
    return path

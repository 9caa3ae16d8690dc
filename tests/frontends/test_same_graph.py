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
from torch import Tensor, nn
from torch.nn import functional as F

import slimseg
from slimseg.graph import ops
from slimseg.graph.fold import fold_scales
from slimseg.graph.graph import Graph
from slimseg.runtimes.litert.writing.writer import write
from slimseg.runtimes.onnxruntime.writer import write as write_onnx

NAMES = [network.__name__ for network in small_networks.NETWORKS]
# The TorchScript exporter cannot export these.
NOT_IN_TORCH_SCRIPT = ("RmsNorm",)
# PyTorch's newer exporter takes seconds for each, so these stand for all; benchmarks/same_graph.py has whole networks.
NEWER_EXPORTER = ("TransformerBlock", "SegFormerStage", "PoolingPyramid")
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


@pytest.mark.parametrize("name", NEWER_EXPORTER)
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


class KerasTransformer(small_networks.Network):
    """What keras_zoo's `transformer` computes."""

    def __init__(self) -> None:
        super().__init__()
        width = small_networks.WIDTH
        self.norm1, self.norm2 = nn.LayerNorm(width, 1e-5), nn.LayerNorm(width, 1e-6)
        self.attention = small_networks.SeparateAttention()
        self.wide, self.narrow = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def middle(self, x: Tensor) -> Tensor:
        tokens = small_networks.tokens_of(x)
        y = self.norm1(tokens)
        tokens = tokens + self.attention(y, x)
        tokens = tokens + self.narrow(F.gelu(self.wide(self.norm2(tokens))))
        return small_networks.map_of(tokens, x)


class KerasNorms(small_networks.Network):
    """What keras_zoo's `norms_of_maps` computes."""

    def __init__(self) -> None:
        super().__init__()
        width = small_networks.WIDTH
        self.grouped, self.layered = nn.GroupNorm(4, width, 1e-3), nn.LayerNorm(width, 1e-3)
        self.wide, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def middle(self, x: Tensor) -> Tensor:
        x = self.grouped(x).relu()
        y = self.narrow(F.gelu(self.wide(self.layered(x.permute(0, 2, 3, 1))), approximate="tanh"))
        return x + y.permute(0, 3, 1, 2)


@pytest.mark.parametrize(("name", "network"), [("transformer", KerasTransformer), ("norms_of_maps", KerasNorms)])
def test_keras(name: str, network: type[nn.Module], tmp_path: Path) -> None:
    """The same construction in PyTorch and in Keras; the weights differ."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Keras's own
        zoo = pytest.importorskip("keras_zoo", reason="Keras is not installed")
        zoo.with_random_weights(getattr(zoo, name)()).save(tmp_path / "network.keras")
    graph = slimseg.load(tmp_path / "network.keras", verify=False)
    assert signature(graph) == signature(slimseg.load(small_networks.built(network), small_networks.SIZE))


@pytest.mark.parametrize("name", NAMES)
def test_onnx_files_of_slimseg(name: str, opened: dict[str, tuple[nn.Module, Graph]], tmp_path: Path) -> None:
    """With the names of the layers, too; reshapes and transposes may become others."""
    network, graph = opened[name]
    path = tmp_path / "network.onnx"
    write_onnx(graph, path)
    read = slimseg.load(path, verify=False)
    same(network, graph, read, fold=True)
    assert read.description == graph.description
    names = [
        [node.name for node in folded.layers() if folded.layer_as(node, (ops.Reshape, ops.Transpose)) is None]
        for folded in map(fold_scales, (graph, read))
    ]
    assert names[0] == names[1]

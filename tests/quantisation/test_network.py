"""The network that quantisation-aware training trains against the int8 file that is shipped: the same numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from slimseg.blocks.convolution import ConvNorm
from slimseg.errors import Unsupported
from slimseg.graph import ops
from slimseg.graph.edit import trace
from slimseg.graph.graph import Graph
from slimseg.models import build
from slimseg.quantisation import grids
from slimseg.quantisation.network import QuantisedNetwork, file_form
from slimseg.runtimes.litert import session
from slimseg.runtimes.litert.quantising import quantizer
from slimseg.runtimes.litert.writing import writer


class SkipNet(nn.Module):
    """A transposed convolution and a resize, each beside a skip connection that a convolution reads, too."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = ConvNorm(3, 8, 3, stride=2)
        self.pool = nn.MaxPool2d(2)
        self.deep = ConvNorm(8, 12, 3)
        self.up = nn.ConvTranspose2d(12, 6, 2, 2)
        self.cat = ops.Concat()
        self.mix = nn.Conv2d(14, 8, 1)
        self.act = nn.LeakyReLU(0.1)
        self.add = ops.Add()
        self.resize = ops.Resize((32, 32))
        self.head = nn.Conv2d(8, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        a = self.stem(x)
        b = self.up(self.deep(self.pool(a)))
        c = self.add(self.act(self.mix(self.cat(b, a))), a)
        return self.head(self.resize(c))


class AttentiveNet(nn.Module):
    """Attention and a layer norm, which stay in float32, between convolutions in 8 bits."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = ConvNorm(3, 16, 3, stride=4)
        self.norm = ops.Normalise((1,), 1e-5)
        self.query, self.key, self.value, self.mix = (nn.Conv2d(16, 16, 1) for _ in range(4))
        self.attention = ops.Attention(2, 8**-0.5)
        self.add = ops.Add()
        self.head = nn.Conv2d(16, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        a = self.stem(x)
        b = self.norm(a)
        return self.head(self.add(a, self.mix(self.attention(self.query(b), self.key(b), self.value(b)))))


def resizes() -> Graph:
    """By factors that are no whole numbers, in every convention of TFLite's."""
    layers: list[nn.Module] = [nn.Conv2d(3, 8, 3, padding=1)]
    for size, coordinates in (((23, 41), "half_pixel"), ((37, 29), "align_corners"), ((48, 50), "asymmetric")):
        layers += [ops.Resize(size, "bilinear", coordinates), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU()]
    return trace(nn.Sequential(*layers), (1, 3, 32, 32))


def curves() -> nn.Sequential:
    """What the quantiser itself leaves in float32: activations without a kernel that it knows, and moved pixels."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(8, 8, 3, padding=1), nn.ELU(), nn.Conv2d(8, 16, 1),
        ops.DepthToSpace(2), nn.Conv2d(4, 8, 3, padding=1), nn.LeakyReLU(0.01), nn.Conv2d(8, 5, 1),
    )  # fmt: skip


NETWORKS = {
    "resizes": resizes,
    "skips": lambda: trace(SkipNet().eval(), (1, 3, 32, 32)),
    "curves": lambda: trace(curves().eval(), (1, 3, 32, 32)),
    "inverted residual": lambda: build(4, (32, 32), "inverted residual", 0.5),
    "shuffle": lambda: build(4, (32, 32), "shuffle", 0.5),
    "residual": lambda: build(4, (32, 32), "residual", 0.5),
    "separable": lambda: build(4, (32, 32), "separable", 0.5),
}


def alive(graph: Graph) -> Graph:
    """Batch norms as training leaves them, so that channels differ."""
    for layer in graph.module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.5, 2.0)
            nn.init.normal_(layer.bias, 0, 0.3)
            nn.init.uniform_(layer.running_var, 0.3, 2.0)
    return graph


@pytest.fixture(params=NETWORKS, scope="module")
def case(request, tmp_path_factory):
    """(float graph, quantised network, path of the int8 file, samples NHWC)"""
    torch.manual_seed(0)
    graph = file_form(alive(NETWORKS[request.param]()))
    folder = tmp_path_factory.mktemp("files")
    writer.write(graph, folder / "float.tflite")
    samples = np.random.default_rng(0).random((6, *graph.input_size, 3), np.float32)
    found = grids.probe(folder / "float.tflite")
    ranges = quantizer.measure_ranges(folder / "float.tflite", list(samples))
    quantizer.quantize_int8(folder / "float.tflite", folder / "int8.tflite", list(samples), ranges=ranges)
    return graph, QuantisedNetwork(graph, found, ranges), folder / "int8.tflite", samples


def nchw(samples: np.ndarray) -> Tensor:
    return torch.from_numpy(samples).permute(0, 3, 1, 2).contiguous()


def test_evaluation_computes_what_the_int8_file_computes(case):
    _, network, path, samples = case
    with torch.no_grad():
        mine = network.eval()(nchw(samples)).permute(0, 2, 3, 1).numpy()
    theirs = np.asarray(session.predict(path, samples)).reshape(mine.shape)
    same = np.mean(mine == theirs, axis=(1, 2, 3))  # where one value tips over, untrained layers make many of it
    assert np.median(same) > 0.9999
    assert len(np.unique(theirs)) > 20, "a constant would agree with anything"


def test_training_is_close_to_evaluation(case):
    graph, network, _, samples = case
    x = nchw(samples)
    with torch.no_grad():
        trained, exact, real = network.train()(x), network.eval()(x), graph(x)
    assert (trained - exact).abs().mean() < 0.5 * (real - exact).abs().mean()


def test_gradients_reach_weights_and_ranges(case):
    _, network, _, samples = case
    network.train()(nchw(samples)).square().mean().backward()
    moved = [name for name, each in network.named_parameters() if each.grad is not None and each.grad.abs().sum() > 0]
    assert sum(name.startswith("factors.") for name in moved) > 0.5 * len(network.factors)
    assert any(name.startswith("network.") and name.endswith("weight") for name in moved)
    network.zero_grad(set_to_none=True)


def test_concatenations_share_and_edges_have_grids_of_their_own(tmp_path):
    graph = file_form(trace(SkipNet().eval(), (1, 3, 32, 32)))
    writer.write(graph, tmp_path / "float.tflite")
    found = grids.probe(tmp_path / "float.tflite")
    (concat,) = (node for node in graph.layers() if isinstance(graph.layer(node), ops.Concat))
    up, stem = (node.name for node in concat.all_input_nodes)
    assert found.written[up].leader == concat.name, "nothing else reads it: it is written on the sum's grid"
    assert found.written[stem].leader == stem
    assert found.read[stem, concat.name].leader == concat.name, "others read it, too: it is converted on the way"


def test_fixed_ranges_are_not_learnt(case):
    graph, network, _, _ = case
    leader = graph.input.name
    fixed = QuantisedNetwork(graph, network.grids, network.ranges(), fixed=[leader])
    assert not fixed.factors[leader].requires_grad
    assert network.factors[leader].requires_grad


def test_ranges_come_back(case):
    _, network, _, _ = case
    ranges = network.ranges()
    for leader, (low, high) in ranges.items():
        assert low <= 0 <= high, leader
        assert high > low


def test_file_form_names_every_tensor(tmp_path: Path):
    graph = file_form(NETWORKS["shuffle"]())
    covers = writer.write(graph, tmp_path / "float.tflite")
    assert set(covers) <= {node.name for node in graph.layers()}


def test_a_file_of_other_tensors_is_refused(case):
    _, network, _, _ = case
    other = file_form(trace(nn.Sequential(nn.Conv2d(3, 4, 1)), (1, 3, 32, 32)))
    with pytest.raises(Unsupported, match="which its file has"):
        QuantisedNetwork(other, network.grids, network.ranges())


def test_hard_swish_has_inner_tensors_that_are_no_nodes(tmp_path):
    graph = file_form(trace(nn.Sequential(nn.Conv2d(3, 8, 3), nn.Hardswish(), nn.Conv2d(8, 4, 1)), (1, 3, 16, 16)))
    writer.write(graph, tmp_path / "float.tflite")
    samples = np.random.default_rng(0).random((4, 16, 16, 3), np.float32)
    ranges = quantizer.measure_ranges(tmp_path / "float.tflite", list(samples))
    network = QuantisedNetwork(graph, grids.probe(tmp_path / "float.tflite"), ranges)
    quantizer.quantize_int8(tmp_path / "float.tflite", tmp_path / "int8.tflite", list(samples))
    with torch.no_grad():
        mine = network.eval()(nchw(samples)).permute(0, 2, 3, 1).numpy()
    theirs = np.asarray(session.predict(tmp_path / "int8.tflite", samples)).reshape(mine.shape)
    assert np.abs(mine - theirs).mean() < 0.02 * theirs.std()


def test_float_islands_are_trained_between_8_bits(tmp_path):
    torch.manual_seed(0)
    graph = file_form(alive(trace(AttentiveNet().eval(), (1, 3, 32, 32))))
    path = tmp_path / "float.tflite"
    covers = writer.write(graph, path)
    assert set(covers) <= {node.name for node in graph.layers()}, "its form is that of its own file again"
    samples = np.random.default_rng(0).random((4, 32, 32, 3), np.float32)
    ranges = quantizer.measure_ranges(path, list(samples))
    quantizer.quantize_int8(path, tmp_path / "int8.tflite", list(samples), ranges=ranges)
    network = QuantisedNetwork(graph, grids.probe(path), ranges)
    with torch.no_grad():
        mine, real = (each(nchw(samples)).permute(0, 2, 3, 1).numpy() for each in (network.eval(), graph))
    theirs = np.asarray(session.predict(tmp_path / "int8.tflite", samples)).reshape(mine.shape)
    assert np.abs(mine - theirs).mean() < 0.1 * np.abs(real - theirs).mean()
    network.train()(nchw(samples)).square().mean().backward()
    assert all(each.grad is not None for name, each in network.named_parameters() if name.endswith("weight"))

"""Folding is exact, and every batch norm goes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from slimseg.graph import edit
from slimseg.graph.fold import fold_scales
from slimseg.graph.graph import Graph
from slimseg.graph.ops import Add, Affine, Normalise, Reshape


def norm(channels: int, affine: bool = True) -> nn.BatchNorm2d:
    layer = nn.BatchNorm2d(channels, affine=affine)
    nn.init.normal_(layer.running_mean)
    nn.init.uniform_(layer.running_var, 0.3, 3)
    if affine:
        nn.init.normal_(layer.weight)
        nn.init.normal_(layer.bias)
    return layer


def folded(graph: Graph) -> Graph:
    before = str(graph.module.graph)
    result = fold_scales(graph)
    assert str(graph.module.graph) == before
    x = torch.randn(graph.input_shape)
    with torch.no_grad():
        torch.testing.assert_close(result(x), graph(x), atol=1e-5, rtol=1e-5)
    assert not [node for node in result.layers() if result.layer_as(node, nn.BatchNorm2d)]
    return result


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("kind", [nn.Conv2d, nn.ConvTranspose2d])
def test_convolutions(kind, groups, bias, affine):
    torch.manual_seed(0)
    layer = kind(4, 8, 3, 2, 1, groups=groups, bias=bias)
    result = folded(edit.trace(nn.Sequential(layer, norm(8, affine)).eval(), (1, 4, 9, 9)))
    assert len(list(result.layers())) == 1


def test_a_norm_without_a_convolution_becomes_one():
    result = folded(edit.trace(nn.Sequential(nn.ReLU(), norm(4)).eval(), (1, 4, 5, 5)))
    assert result.layer_as(result.output, nn.Conv2d).groups == 4


class ReadByTwo(nn.Module):
    """A batch norm of a sum, read by two layers."""

    def __init__(self, second: nn.Module) -> None:
        super().__init__()
        self.before, self.norm, self.after = Add(), norm(4), Add()
        self.first, self.second = nn.Conv2d(4, 4, 2, 2), second

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.before(x, x))
        return self.after(self.first(y), self.second(y))


def test_a_norm_behind_a_sum_goes_into_the_layers_that_read_it():
    result = folded(edit.trace(ReadByTwo(nn.Conv2d(4, 4, 2, 2, groups=2)).eval(), (1, 4, 6, 6)))
    assert len(list(result.layers())) == 4


@pytest.mark.parametrize("second", [nn.Conv2d(4, 4, 3, 2, 1), nn.MaxPool2d(2)])
def test_a_norm_stays_before_padding_and_layers_without_weights(second):
    result = folded(edit.trace(ReadByTwo(second).eval(), (1, 4, 6, 6)))
    assert result.layer_as(next(result.layers()).next, nn.Conv2d).groups == 4


class Shared(nn.Module):
    def __init__(self, share_norm: bool) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)
        self.norm, self.other = norm(4), norm(4)
        self.share_norm = share_norm

    def forward(self, x: Tensor) -> Tensor:
        if self.share_norm:
            return self.norm(self.b(self.norm(self.a(x))))
        return self.other(self.a(self.norm(self.a(x))))


@pytest.mark.parametrize("share_norm", [True, False])
def test_shared_layers(share_norm):
    folded(edit.trace(Shared(share_norm).eval(), (1, 4, 5, 5)))


class Skip(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.add = nn.Conv2d(4, 4, 1), norm(4), Add()

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return self.add(self.norm(x), x)


def test_a_convolution_that_others_read_keeps_its_weights():
    folded(edit.trace(Skip().eval(), (1, 4, 5, 5)))


def affine(*shape: int) -> Affine:
    return Affine(torch.rand(shape) + 0.5, torch.randn(shape))


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("kind", [nn.Conv2d, nn.ConvTranspose2d])
@pytest.mark.parametrize("shape", [(), (1,), (8, 1, 1), (1, 8, 1, 1)])
def test_affine_layers(kind, groups, shape):
    torch.manual_seed(0)
    layer = kind(4, 8, 3, 2, 1, groups=groups, bias=groups > 1)
    chain = nn.Sequential(layer, affine(*shape), norm(8), Affine(None, torch.randn(8, 1, 1)), nn.ReLU())
    assert len(list(folded(edit.trace(chain.eval(), (1, 4, 9, 9))).layers())) == 2


def test_affine_layers_of_a_linear_layer():
    chain = nn.Sequential(Reshape((1, 12)), nn.Linear(12, 5), affine(5), affine())
    assert len(list(folded(edit.trace(chain, (1, 3, 2, 2))).layers())) == 2


@pytest.mark.parametrize("constant", [torch.randn(9), torch.randn(4, 9, 9), torch.randn(1, 9, 1)])
def test_constants_that_vary_over_pixels_stay(constant):
    chain = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), Affine(None, constant), Affine(constant, None))
    assert len(list(folded(edit.trace(chain, (1, 4, 9, 9))).layers())) == 3


class NormBefore(nn.Module):
    """A layer norm's scale and shift, read by two layers."""

    def __init__(self, first: nn.Module, second: nn.Module, dims: tuple[int, ...], constants: tuple[int, ...]) -> None:
        super().__init__()
        self.norm, self.first, self.second = Normalise(dims, 1e-5), first, second
        self.affine, self.add = Affine(torch.rand(constants) + 0.5, torch.randn(constants)), Add()

    def forward(self, x: Tensor) -> Tensor:
        y = self.affine(self.norm(x))
        return self.add(self.first(y), self.second(y))


@pytest.mark.parametrize(
    ("layers", "shape", "dims", "constants"),
    [
        ([nn.Conv2d(4, 6, 1), nn.Conv2d(4, 6, 1, bias=False)], (1, 4, 5, 6), (1,), (4, 1, 1)),
        ([nn.Conv2d(4, 4, 2, 2, groups=2), nn.Conv2d(4, 4, 2, 2, groups=4)], (1, 4, 6, 6), (1, 2, 3), (4, 1, 1)),
    ],
)
def test_the_affine_layer_of_a_norm_goes_into_all_its_readers(layers, shape, dims, constants):
    result = folded(edit.trace(NormBefore(*layers, dims, constants).eval(), shape))
    assert not [node for node in result.layers() if result.layer_as(node, Affine)]


def test_the_affine_layer_of_a_norm_of_tokens_goes_into_linear_layers():
    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.flat = Reshape((1, 30, 4))
            self.block = NormBefore(nn.Linear(4, 6), nn.Linear(4, 6, bias=False), (2,), (4,))

        def forward(self, x: Tensor) -> Tensor:
            return self.block(self.flat(x))

    result = folded(edit.trace(Tokens().eval(), (1, 4, 5, 6)))
    assert not [node for node in result.layers() if result.layer_as(node, Affine)]


def test_the_affine_layer_of_a_norm_stays_before_padding_and_other_readers():
    for second in (nn.Conv2d(4, 4, 3, padding=1), nn.ReLU()):
        graph = edit.trace(NormBefore(nn.Conv2d(4, 4, 1), second, (1,), (4, 1, 1)).eval(), (1, 4, 5, 6))
        assert [node for node in folded(graph).layers() if graph.layer_as(node, Affine)]


@pytest.mark.parametrize("constant", [(), (6,)])
def test_constants_behind_a_linear_layer_of_tokens(constant):
    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.flat, self.linear = Reshape((1, 1, 30, 4), channels_last=False), nn.Linear(4, 6)
            self.affine = Affine(torch.rand(constant) + 0.5, torch.randn(constant))

        def forward(self, x: Tensor) -> Tensor:
            return self.affine(self.linear(self.flat(x)))

    result = folded(edit.trace(Tokens().eval(), (1, 4, 5, 6)))
    assert not [node for node in result.layers() if result.layer_as(node, Affine)]
    assert result.layer_as(result.output, nn.Linear).bias.shape == (6,)

"""One record per class, and nothing else: a new class needs that, and a lowering for each runtime."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from ai_edge_litert import schema_py_generated as tflite
from torch import Tensor, nn

from slimseg.errors import GraphError, Unsupported
from slimseg.graph import costs, edit, ops
from slimseg.graph.channel_groups import channel_groups, without
from slimseg.graph.vocabulary import ELEMENT_WISE, OPERATORS, Operator, is_never_negative, operator_of
from slimseg.graph.vocabulary.rules import held_channels, same_channels, same_shape
from slimseg.quantisation.scale_flow import scale_flow
from slimseg.runtimes.litert.session import Session
from slimseg.runtimes.litert.writing import lowering, writer
from slimseg.runtimes.litert.writing.lowering.step import Op, Options, Step
from slimseg.runtimes.ncnn import writer as ncnn_writer
from slimseg.tflite import file
from slimseg.tflite.schema import ModelBuilder


class Mirrored(nn.Module):
    """A map with its last columns once more behind it, mirrored: a class that no file of slimseg knows."""

    def __init__(self, columns: int) -> None:
        super().__init__()
        self.columns = columns

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, x[..., -self.columns :].flip(3)], 3)


def _shape(layer: Mirrored, shapes: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    if layer.columns > shapes[0][3]:
        raise ValueError(f"it takes {layer.columns} columns of {shapes[0]}")
    return (*shapes[0][:3], shapes[0][3] + layer.columns)


RECORD = Operator(
    Mirrored,
    shape=_shape,
    macs=lambda layer, inputs, output: output[1] * output[2] * layer.columns,  # one for each value that it adds
    channels=same_channels,
    scales=same_channels,
)


def _lowering(builder: ModelBuilder, step: Step, layer: Mirrored) -> int:
    options = tflite.MirrorPadOptionsT()
    options.mode = tflite.MirrorPadMode.SYMMETRIC
    amounts = np.asarray([(0, 0), (0, 0), (0, layer.columns), (0, 0)], np.int32)
    inputs = (step.inputs[0], builder.constant(f"{step.name}_amounts", amounts))
    target = builder.tensor(step.name, step.shape)
    builder.operator(Op.MIRROR_PAD, inputs, target, options, Options.MirrorPadOptions)
    return target


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(OPERATORS, Mirrored, RECORD)
    monkeypatch.setitem(lowering.LOWERINGS, Mirrored, _lowering)


def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), Mirrored(2), nn.Conv2d(4, 2, 1)).eval()


@pytest.mark.usefixtures("registered")
def test_a_new_class_has_its_shape_and_macs():
    graph = edit.trace(network(), (1, 3, 10, 12))
    node = graph.node("layer_2")
    assert graph.shape(node) == (1, 4, 8, 12)
    assert costs.cost(graph, node).macs == 4 * 8 * 2
    assert costs.total(graph).macs == 8 * 10 * 4 * 3 * 9 + 4 * 8 * 2 + 8 * 12 * 2 * 4
    with pytest.raises(GraphError, match=r"layer_0 does not fit.*it takes 13 columns"):
        edit.trace(nn.Sequential(Mirrored(13)), (1, 3, 10, 12))


@pytest.mark.usefixtures("registered")
def test_its_channels_leave_and_are_scaled_with_those_before_it():
    graph = edit.trace(network(), (1, 3, 10, 12))
    (group,) = channel_groups(graph)
    narrower = without(graph, group, [1])
    assert narrower.shape(narrower.node("layer_2")) == (1, 3, 8, 12)
    scales = scale_flow(graph)
    assert torch.equal(scales.values["layer_2"], scales.made["layer_0"])


class Gains(nn.Module):
    """A product with a gain of its own for each channel (C,)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gain[:, None, None]


def _cut_gains(layer: Gains, dropped: list[int]) -> None:
    layer.gain = nn.Parameter(layer.gain.detach()[[k for k in range(len(layer.gain)) if k not in dropped]])


def test_a_layer_loses_channels_by_its_own_rule_or_not_at_all(monkeypatch):
    layers = nn.Sequential(nn.Conv2d(3, 4, 3), Gains(4), nn.Conv2d(4, 2, 1)).eval()
    record = Operator(Gains, same_shape, channels=held_channels)
    monkeypatch.setitem(OPERATORS, Gains, record)
    graph = edit.trace(layers, (1, 3, 10, 12))
    (group,) = channel_groups(graph)
    with pytest.raises(Unsupported, match="layer_1 cannot lose channels: slimseg cannot remove them from Gains"):
        without(graph, group, [1])
    monkeypatch.setitem(OPERATORS, Gains, replace(record, cut_outputs=_cut_gains))
    narrower = without(graph, group, [1])
    assert narrower(torch.zeros(1, 3, 10, 12)).shape == (1, 2, 8, 10)


@pytest.mark.usefixtures("registered")
def test_it_runs_as_a_tflite(tmp_path: Path):
    graph = edit.trace(network(), (1, 3, 10, 12))
    path = tmp_path / "model.tflite"
    writer.write(graph, path)
    assert [each.op for each in file.operators(path)] == ["CONV_2D", "MIRROR_PAD", "CONV_2D"]
    image = torch.randn(graph.input_shape, generator=torch.Generator().manual_seed(0))
    got = Session(path).run(image.permute(0, 2, 3, 1).numpy())
    with torch.no_grad():
        np.testing.assert_allclose(got.transpose(0, 3, 1, 2), graph(image).numpy(), atol=1e-5)


@pytest.mark.usefixtures("registered")
def test_a_runtime_without_a_lowering_refuses_it(tmp_path: Path):
    with pytest.raises(Unsupported, match=r"slimseg cannot write for ncnn \(layer_2\)"):
        ncnn_writer.write(edit.trace(network(), (1, 3, 10, 12)), tmp_path)


def test_without_a_record_it_is_no_layer_of_a_graph():
    """It is traced through, down to operations that are no modules."""
    with pytest.raises(GraphError):
        edit.trace(network(), (1, 3, 10, 12))


def test_a_subclass_has_the_record_of_the_class_that_it_derives_from():
    class Mine(nn.Conv2d):
        pass

    assert operator_of(Mine(3, 4, 1)) is OPERATORS[nn.Conv2d]
    assert operator_of(nn.ReLU6()) is OPERATORS[nn.ReLU6], "not that of Hardtanh"
    assert operator_of(ops.CroppedConvTranspose2d(3, 4, 2, crop=(0, 0, 0, 1))).kind is ops.CroppedConvTranspose2d
    assert operator_of(nn.Mish()) is None
    assert operator_of(None) is None


EXAMPLES: dict[type[nn.Module], nn.Module] = {nn.Softmax: nn.Softmax(1)}


@pytest.mark.parametrize("kind", [kind for kind in OPERATORS if OPERATORS[kind].never_negative])
def test_what_is_never_negative(kind: type[nn.Module]):
    layer = EXAMPLES.get(kind) or kind()
    assert is_never_negative(layer)
    assert layer(torch.linspace(-50, 50, 200).reshape(1, 4, 5, 10)).min() >= 0


def test_what_may_be_negative():
    assert not is_never_negative(nn.Hardtanh(-1, 1))
    assert not is_never_negative(nn.Mish())
    assert not is_never_negative(None)


@pytest.mark.parametrize("exponent", ops.Unary.POWERS)
def test_powers(exponent: float):
    x = torch.linspace(0.1, 5, 20)
    torch.testing.assert_close(ops.Unary(ops.Unary.POWERS[exponent])(x), x**exponent)


@pytest.mark.parametrize(
    ("layer", "depthwise", "apart"),
    [
        (nn.Conv2d(4, 4, 3, groups=4), True, True),
        (nn.ConvTranspose2d(4, 4, 3, groups=4), True, True),
        (nn.Conv2d(4, 8, 3, groups=4), True, False),
        (nn.Conv2d(4, 4, 3, groups=2), False, False),
        (nn.Conv2d(4, 4, 3), False, False),
        (nn.Conv2d(1, 1, 3), False, True),
        (nn.Conv2d(1, 4, 3), False, False),
        (nn.ReLU(), False, False),
        (None, False, False),
    ],
    ids=repr,
)
def test_depthwise(layer: nn.Module | None, depthwise: bool, apart: bool):
    assert (ops.is_depthwise(layer), ops.keeps_channels_apart(layer)) == (depthwise, apart)


def test_element_wise_layers_are_in_the_vocabulary():
    assert set(ELEMENT_WISE) < set(OPERATORS)
    assert not {nn.Softmax, nn.Conv2d, ops.Resize, ops.Concat} & set(ELEMENT_WISE)


def test_layer_norm_is_the_same_in_both_memory_formats():
    image, norm = torch.randn(2, 6, 3, 5), ops.Normalise((1,), 1e-5)
    last = norm(image.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(last, norm(image))
    assert last.is_contiguous(memory_format=torch.channels_last)

"""Whole packages: ends, normalisation, precision, compression, sizes, metadata, and real networks."""

from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from slimseg import load, models
from slimseg.disk import scratch
from slimseg.errors import ModelError, OutputError, Unsupported, UserError
from slimseg.graph import edit, ops
from slimseg.graph.graph import Graph
from slimseg.graph.output import as_map
from slimseg.graph.preprocessing import Preprocessing
from slimseg.runtimes import half_range
from slimseg.runtimes.coreml import compression, metadata, neural_engine, package, writer
from slimseg.runtimes.coreml.structure import check
from slimseg.techniques.head import with_output

pytestmark = pytest.mark.skipif(not package.available(), reason=f"coremltools is not installed: {package.INSTALL}")

CLASSES = ("road", "car", "tree")


@pytest.fixture(scope="module")
def graph() -> Graph:
    torch.manual_seed(0)
    result = models.build(CLASSES, (32, 64), width=0.5, mean=[120, 110, 100], std=[58, 57, 56])
    with torch.no_grad():  # untrained logits lie close together; these are as far apart as trained ones
        result.module.get_submodule(str(last_convolution(result).target)).weight.mul_(20)
    return result


@pytest.fixture(scope="module")
def small() -> Graph:
    """For what does not depend on the network."""
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 3, 1), ops.Resize((32, 64)))
    return load(layers.eval(), (32, 64), mean=[120, 110, 100], std=[58, 57, 56], classes=CLASSES)


@pytest.fixture(scope="module")
def wide() -> Graph:
    """With weights enough to compress."""
    torch.manual_seed(0)
    return models.build(CLASSES, (32, 32))


@pytest.fixture(scope="module")
def uncompressed(wide: Graph, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return writer.write(wide, tmp_path_factory.mktemp("wide") / "plain.mlpackage").path


def test_what_coremltools_makes_for_itself_goes_with_the_process(
    small: Graph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only what lies in slimseg's own temporary folder is cleared after a kill; coremltools clears at its end alone."""
    made: list[Path] = []
    make = tempfile.mkdtemp

    def noted(*arguments: Any, **options: Any) -> str:
        made.append(Path(make(*arguments, **options)))
        return str(made[-1])

    monkeypatch.setattr(tempfile, "mkdtemp", noted)
    writer.write(small, tmp_path / "small.mlpackage")
    elsewhere = [path for path in made if not path.is_relative_to(tmp_path)]
    assert elsewhere
    assert all(path.is_relative_to(scratch.root()) for path in elsewhere)
    assert not any(path.exists() for path in made)


def last_convolution(graph: Graph) -> torch.fx.Node:
    return [node for node in graph.layers() if graph.layer_as(node, nn.Conv2d) is not None][-1]


def pixels(graph: Graph, seed: int = 0) -> np.ndarray:
    """A picture with areas and noise, (1, height, width, 3)."""
    height, width = graph.input_size
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (1, -(-height // 8), -(-width // 8), 3)).repeat(8, 1).repeat(8, 2)
    noise = random.integers(-20, 21, (1, height, width, 3))
    return np.clip(coarse[:, :height, :width] + noise, 0, 255).astype(np.uint8)


def reference(graph: Graph, image: np.ndarray) -> Tensor:
    """What the Graph makes of bytes that are in its own order of channels."""
    wanted = graph.description.preprocessing
    mean, std = (torch.tensor(values).reshape(1, 3, 1, 1) for values in (wanted.mean, wanted.std))
    with torch.no_grad():
        return as_map(graph, graph((torch.from_numpy(image).permute(0, 3, 1, 2).float() - mean) / std))


def agreement(graph: Graph, path: Path, image: np.ndarray) -> float:
    """Share of pixels that get the same class."""
    from mil import Program

    got, expected = as_map(graph, Program(path)(image)), reference(graph, image)
    if expected.ndim == 4 and expected.shape[1] == 1:
        limit = 0.5 if graph.description.output_kind == "probabilities" else 0.0
        return float(((got > limit) == (expected > limit)).float().mean())
    masks = [each.argmax(1) if each.ndim == 4 else each for each in (got, expected)]
    return float((masks[0] == masks[1]).float().mean())


@pytest.mark.parametrize("order", ["rgb", "bgr"])
def test_normalisation_is_inside(small, tmp_path, order):
    mine = small.copy()
    wanted = small.description.preprocessing
    mine.description = replace(small.description, preprocessing=replace(wanted, channel_order=order))
    made = writer.write(mine, tmp_path / "a.mlpackage", "float32")
    assert agreement(mine, made.path, pixels(mine)) == 1.0
    found = check(made.path)
    assert found.input.kind == f"{order.upper()} image"
    assert found.input.shape == (1, 3, 32, 64)
    assert found.description == mine.description


def test_default_is_float16_on_the_neural_engine(graph, tmp_path):
    made = writer.write(graph, tmp_path / "a.mlpackage")
    found = check(made.path)
    assert (made.precision, found.precision, found.system) == ("float16", "float16", "iOS 16")
    assert found.for_neural_engine
    assert (found.output.name, found.output.dtype, found.output.shape) == ("logits", "float32", (1, 3, 32, 64))
    assert agreement(graph, made.path, pixels(graph)) > 0.99
    assert found.size_bytes == made.size_bytes < 1.2 * sum(p.numel() for p in graph.module.parameters()) * 2 + 60_000


def test_heads(graph, tmp_path):
    mask = with_output(graph, "mask")
    found = check(writer.write(mask, tmp_path / "mask.mlpackage").path)
    assert (found.output.name, found.output.dtype, found.output.shape) == ("mask", "int32", (1, 32, 64))
    assert agreement(mask, tmp_path / "mask.mlpackage", pixels(mask)) > 0.99
    probabilities = writer.write(with_output(graph, "probabilities"), tmp_path / "p.mlpackage", "float32")
    assert probabilities.output_name == "probabilities"
    assert agreement(with_output(graph, "probabilities"), probabilities.path, pixels(graph)) == 1.0


@pytest.mark.parametrize("storage", ["palettised", "linear"])
def test_eight_bit_weights(wide, uncompressed, tmp_path, storage):
    made = writer.write(wide, tmp_path / "small.mlpackage", weights=storage)
    before, after = check(uncompressed), check(made.path)
    assert after.weight_bytes < 0.75 * before.weight_bytes
    assert (before.compressed_share, after.weights) == (0.0, before.weights)
    assert after.compressed_share > 0.8
    assert after.for_neural_engine
    assert agreement(wide, made.path, pixels(wide)) > 0.95


def test_a_palette_is_nearly_as_good_as_can_be():
    weights = np.random.default_rng(0).normal(size=(64, 90)).astype(np.float32)
    table, index = compression.palette(weights)
    assert table.shape == (256,)
    error = np.square(table[index] - weights).mean()
    uniform = (weights.max() - weights.min()) / 255
    assert error < 0.75 * uniform**2 / 12
    few = np.array([[3.0, -1.0], [0.5, 3.0]], np.float32)
    table, index = compression.palette(few)
    assert np.array_equal(table[index], few)


def test_flexible_sizes(tmp_path):
    from mil import Program

    torch.manual_seed(0)
    graph = models.build(CLASSES, (64, 64), width=0.5)
    made = writer.write(graph, tmp_path / "a.mlpackage", "float32", sizes=[(96, 64), (128, 160)])
    assert set(check(made.path).input.sizes) == {(64, 64), (96, 64), (128, 160)}
    for size in ((64, 64), (96, 64), (128, 160)):
        other = edit.at_input_size(graph, size)
        image = pixels(other)
        torch.testing.assert_close(Program(made.path)(image), reference(other, image), rtol=0, atol=1e-4)


def test_layers_of_one_size_cannot_be_flexible(tmp_path):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 3, 1), ops.Resize((10, 10), coordinates="asymmetric"))
    with pytest.raises(Unsupported, match="_1"):
        writer.write(edit.trace(network.eval(), (1, 3, 5, 5)), tmp_path / "a.mlpackage", sizes=[(10, 10)])


def test_xcode_shows_the_classes(small, tmp_path):
    import coremltools

    palette = ["#ff0000", "#00ff00", "#0000ff"]
    made = writer.write(small, tmp_path / "a.mlpackage", palette=palette, licence="MIT, the weights too.")
    user = coremltools.models.utils.load_spec(str(made.path)).description.metadata.userDefined
    assert user[metadata.PREVIEW_TYPE] == "imageSegmenter"
    assert json.loads(user[metadata.PREVIEW_PARAMETERS]) == {"labels": list(CLASSES), "colors": palette}
    found = check(made.path)
    assert (found.labels, found.previewed, found.licence) == (CLASSES, True, "MIT, the weights too.")
    assert "Score of every class" in found.output.text


def test_one_channel_says_what_it_is_of_and_has_no_preview(tmp_path):
    network = nn.Sequential(nn.Conv2d(3, 1, 3, padding=1), nn.Sigmoid())
    graph = load(network.eval(), (16, 16), classes=("backdrop", "person"))
    found = check(writer.write(graph, tmp_path / "a.mlpackage").path)
    assert not found.previewed
    assert "Probability of person" in found.output.text


def test_a_package_is_replaced_as_a_whole(small, tmp_path):
    path = tmp_path / "new" / "a.mlpackage"
    writer.write(small, path)
    (path / "left over").write_text("")
    writer.write(small, path)
    assert not (path / "left over").exists()
    assert [each.name for each in path.parent.iterdir()] == ["a.mlpackage"]


def test_refusals(graph, tmp_path):
    with pytest.raises(OutputError, match=r"must end in \.mlpackage"):
        writer.write(graph, tmp_path / "a.mlmodel")
    with pytest.raises(Unsupported, match="4 input channels"):
        writer.write(edit.trace(nn.Sequential(nn.Conv2d(4, 3, 1)), (1, 4, 8, 8)), tmp_path / "a.mlpackage")
    opaque = load(Cumulative().eval(), (8, 8))
    with pytest.raises(Unsupported, match="logcumsumexp"):
        writer.write(opaque, tmp_path / "a.mlpackage")
    with pytest.raises(ModelError, match=r"is not an \.mlpackage folder"):
        check(tmp_path / "none.mlpackage")
    (tmp_path / "empty.mlpackage").mkdir()
    with pytest.raises(ModelError, match="cannot be read"):
        check(tmp_path / "empty.mlpackage")


class Cumulative(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x).logcumsumexp(2)


def test_without_coremltools_one_sentence_says_how_to_get_it(graph, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "coremltools", None)
    with pytest.raises(UserError, match=r"pip install 'slimseg\[coreml\]'"):
        writer.write(graph, tmp_path / "a.mlpackage")


@pytest.mark.parametrize(
    ("layers", "operation", "why"),
    [
        ([ops.Resize((16, 20), coordinates="align_corners")], "upsample_bilinear", "aligns corners"),
        ([ops.Resize((11, 17))], "resize_bilinear", "not an integer factor"),
        ([ops.Resize((11, 17), "nearest")], "gather", "gathers"),
        ([nn.Conv2d(4, 4, 3, padding=2, dilation=2)], "conv", "dilated"),
        ([nn.Conv2d(4, 4, (1, 15), padding=(0, 7))], "conv", "15 columns"),
        ([nn.ConvTranspose2d(4, 4, 8, 4, 2)], "conv_transpose", "kernel of 8"),
        ([ops.Pad((0, 0, 0, 0), 0.0, (0, 2))], "pad", "channels"),
        ([ops.Reshape((1, 2, 2, 8, 10), channels_last=False)], "reshape", "5 dimensions"),
    ],
)
def test_what_is_slow_on_the_neural_engine_is_reported(tmp_path, layers, operation, why):
    network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), *layers)
    found = check(writer.write(edit.trace(network.eval(), (1, 3, 8, 10)), tmp_path / "a.mlpackage").path)
    assert any(each.operation == operation and why in each.why for each in found.remarks), found.remarks
    assert {each.source for each in found.remarks} <= set(neural_engine.SOURCES)


def test_a_plain_network_is_not_remarked_upon(tmp_path):
    network = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.ConvTranspose2d(8, 3, 2, 2))
    found = check(writer.write(edit.trace(network.eval(), (1, 3, 8, 10)), tmp_path / "a.mlpackage").path)
    assert found.remarks == ()
    assert found.unknown == ()


@pytest.mark.parametrize("block", ["inverted residual", "residual", "shuffle", "separable"])
def test_networks_of_every_block(tmp_path, block):
    torch.manual_seed(0)
    graph = models.build(4, (64, 96), block=block, width=0.5)
    made = writer.write(graph, tmp_path / "a.mlpackage", "float32")
    assert agreement(graph, made.path, pixels(graph)) >= 0.999


@pytest.mark.parametrize("name", ["prisma-net.tflite", "slim_reshape.tflite"])
def test_real_networks(shared, tmp_path, name):
    graph = edit.at_input_size(load(shared / "models" / name, verify=False), (64, 64))
    made = writer.write(graph, tmp_path / "a.mlpackage", "float32")
    assert agreement(graph, made.path, pixels(graph)) >= 0.999


def test_layers_that_outgrow_float16_stay_in_float32(tmp_path):
    from mil import Program

    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1), nn.ReLU(), nn.Conv2d(4, 3, 1), nn.Conv2d(3, 3, 3))
    with torch.no_grad():
        network[1].weight.mul_(3e6)
        network[3].weight.div_(3e6)
    graph = edit.trace(network.eval(), (1, 3, 16, 16))
    image = pixels(graph)
    names = half_range.overflowing(graph, torch.from_numpy(image).permute(0, 3, 1, 2).float() / 255)
    assert names == ("layer_1", "layer_2")
    assert not Program(writer.write(graph, tmp_path / "a.mlpackage").path)(image).isfinite().all()
    made = writer.write(graph, tmp_path / "b.mlpackage", float32_layers=names)
    assert made.float32_layers == names
    program, expected = Program(made.path), reference(graph, image)
    torch.testing.assert_close(program(image), expected, rtol=0, atol=1e-2 * float(expected.abs().max()))
    assert check(made.path).precision == "float16"


def test_preprocessing_of_nothing_costs_nothing(tmp_path):
    graph = edit.trace(nn.Sequential(nn.Conv2d(3, 3, 1)).eval(), (1, 3, 8, 8))
    graph.description = replace(graph.description, preprocessing=Preprocessing.of(0, 1))
    found = check(writer.write(graph, tmp_path / "a.mlpackage", "float32").path)
    assert found.operations == {"conv": 1}

"""Ranges from what activations were: each method against numbers worked out by hand or by brute force."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from slimseg.errors import DataError, ModelError
from slimseg.frontends import describe
from slimseg.graph.description import Description
from slimseg.graph.graph import Graph
from slimseg.quantisation.calibration import METHODS, Observed, choose, mse_range, observe, percentile_range
from slimseg.runtimes import host
from slimseg.runtimes.litert.quantising import activations
from slimseg.runtimes.litert.writing import writer
from slimseg.tflite.schema import ModelBuilder

BINS = activations.BINS


def rounded(values: np.ndarray, low: float, high: float) -> np.ndarray:
    scale = (high - low) / 255
    zero = np.rint(-low / scale)
    return (np.clip(np.rint(values / scale) + zero, 0, 255) - zero) * scale


def relu_file(path: Path, weight: float = 2.0) -> Path:
    """y = ReLU(weight · x) and z = y · 0, on (1, 8, 8, 3)."""
    builder = ModelBuilder()
    image = builder.tensor("x", (1, 8, 8, 3))
    y, z = builder.tensor("y", (1, 8, 8, 3)), builder.tensor("z", (1, 8, 8, 3))
    for source, factor, target in ((image, weight, y), (y, 0.0, z)):
        options = schema.MulOptionsT()
        options.fusedActivationFunction = schema.ActivationFunctionType.RELU
        constant = builder.constant(f"by_{factor}", np.full(1, factor, np.float32))
        kind = schema.BuiltinOptions.MulOptions
        builder.operator(schema.BuiltinOperator.MUL, [source, constant], target, options, kind)
    path.write_bytes(builder.finish([image], [z], Description()))
    return path


def samples(count: int) -> list[np.ndarray]:
    random = np.random.default_rng(1)
    return [random.standard_normal((8, 8, 3)).astype(np.float32) * (number + 1) for number in range(count)]


def test_mean_and_extremes(tmp_path: Path) -> None:
    path, images = relu_file(tmp_path / "relu.tflite"), samples(11)
    observed = observe(path, images, ("mean", "minmax"))
    means, outermost = observed.ranges("mean"), observed.ranges("minmax")
    assert outermost["x"] == pytest.approx((min(each.min() for each in images), max(each.max() for each in images)))
    assert means["x"] == pytest.approx((np.mean([e.min() for e in images]), np.mean([e.max() for e in images])))
    assert outermost["y"] == pytest.approx((0.0, 2 * outermost["x"][1]))
    assert outermost["z"] == means["z"] == (0.0, 0.0)
    assert not observed.histograms


def test_every_value_is_counted(tmp_path: Path) -> None:
    path, images = relu_file(tmp_path / "relu.tflite"), samples(11)
    observed = observe(path, images)
    counts, _ = np.histogram(np.stack(images), BINS, observed.ranges("minmax")["x"])
    assert observed.histograms["x"].sum() == counts.sum() == 11 * 8 * 8 * 3
    assert np.abs(np.cumsum(observed.histograms["x"]) - np.cumsum(counts)).max() <= 2  # edges in float32
    assert set(observed.ranges("mse")) == {"x", "y", "z"}
    assert all(observed.ranges(method)["z"] == (0.0, 0.0) for method in METHODS)  # a constant tensor


def test_large_tensors_are_counted_in_part_but_evenly() -> None:
    value = np.broadcast_to(np.arange(6.0), (1, 700, 300, 6))
    parts = [activations._part(value, number) for number in range(4)]
    for part in parts:
        found, counts = np.unique(part, return_counts=True)
        assert list(found) == list(range(6))
        assert counts.max() - counts.min() <= 1
        assert len(part) <= activations._VALUES


def test_percentile_leaves_the_outermost_out() -> None:
    values = np.concatenate((np.random.default_rng(0).random(1_000_000), [50.0]))
    counts, _ = np.histogram(values, BINS, (0.0, 50.0))
    low, high = percentile_range(counts, 0.0, 50.0)
    assert low == pytest.approx(0.0, abs=0.01)
    assert high == pytest.approx(np.percentile(values, 99.99), abs=50 / BINS)


@settings(deadline=None, max_examples=30)
@given(
    seed=st.integers(0, 1000),
    outlier=st.floats(1, 40),
    share=st.floats(0, 0.9),
    negative=st.booleans(),
)
def test_the_squared_error_is_as_small_as_any(seed: int, outlier: float, share: float, negative: bool) -> None:
    """No worse than any clipping in steps of 5%, on the values themselves, zeros and an outlier included."""
    random = np.random.default_rng(seed)
    values = random.standard_normal(20_000) * (random.random(20_000) > share)
    values[0] = outlier
    values = values if negative else np.abs(values)
    ends = values.min(), values.max()
    counts, _ = np.histogram(values, BINS, ends)
    found = mse_range(counts, *ends)
    assert min(ends[0], 0.0) <= found[0] <= 0 <= found[1] <= ends[1]
    error = ((rounded(values, *found) - values) ** 2).sum()
    for low in np.linspace(0.05, 1, 20) if negative else [1.0]:
        for high in np.linspace(0.05, 1, 20):
            other = ((rounded(values, low * min(ends[0], 0.0), high * ends[1]) - values) ** 2).sum()
            assert error <= 1.1 * other  # a histogram knows values only up to its bins


def test_an_outlier_is_clipped_by_squared_error_and_not_by_extremes() -> None:
    values = np.concatenate((np.random.default_rng(0).standard_normal(1_000_000), [60.0]))
    ends = np.asarray([[values.min(), values.max()]])
    counts, _ = np.histogram(values, BINS, (ends[0, 0], ends[0, 1]))
    observed = Observed({"x": ends}, {"x": counts})
    assert observed.ranges("minmax")["x"][1] == 60.0
    assert observed.ranges("mse")["x"][1] < 40
    assert observed.ranges("percentile")["x"][1] < 10


def test_values_that_are_not_finite(tmp_path: Path) -> None:
    path = relu_file(tmp_path / "relu.tflite", weight=3e38)
    with pytest.raises(ModelError, match="NaN or infinity in y"):
        observe(path, samples(2))


def test_images_are_spread_and_plain_ones_left_out(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for number in range(20):
        pixels = random.integers(0, 256, (8, 8, 3), np.uint8)
        Image.fromarray(pixels if number != 19 else np.full_like(pixels, 40)).save(tmp_path / f"{number:02}.png")
    paths = sorted(tmp_path.iterdir())
    images = choose(paths, 5, lambda image: image.astype(np.float32))
    assert [path.stem for path in images.paths] == ["00", "05", "10", "14"]
    assert [path.stem for path in images.left_out] == ["19"]
    assert [each.shape for each in images.samples(2)] == [(8, 8, 3)] * 2
    assert len(choose(paths, 100, lambda image: image)) == 19
    with pytest.raises(DataError, match="single colour"):
        choose(paths[-1:], 5, lambda image: image)
    with pytest.raises(DataError, match="no images"):
        choose([], 5, lambda image: image)


def test_a_real_network(shapes_graph: Graph, shapes: Path, tmp_path: Path) -> None:
    path = tmp_path / "shapes.tflite"
    writer.write(shapes_graph, path)
    pipeline = host.ImagePipeline(describe(path).preprocessing, (128, 160))
    observed = observe(path, choose(sorted((shapes / "train" / "images").iterdir()), 6, pipeline))
    wide = observed.ranges("minmax")
    for method in METHODS:
        for name, (low, high) in observed.ranges(method).items():
            assert min(wide[name][0], 0) - 1e-6 <= low <= high <= wide[name][1] + 1e-6, (method, name)

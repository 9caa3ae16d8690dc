"""Core ML itself against the Graph: only macOS can run a package, so .github/workflows/macos.yml does."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from PIL import Image
from test_coreml_writer import CLASSES, pixels, reference

from slimseg import models
from slimseg.graph import ops
from slimseg.graph.edit import trace
from slimseg.graph.graph import Graph
from slimseg.runtimes.coreml import package, writer

pytestmark = [
    pytest.mark.macos,
    pytest.mark.skipif(sys.platform != "darwin", reason="only macOS can run Core ML packages"),
    pytest.mark.skipif(not package.available(), reason=f"coremltools is not installed: {package.INSTALL}"),
    pytest.mark.filterwarnings("ignore"),  # coremltools' and its dependencies' own
]


def predicted(made: writer.Artefact, image: np.ndarray) -> np.ndarray:
    """What Core ML makes of bytes in the order of channels that the network wants."""
    coremltools = package.require()
    rgb = image[0][..., ::-1] if made.description.preprocessing.channel_order == "bgr" else image[0]
    model = coremltools.models.MLModel(str(made.path), compute_units=coremltools.ComputeUnit.CPU_ONLY)
    return np.asarray(model.predict({made.input_name: Image.fromarray(np.ascontiguousarray(rgb))})[made.output_name])


@pytest.mark.parametrize("precision", ["float32", "float16"])
@pytest.mark.parametrize("block", ["inverted residual", "residual", "shuffle", "separable"])
def test_networks(tmp_path, block, precision):
    torch.manual_seed(0)
    graph = models.build(CLASSES, (64, 96), block=block, width=0.5, mean=[120, 110, 100], std=58)
    image = pixels(graph)
    expected = reference(graph, image).numpy()
    got = predicted(writer.write(graph, tmp_path / "a.mlpackage", precision), image)
    tolerance = 1e-3 if precision == "float32" else 3e-2
    np.testing.assert_allclose(got, expected, atol=tolerance * np.abs(expected).max())


@pytest.mark.parametrize("mode", ["bilinear", "nearest", "nearest-exact"])
@pytest.mark.parametrize("coordinates", ["half_pixel", "align_corners", "asymmetric"])
@pytest.mark.parametrize("to", [(16, 32), (11, 17), (4, 8), (1, 5)])
def test_what_the_documentation_says_of_resizing_is_so(tmp_path, mode, coordinates, to):
    compare(trace(torch.nn.Sequential(ops.Resize(to, mode, coordinates)), (1, 3, 8, 16)), tmp_path)


@pytest.mark.parametrize(
    "layer",
    [
        ops.SpaceToDepth(2),
        torch.nn.Sequential(torch.nn.Conv2d(3, 12, 1), ops.DepthToSpace(2)),
        torch.nn.AvgPool2d(3, 2, 1, ceil_mode=True),
        torch.nn.AvgPool2d(3, 2, 1, count_include_pad=False),
        torch.nn.MaxPool2d(3, 2, 1, ceil_mode=True),
        torch.nn.ConvTranspose2d(3, 4, 3, 2, 1, output_padding=1),
        torch.nn.ConvTranspose2d(3, 4, 3, 3, 0, output_padding=2),
    ],
    ids=repr,
)
def test_layers_with_corner_cases(tmp_path, layer):
    compare(trace(torch.nn.Sequential(layer).eval(), (1, 3, 8, 16)), tmp_path)


def compare(graph: Graph, folder) -> None:
    image = pixels(graph)
    expected = reference(graph, image).numpy()
    got = predicted(writer.write(graph, folder / "a.mlpackage", "float32"), image)
    np.testing.assert_allclose(got, expected, atol=1e-3 * max(1.0, np.abs(expected).max()))

"""Forms of the output, written, timed and recommended."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from slimseg import models
from slimseg.errors import UserError
from slimseg.exporting import heads
from slimseg.exporting.head_forms import AS_IS
from slimseg.graph.graph import Graph
from slimseg.report import head_choice
from slimseg.results import HeadTrial
from slimseg.runtimes.ncnn.package import INSTALL, available
from slimseg.techniques.head import with_output

OWN = HeadTrial("litert", f"{AS_IS} (logits at 8x8)", 9.0, 10.0, 1000)


@pytest.fixture(scope="module")
def image(shapes: Path) -> np.ndarray:
    return np.array(Image.open(shapes / "val" / "images" / "16.png"))


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heads, "ROUNDS", 1)


def test_forms_on_litert(shapes_graph: Graph, image: np.ndarray) -> None:
    trials = heads.measured(shapes_graph, ["litert"], image)
    assert [trial.form for trial in trials] == [
        "as it is (logits at 128x160)", "probabilities at 128x160", "mask at 128x160",
    ]  # fmt: skip
    assert [trial.output_bytes for trial in trials] == [4 * 128 * 160 * each for each in (3, 3, 1)]
    assert [trial.changed_percent for trial in trials] == [0, 0, 0], "at the image's own size they are the same"
    assert all(0 < trial.latency_ms < trial.end_to_end_ms for trial in trials)
    assert set(head_choice.recommend(trials)) == {"litert"}


@pytest.fixture
def undecided(image: np.ndarray) -> Graph:
    """An untrained network that ends in a resize from a quarter of the size, and gives every class about as often.

    Fresh weights alone mostly find one class in all pixels.
    """
    graph = models.build(3, (64, 96), "separable", 0.5)
    pixels = torch.from_numpy(image[:64, :96] / np.float32(255)).permute(2, 0, 1)[None]
    classify = next(layer for layer in reversed(list(graph.module.modules())) if isinstance(layer, nn.Conv2d))
    with torch.no_grad():
        logits = graph(pixels)
        assert classify.bias is not None
        classify.bias -= logits.mean((0, 2, 3))
        spread = logits.std((0, 2, 3))
        classify.weight /= spread.reshape(-1, 1, 1, 1)
        classify.bias /= spread
        assert all(share > 0.1 for share in torch.bincount(graph(pixels).argmax(1).flatten(), minlength=3) / (64 * 96))
    return graph


def test_a_smaller_mask_changes_pixels(undecided: Graph, image: np.ndarray) -> None:
    graph = undecided
    trials = {trial.form: trial for trial in heads.measured(graph, ["litert"], image[:64, :96])}
    assert trials["logits at 16x24"].changed_percent < 0.1 < trials["mask at 16x24"].changed_percent
    assert trials["mask at 64x96"].changed_percent < 0.1
    assert trials["logits at 16x24"].output_bytes * 16 == trials["as it is (logits at 64x96)"].output_bytes


def test_int8_is_tried_with_images(shapes_graph: Graph, image: np.ndarray) -> None:
    trials = heads.measured(shapes_graph, ["litert"], image, images=[image])
    runtimes = [trial.runtime for trial in trials if not trial.reason]
    assert runtimes == ["litert"] * 3 + [heads.INT8] * 3
    assert trials[3].output_bytes == 128 * 160 * 3
    assert set(head_choice.best(trials)) == {"litert", heads.INT8}


@pytest.mark.skipif(not available(), reason=f"ncnn is not installed: {INSTALL}")
def test_both_runtimes_in_one_run(shapes_graph: Graph, image: np.ndarray) -> None:
    """ncnn's file ends before the argmax, and says so."""
    trials = heads.measured(with_output(shapes_graph, "mask"), ["litert", "ncnn"], image)
    litert, ncnn = ([trial for trial in trials if trial.runtime == runtime] for runtime in ("litert", "ncnn"))
    assert litert[0].form == "as it is (mask at 128x160)"
    assert [trial.form for trial in ncnn] == ["as it is (logits at 128x160)", "probabilities at 128x160", "mask"]
    assert "no argmax" in ncnn[-1].reason
    assert ncnn[0].output_bytes == 3 * 4 * 128 * 160
    assert ncnn[1].changed_percent < 0.1
    assert head_choice.recommend(trials).keys() == {"litert", "ncnn"}


def test_what_is_not_to_be_measured(shapes_graph: Graph, image: np.ndarray) -> None:
    with pytest.raises(UserError, match="measured on litert, ncnn, onnxruntime, not on 'coreml'"):
        heads.measured(shapes_graph, ["coreml"], image)
    assert "Neural Engine" in heads.stated("coreml")
    with pytest.raises(UserError, match="measure it"):
        heads.stated("ncnn")


@pytest.mark.parametrize(
    ("others", "wanted"),
    [
        ([replace(OWN, form="quick", end_to_end_ms=8.0)], "use quick: 8 ms from image to mask instead of 10 ms"),
        ([replace(OWN, form="alike", end_to_end_ms=9.9)], "leave the output as it is"),
        ([replace(OWN, form="rough", end_to_end_ms=5.0, changed_percent=0.5)], "rough takes 5 ms, but 0.50%"),
        (
            [
                replace(OWN, form="good", end_to_end_ms=7.0, changed_percent=0.004),
                replace(OWN, form="rough", end_to_end_ms=5.0, changed_percent=0.2),
            ],
            "less than 0.01% of its pixels change; rough takes 5 ms",
        ),
        ([replace(OWN, form="absent", end_to_end_ms=0.0, reason="no such thing")], "leave the output as it is"),
    ],
)
def test_the_fastest_form_that_keeps_the_mask(others: list[HeadTrial], wanted: str) -> None:
    (sentence,) = head_choice.recommend([OWN, *others]).values()
    assert wanted in sentence


def test_a_runtime_without_files_is_left_out() -> None:
    assert head_choice.best([replace(OWN, reason="cannot be said")]) == {}

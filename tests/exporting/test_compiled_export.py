"""Files that are compiled for an NPU are exported beside the others."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import slimseg
from slimseg.errors import Unsupported, UserError
from slimseg.exporting.targets import Target, parse
from slimseg.runtimes import registry
from slimseg.runtimes.litert.npu import libraries
from slimseg.tflite import file


def test_a_chip_is_a_form():
    assert parse("tflite:sm8750,int8-sm8650,ncnn") == (
        *(Target("tflite", "sm8750"), Target("tflite", "int8-sm8650")),
        Target("ncnn"),
    )
    for text in ("tflite:sm9999", "tflite:half-sm8750", "ncnn:sm8750"):
        with pytest.raises(UserError, match="no form"):
            parse(text)
    with pytest.raises(UserError, match="such as sm8750 or int8-sm8750"):
        parse("tflite:fp16")


@pytest.mark.skipif(libraries.find() is None, reason=libraries.missing())
def test_a_compiled_file_and_its_card(tmp_path):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.ConvTranspose2d(8, 4, 2, 2))
    graph = slimseg.load(network.eval(), input_size=(16, 32), mean=127, std=128, output_kind="logits")
    images = tmp_path / "images"
    images.mkdir()
    for number in range(2):
        pixels = np.random.default_rng(number).integers(0, 256, (16, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(images / f"{number}.png")
    result = slimseg.export(graph, out=tmp_path / "app", images=images, to="tflite:sm8750,int8-sm8650")
    assert [each.reason for each in result.card.artefacts] == ["", ""]
    first, second = result.card.artefacts
    assert (first.files, first.precision) == (("model_sm8750.tflite",), "float32, compiled for SM8750")
    assert (second.files, second.precision) == (("model_int8-sm8650.tflite",), "int8, compiled for SM8650")
    assert second.takes_pixels
    for each in (first, second):
        assert each.placement.is_whole
        assert each.placement.compilation.context_bytes < each.size_bytes
        assert each.latency_ms is None
        assert file.read_description(tmp_path / "app" / each.files[0]).output_kind == "logits"
        assert "Qualcomm's simulator of this NPU computes it: 9" in each.verified[0] or "100.00%" in each.verified[0]
        assert each.not_verified == ("It ran on no phone; how fast it is there is not known.",)
    text = (tmp_path / "app" / "model_card.md").read_text()
    assert "Compiled for npu:sm8750, which runs its whole network; it runs on phones with this processor only." in text
    assert "Interpreter" not in text
    written = json.loads((tmp_path / "app" / "model_card.json").read_text())
    assert written["artefacts"][0]["placement"]["processor"] == "npu:sm8750"
    with pytest.raises(Unsupported, match="compiled for the NPU of a phone"):
        registry.running(tmp_path / "app" / "model_sm8750.tflite")

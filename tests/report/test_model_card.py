"""The model card says what the files say, to people and to machines."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from torch import nn

from slimseg.errors import OutputError
from slimseg.graph import edit
from slimseg.graph.description import Description
from slimseg.graph.preprocessing import Preprocessing
from slimseg.report.model_card import model_card, render_card, write_card
from slimseg.results import Artefact, BudgetCheck, ModelCard, ModelSummary, Port, Provenance, SourceFile
from slimseg.runtimes.litert.artefact import tflite_artefact
from slimseg.runtimes.litert.quantising.quantizer import quantize_int8
from slimseg.runtimes.litert.tasks import for_image_segmenter
from slimseg.runtimes.litert.writing import writer
from slimseg.runtimes.quantiser import Ends

DESCRIPTION = Description(Preprocessing.of(127, 128), ("road", "sky", "a|b\nc"), "logits")
TFLITE = Artefact(
    target="tflite",
    files=("model.tflite",),
    size_bytes=930_888,
    precision="int8",
    input=Port("image", (1, 256, 320, 3), "uint8", 1 / 128, 127),
    output=Port("head", (1, 128, 160, 3), "int8", 0.122, 29),
    takes_pixels=True,
    for_mediapipe=True,
    miou=61.84,
    disagreement=0.443,
    latency_ms=3.21,
    verified=("MediaPipe's ImageSegmenter loads it.",),
)
NCNN = Artefact(
    target="ncnn",
    files=("model.param", "model.bin"),
    size_bytes=3_000_000,
    precision="float16",
    input=Port("in0", (3, 256, 320), "float32"),
    output=Port("out0", (3, 128, 160), "float32"),
    not_verified=("It was not run on a phone.",),
)
FAILED = Artefact(target="coreml", files=(), reason="coremltools is not installed.")


def written(folder: Path, *artefacts: Artefact, description: Description = DESCRIPTION, **more: object) -> str:
    options: dict[str, object] = {"model": "streets", "input_size": (256, 320), "images": 101, **more}
    write_card(model_card(artefacts, description, **options), folder)  # type: ignore[arg-type]
    return (folder / "model_card.md").read_text()


def row(text: str, start: str) -> list[str]:
    (line,) = [line for line in text.splitlines() if line.startswith(f"| {start}")]
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def test_what_an_app_must_know(tmp_path: Path) -> None:
    text = written(tmp_path, TFLITE, NCNN, FAILED, licence="MIT, trained on CamVid.", recommendation="Take LiteRT.")
    assert row(text, "Input size")[1].startswith("320 wide, 256 high")
    assert row(text, "Pixel format")[1].startswith("RGB")
    assert row(text, "Normalisation")[1].startswith("(byte - 127) / 128")
    assert row(text, "Licence")[1] == "MIT, trained on CamVid."
    assert "Take LiteRT." in text
    assert "measured on 101 images" in text
    assert "Budget" not in text
    assert "There is no Core ML file: coremltools is not installed." in text


def test_one_row_for_every_file(tmp_path: Path) -> None:
    text = written(tmp_path, TFLITE, NCNN)
    assert row(text, "`model.tflite`")[1:] == ["LiteRT, MediaPipe Tasks", "int8", "931 kB", "61.8", "0.44%", "3.21 ms"]
    assert row(text, "`model.param`, `model.bin`")[1:] == ["ncnn", "float16", "3.00 MB", "–", "–", "–"]


def test_input_and_output_of_every_file(tmp_path: Path) -> None:
    text = written(tmp_path, TFLITE, NCNN)
    assert "`image`, uint8 1×256×320×3: the image's bytes, RGB; the file normalises them." in text
    assert "logit of each of 3 classes for every pixel, 128x160: the largest is the class" in text
    assert "real = (stored - 29) * 0.122" in text
    assert "`in0`, float32 3×256×320: (byte - 127) / 128, RGB." in text
    assert "- Verified: MediaPipe's ImageSegmenter loads it." in text
    assert "- **Not verified**: It was not run on a phone." in text


def test_classes_with_their_colours(tmp_path: Path) -> None:
    text = written(tmp_path, TFLITE)
    assert row(text, "0 ") == ["0", "road", "#804080"]
    assert row(text, "2 ")[1] == "a\\|b c"  # one cell, whatever it is called


def test_two_classes_of_one_channel(tmp_path: Path) -> None:
    one = Artefact(
        "tflite", ("p.tflite",), 1, "float32", TFLITE.input, Port("p", (1, 81920), "float32"), "probabilities"
    )
    description = Description(Preprocessing(), ("background", "person"), "probabilities")
    text = written(tmp_path, one, description=description)
    assert "probability of person for every pixel, 256x320: above 0.5 it is that class" in text
    assert row(text, "Normalisation")[1].startswith("byte / 255,")
    assert "class 0" in written(tmp_path, one, description=Description(output_kind="probabilities"))


def test_a_normalisation_for_each_channel(tmp_path: Path) -> None:
    description = Description(Preprocessing.of((103.5, 116.3, 123.7), (57.4, 57.1, 58.4), "bgr"), (), "logits")
    text = written(tmp_path, NCNN, description=description)
    assert "(byte - (103.5, 116.3, 123.7)) / (57.4, 57.1, 58.4) per channel, in BGR" in text


def test_code_for_every_file(tmp_path: Path) -> None:
    text = written(tmp_path, TFLITE, NCNN)
    fences = re.findall(r"^```(\w*)$", text, re.M)
    assert fences == ["kotlin", "", "java", "", "kotlin", "", "java", "", "cpp", ""]


def test_json_says_the_same(tmp_path: Path) -> None:
    card = model_card((TFLITE, FAILED), DESCRIPTION, model="streets", input_size=(256, 320))
    write_card(card, tmp_path)
    raw = json.loads((tmp_path / "model_card.json").read_text())
    assert raw["artefacts"][0]["output"]["shape"] == [1, 128, 160, 3]
    assert raw["mean"] == [127, 127, 127]
    assert raw["palette"][0] == "#804080"
    assert raw["artefacts"][1]["reason"] == "coremltools is not installed."
    assert "Not stated" in raw["licence"]
    assert isinstance(card, ModelCard)
    assert render_card(card) == (tmp_path / "model_card.md").read_text()
    assert "Nothing was measured on images." in render_card(card)


@pytest.mark.parametrize(("io", "dtype", "pixels"), [(None, "float32", False), ("image", "uint8", True)])
def test_what_a_file_says_of_itself(tmp_path: Path, io: Ends | None, dtype: str, pixels: bool) -> None:
    graph = edit.trace(nn.Sequential(nn.Conv2d(3, 3, 3, 2, 1)).eval(), (1, 3, 24, 32))
    graph.description = DESCRIPTION
    path = tmp_path / "net.tflite"
    writer.write(graph, path)
    if io is not None:
        quantize_int8(path, path, [np.zeros((1, 24, 32, 3), np.float32), np.ones((1, 24, 32, 3), np.float32)], io=io)
    path.write_bytes(for_image_segmenter(path.read_bytes(), DESCRIPTION))
    found = tflite_artefact(path, miou=50.0)
    assert found.input is not None
    assert found.output is not None
    assert (found.input.name, found.input.shape, found.input.dtype) == (graph.input.name, (1, 24, 32, 3), dtype)
    assert found.output.shape == (1, 12, 16, 3)
    assert (found.takes_pixels, found.for_mediapipe, found.miou) == (pixels, True, 50.0)
    assert (found.size_bytes, found.files) == (path.stat().st_size, ("net.tflite",))
    assert found.precision == ("int8" if io else "float32")
    other = Description(Preprocessing.of(0, 255), DESCRIPTION.classes)
    assert not tflite_artefact(path, other).takes_pixels


def test_nowhere_to_write(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"model_card\.json cannot be written"):
        write_card(model_card((TFLITE,), DESCRIPTION, model="streets", input_size=(256, 320)), tmp_path / "absent")


SOURCE = SourceFile("streets.pt2", 31_400_000, "ab" * 32)
MISSED = BudgetCheck("max_drop", "at most 1 points of mIoU", "14.10", met=False)


def of_run(*checks: BudgetCheck) -> Provenance:
    numbers = {"input_size": (256, 320), "end_to_end_ms": 1.0, "macs": 1, "params": 1}
    original = ModelSummary(
        "original_float.tflite", latency_ms=266.0, size_bytes=31_000_000, miou=61.84, agreement=100.0, **numbers
    )
    slimmed = ModelSummary("model.tflite", latency_ms=3.21, size_bytes=930_888, miou=61.2, agreement=97.5, **numbers)
    met = all(check.met for check in checks)
    return Provenance((SOURCE,), original, slimmed, 61.84, 101, checks, met, "" if met else "The budget is not met: x.")


def test_the_original_stands_beside_what_was_made_of_it(tmp_path: Path) -> None:
    text = written(tmp_path, TFLITE, provenance=of_run())
    assert row(text, "Source")[1] == f"streets.pt2, 31.4 MB, SHA-256 `{'ab' * 32}`"
    assert row(text, "Budget")[1] == "met"
    assert row(text, "original")[1:] == ["31.0 MB", "61.8", "100.0%", "266 ms"]
    assert row(text, "slimmed")[1:] == ["931 kB", "61.2", "97.5%", "3.21 ms"]
    assert "Every mIoU (percent) is measured on the same 101 images." in text
    raw = json.loads((tmp_path / "model_card.json").read_text())["provenance"]
    assert raw["sources"][0]["sha256"] == "ab" * 32
    assert (raw["original"]["miou"], raw["budget_met"]) == (61.84, True)


def test_a_missed_budget_is_said_in_bold(tmp_path: Path) -> None:
    text = written(tmp_path, TFLITE, provenance=of_run(MISSED))
    assert row(text, "Budget")[1] == "**not met**"
    assert "**The budget is not met: x. It was exported nevertheless" in text
    assert "mIoU drop missed: wanted at most 1 points of mIoU, got 14.10" in text

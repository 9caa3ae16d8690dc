"""Images and masks as people have them, through the commands that open them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import Run, model_file
from PIL import Image
from torch import nn

import slimseg
from slimseg.graph.graph import Graph


class Bright(nn.Module):
    """Logit (1, 1, 16, 16) of the second class: positive where the red channel is over one half."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 1, 1)
        with torch.no_grad():
            self.conv.weight.copy_(torch.tensor([4.0, 0.0, 0.0]).reshape(1, 3, 1, 1))
            self.conv.bias.fill_(-2.0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x)


@pytest.fixture(scope="module")
def bright() -> Graph:
    return slimseg.load(Bright(), (16, 16), classes=("dark", "light"), name="bright")


@pytest.fixture(scope="module")
def tflite(bright: Graph, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_file(bright, tmp_path_factory.mktemp("models"), ".tflite")


@pytest.fixture(scope="module")
def pt2(bright: Graph, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_file(bright, tmp_path_factory.mktemp("models"), ".pt2")


@pytest.fixture(scope="module")
def portraits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A light square on dark ground, three quarters of which the masks call 255, and nothing but 0 beside it."""
    root = tmp_path_factory.mktemp("portraits")
    for number in range(6):
        part = root / ("train" if number < 3 else "val")
        image, mask = np.zeros((16, 16, 3), np.uint8), np.zeros((16, 16), np.uint8)
        image[number : number + 8, 4:12] = 255
        mask[number : number + 6, 4:12] = 255
        for kind, pixels in (("images", image), ("masks", mask)):
            (part / kind).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(part / kind / f"{number}.png")
    (root / "train" / "images" / "x.heic").write_bytes(b"x")
    return root


def test_masks_of_0_and_255_are_understood_by_evaluate(run: Run, tflite: Path, portraits: Path) -> None:
    ran = run("evaluate", tflite, "--data", portraits, "--json")
    found = json.loads(ran.out)
    assert found["class_iou"]["light"] == pytest.approx(75)
    assert any("255 is taken for the second of two classes" in note for note in found["notes"])
    assert "255 is taken for the second of two classes" in ran.err
    assert "1 file (1 .heic; for example x.heic)" in ran.err
    same = json.loads(run("evaluate", tflite, "--data", portraits, "--foreground", "255", "--json").out)
    assert same["miou"] == found["miou"]
    inverted = json.loads(run("evaluate", tflite, "--data", portraits, "--foreground", "none", "--json").out)
    assert inverted["class_iou"]["light"] == 0  # what is 255 is left out: all that is light beside it is wrong


def test_and_understood_by_export(run: Run, bright: Graph, tflite: Path, portraits: Path, tmp_path: Path) -> None:
    ran = run(
        "export", tflite, "--to", "tflite", "--data", portraits, "--out", tmp_path / "app", "--head", "logits", "--json"
    )
    found = json.loads(ran.out)
    truth = slimseg.evaluate(bright, images=portraits).miou
    assert found["parities"][0]["miou"] == pytest.approx(truth)
    assert any("255 is taken" in note for note in found["notes"])


def test_and_understood_by_quantize(run: Run, tflite: Path, portraits: Path, tmp_path: Path) -> None:
    out = tmp_path / "q.tflite"
    ran = run("quantize", tflite, "--data", portraits, "--scheme", "float16", "--out", out, "--json")
    found = json.loads(ran.out)
    assert found["baseline"]["miou"] == pytest.approx(slimseg.evaluate(tflite, images=portraits).miou)
    assert any("255 is taken" in note for note in found["notes"])


@pytest.mark.parametrize("command", ["slim", "quantize", "evaluate", "export"])
def test_a_foreground_that_is_no_value(run: Run, tflite: Path, portraits: Path, tmp_path: Path, command: str) -> None:
    out = {"slim": "run", "quantize": "q.tflite", "export": "app"}
    more = ["--out", tmp_path / out[command]] if command in out else []
    ran = run(command, tflite, "--data", portraits, "--foreground", "person", *more)
    assert ran.code == 2
    assert "--foreground person is not a value of a mask" in ran.err
    assert list(tmp_path.iterdir()) == []


def test_a_foreground_needs_masks(run: Run, tflite: Path, tmp_path: Path) -> None:
    ran = run("slim", tflite, "--needs", "nothing", "--foreground", "255", "--out", tmp_path / "run")
    assert ran.code == 2
    assert "--foreground describes masks and needs a folder of them: give --data" in ran.err


def test_masks_for_two_classes_do_not_fit_three(run: Run, portraits: Path, tmp_path: Path) -> None:
    path = tmp_path / "three.pt2"
    slimseg.load(nn.Conv2d(3, 3, 1), (16, 16)).save(path)
    for command in (["evaluate"], ["slim", "--out", tmp_path / "run"]):
        ran = run(command[0], path, "--data", portraits, *command[1:])
        assert ran.code == 2
        assert "have only the values 0 and 255, as for two classes, but the network has 3" in ran.err.splitlines()[-1]
    assert not (tmp_path / "run").exists()


def test_mean_and_std_of_images_in_0_to_1_are_converted(run: Run, tflite: Path, portraits: Path) -> None:
    own = ["--mean", "0", "--std", "255"]
    wanted = json.loads(run("evaluate", tflite, "--data", portraits, *own, "--json").out)["miou"]
    ran = run("evaluate", tflite, "--data", portraits, "--mean", "0", "--std", "0.5", "--json")
    assert "mean and std are understood as for images in [0, 1]; in bytes they are mean 0 and std 127.5" in ran.err
    assert json.loads(ran.out)["miou"] == pytest.approx(wanted)  # twice as bright: the same decision


WRONG = ["--mean", "300", "--std", "255"]  # every byte becomes negative: all is dark
SAID = "warning: the original network seems to be wrong on these images: it predicts dark for every pixel: check --mean"


def test_a_network_that_sees_nothing_is_told_by_evaluate(run: Run, tflite: Path, portraits: Path) -> None:
    ran = run("evaluate", tflite, "--data", portraits, *WRONG, "--json")
    assert f"{SAID} (300,300,300 now)" in ran.err
    assert any("predicts dark for every pixel" in note for note in json.loads(ran.out)["notes"])
    assert "warning" not in run("evaluate", tflite, "--data", portraits).err


def test_and_by_export(run: Run, tflite: Path, portraits: Path, tmp_path: Path) -> None:
    more = ["--to", "tflite", "--head", "logits", "--out", tmp_path / "app", "--json"]
    ran = run("export", tflite, "--data", portraits, *WRONG, *more)
    assert SAID in ran.err
    assert any("predicts dark for every pixel" in note for note in json.loads(ran.out)["notes"])


@pytest.mark.parametrize("labelled", [True, False])
def test_and_by_quantize_before_it_tries_anything(
    run: Run, tflite: Path, portraits: Path, tmp_path: Path, labelled: bool
) -> None:
    data = portraits if labelled else portraits / "val" / "images"
    out = tmp_path / "q.tflite"
    ran = run("quantize", tflite, "--data", data, *WRONG, "--scheme", "float16", "--out", out, "--json")
    assert (SAID if labelled else "predicts dark for every pixel") in ran.err
    assert ran.err.index("predicts dark for every pixel") < ran.err.index("Timing")
    assert any("predicts dark for every pixel" in note for note in json.loads(ran.out)["notes"])


def test_and_by_slim_before_it_times_anything(
    run: Run, pt2: Path, portraits: Path, tmp_path: Path, quick_timing: None
) -> None:
    more = ["--needs", "nothing", "--out", tmp_path / "run", "--json"]
    ran = run("slim", pt2, "--data", portraits, *WRONG, *more)
    assert ran.err.index(SAID) < ran.err.index("Exact edits")
    assert any("predicts dark for every pixel" in note for note in json.loads(ran.out)["notes"])
    assert "predicts dark for every pixel" in (tmp_path / "run" / "report.html").read_text()


def test_masks_in_which_nothing_counts_are_no_accuracy(run: Run, tflite: Path, portraits: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(portraits, tmp_path / "data"))
    for path in (root / "val" / "masks").iterdir():
        Image.fromarray(np.full((16, 16), 255, np.uint8)).save(path)
    Image.fromarray(np.eye(16, dtype=np.uint8)).save(root / "train" / "masks" / "0.png")
    ran = run("evaluate", tflite, "--data", root)
    assert ran.code == 2
    assert "is 255, which is ignored: give masks of class indices" in ran.err


def test_names_of_files_cannot_write_on_the_terminal(run: Run, tflite: Path, portraits: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(portraits, tmp_path / "data"))
    (root / "val" / "images" / "[red]\x1b[31m\u202e.heic").write_bytes(b"x")
    ran = run("evaluate", tflite, "--data", root, "--json")
    assert "for example [red]?[31m?.heic" in ran.err
    (root / "val" / "images" / "\x1b[2J.png").write_bytes(b"x")
    for kind in ("images", "masks"):
        (root / "val" / kind / "\x1b[2J.png").write_bytes(b"x")
    ran = run("evaluate", tflite, "--data", root)
    assert ran.code == 2
    assert "?[2J.png is not an image" in ran.err
    assert "\x1b" not in ran.err

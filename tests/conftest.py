"""Paths and small models that many tests share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import hurry
import numpy as np
import pytest
import stopwatch
import torch
from command_line import Run, caller
from hypothesis import settings
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from slimseg import load
from slimseg.graph.graph import Graph
from slimseg.planning.pricing import steady
from slimseg.runtimes import benchmark, child
from slimseg.runtimes.litert.profiling import profiler as litert_profiler
from slimseg.runtimes.ncnn import profiler as ncnn_profiler
from slimseg.runtimes.onnxruntime import profiler as onnx_profiler

try:
    import fcntl
except ImportError:  # Windows: two workers may train it at the same time
    fcntl = None  # type: ignore[assignment]

SHARED = Path(__file__).resolve().parents[2] / "shared"
SHAPES = ("ground", "disc", "box")
SHAPES_SIZE = (128, 160)
MEAN, STD = 127.0, 128.0

pytest_plugins = ("seeding", "tiny_tflite", "longest_first")

# Examples are the same in every run, and none is judged by how long it takes.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")
# Small networks gain nothing from more threads, and lose much where tests share a machine: each waits for the others.
torch.set_num_threads(1)
os.environ.setdefault("OMP_NUM_THREADS", "1")  # of the processes that tests start


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real models and images beside the checkout; tests that need it skip where it is absent."""
    if not SHARED.is_dir():
        pytest.skip("no folder `shared` with real models and images beside the checkout")
    return SHARED


@pytest.fixture(scope="session", autouse=True)
def _impatient() -> Iterator[None]:
    """No child process repeats disturbed runs: no test may hang on what else the machine has to do."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(child.Child, "_running", hurry.impatient)
        yield


@pytest.fixture(scope="module")
def hurried() -> Iterator[None]:
    """Profiles come from the fewest runs: for tests that read what runs where, and no times."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(child.Child, "_running", hurry.hurrying)
        child.call("hurry:hurry")  # one that runs already goes on: what it imported takes seconds
        yield
        child.call("hurry:take_time")


@pytest.fixture(scope="module")
def quick_timing(hurried: None) -> Iterator[None]:
    """Times are those of `stopwatch`: the same on every machine, for tests of what is decided from times."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(benchmark, "time_files", stopwatch.time_files)
        patch.setattr(litert_profiler, "profile", stopwatch.profiler_of("litert"))
        patch.setattr(ncnn_profiler, "profile", stopwatch.profiler_of("ncnn"))
        patch.setattr(onnx_profiler, "profile", stopwatch.profiler_of("onnxruntime"))
        patch.setattr(steady, "FEWEST_LOADS", 2)  # loads that are alike leave no error
        yield


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Calls `slimseg ARGUMENTS` in this process: exit code, standard output, standard error."""
    return caller(capsys, monkeypatch)


def draw(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A noisy picture (128, 160, 3) of a red disc and a blue box on grey, and its mask."""
    random = np.random.default_rng(seed)
    height, width = SHAPES_SIZE
    rows, columns = np.mgrid[:height, :width]
    mask = np.zeros(SHAPES_SIZE, np.uint8)
    y, x, radius = random.integers(30, 98), random.integers(30, 130), random.integers(14, 28)
    mask[(rows - y) ** 2 + (columns - x) ** 2 < radius**2] = 1
    top, left = random.integers(0, 80), random.integers(0, 110)
    mask[top : top + 36, left : left + 44] = 2
    colours = np.array([[110, 115, 105], [200, 60, 50], [50, 70, 190]])
    return np.clip(colours[mask] + random.normal(0, 14, (*SHAPES_SIZE, 3)), 0, 255).astype(np.uint8), mask


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A labelled folder: 16 images for training, 6 for validation, 3 classes. Not to be written to."""
    root = tmp_path_factory.mktemp("shapes")
    (root / "classes.txt").write_text("\n".join(SHAPES))
    for number in range(22):
        split = root / ("train" if number < 16 else "val")
        for kind, pixels in zip(("images", "masks"), draw(number), strict=True):
            (split / kind).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(split / kind / f"{number:02}.png")
    return root


class ShapesNet(nn.Module):
    """An encoder and a decoder of two steps each, with a skip: every kind of site that the techniques look for."""

    def __init__(self) -> None:
        super().__init__()
        self.down1 = self._convolution(3, 16, 2)
        self.down2 = self._convolution(16, 32, 2)
        self.middle = self._convolution(32, 32, 1)
        self.up1 = nn.ConvTranspose2d(32, 16, 4, 2, 1)
        self.join = self._convolution(32, 16, 1)
        self.up2 = nn.ConvTranspose2d(16, 16, 4, 2, 1)
        self.classify = nn.Conv2d(16, len(SHAPES), 1)

    @staticmethod
    def _convolution(inputs: int, outputs: int, stride: int) -> nn.Sequential:
        return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        skip = self.down1(x)
        x = self.middle(self.down2(skip))
        x = self.join(torch.cat((torch.relu(self.up1(x)), skip), 1))
        return self.classify(torch.relu(self.up2(x)))


@pytest.fixture(scope="session")
def shapes_net(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> nn.Module:
    """Trained for seconds on drawn shapes; it finds nearly every pixel. Copy it before changing it."""
    torch.manual_seed(0)
    model = ShapesNet()
    if worker_id == "master":
        _train(model)
        return model.eval()
    path = tmp_path_factory.getbasetemp().parent / "shapes_net.pt"  # of all workers: the first of them trains it
    with path.with_suffix(".lock").open("w") as lock:
        if fcntl is not None:
            fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.is_file():
            _train(model)
            torch.save(model.state_dict(), path)
    model.load_state_dict(torch.load(path, weights_only=True))
    return model.eval()


def _train(model: ShapesNet) -> None:
    pairs = [draw(100 + number) for number in range(24)]
    images = torch.from_numpy(np.stack([image for image, _ in pairs])).permute(0, 3, 1, 2).float().sub(MEAN).div(STD)
    masks = torch.from_numpy(np.stack([mask for _, mask in pairs])).long()
    optimiser = torch.optim.AdamW(model.parameters(), 1e-2)
    for step in range(60):
        chosen = torch.arange(8) + 8 * (step % 3)
        loss = F.cross_entropy(model(images[chosen]), masks[chosen])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()


@pytest.fixture(scope="session")
def shapes_graph(shapes_net: nn.Module) -> Graph:
    """The trained network as a Graph, class names and preprocessing included. Copy it before changing it."""
    return load(shapes_net, SHAPES_SIZE, mean=MEAN, std=STD, classes=SHAPES, name="shapes")

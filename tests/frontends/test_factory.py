"""`file.py:function` and `package.module:function`, with weights that are never unpickled."""

from __future__ import annotations

import hashlib
import os
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import slimseg
from slimseg.errors import ModelError

SOURCE = """
from torch import nn
def net(): return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
def broken(): raise RuntimeError("no such backbone")
def nothing(): return 3
number = 4
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "mynet.py"
    path.write_text(SOURCE)
    return path


def trained() -> nn.Module:
    torch.manual_seed(5)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())


@pytest.mark.parametrize("wrap", [lambda state: state, lambda state: {"state_dict": state, "epoch": 3}])
@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_weights_are_those_of_the_file(source, tmp_path, suffix, wrap):
    path = tmp_path / f"weights.{suffix}"
    state = trained().state_dict()
    save_file(state, path) if suffix == "safetensors" else torch.save(wrap(state), path)
    graph = slimseg.load(f"{source}:net", (16, 16), weights=path)
    x = torch.randn(1, 3, 16, 16)
    torch.testing.assert_close(graph(x), trained()(x))


def test_files_are_known_by_their_hash(source, tmp_path):
    weights = tmp_path / "weights.safetensors"
    save_file(trained().state_dict(), weights)
    graph = slimseg.load(f"{source}:net", (16, 16), weights=weights)
    told = [each.told for each in graph.copy().origins]
    assert [each.name for each in told] == ["mynet.py", "weights.safetensors"]
    assert [each.sha256 for each in told] == [
        hashlib.sha256(each.read_bytes()).hexdigest() for each in (source, weights)
    ]
    assert slimseg.load(trained(), (16, 16)).origins == ()


def test_a_function_in_a_package():
    graph = slimseg.load(f"{__name__}:trained", (16, 16))
    assert graph.name == "trained"


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("{}:missing", "no function 'missing'"),
        ("{}:number", "no function 'number'"),
        ("{}:broken", "no such backbone"),
        ("{}:nothing", "returned int, not an nn.Module"),
        ("absent.py:net", "does not exist"),
        ("no_such_package.module:net", "cannot be imported"),
        ("absent.onnx", "does not exist"),
        ("{}", "is not a model that slimseg can open"),
    ],
)
def test_a_target_that_cannot_be_used(source, target, message):
    with pytest.raises(ModelError, match=message) as caught:
        slimseg.load(target.format(source), (16, 16))
    assert "\n" not in str(caught.value)


def test_a_syntax_error_is_reported(tmp_path):
    (tmp_path / "bad.py").write_text("def net(:")
    with pytest.raises(ModelError, match="SyntaxError"):
        slimseg.load(f"{tmp_path / 'bad.py'}:net", (16, 16))


class Payload:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("kind", ["malicious", "text", "empty", "other network", "missing", "folder"])
@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_weights_that_cannot_be_used(source, tmp_path, kind, suffix):
    path, trap = tmp_path / f"weights.{suffix}", tmp_path / "trap"
    if kind == "malicious":
        torch.save({"0.weight": Payload(trap)}, path)
    elif kind == "other network":
        save_file({"a": torch.zeros(1)}, path) if suffix == "safetensors" else torch.save({"a": torch.zeros(1)}, path)
    elif kind == "folder":
        path.mkdir()
    elif kind != "missing":
        path.write_text("hello" if kind == "text" else "")
    with pytest.raises(ModelError) as caught:
        slimseg.load(f"{source}:net", (16, 16), weights=path)
    assert "\n" not in str(caught.value)
    assert not trap.exists()


def test_weights_that_unpack_to_far_more_than_is_there(source, tmp_path):
    path, bomb = tmp_path / "weights.pth", tmp_path / "bomb.pth"
    torch.save({"0.weight": torch.zeros(4, 3, 3, 100_000), "0.bias": torch.zeros(4)}, path)
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as packed:
        for name in archive.namelist():
            packed.writestr(name, archive.read(name) * (10 if name.endswith("data/0") else 1))
    with pytest.raises(ModelError, match=r"bomb\.pth unpacks to 1\d\d MB, more than a network needs: refused"):
        slimseg.load(f"{source}:net", (16, 16), weights=bomb)

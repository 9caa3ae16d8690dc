"""benchmarks/fuzz.py in small: some hundred mutants, and what Python touches while hostile files are loaded."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from slimseg.errors import ModelError

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
pytest.importorskip("h5py", reason="seeds of Keras files are written with h5py")
pytest.importorskip("onnx", reason="seeds of ONNX files are written with onnx")

from fuzzing import audit, documents, herd, seeds
from fuzzing.formats import FORMATS
from fuzzing.trials import Mutant, tried

MUTANTS = {"tflite": 25, "onnx": 25, "pt2": 15, "weights": 8, "image": 20, "h5": 2, "keras": 2, "ncnn": 2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("fuzz")
    seeds.write_all(path / "seeds")
    return path


@pytest.mark.parametrize("name", FORMATS)
def test_seeds_are_what_they_should_be(folder: Path, name: str) -> None:
    files = [path for path in (folder / "seeds" / name).iterdir() if path.suffix != ".bin"]
    assert files
    if name != "ncnn":  # which runs in ncnn itself, an extra
        for path in files:
            FORMATS[name].opens(path)


@pytest.mark.parametrize("name", FORMATS)
def test_mutants_are_opened_or_refused_in_a_sentence(folder: Path, name: str) -> None:
    outcomes = [tried(Mutant(name, number, seed=2026), folder) for number in range(MUTANTS[name])]
    wrong = [each for each in outcomes if each.kind not in ("opened", "refused")]
    assert not wrong
    assert max(each.memory_bytes for each in outcomes) < 1 << 30
    assert any(each.kind == "refused" for each in outcomes)


def test_a_mutant_is_the_same_every_time(folder: Path) -> None:
    for name in FORMATS:
        first, second = (Mutant(name, 3, seed=5).write(folder).read_bytes() for _ in range(2))
        assert first == second


def test_what_is_wrong_is_noticed(folder: Path) -> None:
    """An error of somebody else's, and one that says nothing. (One that says too much is cut: see `errors.py`.)"""

    def breaks(path: Path) -> None:
        raise KeyError(path)

    def is_silent(path: Path) -> None:
        raise ModelError("")

    kinds = [tried(Mutant("onnx", 1, seed=1), folder, opens).kind for opens in (breaks, is_silent)]
    assert kinds == ["foreign", "unreadable"]


def test_a_worker_that_dies_is_replaced(folder: Path) -> None:
    worker = herd.Worker(folder, 1, "load")
    try:
        assert worker.tried("nonsense:1")["kind"] == "signal"  # there is no such format: the process ends
        assert worker.tried("onnx:1")["kind"] in ("opened", "refused")
    finally:
        worker.close()


def test_documents_keep_being_documents() -> None:
    data = documents.write_zip({"a/b.json": b'{"x": [1, 2, {"y": "z"}]}', "a/c": b"raw"})
    assert documents.read_zip(data)["a/c"] == b"raw"


def test_hostile_files_touch_nothing_that_is_not_ours(folder: Path) -> None:
    found = audit.audited(24, folder / "seeds")
    assert found.outside == ()
    assert found.foreign == ()
    assert found.loaded == 24
    assert found.refused > 12  # tree specifications of `.pt2` files, for one, are not even looked at


def test_the_audit_sees_what_is_not_ours(tmp_path: Path) -> None:
    """The rule that the other test relies on."""
    places = [
        audit.place("open", ["/etc/passwd", "r"], tmp_path),
        audit.place("import", ["antigravity_of_nobody"], tmp_path),
        audit.place("os.system", ["touch OWNED"], tmp_path),
        audit.place("open", [str(tmp_path / "OWNED"), "w"], tmp_path),
        audit.place("subprocess.Popen", ["gs", "['gs', '-q']"], tmp_path),
        audit.place("pickle.find_class", ["os", "system"], tmp_path),
        audit.place("ctypes.dlopen", ["/tmp/elsewhere/x.so"], tmp_path),
    ]
    assert not any(places)
    assert audit.place("open", [str(tmp_path / "model.pt2"), "r"], tmp_path) == "the file"

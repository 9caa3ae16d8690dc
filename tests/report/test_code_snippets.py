"""The code on a model card: no hole left, names and sizes as in the file, and it computes what our app does."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from slimseg.graph import edit
from slimseg.graph.description import Description, OutputKind
from slimseg.graph.preprocessing import Preprocessing
from slimseg.report.code_snippets import Snippet, snippets
from slimseg.results import Artefact, ModelCard, Port
from slimseg.runtimes import host
from slimseg.runtimes.coreml.writer import TARGET
from slimseg.runtimes.litert import session
from slimseg.runtimes.litert.quantising.quantizer import quantize_int8
from slimseg.runtimes.litert.writing import writer
from slimseg.runtimes.quantiser import Ends
from slimseg.techniques import head
from slimseg.tflite import file

STUBS = Path(__file__).with_name("snippet_stubs")
SIZE = (12, 16)
UNIFORM, PER_CHANNEL = Preprocessing.of(127, 128), Preprocessing.of((123.7, 116.3, 103.5), (58.4, 57.1, 57.4), "bgr")


def card(artefact: Artefact, preprocessing: Preprocessing = UNIFORM, classes: tuple[str, ...] = ()) -> ModelCard:
    names = classes or tuple(f"class {i}" for i in range(5))
    order = preprocessing.channel_order.upper()
    return ModelCard(
        "net",
        SIZE,
        order,
        preprocessing.mean,
        preprocessing.std,
        names,
        ("#000000",) * len(names),
        "MIT",
        0,
        (artefact,),
    )


def tflite(output: Port, kind: OutputKind = "logits", image: Port | None = None, name: str = "net.tflite") -> Artefact:
    source = image or Port("image", (1, *SIZE, 3), "float32")
    return Artefact("tflite", (name,), 1, "float32", source, output, kind, for_mediapipe=True)


def named(found: tuple[Snippet, ...], start: str) -> str:
    (code,) = [each.code for each in found if each.title.startswith(start)]
    return code


IN0, IMAGE = Port("in0", (3, *SIZE), "float32"), Port("image", (1, 3, *SIZE), "float32")
BYTES = Port("image", (1, 3, *SIZE), "uint8", 0.02, 127)
MASK, SCORES = Port("m", (1, 6, 8), "int32"), Port("p", (1, 5, 6, 8), "float32")
ARTEFACTS = (
    tflite(Port("scores", (1, 6, 8, 5), "float32")),
    tflite(Port("scores", (1, 192), "float32"), "probabilities"),
    tflite(Port("mask", (1, 6, 8), "int32"), "mask", Port("image", (1, *SIZE, 3), "int8", 0.01, -3)),
    Artefact("ncnn", ("n.param", "n.bin"), 1, "float16", IN0, Port("out0", (5, 6, 8), "float32")),
    Artefact("onnx", ("n.onnx",), 1, "float32", IMAGE, SCORES),
    Artefact("onnx", ("n.onnx",), 1, "int8", BYTES, Port("m", (1, 6, 8), "int64"), "mask", takes_pixels=True),
    Artefact("coreml", ("n.mlpackage",), 1, "float16", IMAGE, MASK, "mask", takes_pixels=True),
    Artefact("coreml", ("n.mlpackage",), 1, "float16", IMAGE, SCORES, "probabilities", takes_pixels=True),
)


@pytest.mark.parametrize("artefact", ARTEFACTS, ids=lambda each: f"{each.target}-{each.output_kind}")
def test_no_hole_and_the_files_own_names(artefact: Artefact) -> None:
    found = snippets(card(artefact))
    assert [each.language for each in found] == {
        "tflite": ["kotlin", "java", "kotlin", "java"], "coreml": ["swift"], "ncnn": ["cpp"], "onnx": ["kotlin"]
    }[artefact.target]  # fmt: skip
    for each in found:
        assert not re.search(r"\{\{|\}\}|\{%|%\}|undefined|None", each.code)
        assert artefact.files[0] in each.title
        assert artefact.files[0] in each.code
        assert artefact.files[-1] in each.code
        for opening, closing in ("{}", "()", "[]"):
            assert each.code.count(opening) == each.code.count(closing)
        if not each.title.startswith("MediaPipe"):
            assert artefact.input is not None
            assert artefact.output is not None
            assert artefact.input.name in each.code
            assert artefact.output.name in each.code
            assert "16" in each.code  # width of the input


def test_mediapipe_only_where_it_loads() -> None:
    plain = Artefact(**{**vars(ARTEFACTS[0]), "for_mediapipe": False})
    assert not [each for each in snippets(card(plain)) if each.title.startswith("MediaPipe")]


def test_swift_names_the_system_that_the_package_asks_for() -> None:
    (code,) = [each.code for each in snippets(card(ARTEFACTS[-1]))]
    assert f"{TARGET.replace('iOS', 'iOS ')} or later" in code


def test_one_channel_says_what_mediapipe_makes_of_it() -> None:
    one = tflite(Port("scores", (1, *SIZE, 1), "float32"))
    found = snippets(card(one, classes=("ground", "person")))
    assert "0 for person, 255 elsewhere" in named(found, "MediaPipe Tasks, Kotlin")


def test_a_name_from_a_model_file_stays_text() -> None:
    """It can end neither a comment nor a string, so what a model is called is never run."""
    nasty = 'x"); evil(); //\n*/ evil(); \\u000a $(evil) **//'
    artefact = tflite(Port(nasty, (1, *SIZE, 1), "float32"))
    for each in snippets(card(artefact, classes=("ground", nasty))):
        code = re.sub(r"/\*.*?\*/|//[^\n]*", "", each.code, flags=re.S)
        code = re.sub(r'"(\\.|[^"\\])*"', '""', code)
        assert "evil" not in code
        assert "\\u" not in each.code
    net = Artefact(
        "ncnn", ("n.param", "n.bin"), 1, "", Port(nasty, (3, *SIZE), "float32"), Port(nasty, (5, 6, 8), "float32")
    )
    (each,) = snippets(card(net))
    code = re.sub(r'"(\\.|[^"\\])*"', '""', each.code)  # the strings first: one of them holds //
    assert "evil" not in re.sub(r"//[^\n]*", "", code)


def network(path: Path, kind: OutputKind, io: Ends | None, preprocessing: Preprocessing, classes: int) -> file.File:
    torch.manual_seed(0)
    end = (nn.Sigmoid(),) if classes == 1 and kind == "probabilities" else ()
    layers = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, classes, 3, 1, 1), *end)
    graph = edit.trace(layers.eval(), (1, 3, *SIZE))
    graph.description = Description(preprocessing, (), "probabilities" if end else "logits")
    graph = head.with_output(graph, kind)
    writer.write(graph, path)
    if io is None:
        return file.read(path)
    pipeline = host.ImagePipeline(preprocessing, SIZE)
    quantize_int8(path, path.with_suffix(".int8.tflite"), [pipeline(picture())[None]], io=io)
    return file.read(path.with_suffix(".int8.tflite"))


def picture() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (*SIZE, 3), np.uint8)


@pytest.mark.skipif(not shutil.which("javac"), reason="no Java compiler here")
@pytest.mark.parametrize(
    ("kind", "io", "preprocessing", "classes"),
    [
        ("logits", None, PER_CHANNEL, 5),
        ("mask", None, UNIFORM, 5),
        ("probabilities", "int8", PER_CHANNEL, 1),
        ("logits", "image", UNIFORM, 5),
    ],
)
def test_java_computes_what_our_app_does(
    tmp_path: Path, kind: OutputKind, io: Ends | None, preprocessing: Preprocessing, classes: int
) -> None:
    """LiteRT itself is left out: its stand-in keeps what it is fed, and gives what LiteRT gave for our app's input."""
    model = network(tmp_path / "net.tflite", kind, io, preprocessing, classes)
    ends = [
        Port(each.name, each.shape, each.dtype, each.scale, each.zero_point) for each in (*model.inputs, *model.outputs)
    ]
    artefact = Artefact(
        "tflite", (model.path.name,), 1, "", *ends, output_kind=kind, takes_pixels=io == "image", for_mediapipe=True
    )
    found = snippets(card(artefact, preprocessing))
    (tmp_path / "LiteRtSegmenter.java").write_text(named(found, "LiteRT, Java"))
    (tmp_path / "TaskSegmenter.java").write_text(named(found, "MediaPipe Tasks, Java"))
    app = host.App(model)
    given = app.prepare(picture())
    output = session.predict(model.path, given[None], raw=True)[0]
    (tmp_path / "image").write_bytes(picture().tobytes())
    (tmp_path / "output").write_bytes(output.tobytes())
    sources = [
        *map(str, STUBS.rglob("*.java")),
        str(tmp_path / "LiteRtSegmenter.java"),
        str(tmp_path / "TaskSegmenter.java"),
    ]
    classes_folder = str(tmp_path / "classes")
    subprocess.run(["javac", "-d", classes_folder, *sources], check=True, timeout=600)
    places = [str(tmp_path / name) for name in ("image", "output", "input", "mask")]
    subprocess.run(["java", "-cp", classes_folder, "Main", *places], check=True, timeout=600)
    fed = np.frombuffer((tmp_path / "input").read_bytes(), given.dtype).reshape(given.shape)
    mask = np.frombuffer((tmp_path / "mask").read_bytes(), np.uint8).reshape(6, 8)
    assert np.allclose(fed.astype(np.float32), given.astype(np.float32), rtol=1e-5, atol=0 if io == "image" else 1e-4)
    assert np.array_equal(mask, app.mask(output, (6, 8)))
    assert len(np.unique(mask)) > 1


@pytest.mark.skipif(not shutil.which("g++"), reason="no C++ compiler here")
@pytest.mark.parametrize(
    ("kind", "preprocessing", "classes"),
    [("logits", PER_CHANNEL, 5), ("probabilities", UNIFORM, 1), ("mask", UNIFORM, 0)],
)
def test_cpp_computes_what_our_app_does(
    tmp_path: Path, kind: OutputKind, preprocessing: Preprocessing, classes: int
) -> None:
    scores = np.random.default_rng(0).random((max(classes, 1), 6, 8), np.float32)
    if kind == "mask":
        scores = np.random.default_rng(0).integers(0, 5, (1, 6, 8)).astype(np.float32)
    port = Port("out0", scores.shape[-2:] if kind == "mask" else scores.shape, "float32")
    artefact = Artefact("ncnn", ("n.param", "n.bin"), 1, "float32", Port("in0", (3, *SIZE), "float32"), port, kind)
    (found,) = snippets(card(artefact, preprocessing))
    (tmp_path / "snippet.cpp").write_text(found.code)
    (tmp_path / "n.param").write_text(f"8 6 {len(scores)}")
    (tmp_path / "n.bin").write_bytes(scores.tobytes())
    (tmp_path / "image").write_bytes(picture().tobytes())
    program = str(tmp_path / "main")
    command = [
        "g++",
        "-std=c++17",
        "-Wall",
        "-Wextra",
        "-Werror",
        f"-I{STUBS}",
        f"-I{tmp_path}",
        str(STUBS / "main.cpp"),
    ]
    subprocess.run([*command, "-o", program], check=True, timeout=600)
    subprocess.run([program, str(tmp_path), str(SIZE[1]), str(SIZE[0])], check=True, timeout=600)
    fed = np.frombuffer((tmp_path / "input").read_bytes(), np.float32).reshape(3, *SIZE)
    mask = np.frombuffer((tmp_path / "mask").read_bytes(), np.uint8).reshape(6, 8)
    assert np.allclose(fed.transpose(1, 2, 0), host.ImagePipeline(preprocessing, SIZE)(picture()), atol=1e-4)
    expected = scores[0].astype(np.uint8) if kind == "mask" else host.to_mask(scores.transpose(1, 2, 0), (6, 8), kind)
    assert np.array_equal(mask, expected)

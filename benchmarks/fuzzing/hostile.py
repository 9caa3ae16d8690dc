"""Files that somebody with bad intentions would make: each asks for something that no network needs.

What they ask for would leave a file called OWNED behind, or read one that is none of theirs.
"""

from __future__ import annotations

import base64
import json
import marshal
import os
import pickle
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import onnx
import torch
from onnx import TensorProto

from fuzzing import documents
from fuzzing.seeds import SIZE

COMMAND = "touch OWNED"
_POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 48 32\n(OWNED) (w) file closefile\nshowpage\n"
_GLOBALS = (
    "os.system", "builtins.eval", "builtins.exec", "subprocess.Popen", "ctypes.CDLL", "importlib.import_module",
    "torch.ops.load_library", "shutil.rmtree", "pickle.loads", "numpy.load",
)  # fmt: skip
_TARGETS = (
    "os.system", "builtins.eval", "torch.load", "torch.ops.load_library", "torch.hub.load", "ctypes.CDLL",
    "torch.ops.aten.from_file.default", "torch.ops.aten.full.default", "torch.ops.aten.repeat.default",
    "torch.ops.aten.empty.memory_format", "_operator.call", "_operator.methodcaller", "importlib.import_module",
)  # fmt: skip
_OUTSIDE = ("/etc/passwd", "../../../etc/passwd", "/dev/zero", "/proc/self/environ", "./../seeds/onnx/float.onnx")


class Call:
    """Pickles as a call of any function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.function, self.arguments


def files(folder: Path, seeds: Path) -> Iterator[Path]:
    """Written into `folder`; `seeds` has a folder of files for each format."""
    for make in (_pt2, _keras, _pickles, _onnx, _images, _texts):
        for number, (suffix, data) in enumerate(make(seeds)):
            path = folder / f"{make.__name__.strip('_')}_{number}{suffix}"
            path.write_bytes(data)
            yield path


def _pickled(function: Any = os.system, *arguments: Any) -> bytes:
    return pickle.dumps(Call(function, *(arguments or (COMMAND,))))


def _pt2(seeds: Path) -> Iterator[tuple[str, bytes]]:
    entries = documents.read_zip((seeds / "pt2" / "torch.pt2").read_bytes())
    (model,) = [name for name in entries if name.endswith("models/model.json")]
    top = model.partition("/")[0]

    def changed(change: Any) -> tuple[str, bytes]:
        document = json.loads(entries[model])
        change(document)
        return ".pt2", documents.write_zip({**entries, model: json.dumps(document).encode()})

    specs = [
        [1, {"type": "builtins.dict", "context": json.dumps({"__enum__": True, "fqn": fqn, "name": "./x.pt2"}),
             "children_spec": []}]
        for fqn in ("ctypes:cdll", "antigravity:geohash", "os:environ", "this:d", "sys:modules")
    ]  # fmt: skip
    kinds = "collections.defaultdict", "collections.namedtuple", "builtins.list", "os.system"
    specs += [[1, {"type": kind, "context": '["builtins", "eval"]', "children_spec": []}] for kind in kinds]
    for spec in specs:
        for end in ("in_spec", "out_spec"):
            yield changed(lambda d, s=spec, e=end: _set_spec(d, e, json.dumps(s)))
    for target in _TARGETS:
        yield changed(lambda d, t=target: d["graph_module"]["graph"]["nodes"][0].__setitem__("target", t))
    for name in ("__import__('os').system('touch OWNED')", "a;import os", "self.__class__", "x\x1b]0;y\x07"):
        text = entries[model].replace(b"conv", b"c").replace(b'"x"', json.dumps(name).encode())
        yield ".pt2", documents.write_zip({**entries, model: text})
    for name in [each for each in entries if "weight" in each or "constant" in each or "sample" in each][:12]:
        yield ".pt2", documents.write_zip({**entries, name: _pickled()})
    for name in [each for each in entries if each.endswith("_config.json")]:
        text = entries[name].replace(b'"use_pickle": false', b'"use_pickle": true')
        yield ".pt2", documents.write_zip({**entries, name: text})
    yield ".pt2", documents.write_zip({**entries, f"{top}/extra/x.so": b"\x7fELF" + bytes(64)})
    yield ".pt2", b"\x7fELF" + bytes(60) + documents.write_zip(entries)
    yield ".pt2", documents.write_zip({**entries, f"{top}/data/bomb": bytes(64 << 20)}, zipfile.ZIP_DEFLATED)
    yield ".pt2", documents.write_zip({model: b"[" + b"{}," * 3_000_000 + b"0]"}, zipfile.ZIP_DEFLATED)


def _set_spec(document: Any, end: str, spec: str) -> None:
    for entry in document["graph_module"]["module_call_graph"]:
        if entry.get("signature"):
            entry["signature"][end] = spec


def _keras(seeds: Path) -> Iterator[tuple[str, bytes]]:
    entries = documents.read_zip((seeds / "keras" / "net.keras").read_bytes())
    code = compile(f"lambda x: __import__('os').system({COMMAND!r})", "<lambda>", "eval").co_consts[0]
    stored = base64.b64encode(marshal.dumps(code)).decode()
    functions: list[Any] = [
        {"class_name": "__lambda__", "config": {"code": stored, "defaults": None, "closure": None}},
        [stored, None, None],
        {"module": "os", "class_name": "function", "config": "system", "registered_name": "system"},
        {"module": "builtins", "class_name": "function", "config": "eval", "registered_name": None},
        "os.system",
    ]
    for function in functions:
        for end in ("function", "output_shape", "mask", "activation"):
            config = json.loads(entries["config.json"])
            layer = config["config"]["layers"][1]
            layer["class_name"], layer["config"][end] = "Lambda", function
            yield ".keras", documents.write_zip({**entries, "config.json": json.dumps(config).encode()})
    for module, name in (("os", "system"), ("subprocess", "Popen"), ("keras.src.saving", "load_model"), ("this", "s")):
        config = json.loads(entries["config.json"])
        config["config"]["layers"][2].update(module=module, class_name=name, registered_name=f"{module}>{name}")
        yield ".keras", documents.write_zip({**entries, "config.json": json.dumps(config).encode()})
    plain = (seeds / "h5" / "net.h5").read_bytes()
    for link in (
        h5py.ExternalLink("/etc/passwd", "/x"),
        h5py.SoftLink("/model_weights"),
        h5py.ExternalLink("y.h5", "/"),
    ):
        yield ".h5", _linked(plain, link)


def _linked(data: bytes, link: Any) -> bytes:
    import io

    stream = io.BytesIO(data)
    with h5py.File(stream, "r+") as file:
        file["model_weights/more"] = link
    return stream.getvalue()


def _pickles(seeds: Path) -> Iterator[tuple[str, bytes]]:
    for name in _GLOBALS:
        module, _, function = name.rpartition(".")
        data = f"c{module}\n{function}\n(V{COMMAND}\ntR.".encode()
        yield ".pth", data
        entries = documents.read_zip((seeds / "weights" / "net.pth").read_bytes())
        yield ".pth", documents.write_zip({each: data if each.endswith("data.pkl") else held
                                           for each, held in entries.items()})  # fmt: skip
    yield ".pth", _pickled(eval, "open('OWNED', 'w')")
    yield ".safetensors", _pickled()
    yield ".safetensors", (2**62).to_bytes(8, "little") + b"{}"


def _onnx(seeds: Path) -> Iterator[tuple[str, bytes]]:
    for place in _OUTSIDE:
        model = onnx.load(seeds / "onnx" / "float.onnx")
        tensor = model.graph.initializer[0]
        tensor.data_location = TensorProto.EXTERNAL
        tensor.ClearField("raw_data")
        entry = tensor.external_data.add()
        entry.key, entry.value = "location", place
        yield ".onnx", model.SerializeToString()
    for op, domain in (("PyOp", "ai.onnx.contrib"), ("Loop", ""), ("If", ""), ("Scan", ""), ("../../x", "y")):
        model = onnx.load(seeds / "onnx" / "float.onnx")
        model.graph.node[0].op_type, model.graph.node[0].domain = op, domain
        yield ".onnx", model.SerializeToString()


def _images(_seeds: Path) -> Iterator[tuple[str, bytes]]:
    for suffix in (".png", ".jpg", ".bmp", ".tif", ".webp"):
        yield suffix, _POSTSCRIPT
        yield suffix, b"\xc5\xd0\xd3\xc6" + (32).to_bytes(4, "little") + bytes(24) + _POSTSCRIPT
        yield suffix, b"GIF89a" + bytes(64)
        yield suffix, b"\x00\x00\x00\x18ftypheic" + bytes(64)


def _texts(_seeds: Path) -> Iterator[tuple[str, bytes]]:
    script = f"import os; os.system({COMMAND!r})\n".encode()
    for suffix in (".tflite", ".onnx", ".pt2", ".keras", ".h5", ".param", ".pth", ".safetensors"):
        yield suffix, script
        yield suffix, _pickled()
    torch_script = torch.jit.trace(torch.nn.ReLU(), torch.zeros(1, 3, *SIZE)) if hasattr(torch.jit, "trace") else None
    if torch_script is not None:
        import io

        stream = io.BytesIO()
        torch.jit.save(torch_script, stream)
        yield ".pt2", stream.getvalue()

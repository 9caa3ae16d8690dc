"""Each format: where its seeds lie, how its files are mutated, and how slimseg opens them."""

from __future__ import annotations

import contextlib
import io
import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

import slimseg
from fuzzing import documents, models, plain, seeds
from fuzzing.values import TEXTS, Random, chosen, integer
from slimseg.errors import SlimsegError
from slimseg.graph.graph import Graph
from slimseg.runtimes.ncnn.runtime import NCNN
from slimseg.training.data import read_image, read_mask

Mutator = Callable[[Random, bytes], bytes]


@dataclass(frozen=True)
class Format:
    """`share` of all mutants, `structured` mutators that know the format, `opens` a mutant and runs it once."""

    share: float
    structured: Sequence[Mutator]
    opens: Callable[[Path], None]

    def mutant(self, random: Random, data: bytes, others: Sequence[bytes]) -> bytes:
        """A mutant of one seed's bytes; what a structured mutator cannot take apart is mutated as bytes."""
        if self.structured and random.random() < 0.75:
            try:
                return chosen(random, self.structured)(random, data)
            except Exception:
                return plain.mutated(random, data)
        return plain.mutated(random, data, others)


def _run(graph: Graph) -> None:
    with torch.inference_mode():
        graph(torch.full(graph.input_shape, 0.5))


def _network(path: Path) -> None:
    _run(slimseg.load(path))


def _weights(path: Path) -> None:
    _run(slimseg.load(f"{seeds.__file__}:build", seeds.SIZE, weights=path))


def _images(path: Path) -> None:
    """As a photograph and as a mask; one that is neither is refused."""
    try:
        read_image(path)
    except SlimsegError:
        read_mask(path, 3)
    else:
        with contextlib.suppress(SlimsegError):
            read_mask(path, 3)


def _ncnn(path: Path) -> None:
    """Described, and run by ncnn in its child process."""
    found = NCNN.read(path)
    height, width, channels = found.inputs[0].shape[1:]
    if 0 < height * width * channels < 1 << 22:
        NCNN.predict(path, np.zeros((1, height, width, channels), np.float32))


def _pickle_or_header(random: Random, data: bytes) -> bytes:
    """The JSON in front of `.safetensors` with its length right again; the entries of a `.pth`."""
    if data[:2] == b"PK":
        return documents.zip_mutated(random, data)
    (length,) = struct.unpack_from("<Q", data)
    header = documents.json_mutated(random, data[8 : 8 + length])
    return struct.pack("<Q", len(header)) + header + data[8 + length :]


def _h5_content(random: Random, data: bytes) -> bytes:
    """The configuration, or an array, or a link, changed by HDF5's own library."""
    import h5py

    stream = io.BytesIO(data)
    with h5py.File(stream, "r+") as file:
        kind = random.random()
        if kind < 0.6 and "model_config" in file.attrs:
            text = documents.json_mutated(random, str(file.attrs["model_config"]).encode())
            file.attrs["model_config"] = text.decode("utf-8", "replace").replace("\x00", "")
        elif kind < 0.9:
            names: list[str] = []
            file.visititems(lambda name, each: names.append(name) if isinstance(each, h5py.Dataset) else None)
            name = chosen(random, names)
            del file[name]
            file[name] = chosen(random, (
                np.ones((1,) * 4, "f4"), np.ones((3, 3, 3, 4), "i1"), np.float64(1), np.ones((0, 4), "f4"),
                np.array([b"text"]), np.full((3, 3, 3, 4), np.nan, "f4"), np.ones((4, 3, 3, 3), "f2"),
            ))  # fmt: skip
        else:
            file["more"] = chosen(random, (h5py.SoftLink("/more"), h5py.ExternalLink("/etc/passwd", "/x")))
    return stream.getvalue()


def _keras_weights(random: Random, data: bytes) -> bytes:
    entries = documents.read_zip(data)
    entries["model.weights.h5"] = _h5_content(random, entries["model.weights.h5"])
    return documents.write_zip(entries)


def _png_header(random: Random, data: bytes) -> bytes:
    """Width, height, depth or colour type of a PNG, its checksum right again."""
    if data[:4] != b"\x89PNG":
        return plain.mutated(random, data)
    header = bytearray(data[16:29])
    if random.random() < 0.7:
        struct.pack_into(">I", header, 4 * int(random.integers(2)), integer(random) & 0xFFFFFFFF)
    else:
        header[8 + int(random.integers(5))] = int(random.integers(256))
    return data[:16] + bytes(header) + struct.pack(">I", zlib.crc32(b"IHDR" + bytes(header))) + data[33:]


def _param_tokens(random: Random, data: bytes) -> bytes:
    """Words of a `.param` replaced."""
    lines = [line.split(b" ") for line in data.split(b"\n")]
    for _ in range(int(random.integers(1, 4))):
        line = chosen(random, lines)
        options = (b"-1", b"0", b"2147483648", b"0=99999999", b"-23300=999999999,1", b"Convolution", *TEXTS[:3])
        word = chosen(random, options) if random.random() < 0.7 else chosen(random, chosen(random, lines))
        line[int(random.integers(len(line)))] = word if isinstance(word, bytes) else word.encode()
    return b"\n".join(b" ".join(line) for line in lines)


FORMATS = {
    "tflite": Format(0.28, (models.tflite_mutated,), _network),
    "onnx": Format(0.29, (models.onnx_mutated,), _network),
    "pt2": Format(0.24, (documents.zip_mutated,), _network),
    "weights": Format(0.06, (_pickle_or_header,), _weights),
    "image": Format(0.08, (_png_header,), _images),
    "h5": Format(0.015, (_h5_content,), _network),
    "keras": Format(0.015, (documents.zip_mutated, _keras_weights), _network),
    "ncnn": Format(0.02, (_param_tokens,), _ncnn),
}

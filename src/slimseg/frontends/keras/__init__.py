"""Opens Keras files (`.keras`, `.h5`; Keras 2 and 3) as a Graph, layer by layer from the stored configuration.

    stored.py      reads configuration and weights from the file with h5py, in a child process
    config.py      the configuration of both Keras generations as one structure
    weights.py     finds the stored arrays of each layer
    network.py     walks the layers, including nested and shared ones; builder.py emits the Graph's nodes
    layers.py      one function per layer class (convolutions.py, pooling.py, normalisation.py beside it)
    functions.py   the functions that Keras operations, TFOpLambda and Lambda call, by name
                   (activations.py, arithmetic.py, layout.py: code that layers and functions share)
    in_torch.py    functions that are no layer, opened as PyTorch networks are
    lambdas.py     interprets a Lambda's stored code without running it (bytecode.py, marshalled.py)
    preprocessing.py  what the first layers imply about the image's preprocessing

Keras itself is not needed: a layer's configuration contains everything, while Keras's loader runs code that the file
names and fails on many Keras 2 files. Nothing in the file is executed or unpickled.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from slimseg.errors import GraphError, ModelError, RuntimeFailure

if TYPE_CHECKING:
    from slimseg.frontends.keras.stored import Stored
    from slimseg.graph.graph import Graph

READ_TIMEOUT_S = 8.0  # and one more second for every so many bytes:
READ_BYTES_PER_S = 20e6


def from_file(path: Path, input_size: tuple[int, int] | None = None, output: str | int | None = None) -> Graph:
    """Open a `.keras` or `.h5` file.

    `input_size` (height, width) is for networks that were saved for images of any size; other files state their size.

    Raises:
        ModelError: the file is damaged, holds no whole network, or a layer has no equivalent in slimseg.
    """
    held = _read(path)
    try:
        return _graph(held, path, input_size, output)
    except ModelError as error:
        raise ModelError(f"{path}: {_one_line(error)}") from error
    except GraphError as error:
        raise ModelError(f"{path} holds a network whose layers do not fit together: {_one_line(error)}") from error
    except Exception as error:  # a damaged file can hold any nonsense that still parses
        reason = _one_line(error) or type(error).__name__
        raise ModelError(f"{path} holds a network that slimseg cannot rebuild ({reason}): save it again") from error


def _one_line(error: object) -> str:
    """The error's text, without control characters that a hostile name could bring into a terminal."""
    return "".join(letter if letter.isprintable() else " " for letter in str(error)[:600]).strip()


def _graph(held: Stored, path: Path, input_size: tuple[int, int] | None, output: str | int | None) -> Graph:
    # Imported here, since the child process also imports this package and should not wait for torch.
    from dataclasses import replace

    from slimseg.frontends.keras import config, network, preprocessing
    from slimseg.frontends.keras.weights import Weights
    from slimseg.graph.output import output_kind

    graph = network.build(config.parse(held.config), Weights(held), held.version, input_size, path, output)
    graph.weights = "float16" if held.halves else "float32"
    inferred = preprocessing.inferred(graph)
    graph.description = replace(graph.description, preprocessing=inferred, output_kind=output_kind(graph))
    return graph


def _read(path: Path) -> Stored:
    """The file's contents. HDF5 is native code and the file is untrusted, so a separate child process reads it."""
    from slimseg.runtimes.child import Child

    try:
        timeout_s = READ_TIMEOUT_S + path.stat().st_size / READ_BYTES_PER_S
        with Child() as child:
            read = "slimseg.frontends.keras.stored:read"
            held: Stored = child.call(read, str(path), timeout_s=timeout_s, about=path)
            return held
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror or error}") from error
    except ModelError as error:
        raise ModelError(_one_line(error)) from error
    except RuntimeFailure as error:
        reason = f"{path} is damaged or not a Keras file: save it again with model.save ({error})"
        raise ModelError(_one_line(reason)) from error

"""Reads and writes the named metadata buffers that a `.tflite` stores beside its network."""

from __future__ import annotations

from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

DESCRIPTION = b"slimseg"  # the buffer with the network's description


def read(model: Any, name: bytes) -> bytes | None:
    """The metadata buffer `name` of a `ModelT`, or None if there is no such buffer."""
    for entry in model.metadata or []:
        if entry.name == name:
            data = model.buffers[entry.buffer].data
            return b"" if data is None else bytes(data)
    return None


def write(model: Any, name: bytes, data: bytes) -> None:
    """Store `data` in the metadata buffer `name` of a `ModelT`, replacing an older one."""
    content = np.frombuffer(data, np.uint8)
    model.metadata = model.metadata or []
    for entry in model.metadata:
        if entry.name == name:
            model.buffers[entry.buffer].data = content
            return
    buffer = schema.BufferT()
    buffer.data = content
    model.buffers.append(buffer)
    entry = schema.MetadataT()
    entry.name = name
    entry.buffer = len(model.buffers) - 1
    model.metadata.append(entry)

"""Writes a Graph as the files of a deployment, and names the machine and runtime that they are timed on."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from pathlib import Path

from slimseg.deployment import Deployment
from slimseg.disk import scratch
from slimseg.graph.graph import Graph
from slimseg.runtimes import host, registry
from slimseg.runtimes.host import Pixels


def float_name(stem: str) -> str:
    """Name of the file with the float32 network, for any precision of the deployment."""
    return f"{stem}_float{registry.DEFAULT.suffix}"


def write_float(graph: Graph, path: Path) -> None:
    """Write the graph as a float32 file of the default runtime, all weights in 32 bits, as quantisation needs it."""
    registry.DEFAULT.write(graph, path, "full")


def write_plain_int8(graph: Graph, path: Path, images: Sequence[Pixels]) -> None:
    """Write the graph as int8 with float input and output, quantisation ranges calibrated on the user's images."""
    its = registry.of(path)
    with scratch.folder() as folder:
        float_path = folder / path.name
        its.write(graph, float_path, "full")
        its.quantiser().quantise_int8(float_path, path, host.prepared(graph, images))


def write_deployed(graph: Graph, path: Path, images: Sequence[Pixels], deployment: Deployment) -> Path:
    """Write the file that is shipped (`Runtime.deploy`) and return its path: `path` with the suffix of the runtime."""
    its = registry.known(deployment.runtime)
    path = path.with_suffix(its.suffix)
    its.deploy(graph, path, deployment.precision, images)
    return path


def host_name(deployment: Deployment) -> str:
    """Machine, system, runtime and number of threads that files are timed with, in words."""
    title, threads = registry.known(deployment.runtime).title, deployment.threads
    return f"{platform.machine()}, {platform.system()}, {title}, {threads} thread{'s' * (threads > 1)}"

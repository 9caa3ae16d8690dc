"""Writes a Graph as the files of a deployment, and names the machine and runtime that they are timed on."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from pathlib import Path

from slimseg.deployment import Deployment
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
    registry.of(path).write_int8(graph, path, host.prepared(graph, images))


def write_deployed(graph: Graph, path: Path, images: Sequence[Pixels], deployment: Deployment) -> Path:
    """Write the file that is shipped (`Runtime.deploy`) and return its path: `path` with the suffix of the runtime."""
    its = registry.known(deployment.runtime)
    path = path.with_suffix(its.suffix)
    its.deploy(graph, path, deployment.precision, images)
    return path


def host_name(deployment: Deployment) -> str:
    """Machine, system, runtime and number of threads that files are timed with, in words."""
    return _machine(f"{registry.known(deployment.runtime).title}, {deployment.threads} thread", deployment.threads)


def machine_name(threads: int) -> str:
    """Machine, system and number of threads that files of several runtimes are timed with, in words."""
    return _machine(f"{threads} CPU thread", threads)


def _machine(used: str, threads: int) -> str:
    return f"{platform.machine()}, {platform.system()}, {used}{'s' * (threads > 1)}"

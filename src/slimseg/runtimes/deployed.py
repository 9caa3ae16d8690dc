"""A Graph as the files of a deployment, and where those run, in words."""

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
    """Of the file that has the network in float32, whatever it is deployed as."""
    return f"{stem}_float{registry.DEFAULT.suffix}"


def write_float(graph: Graph, path: Path) -> None:
    """The graph in float32 as the usual runtime has it, all its weights in 32 bits: the form to quantise."""
    registry.DEFAULT.write(graph, path, "full")


def write_plain_int8(graph: Graph, path: Path, images: Sequence[Pixels]) -> None:
    """The graph merely quantised, float at both ends, ranges measured on the user's images."""
    its = registry.of(path)
    with scratch.folder() as folder:
        float_path = folder / path.name
        its.write(graph, float_path, "full")
        its.quantise(float_path, path, host.prepared(graph, images))


def write_deployed(graph: Graph, path: Path, images: Sequence[Pixels], deployment: Deployment) -> Path:
    """The file that is shipped (`Runtime.deploy`): its path, which is `path` with the suffix of the runtime."""
    its = registry.known(deployment.runtime)
    path = path.with_suffix(its.suffix)
    its.deploy(graph, path, deployment.precision, images)
    return path


def host_name(deployment: Deployment) -> str:
    """Where and how files are timed, in words."""
    title, threads = registry.known(deployment.runtime).title, deployment.threads
    return f"{platform.machine()}, {platform.system()}, {title}, {threads} thread{'s' * (threads > 1)}"

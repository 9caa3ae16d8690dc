"""slimseg: make trained semantic-segmentation networks small and fast on phones, with proof.

    graph = slimseg.load("network.pt2", mean=127, std=128)
    slimseg.diagnose(graph)                                  # what could be saved, each finding timed
    budget = slimseg.Budget(min_speedup=16)
    slimseg.slim(graph, images="images/", out="run/", budget=budget)  # edit, recover, quantise, prove
    slimseg.export("run/", out="app/", images="images/")     # files for phones, each checked, with a model card

The names below are the whole public API. Each is imported on first use, so that `import slimseg` is instant.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from slimseg import models as models
    from slimseg.commands.diagnose import diagnose as diagnose
    from slimseg.commands.evaluate import evaluate as evaluate
    from slimseg.commands.export import export as export
    from slimseg.commands.profile import profile as profile
    from slimseg.commands.quantize import quantize as quantize
    from slimseg.commands.slim import slim as slim
    from slimseg.demonstration.demo import demo as demo
    from slimseg.deployment import Deployment as Deployment
    from slimseg.errors import SlimsegError as SlimsegError
    from slimseg.frontends import load as load
    from slimseg.graph.description import Description as Description
    from slimseg.graph.graph import Graph as Graph
    from slimseg.graph.preprocessing import Preprocessing as Preprocessing
    from slimseg.planning.choosing.budget import Budget as Budget
    from slimseg.progress import Progress as Progress
    from slimseg.results import Diagnosis as Diagnosis
    from slimseg.results import Evaluation as Evaluation
    from slimseg.results import ExportResult as ExportResult
    from slimseg.results import Profile as Profile
    from slimseg.results import QuantisationResult as QuantisationResult
    from slimseg.results import SlimResult as SlimResult

__version__ = "0.1.0"

_COMMANDS = ("diagnose", "evaluate", "export", "profile", "quantize", "slim")
_RESULTS = ("Diagnosis", "Evaluation", "ExportResult", "Profile", "QuantisationResult", "SlimResult")
_HOMES = {
    **{name: f"slimseg.commands.{name}" for name in _COMMANDS},
    **dict.fromkeys(_RESULTS, "slimseg.results"),
    "Budget": "slimseg.planning.choosing.budget",
    "Deployment": "slimseg.deployment",
    "Description": "slimseg.graph.description",
    "Graph": "slimseg.graph.graph",
    "Preprocessing": "slimseg.graph.preprocessing",
    "Progress": "slimseg.progress",
    "SlimsegError": "slimseg.errors",
    "demo": "slimseg.demonstration.demo",
    "load": "slimseg.frontends",
}
__all__ = [
    "Budget",
    "Deployment",
    "Description",
    "Diagnosis",
    "Evaluation",
    "ExportResult",
    "Graph",
    "Preprocessing",
    "Profile",
    "Progress",
    "QuantisationResult",
    "SlimResult",
    "SlimsegError",
    "__version__",
    "demo",
    "diagnose",
    "evaluate",
    "export",
    "load",
    "models",
    "profile",
    "quantize",
    "slim",
]


def __getattr__(name: str) -> Any:
    """A public name, imported on its first use."""
    if name == "models":
        return import_module("slimseg.models")
    if name not in _HOMES:
        raise AttributeError(f"module 'slimseg' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return value


def __dir__() -> list[str]:
    return __all__

"""slimseg: make trained semantic-segmentation networks small and fast on phones, with proof.

    graph = slimseg.load("network.pt2", mean=127, std=128)
    slimseg.diagnose(graph)                                  # what could be saved, each finding timed
    budget = slimseg.Budget(min_speedup=16)
    slimseg.slim(graph, images="images/", out="run/", budget=budget)  # edit, recover, quantise, prove
    slimseg.export("run/", out="app/", images="images/")     # files for phones, each checked, with a model card

The names below are the whole public API. They are imported on first use, so that `import slimseg` is instant.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from slimseg import models as models
    from slimseg.demo import demo as demo
    from slimseg.diagnose import diagnose as diagnose
    from slimseg.errors import SlimsegError as SlimsegError
    from slimseg.evaluate import evaluate as evaluate
    from slimseg.export import export as export
    from slimseg.frontends import load as load
    from slimseg.graph.graph import Graph as Graph
    from slimseg.planning.budget import Budget as Budget
    from slimseg.profile import profile as profile
    from slimseg.quantize import quantize as quantize
    from slimseg.slim import slim as slim

__version__ = "0.1.0"

_HOMES = {
    "Budget": "slimseg.planning.budget",
    "Graph": "slimseg.graph.graph",
    "SlimsegError": "slimseg.errors",
    "demo": "slimseg.demo.demo",
    "diagnose": "slimseg.diagnose",
    "evaluate": "slimseg.evaluate",
    "export": "slimseg.export",
    "load": "slimseg.frontends",
    "profile": "slimseg.profile",
    "quantize": "slimseg.quantize",
    "slim": "slimseg.slim",
}
_MODULES = ("models",)
__all__ = [
    "Budget",
    "Graph",
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


class _Package(ModuleType):
    """Keeps `slimseg.profile` the function, although the file `profile.py` has the same name.

    Importing a submodule binds it in its package; for the public names that binding is left out.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _HOMES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)

    def __getattr__(self, name: str) -> Any:
        if name in _MODULES:
            return import_module(f"slimseg.{name}")
        if name not in _HOMES:
            raise AttributeError(f"module 'slimseg' has no attribute {name!r}")
        value = getattr(import_module(_HOMES[name]), name)
        super().__setattr__(name, value)
        return value


sys.modules[__name__].__class__ = _Package

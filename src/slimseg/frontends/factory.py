"""A network from the user's own Python: `file.py:function` or `package.module:function`, and its weights file."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

from slimseg.errors import ModelError
from slimseg.frontends.bounded import require_modest


def from_factory(target: str, weights: Path | None) -> nn.Module:
    """Call the user's own `file.py:function` or `package.module:function`, then load `weights` into the result.

    The Python is the user's own and is executed; the weights are never unpickled (safetensors, or weights only).

    Raises:
        ModelError: there is no such function, it returns no nn.Module, or the weights do not fit it.
    """
    source, _, function = target.rpartition(":")
    factory = getattr(_import(source, target), function, None)
    if not callable(factory):
        raise ModelError(f"{source} has no function {function!r}: give file.py:function")
    try:
        model = factory()
    except Exception as error:
        raise ModelError(f"{target}() raised {type(error).__name__}: {error}") from error
    if not isinstance(model, nn.Module):
        raise ModelError(f"{target}() returned {type(model).__name__}, not an nn.Module")
    if weights is not None:
        _load_weights(model, weights)
    return model


def _import(source: str, target: str) -> Any:
    try:
        if not source.endswith(".py"):
            return importlib.import_module(source)
        path = Path(source)
        if not path.is_file():
            raise ModelError(f"{source} does not exist: give file.py:function")
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules.setdefault(path.stem, module)
        spec.loader.exec_module(module)
        return module
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(f"{target} cannot be imported: {type(error).__name__}: {error}") from error


def _load_weights(model: nn.Module, path: Path) -> None:
    if not path.is_file():
        raise ModelError(f"{path} does not exist: give a .safetensors or .pth file of weights")
    try:
        require_modest(path)
        state = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
        for key in ("state_dict", "model_state_dict", "model"):
            if isinstance(state, dict) and isinstance(state.get(key), dict):
                state = state[key]
        model.load_state_dict(state)
    except ModelError:
        raise
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[:2]
        raise ModelError(
            f"{path} does not fit the model, or is not a plain file of weights: {' '.join(reason)}"
        ) from error

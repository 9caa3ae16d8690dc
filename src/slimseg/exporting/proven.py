"""Reads what a finished run of `slimseg slim` states about its result, from its `result.json`, to export the run."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

from slimseg.errors import ModelError
from slimseg.report import wording
from slimseg.results import BudgetCheck, ModelSummary, Provenance, Result, SourceFile

FILES = ("result.json", "model.pt2")  # files that every finished run has
Kind = TypeVar("Kind", bound=Result)


def run_of(path: Path) -> Path | None:
    """The folder of the run whose result a file is; None if it is neither a run's deployed file nor its `model.pt2`.

    Raises:
        ModelError: the run's `result.json` is damaged.
    """
    folder = path.parent
    if not all((folder / name).is_file() for name in FILES):
        return None
    return folder if path.name in ("model.pt2", _deployed(folder)) else None


def read(folder: Path) -> Provenance:
    """The source of a run, its result, and whether the result met the budget.

    Raises:
        ModelError: the run's `result.json` is damaged.
    """
    raw = _raw(folder)
    try:
        original, slimmed = (_made(ModelSummary, raw[name]) for name in ("baseline", "result"))
        budget = tuple(_made(BudgetCheck, each) for each in raw["budget"])
        return Provenance(
            sources=tuple(_made(SourceFile, each) for each in raw.get("sources", ())),
            original=original,
            slimmed=slimmed,
            original_miou=original.miou,
            miou_images=int(raw.get("validation_images", 0)),
            budget=budget,
            budget_met=all(check.met for check in budget),
            verdict=wording.verdict(budget),
            source_check=str(raw.get("source_check", "")),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(folder) from error


def data_of(folder: Path) -> str:
    """The folder of images that the run was evaluated on; empty if there was none. Raises: ModelError."""
    return str(_raw(folder).get("data", ""))


def _deployed(folder: Path) -> str:
    try:
        return str(_raw(folder)["result"]["file"])
    except (KeyError, TypeError) as error:
        raise _damaged(folder) from error


def _raw(folder: Path) -> dict[str, Any]:
    try:
        return dict(json.loads((folder / FILES[0]).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise _damaged(folder) from error


def _damaged(folder: Path) -> ModelError:
    return ModelError(f"{folder / FILES[0]} is damaged: give the folder of a finished run, or a model file")


def _made(kind: type[Kind], values: dict[str, Any]) -> Kind:
    """A result from its JSON values; unknown fields, from another version of slimseg, are ignored."""
    known = {each.name for each in fields(kind)}  # type: ignore[arg-type]
    lists_to_tuples = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    return kind(**{name: value for name, value in lists_to_tuples.items() if name in known})

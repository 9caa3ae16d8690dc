"""Chooses the set of edits that meets the targets with the least damage, with at most one variant per layer.

    minimise    Σ d_v x_v                      d: damage, in percent of pixels that change class
    subject to  Σ t_v x_v ≥ T                  t: saving in ms,    T: ms that must be saved
                Σ b_v x_v ≥ B                  b: saving in bytes, B: bytes that must be saved
                Σ x_v ≤ 1 over the variants that touch one layer,   x ∈ {0, 1}

This is a small integer programme, which scipy's HiGHS solves exactly. Without a target, or if it cannot be met, 90 % of
the largest possible saving becomes the target: the last tenth often causes more damage than all before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from slimseg.techniques import Site

NEARLY = 0.9  # share of the largest possible saving that is the target if no other can be met


@dataclass(frozen=True)
class Option:
    """One site in one variant, with its savings and its expected damage."""

    site: Site
    saving_ms: float
    saving_bytes: int
    damage: float  # percent of pixels that change class before any recovery


def choose(options: Sequence[Option], need_ms: float | None, need_bytes: int | None) -> list[Option]:
    """The options to apply, in the given order.

    `need_ms` and `need_bytes` are the targets: what must be saved; None means no target.
    """
    faster = [option for option in options if option.saving_ms > 0]
    smaller = [option for option in options if option.saving_ms > 0 or option.saving_bytes > 0]
    if need_ms is not None or need_bytes is not None:
        # Options that make the network smaller but slower are only used if no others reach the size.
        for useful in (faster, smaller):
            chosen = _least_damage(useful, need_ms or 0.0, need_bytes or 0)
            if chosen is not None:
                return chosen
    options = smaller if need_bytes else faster
    most = _most_saved(options, with_bytes=bool(need_bytes))
    enough_ms = NEARLY * sum(option.saving_ms for option in most)
    enough_bytes = int(NEARLY * sum(option.saving_bytes for option in most)) if need_bytes else 0
    return _least_damage(options, enough_ms, enough_bytes) or most


def _least_damage(options: Sequence[Option], need_ms: float, need_bytes: int) -> list[Option] | None:
    """The options that meet both targets with the least damage; None if no set of options does."""
    if not options:
        return [] if need_ms <= 0 and need_bytes <= 0 else None
    targets = []
    if need_ms > 0:
        targets.append((np.array([option.saving_ms for option in options]), need_ms))
    if need_bytes > 0:
        targets.append((np.array([float(option.saving_bytes) for option in options]), need_bytes))
    return _solve(np.array([option.damage for option in options]) + 1e-3, options, targets)


def _most_saved(options: Sequence[Option], with_bytes: bool) -> list[Option]:
    if not options:
        return []
    time = np.array([option.saving_ms for option in options])
    damage = np.array([option.damage for option in options])
    cost = -time / max(float(time.max()), 1e-9) + 1e-3 * damage / max(float(damage.max()), 1e-9)
    if with_bytes:
        size = np.array([float(option.saving_bytes) for option in options])
        cost -= 0.5 * size / max(float(size.max()), 1.0)
    return _solve(cost, options, []) or []


def _solve(
    cost: np.ndarray, options: Sequence[Option], targets: Sequence[tuple[np.ndarray, float]]
) -> list[Option] | None:
    """The options with the lowest cost; each target is a saving per option and the least that their sum may be."""
    from scipy.optimize import Bounds, LinearConstraint, milp  # takes half a second to import

    least = [LinearConstraint(savings, lb=need) for savings, need in targets]
    exclusive = [
        LinearConstraint(np.array([float(layer in option.site.layers) for option in options]), ub=1)
        for layer in sorted({layer for option in options for layer in option.site.layers})
    ]
    solution = milp(cost, constraints=[*exclusive, *least], integrality=np.ones(len(options)), bounds=Bounds(0, 1))
    if solution.x is None:
        return None
    return [option for option, taken in zip(options, solution.x, strict=True) if taken > 0.5]

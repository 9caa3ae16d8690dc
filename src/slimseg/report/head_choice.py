"""Chooses the form of the output for each runtime, by measured times."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from slimseg.results import HeadTrial

AS_IS = "as it is"  # the network's own form of the output
CHANGED_AT_MOST = 0.1  # percent of the pixels that a recommended form may change
EQUAL = 0.02  # share of the time by which forms may differ and still count as equally fast


def best(trials: Sequence[HeadTrial]) -> dict[str, HeadTrial]:
    """For each runtime, the fastest form (from image to mask) that changes at most 0.1% of the mask's pixels.

    The network's own form is kept if no other is more than 2% faster. Runtimes for which no file was made are left out.
    """
    result = {}
    for runtime, (own, *others) in _by_runtime(trials).items():
        faithful = [trial for trial in others if trial.changed_percent <= CHANGED_AT_MOST]
        fastest = min((own, *faithful), key=lambda trial: trial.end_to_end_ms)
        result[runtime] = fastest if fastest.end_to_end_ms < (1 - EQUAL) * own.end_to_end_ms else own
    return result


def recommend(trials: Sequence[HeadTrial]) -> dict[str, str]:
    """One sentence per runtime: the form, what it gains, and what would be faster but changes the mask."""
    groups = _by_runtime(trials)
    return {runtime: _sentence(chosen, groups[runtime]) for runtime, chosen in best(trials).items()}


def _by_runtime(trials: Sequence[HeadTrial]) -> dict[str, list[HeadTrial]]:
    """The trials whose file was made, by runtime."""
    made = [trial for trial in trials if not trial.reason]
    return {runtime: list(own) for runtime, own in groupby(made, key=lambda trial: trial.runtime)}


def _sentence(chosen: HeadTrial, trials: Sequence[HeadTrial]) -> str:
    own = trials[0]
    if chosen is own:
        text = f"leave the output {own.form}: {_ms(own)} from image to mask, "
        text += f"and no form that keeps the mask is more than {EQUAL:.0%} faster"
    else:
        text = f"use {chosen.form}: {_ms(chosen)} from image to mask instead of {_ms(own)} {own.form}"
        text += f", {_changes(chosen)}"
    faster = min(trials, key=lambda trial: trial.end_to_end_ms)
    if faster.changed_percent > CHANGED_AT_MOST and faster.end_to_end_ms < (1 - EQUAL) * chosen.end_to_end_ms:
        text += f"; {faster.form} takes {_ms(faster)}, but {_changes(faster)}"
    return text


def _changes(trial: HeadTrial) -> str:
    if not trial.changed_percent:
        return "the mask is the same"
    percent = f"{trial.changed_percent:.2f}%" if trial.changed_percent >= 0.01 else "less than 0.01%"
    return f"{percent} of its pixels change"


def _ms(trial: HeadTrial) -> str:
    return f"{trial.end_to_end_ms:.3g} ms"

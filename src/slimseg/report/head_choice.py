"""Which form of the output to give on each runtime, by what was timed."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from slimseg.results import HeadTrial

AS_IS = "as it is"  # the network's own form, among those of its output
CHANGED_AT_MOST = 0.1  # percent of pixels that a form may change, and be recommended
EQUAL = 0.02  # share of the time within which forms are equally fast


def best(trials: Sequence[HeadTrial]) -> dict[str, HeadTrial]:
    """Of each runtime the form with the shortest way to the mask that changes at most 0.1% of its pixels.

    The network as it is stays where nothing is more than 2% faster. A runtime without any file is left out.
    """
    result = {}
    for runtime, (own, *others) in _by_runtime(trials).items():
        faithful = [trial for trial in others if trial.changed_percent <= CHANGED_AT_MOST]
        fastest = min((own, *faithful), key=lambda trial: trial.end_to_end_ms)
        result[runtime] = fastest if fastest.end_to_end_ms < (1 - EQUAL) * own.end_to_end_ms else own
    return result


def recommend(trials: Sequence[HeadTrial]) -> dict[str, str]:
    """One sentence for each runtime: which form, what it gains, and what would be faster but changes the mask."""
    groups = _by_runtime(trials)
    return {runtime: _sentence(chosen, groups[runtime]) for runtime, chosen in best(trials).items()}


def _by_runtime(trials: Sequence[HeadTrial]) -> dict[str, list[HeadTrial]]:
    """Those that there are."""
    made = [trial for trial in trials if not trial.reason]
    return {runtime: list(own) for runtime, own in groupby(made, key=lambda trial: trial.runtime)}


def _sentence(chosen: HeadTrial, trials: Sequence[HeadTrial]) -> str:
    own = trials[0]
    if chosen is own:
        text = f"leave the output {own.form}: {_ms(own)} from image to mask, "
        text += f"and no form that keeps the mask is more than {EQUAL:.0%} faster"
    else:
        text = f"give {chosen.form}: {_ms(chosen)} from image to mask in place of {_ms(own)} {own.form}"
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

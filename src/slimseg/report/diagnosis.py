"""A diagnosis on the terminal: the largest savings, then each technique, then what the profile alone shows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from slimseg.report import tables, units, wording
from slimseg.report.findings import SiteGroup, TechniqueGroup, grouped, headline
from slimseg.results import Diagnosis, Finding

_VARIANTS = 3  # variants that are listed beside the best one


def parts(diagnosis: Diagnosis, verbose: bool) -> list[RenderableType]:
    """Everything but the title and refusals; with `verbose`, every finding on its own."""
    made: list[RenderableType] = [tables.note(note) for note in diagnosis.notes]
    made += tables.disturbance(diagnosis.disturbed)
    made += tables.source_check(diagnosis.source_check)
    if not diagnosis.findings:
        return [*made, Text("\nNo edit was found that makes this network faster.")]
    made += _headline(headline(grouped(diagnosis.findings)))
    priced = [each for each in diagnosis.findings if each.basis == "what-if"]
    observed = [each for each in diagnosis.findings if each.basis != "what-if"]
    for needs, same in groupby(priced, key=lambda finding: finding.needs):
        findings = list(same)
        made.append(_heading(wording.NEEDS_WORDS[needs]))
        made += [_finding(each) for each in findings] if verbose else _groups(findings)
    if observed:
        made.append(_heading("observed in the profile (savings at most this large; no edit was tried)"))
        made += [_finding(each) for each in observed] if verbose else [_observed(each) for each in grouped(observed)]
    return made


def _heading(text: str) -> Text:
    return Text(f"\n{text[0].upper()}{text[1:]}", style="bold green")


def _headline(groups: Sequence[TechniqueGroup]) -> list[RenderableType]:
    """The largest savings over all groups, one line each."""
    lines: list[RenderableType] = [_heading("largest savings")] if groups else []
    for group in groups:
        layers = [layer for site in group.gaining for layer in site.best.layers[:1]]
        name = Text(wording.technique_name(group.technique), style="bold")
        text = Text.assemble(name, f" at {wording.few(layers)}; {wording.NEEDS_WORDS[group.needs]}")
        lines.append(_row(group.saving_ms, group.share, text))
    return lines


def _groups(findings: Sequence[Finding]) -> list[RenderableType]:
    groups = grouped(findings)
    gaining = [group for group in groups if group.is_notable]
    rest = [group for group in groups if not group.is_notable]
    return [*(_group(group) for group in gaining), *_without_gain(rest)]


def _group(group: TechniqueGroup) -> RenderableType:
    """One technique: the saving at all its sites, its best sites in words, and its reference."""
    first = group.sites[0]
    text = _what(first.best)
    text.append(f"  {_before_after(first.best)}\n")
    if len(group.gaining) > 1:
        text.append(f"{len(group.gaining)} sites, the largest {units.saved(first.best.saving_ms)}: ")
    text.append(f"{wording.few(first.best.layers)}\n")
    text.append(first.best.reason, style="dim")
    if first.others:
        text.append(f"\nor {_variants(first)}")
    idle = len(group.sites) - len(group.gaining)
    if idle:
        text.append(f"\n{idle} more {'site gains' if idle == 1 else 'sites gain'} nothing")
    if first.best.paper:
        text.append(f"\nsee {first.best.paper}", style="dim")
    return _row(group.saving_ms, group.share, text)


def _variants(site: SiteGroup) -> str:
    """The other variants of a site and their savings."""
    shown = [f"{each.variant} {_saved(each)}" for each in site.others[:_VARIANTS]]
    more = len(site.others) - _VARIANTS
    return "; ".join(shown) + (f"; {more} more" if more > 0 else "")


def _without_gain(groups: Iterable[TechniqueGroup]) -> list[RenderableType]:
    """Techniques that were tried and save nothing, so that users need not try them by hand."""
    names = [
        f"{wording.technique_name(group.technique)} ({len(group.sites)} "
        f"{'site' if len(group.sites) == 1 else 'sites'}, best {_saved(group.sites[0].best)})"
        for group in groups
    ]
    return [_row(None, None, Text.assemble("tried, but not faster: ", ("; ".join(names), "dim")))] if names else []


def _observed(group: TechniqueGroup) -> RenderableType:
    first = group.sites[0].best
    text = Text.assemble((group.technique, "bold"), ": ", (first.reason, "dim"))
    more = len(group.gaining) - 1
    if more > 0:
        text.append(f"; {more} more {'kind' if more == 1 else 'kinds'} of operator")
    return _row(group.saving_ms, group.share, text)


def _finding(finding: Finding) -> RenderableType:
    text = _what(finding)
    text.append(f"  {_before_after(finding)}\n{wording.few(finding.layers, 2)}\n")
    text.append(finding.reason, style="dim")
    if not finding.is_measurable:
        text.append(f"\nno measurable difference: {_saved(finding)}")
        return _row(None, None, text)
    return _row(finding.saving_ms, finding.share, text)


def _saved(finding: Finding) -> str:
    """A saving, or the noise that hides it."""
    if finding.is_measurable or finding.error_ms is None:
        return units.saved(finding.saving_ms)
    return f"within {units.noise(finding.error_ms)}"


def _what(finding: Finding) -> Text:
    """The technique and the variant of a finding."""
    name = Text(wording.technique_name(finding.technique), style="bold")
    return Text.assemble(name, f", {finding.variant}" if finding.variant else "")


def _before_after(finding: Finding) -> str:
    return f"{units.milliseconds(finding.before_ms)} → {units.milliseconds(finding.after_ms)}"


def _row(saving_ms: float | None, share: float | None, text: Text) -> Table:
    line = Table.grid(padding=(0, 2))
    line.add_column(width=9, justify="right")
    line.add_column(width=6, justify="right")
    line.add_column()
    style = "bold cyan" if (saving_ms or 0) > 0 else "bold red"
    line.add_row(
        Text("" if saving_ms is None else units.saved(saving_ms), style=style),
        "" if share is None else units.share(share),
        text,
    )
    return line

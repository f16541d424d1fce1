"""`ptarmigan diagnose`: the story of a run, or of the log of another tool."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ptarmigan.core.console import duration
from ptarmigan.core.paths import user_path
from ptarmigan.core.types import UserError, shown
from ptarmigan.diagnosis.findings import KINDS, OF_SAMPLES, Finding, Log, is_wanted, verdict
from ptarmigan.diagnosis.logs import read
from ptarmigan.diagnosis.story import Event, events, now

NEEDS = {  # of a finding -> the columns that it cannot do without
    "variety": ("collapse", "too-easy"), "class_accuracy": ("class-ignored",),
    "real_accuracy": ("labels-random",), "copying": ("copies",), "colour_gap": ("colour-shift",),
    "nyquist": ("checkerboard",), "select_kid": ("no-progress",), "d_gap": ("d-overfits",),
    "d_adv": ("d-too-strong", "d-too-weak", "oscillates"),
}  # fmt: skip


@dataclass(frozen=True)
class Diagnosis:
    """What happened in a run, in the order in which it began, and what holds at the end, the worst first."""

    log: Log
    events: list[Event]
    findings: list[Finding]

    @property
    def verdict(self) -> str:
        """The worst finding that holds at the end in at most eight words, `healthy`, or `too early to judge`."""
        return verdict(self.log, self.findings)

    def fails(self, severity: str | None) -> bool:
        """Whether a finding that holds at the end is at least so severe."""
        return severity is not None and any(is_wanted(finding, severity) for finding in self.findings)

    @property
    def unknown(self) -> list[str]:
        """The findings that the log has no columns for."""
        lacking = [name for column, names in NEEDS.items() for name in names if not len(self.log.all(column))]
        if self.log.undecided is None and "d-too-strong" not in lacking:
            lacking += NEEDS["d_adv"]
        return lacking


def diagnose(log: str | Path, *, map: Sequence[str] | None = None) -> Diagnosis:
    """Tell what went wrong in a run, from its folder or from the log of another tool, and since when.

    `log` is a run folder, a metrics.jsonl, StyleGAN's stats.jsonl, other JSON lines, a CSV, or a folder of
    TensorBoard's event files.  `map` names columns that are not recognised: ["d_loss=COLUMN"].

    Raises UserError: path-not-found, file-unreadable, log-empty, log-unclear, value-invalid, unknown-name,
    columns-unknown.
    """
    given = {}
    for pair in [map] if isinstance(map, str) else map or ():
        name, equals, column = pair.partition("=")
        if not (name and equals and column):
            raise UserError(f"map: expected NAME=COLUMN, as d_loss=loss/D, got {shown(pair)}", "value-invalid")
        given[name] = column
    found = read(user_path(log, "log"), given)
    told = events(found)
    return Diagnosis(found, told, now(told))


def story(diagnosis: Diagnosis) -> list[str]:
    """The diagnosis as lines of text."""
    log = diagnosis.log
    lines = [f"verdict: {diagnosis.verdict}, at {log.at[-1]:,.0f} {log.unit}"]
    explained = {id(event) for cause in diagnosis.events for event in cause.explained}
    for event in diagnosis.events:
        if id(event) not in explained:
            lines += paragraph(event, log)
    if unknown := diagnosis.unknown:
        why = "without samples" if set(OF_SAMPLES) - {"no-progress"} <= {*unknown} else "from these columns"
        lines.append(f"not known {why}: {', '.join(unknown)}")
    return lines


def paragraph(event: Event, log: Log) -> list[str]:
    finding = event.finding
    lines = [
        f"{span(event, log)}: {finding.name} ({finding.severity}): {KINDS[finding.name].verdict}",
        f"  {finding.evidence}; the limit is {finding.threshold} ({finding.source})",
    ]
    lines += [
        f"  it explains {other.finding.name}, {span(other, log)}: {other.finding.evidence}" for other in event.explained
    ]
    if None in (event.until, *(other.until for other in event.explained)):  # it, or what it explains, still holds
        lines.append(f"  what to do: {finding.remedy}")
        if "--config" in finding.remedy and (seconds := log.all("clock")).size:
            lines.append(f"  it costs a new run: {duration(seconds[-1] * (log.end or log.at[-1]) / log.at[-1])}")
    return lines


def span(event: Event, log: Log) -> str:
    until = f" to {event.until:,.0f}" if event.until is not None else ""
    return f"{'from' if until else 'since'} {event.since:,.0f}{until} {log.unit}"

"""The story of a run: which findings held from when to when, and which of them explain others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ptarmigan.diagnosis.columns import Log
from ptarmigan.diagnosis.findings import KINDS, SEVERITIES, Finding, findings

POINTS = 20  # places at which a log without snapshots is judged


@dataclass
class Event:
    """A finding that held over a part of a run."""

    finding: Finding  # as it was last
    since: float
    until: float | None = None  # None: it holds at the end of the log
    explained: list[Event] = field(default_factory=list)


def events(log: Log) -> list[Event]:
    """What happened, in the order in which it began; a finding that paused at one place only is one event."""
    told: list[Event] = []
    before: Sequence[float] = ()
    for place in points(log):
        found = {finding.name: finding for finding in findings(log.until(place))}
        for event in told:
            name = event.finding.name
            if name in found and event.until in (None, *before[-1:]):
                event.finding, event.until = found.pop(name), None
            elif event.until is None:
                event.until = place
        told += [Event(finding, place) for finding in found.values()]
        before = (*before, place)
    names = list(KINDS)
    told.sort(key=lambda event: (event.since, names.index(event.finding.name)))
    for cause in told:
        cause.explained = [event for event in told if event is not cause and explains(cause, event)]
    return told


def explains(cause: Event, event: Event) -> bool:
    """Whether a finding is among the effects of another that began no later and had not ended."""
    return (
        event.finding.name in KINDS[cause.finding.name].explains
        and cause.since <= event.since
        and (cause.until is None or event.since <= cause.until)
    )


def points(log: Log) -> list[float]:
    """The snapshots of a run, and its end; places at even distances in a log without snapshots."""
    snapshots = log.at[~np.isnan(log.columns["snapshot"])] if "snapshot" in log.columns else np.empty(0)
    places = snapshots if len(snapshots) else log.at[np.linspace(0, len(log.at) - 1, POINTS).astype(int)]
    return sorted({*places.tolist(), float(log.at[-1])})


def now(told: list[Event]) -> list[Finding]:
    """The findings that hold at the end, the worst first; among equals a cause before what it explains."""
    held = [event.finding for event in told if event.until is None]
    names = list(KINDS)
    return sorted(held, key=lambda finding: (-SEVERITIES.index(finding.severity), names.index(finding.name)))

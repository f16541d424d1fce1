"""`ptarmigan diagnose`: the story of a run, or of the log or the samples of another tool."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ptarmigan.core.console import Display, Terminal, duration
from ptarmigan.core.paths import user_path
from ptarmigan.core.types import OnProgress, UserError, shown
from ptarmigan.diagnosis.columns import Log
from ptarmigan.diagnosis.findings import KINDS, OF_SAMPLES, Finding, is_wanted, verdict
from ptarmigan.diagnosis.logs import read
from ptarmigan.diagnosis.story import Event, events, now
from ptarmigan.generator.header import is_locked

POLL_SECONDS = 1.0
NEEDS = {  # of a finding -> the columns that it cannot do without
    "variety": ("collapse",), "class_accuracy": ("class-ignored",),
    "real_accuracy": ("labels-random",), "copying": ("copies",), "colour_gap": ("colour-shift",),
    "nyquist": ("checkerboard",), "select_kid": ("far-from-real", "no-progress"), "d_gap": ("d-overfits",),
    "d_adv": ("d-too-strong", "d-too-weak"),
}  # fmt: skip


@dataclass(frozen=True)
class Diagnosis:
    """What happened in a run, in the order in which it began, and what holds at the end, the worst first."""

    log: Log
    events: list[Event]
    findings: list[Finding]

    @property
    def verdict(self) -> str:
        """The worst finding that holds at the end, `healthy`, or what it takes to say so; at most eight words."""
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


def diagnose(
    log: str | Path | None = None,
    *,
    samples: str | Path | None = None,
    data: str | Path | None = None,
    map: Sequence[str] | None = None,
) -> Diagnosis:
    """Tell what went wrong in a run, from its folder, from the log of another tool or from its samples.

    `log` is a run folder, a metrics.jsonl, StyleGAN's stats.jsonl, other JSON lines, a CSV, or a folder of
    TensorBoard's event files.  `samples` are the images of any generator, in class folders or an .npz, and `data` what
    it was trained on; with the log of another tool both are judged together.  `map` names columns that are not
    recognised: ["d_loss=COLUMN"].

    Raises UserError: usage, path-not-found, file-unreadable, log-empty, log-unclear, value-invalid, unknown-name,
    columns-unknown, options-conflict, data-missing, too-few-images.
    """
    if log is None and samples is None:
        raise UserError("name a run or a log, or images with --samples", "usage")
    if samples is None and data is not None:
        raise UserError(f"data {data} is what --samples are compared with: give both", "options-conflict")
    if samples is not None and data is None:
        text = f"samples {samples}: also name the images that their generator was trained on, with --data"
        raise UserError(text, "data-missing")
    given = {}
    for pair in [map] if isinstance(map, str) else map or ():
        name, equals, column = pair.partition("=")
        if not (name and equals and column):
            raise UserError(f"map: expected NAME=COLUMN, as d_loss=loss/D, got {shown(pair)}", "value-invalid")
        given[name] = column
    found = read(user_path(log, "log"), given) if log is not None else Log(np.zeros(1), {}, unit="samples")
    if samples is not None and data is not None:
        found = with_samples(found, user_path(samples, "samples"), data)
    told = events(found)
    return Diagnosis(found, told, now(told))


def with_samples(log: Log, samples: Path, data: str | Path) -> Log:
    """The log of another tool, with the statistics of its samples in the last row."""
    if log.fields:
        raise UserError(f"{log.run} is judged by samples of its own: leave it or --samples out", "options-conflict")
    from ptarmigan.commands.diagnose_samples import sample_statistics  # imports torch

    count, statistics = sample_statistics(samples, data)
    at = log.at if len(log.columns) else np.array([float(count)])
    last = {name: np.append(np.full(len(at) - 1, np.nan), value) for name, value in statistics.items()}
    return replace(log, at=at, columns=log.columns | last)


def watch(run: str | Path, on_progress: OnProgress) -> Iterator[Diagnosis]:
    """The diagnosis of a run now, and again at each snapshot until no process trains in the run folder.

    Raises UserError as `diagnose` does, and where `run` is no run folder; but a run that trains is waited for until it
    has logged something.
    """
    folder, told = user_path(run, "run"), -1
    while True:
        trains = is_locked(folder)
        try:
            diagnosis = diagnose(folder)
        except UserError as error:
            if not (trains and error.code == "log-empty"):
                raise
            on_progress(f"waiting for the log of {folder}", 0, None)
        else:
            log = diagnosis.log
            if not log.fields:
                raise UserError(f"{folder} is no run folder, which --watch follows: leave it out", "options-conflict")
            if (snapshots := len(log.all("snapshot"))) > told or not trains:
                told = snapshots
                yield diagnosis
            if not trains:
                return
            on_progress(f"images seen by {folder}", int(log.at[-1]), None if log.end is None else int(log.end))
        time.sleep(POLL_SECONDS)


def story(diagnosis: Diagnosis) -> list[str]:
    """The diagnosis as lines of text."""
    log = diagnosis.log
    lines = [f"verdict: {diagnosis.verdict}, {'in' if log.unit == 'samples' else 'at'} {log.at[-1]:,.0f} {log.unit}"]
    explained = {id(event) for cause in diagnosis.events for event in cause.explained}
    for event in diagnosis.events:
        if id(event) not in explained:
            lines += paragraph(event, log)
    if unknown := diagnosis.unknown:
        of_images = {*OF_SAMPLES} - {"far-from-real", "no-progress"}
        missing = "a log" if log.unit == "samples" else "samples" if of_images <= {*unknown} else "more columns"
        lines.append(f"not known without {missing}: {', '.join(unknown)}")
    return lines


def print_each(run: Path) -> Diagnosis:
    """Follow a run that trains, and print its story at each snapshot; returns the last diagnosis."""
    with Display(Terminal()) as display:
        for diagnosis in watch(run, display.preparing):
            for line in story(diagnosis):
                display.say(line)
    return diagnosis


def paragraph(event: Event, log: Log) -> list[str]:
    finding = event.finding
    lines = [
        f"{span(event, log)}: {finding.name} ({finding.severity}): {KINDS[finding.name].verdict}",
        f"  {finding.evidence}; reported if {finding.threshold} ({finding.source})",
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
    if log.unit == "samples":
        return f"in {event.since:,.0f} samples"
    until = f" to {event.until:,.0f}" if event.until is not None else ""
    return f"{'from' if until else 'since'} {event.since:,.0f}{until} {log.unit}"

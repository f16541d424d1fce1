"""`ptarmigan check`: what is wrong with a data set, in words, as a page, as JSON, and as a list of what to keep."""

from __future__ import annotations

import csv
import io
import shlex
import time as clock
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from json import dumps
from os import fspath
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ptarmigan.commands.score_plan import shuffled
from ptarmigan.config import Data, resolve
from ptarmigan.config.values import parse_size
from ptarmigan.core.console import Display
from ptarmigan.core.fields import DataFields
from ptarmigan.core.files import check_new_path, write_atomic
from ptarmigan.core.paths import url_of, user_path
from ptarmigan.core.terminal import Terminal
from ptarmigan.core.types import UserError, brief, counted, printable, unknown
from ptarmigan.core.version import __version__
from ptarmigan.data import HELD_OUT, SELECT, TRAIN, Dataset, open_dataset
from ptarmigan.data.check.files import Facts, file_findings, look_at_files
from ptarmigan.data.check.finding import SEVERITIES, SHOWN, Finding, by_severity
from ptarmigan.data.check.images import (
    class_bars,
    class_findings,
    image_findings,
    notice_findings,
    places,
    size_findings,
    why_size,
)
from ptarmigan.data.check.labels import doubtful_labels
from ptarmigan.data.decode import TargetShape, choose_fit
from ptarmigan.data.index import ArraySource, FolderSource
from ptarmigan.data.stream import StreamedImages
from ptarmigan.evaluation.features import load_extractor
from ptarmigan.evaluation.features.cache import CACHED, adding_up, cached_features

FAIL_ON = ("error", "warning")
ENDINGS = {"html": ".html", "json": ".json", "fix": ".csv"}
DEEP_SECONDS = 300.0  # after which no more features are computed for --deep
MOST_JUDGED = 50_000  # labels, whose features take 256 MB
BARS = 40  # classes that get a bar in the terminal
BAR = 24  # characters
STYLES = {"error": "red", "warning": "yellow", "note": None}


@dataclass(frozen=True)
class CheckReport:
    """What `check` found."""

    data: str  # the path, or what else the images are
    understood: str  # what was found there, and where the labels come from
    size: str  # the size of the images in training, and why
    sizes: tuple[tuple[int, int], ...]  # height and width of the images as they are stored
    classes: tuple[tuple[str, int, int, int], ...]  # name, training, select and held-out images
    findings: tuple[Finding, ...]  # errors first
    failed: bool  # whether there is a finding at or above `fail_on`
    dataset: Dataset
    written: Mapping[str, Path]  # "html", "json", "fix" -> the file

    def record(self) -> dict[str, Any]:
        """All facts, as `--json` writes them."""
        return {
            "ptarmigan": __version__,
            "data": self.data,
            "understood": self.understood,
            "size": self.size,
            "images": self.counts,
            "classes": {name: {"train": a, "select": b, "held-out": c} for name, a, b, c in self.classes},
            "findings": [
                {
                    "code": finding.code,
                    "severity": finding.severity,
                    "text": finding.text,
                    "count": finding.count,
                    "where": [*finding.where],
                    "train": finding.train,
                    "remedy": finding.remedy,
                }
                for finding in self.findings
            ],
            "failed": self.failed,
        }

    @property
    def counts(self) -> dict[str, int]:
        """Images in each part of the split, and those that are not read."""
        source, parts = self.dataset.source, self.dataset.counts()
        listed = len(source.paths) if isinstance(source, FolderSource) else sum(parts.values())
        return {**parts, "not read": listed - sum(parts.values())}

    @property
    def left_out(self) -> dict[str, str]:
        """Path -> why `--fix` leaves the file out."""
        return {path: why for finding in reversed(self.findings) for path, why in finding.drop.items()}

    @property
    def verdict(self) -> str:
        """How many findings there are, in one line."""
        numbers = [sum(finding.severity == severity for finding in self.findings) for severity in SEVERITIES]
        found = [counted(n, severity) for n, severity in zip(numbers, SEVERITIES, strict=True) if n]
        return ", ".join(found) or "nothing is wrong"


def check(
    data: str | Path | Dataset | None = None,
    /,
    *,
    html: str | Path | None = None,
    json: str | Path | None = None,
    fail_on: str = "error",
    deep: bool = False,
    fix: str | Path | None = None,
    **fields: Unpack[DataFields],
) -> CheckReport:
    """Look for what is wrong with the images at `data`, which `train` would train on; nothing of theirs is changed.

    html, json: new files for the report as a page and as JSON.  fix: a new CSV file of path, label, keep and reason,
    which `train --labels` takes.  deep: also look for wrong labels, by features of the images.
    fields: the options of `train` that say how images are read and divided.

    Raises UserError: those of `open_dataset`; file-exists; options-conflict where `fix` is given for arrays;
    value-invalid where `fix` is given and the name of a file is not UTF-8.
    """
    if fail_on not in FAIL_ON:
        raise unknown("fail_on", fail_on, FAIL_ON)
    reading = resolve({key: fspath(value) if isinstance(value, Path) else value for key, value in fields.items()}).data
    written = new_files(html=html, json=json, fix=fix)
    with Display(Terminal(stderr=True)) as display, display.doing("checking the data"):
        dataset = open_dataset(data, reading, display.preparing)
        refuse(dataset, fix=fix is not None)
        size, sizes, found, group = examine(dataset, reading, display)
        if deep:
            found += deep_findings(dataset, display)
    name = "the embedded images" if data is None else str(dataset.source.root)
    failed = any(SEVERITIES.index(finding.severity) <= SEVERITIES.index(fail_on) for finding in found)
    report = CheckReport(
        name, dataset.understood, size, sizes, tuple(class_bars(dataset)), tuple(by_severity(found)), failed, dataset,
        written,
    )  # fmt: skip
    write(report, group)
    return report


def new_files(**given: str | Path | None) -> dict[str, Path]:
    """The files to write, by flag; raises UserError if one exists or has another ending."""
    paths = {flag: user_path(path, flag) for flag, path in given.items() if path is not None}
    return {flag: check_new_path(path, flag, ENDINGS[flag]) for flag, path in paths.items()}


def refuse(dataset: Dataset, fix: bool) -> None:
    """Raise UserError for images that are streamed and, with `--fix`, for those that it cannot list."""
    source = dataset.source
    if isinstance(dataset.images, StreamedImages):
        text = f"{url_of(source.root)} is streamed, and a check reads every image: download the shards and give"
        raise UserError(f"{text} their path", "options-conflict")
    if not fix:
        return
    if not isinstance(source, FolderSource):
        text = f"fix: {source.root} holds arrays, and --fix needs image files with paths; leave --fix out"
        raise UserError(text, "options-conflict")
    if odd := [path for path in source.paths if any("\ud800" <= letter <= "\udfff" for letter in path)]:
        text = f"fix: {printable(odd[0])} in {source.root} has a name that is not UTF-8, as a list must be: rename it"
        raise UserError(text, "value-invalid")


def examine(
    dataset: Dataset, data: Data, display: Display
) -> tuple[str, tuple[tuple[int, int], ...], list[Finding], NDArray[np.int64]]:
    """The size in training and why, the sizes as they are stored, the findings, and [N] groups of nearly equal images.

    What `--deep` finds is not among them.
    """
    height, width, channels = dataset.images.shape[1:]
    shape = TargetShape(height, width, channels, choose_fit(channels, data))
    source, where = dataset.source, places(dataset)
    index = {path: at for at, path in enumerate(where)}
    if isinstance(source, FolderSource):
        facts = look_at_files(source, {*where}, data.max_pixels, shape, display.preparing)
        sizes = {path: (one.header.height, one.header.width) for path, one in facts.items() if isinstance(one, Facts)}
        found = file_findings(facts, shape.channels, dataset.notices, index)
    else:
        sizes, found = dict.fromkeys(where, stored_size(dataset)), []
    stored = tuple(sizes.values())
    found += size_findings(stored, [*sizes], shape, index)
    of_images, group = image_findings(dataset, display.preparing)
    found += of_images + class_findings(dataset, data.balance) + notice_findings(dataset)
    return why_size(stored, shape, parse_size(data.size) is not None), stored, found, group


def write(report: CheckReport, group: NDArray[np.int64]) -> None:
    """The files that were asked for; group [N]: that of nearly equal images of each image."""
    for flag, path in report.written.items():
        if flag == "json":
            content = dumps(report.record(), indent=2, ensure_ascii=False) + "\n"
        elif flag == "html":
            from ptarmigan.commands.check_page import page

            content = page(report)
        else:
            content = list_to_keep(report, group)
        write_atomic(path, content.encode(errors="backslashreplace"))  # \udcff in JSON is a byte that is not UTF-8


def stored_size(dataset: Dataset) -> tuple[int, int]:
    """Height and width of the images of an array source, as they are stored."""
    assert isinstance(dataset.source, ArraySource)
    height, width, _ = dataset.source.read().shape
    return height, width


def deep_findings(dataset: Dataset, display: Display) -> list[Finding]:
    """Labels that are likely wrong, by the features that `score` uses.

    Features are computed for DEEP_SECONDS and cached; of more images a sample is judged, and a finding says so.
    """
    with display.doing("loading the extractor"):
        extractor = load_extractor(device="auto")
    parts = [shuffled(dataset.indices(part)) for part in (HELD_OUT, SELECT, TRAIN)]  # in the order of `score`
    blocks = [part[start : start + CACHED] for part in parts for start in range(0, len(part), CACHED)]
    total = min(len(dataset.images), MOST_JUDGED)
    advance = adding_up(display.preparing, "computing features", total)
    features: list[Tensor] = []
    begun = clock.monotonic()
    for block in blocks:
        if sum(map(len, features)) >= total or (features and clock.monotonic() - begun > DEEP_SECONDS):
            break
        features.append(cached_features(extractor, dataset, block, advance))
    judged = np.concatenate(blocks[: len(features)])
    with display.doing("looking for wrong labels"):
        return label_findings(dataset, judged, torch.cat(features))


def label_findings(dataset: Dataset, indices: NDArray[np.int64], features: Tensor) -> list[Finding]:
    """The findings of --deep from the features [M, F] of the images at indices [M]."""
    where, labels, names = places(dataset), dataset.labels, dataset.spec.class_names
    doubts = doubtful_labels(features, labels[indices], dataset.hashes[indices])
    at = indices[doubts.indices]
    findings = []
    if len(at):
        said = {
            int(i): f"in {names[labels[i]]}, looks like {names[b]}: {p:.0%}"
            for i, b, p in zip(at, doubts.better, doubts.probability, strict=True)
        }
        findings.append(
            Finding(
                "label-doubtful", "warning", f"{counted(len(at), 'label')}: likely wrong", len(at),
                tuple(f"{where[i]} ({text})" for i, text in said.items()), "trains on these labels",
                "look at them, the first are the most certain; move those that are wrong to their class",
                tuple((i,) for i in said)[:SHOWN], drop={where[i]: text for i, text in said.items()},
            )
        )  # fmt: skip
    if len(indices) < len(labels):
        text = f"the labels of {len(indices):,} of {len(labels):,} images were judged, drawn at random"
        remedy = "run it again: it keeps the features, and judges more" if len(indices) < MOST_JUDGED else ""
        findings.append(Finding("deep-sampled", "note", text, len(labels) - len(indices), remedy=remedy))
    return findings


def list_to_keep(report: CheckReport, group: NDArray[np.int64]) -> str:
    """CSV: path, label, keep (1 or 0), reason, and group, which nearly equal images share."""
    source, where, reasons = report.dataset.source, places(report.dataset), report.left_out
    assert isinstance(source, FolderSource)
    first = {where[at]: where[least] for at, least in enumerate(group)}
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["path", "label", "keep", "reason", "group"])
    for path, label in zip(source.paths, source.labels, strict=True):
        keep = int(path not in reasons)
        rows.writerow([path, source.class_names[label], keep, reasons.get(path, ""), first.get(path, path)])
    return text.getvalue()


def print_check(report: CheckReport) -> None:
    """The report in the terminal: how the data were understood, a bar for each class, and the findings."""
    terminal = Terminal()

    def say(text: str, style: str | None = None) -> None:
        terminal.say(brief(text), style, wrap=True)

    say(report.understood)
    say(f"size in training: {report.size}")
    say(", ".join(f"{count:,} {name}" for name, count in report.counts.items() if count))
    for bar in bars(report.classes, "#" if terminal.options.ascii_only else "█"):
        terminal.say(f"  {bar}")
    for finding in report.findings:
        say("")
        say(f"{finding.severity}: {finding.text} [{finding.code}]", STYLES[finding.severity])
        for name, text in (("", finding.examples), ("train: ", finding.train), ("mend:  ", finding.remedy)):
            if text:
                say(f"  {name}{text}")
    say("")
    for line in (report.verdict, *(f"wrote {path}" for path in report.written.values()), *list_lines(report)):
        say(line)


def bars(classes: Sequence[tuple[str, int, int, int]], block: str) -> Iterator[str]:
    """A line for each class, with a bar as long as the class is large; `block` is the character that a bar repeats."""
    most, shown = max(sum(counts) for _, *counts in classes), classes[:BARS]
    width = min(max(len(name) for name, *_ in shown), 30)
    for name, *counts in shown:
        length = max(1, round(BAR * sum(counts) / most))
        yield f"{brief(name)[:30]:<{width}}  {block * length:<{BAR}}  {sum(counts):,}"
    if len(classes) > BARS:
        yield f"and {len(classes) - BARS:,} more classes"


def list_lines(report: CheckReport) -> list[str]:
    """What may be done with the list of what to keep."""
    if not report.left_out or not isinstance(report.dataset.source, FolderSource):
        return []
    count, data = counted(len(report.left_out), "file"), shlex.quote(report.data)
    if "fix" not in report.written:
        return [f"next: `ptarmigan check {data} --fix list.csv` writes a list that leaves out {count}"]
    made = report.written["fix"]
    return [
        f"the list leaves out {count}: look through it, then train without them: "
        f"ptarmigan train {data} --labels {shlex.quote(str(made))}"
    ]

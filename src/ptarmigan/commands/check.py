"""`ptarmigan check`: what is wrong with a data set, in words, as a page, as JSON, and as a list of what to keep."""

from __future__ import annotations

import csv
import io
import re
import time as clock
from collections.abc import Sequence
from dataclasses import dataclass
from json import dumps
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ptarmigan.commands.score import shuffled
from ptarmigan.config import parse_size, resolve
from ptarmigan.core.console import Display
from ptarmigan.core.fields import DataFields
from ptarmigan.core.files import check_new_path, write_atomic
from ptarmigan.core.paths import url_of, user_path
from ptarmigan.core.terminal import Terminal
from ptarmigan.core.types import UserError, brief, counted, unknown
from ptarmigan.core.version import __version__
from ptarmigan.data import HELD_OUT, SELECT, TRAIN, Dataset, open_dataset
from ptarmigan.data.check.files import FileFacts, file_findings, look_at_files
from ptarmigan.data.check.finding import SEVERITIES, Finding, by_severity
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
from ptarmigan.data.check.summary import COVERED
from ptarmigan.data.decode import TargetShape
from ptarmigan.data.index import ArraySource, FolderSource
from ptarmigan.data.stream import StreamedImages
from ptarmigan.evaluation.features import load_extractor
from ptarmigan.evaluation.features.cache import cached_features

FAIL_ON = ("error", "warning")
DEEP_SECONDS = 300.0  # for the features of --deep; of more images, a sample is judged
TIMED = 32  # images that the speed of the extractor is measured on
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

    def record(self) -> dict[str, Any]:
        """All facts, as `--json` writes them."""
        return {
            "ptarmigan": __version__,
            "data": self.data,
            "understood": self.understood,
            "size": self.size,
            "images": dict(self.dataset.counts()),
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

    Raises UserError: those of `open_dataset`; file-exists; options-conflict where `fix` is given for arrays.
    """
    if fail_on not in FAIL_ON:
        raise unknown("fail_on", fail_on, FAIL_ON)
    config = resolve({**fields}).data
    targets = {}
    for flag, given, ending in (("html", html, ".html"), ("json", json, ".json"), ("fix", fix, ".csv")):
        if given is not None:
            targets[flag] = check_new_path(user_path(given, flag), flag, ending)
    with Display(Terminal(stderr=True)) as display, display.doing("checking the data"):
        dataset = open_dataset(data, config, display.preparing)
        source = dataset.source
        if isinstance(dataset.images, StreamedImages):
            text = f"{url_of(source.root)} is streamed, and a check reads every image: download the shards"
            raise UserError(f"{text} and give their path", "options-conflict")
        if fix is not None and not isinstance(source, FolderSource):
            raise UserError(
                f"fix: {source.root} holds arrays, and --fix needs image files with paths; leave --fix out",
                "options-conflict",
            )
        height, width, channels = dataset.images.shape[1:]
        shape = TargetShape(height, width, channels, config.fit)
        notices = dataset.notices

        def said(pattern: str, text: str) -> str:
            return next((notice for notice in notices if re.search(pattern, notice)), text)

        facts: list[FileFacts] = []
        if isinstance(source, FolderSource):
            decoded = {int(at) for at in dataset.source_indices}
            facts = look_at_files(source, decoded, config.max_pixels, shape, display.preparing)
            known = [(file.path, file.header) for file in facts if file.header is not None and not file.failure]
            sizes, paths = [(header.height, header.width) for _, header in known], [path for path, _ in known]
        else:
            sizes, paths = [stored_size(dataset)] * len(dataset.images), places(dataset)
        found, group = image_findings(dataset, display.preparing)
        found += file_findings(facts, said) + class_findings(dataset) + size_findings(sizes, paths, shape, said)
        if deep:
            found += deep_findings(dataset, display)
    own = len(source.notices)
    rest = [(at < own, notice) for at, notice in enumerate(notices) if not COVERED.search(notice)]
    found += notice_findings([notice for _, notice in rest], sum(first for first, _ in rest))
    findings = tuple(by_severity(found))
    failing = SEVERITIES[: SEVERITIES.index(fail_on) + 1]
    report = CheckReport(
        "the embedded images" if data is None else str(source.root),
        dataset.understood,
        why_size(sizes, shape, parse_size(config.size) is not None),
        tuple(sizes),
        tuple(class_bars(dataset)),
        findings,
        any(finding.severity in failing for finding in findings),
        dataset,
    )
    if "json" in targets:
        write_atomic(targets["json"], (dumps(report.record(), indent=2, ensure_ascii=False) + "\n").encode())
    if "html" in targets:
        from ptarmigan.commands.check_page import page

        write_atomic(targets["html"], page(report).encode())
    if "fix" in targets:
        write_atomic(targets["fix"], list_to_keep(dataset, findings, group))
    return report


def stored_size(dataset: Dataset) -> tuple[int, int]:
    """Height and width of the images of an array source, as they are stored."""
    assert isinstance(dataset.source, ArraySource)
    height, width, _ = dataset.source.read().shape
    return height, width


def deep_findings(dataset: Dataset, display: Display) -> list[Finding]:
    """Labels that are likely wrong, by the features that `score` uses.

    Of more images than the extractor sees in DEEP_SECONDS, a sample is judged, and a finding says so.
    """
    extractor = load_extractor(device="auto")
    begun = clock.perf_counter()
    extractor(dataset.images[:TIMED])
    most = max(TIMED, int(min(TIMED, len(dataset.images)) * DEEP_SECONDS / (clock.perf_counter() - begun)))
    total = min(most, len(dataset.images))
    parts: list[NDArray[np.int64]] = []
    features: list[Tensor] = []
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        display.preparing("computing features", done, total)

    for part in (HELD_OUT, SELECT, TRAIN):  # the order of `score`, which then reads these features from the cache
        indices = shuffled(dataset.indices(part))[: most - sum(len(taken) for taken in parts)]
        if len(indices):
            parts.append(indices)
            features.append(cached_features(extractor, dataset, indices, advance))
    return judge(dataset, np.concatenate(parts), features, display)


def judge(dataset: Dataset, indices: NDArray[np.int64], features: Sequence[Tensor], display: Display) -> list[Finding]:
    """The findings of --deep from the features of the images at indices [M]."""
    where, labels, names = places(dataset), dataset.labels, dataset.spec.class_names
    together = torch.cat([*features])
    findings = []
    with display.doing("looking for wrong labels"):
        doubts = doubtful_labels(together, labels[indices], dataset.hashes[indices])
    at = indices[doubts.indices]
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
                tuple((i,) for i in said), tuple(said.values()), {where[i]: text for i, text in said.items()},
            )
        )  # fmt: skip
    if len(indices) < len(labels):
        text = f"labels are judged in a sample of {len(indices):,} of {len(labels):,} images, to end in time"
        findings.append(Finding("deep-sampled", "note", text, len(labels) - len(indices)))
    return findings


def list_to_keep(dataset: Dataset, findings: Sequence[Finding], group: NDArray[np.int64]) -> bytes:
    """CSV: path, label, keep (1 or 0), reason, and group, which nearly equal images share."""
    source = dataset.source
    assert isinstance(source, FolderSource)
    reasons: dict[str, str] = {}
    for finding in findings:
        for path, why in finding.drop.items():
            reasons.setdefault(path, why)
    where = places(dataset)
    first = {where[at]: where[least] for at, least in enumerate(group)}
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["path", "label", "keep", "reason", "group"])
    for path, label in zip(source.paths, source.labels, strict=True):
        keep = int(path not in reasons)
        rows.writerow([path, source.class_names[label], keep, reasons.get(path, ""), first.get(path, path)])
    return text.getvalue().encode("utf-8", "surrogateescape")


def print_check(report: CheckReport) -> None:
    """The report in the terminal: how the data were understood, a bar for each class, and the findings."""
    terminal = Terminal()
    block = "#" if terminal.options.ascii_only else "█"
    terminal.say(report.understood)
    terminal.say(report.size)
    terminal.say(", ".join(f"{count:,} {name}" for name, count in report.dataset.counts().items() if count))
    most = max(sum(counts) for _, *counts in report.classes)
    shown = report.classes[:BARS]
    width = min(max(len(name) for name, *_ in shown), 30)
    for name, *counts in shown:
        length = max(1, round(BAR * sum(counts) / most))
        terminal.say(f"  {brief(name)[:30]:<{width}}  {block * length:<{BAR}}  {sum(counts):,}")
    if len(report.classes) > BARS:
        terminal.say(f"  and {len(report.classes) - BARS:,} more classes")
    for finding in report.findings:
        terminal.say("")
        terminal.say(f"{finding.severity}: {brief(finding.text)} [{finding.code}]", style=STYLES[finding.severity])
        if finding.where:
            terminal.say(f"  {brief(finding.examples)}")
        if finding.train:
            terminal.say(f"  train: {brief(finding.train)}")
        if finding.remedy:
            terminal.say(f"  mend:  {finding.remedy}")
    terminal.say("")
    terminal.say(report.verdict)

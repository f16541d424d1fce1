"""`compare`: runs that differ in their seed alone are one group; groups side by side, with intervals over seeds."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import ascii_uppercase
from typing import Any, NamedTuple

from rich.table import Table

from ptarmigan.config import UNTRACKED, Config, config_of, parse_images, parse_time
from ptarmigan.core import log
from ptarmigan.core.console import Terminal
from ptarmigan.core.files import Damaged, load_json, load_tensors
from ptarmigan.core.types import UserError
from ptarmigan.evaluation import metrics
from ptarmigan.evaluation.evaluate import shorten
from ptarmigan.evaluation.report import shown
from ptarmigan.generator.generator import scores_of
from ptarmigan.training.run_folder import loss_named

ALIKE = (
    "extractor", "weights_sha256", "input", "images_a_set", "held_out_images", "train_images", "data_fingerprint",
)  # fmt: skip
ACROSS = 3  # groups side by side in a table: what 80 columns hold


@dataclass(frozen=True)
class Estimate:
    """A mean over training seeds, or the difference of two, with its 95 % interval: None where there is one seed."""

    mean: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Group:
    """Runs that differ in their seed alone."""

    name: str  # A, B, ...
    runs: tuple[str, ...]
    seeds: tuple[int, ...]
    images_seen: tuple[int, ...]  # by the generator that the figures are of
    figures: dict[str, Estimate]
    differences: dict[str, Estimate]  # of its figures less those of the first group; the first has none


@dataclass(frozen=True)
class Compared:
    """What `compare` found."""

    source: str  # of the figures: their protocol
    groups: tuple[Group, ...]
    choices: dict[str, tuple[Any, ...]]  # field -> its value in each group, where they are not all the same
    notes: tuple[str, ...]


def compare(*runs: str | Path) -> Compared:
    """Compare runs by their scores: each config's mean over its training seeds, and how far it is from the first's.

    Runs that differ only in `seed`, and in fields that change nothing but where and how fast a run goes, are one
    group.  The figures are those of the extractor by which all of them have been scored (`ptarmigan score RUN`), each
    the mean over its generation seeds; where there is none, the live KID to the select part.  An interval is Student's
    over training seeds, that of a difference Welch's; one seed has none.

    Raises UserError where a folder is no run, the images, their split or the protocols of the scores are not the same,
    two runs share config and seed, or a run has no score at all.
    """
    if len(runs) < 2:
        raise UserError("compare takes two runs or more, as in `ptarmigan compare runs/photos-1 runs/photos-2`")
    if twice := [path for path, count in Counter(Path(run).resolve() for run in runs).items() if count > 1]:
        raise UserError(f"{twice[0]} is given twice: name each run once")
    given = [Run.open(Path(run)) for run in runs]
    of_same_images(given)
    by_choices = grouped(given)
    source, found, notes = measured(given)
    notes += beside(given, found)
    groups: list[Group] = []
    first: dict[str, list[float]] = {}
    for letter, members in zip(letters(), by_choices.values(), strict=False):
        values = of_all(members, found, notes)
        first = first or values
        groups.append(
            Group(
                letter,
                tuple(run.name for run in members),
                tuple(run.config.train.seed for run in members),
                tuple(found[run.name].images_seen for run in members),
                {figure: mean(of) for figure, of in values.items()},
                {figure: difference(of, first[figure]) for figure, of in values.items() if groups and figure in first},
            )
        )
    chosen = [dict(key) for key in by_choices]
    fields = {field: tuple(of[field] for of in chosen) for field in chosen[0]}
    differing = {field: of for field, of in fields.items() if len(set(of)) > 1}
    return Compared(source, tuple(groups), differing, tuple(notes))


class Run(NamedTuple):
    """A run, as its folder has it."""

    name: str
    config: Config
    record: dict[str, Any]  # as runs.record_of made it
    reports: dict[str, Any]  # extractor -> the report on its generator
    live: dict[int, float]  # images seen -> live score
    end: int | None  # of its training, in images; None: not planned yet

    @classmethod
    def open(cls, run: Path) -> Run:
        if (run / "model.safetensors").is_file():
            raise UserError(f"{run} is a generator folder: name its run")
        if not (run / "config.json").is_file():
            raise UserError(f"{run} is no run of ptarmigan: name folders that `ptarmigan train` made")
        try:
            record = load_json(run / "config.json")
        except Damaged as error:
            raise UserError(f"{error}; `ptarmigan train` with the run's own flags writes it anew") from None
        live: dict[int, float] = {}
        end = None
        for line in log.read(run / "metrics.jsonl"):
            seen = line["images_seen"]
            live = {at: kid for at, kid in live.items() if at <= seen}  # the run has gone back from what is beyond
            if "select_kid" in line:
                live[seen] = line["select_kid"]
            end = line.get("end", end)
        return cls(str(run), config_of(record), record, reports(run / "generator"), live, end)


class Scores(NamedTuple):
    images_seen: int
    figures: dict[str, float]


def reports(folder: Path) -> dict[str, Any]:
    """The reports on the generator in a folder, by extractor."""
    try:
        sha256 = load_tensors(folder / "model.safetensors")[1]["sha256"]
    except Damaged:  # or not there
        return {}
    return scores_of(folder, sha256)


def choices(run: Run) -> dict[str, Any]:
    """What makes two runs two configs: every field that binds a run but its seed, the budget, and the model before."""
    config, init = run.config, run.record.get("init")
    binding = {key: value for key, value in config.flat().items() if key not in (*UNTRACKED, "seed")}
    seconds = parse_time(config.train.time)
    budget = {"time": seconds and f"{seconds:g}s", "images": parse_images(config.train.images)}
    return {
        "recipe": config.recipe,
        "from": init and init["sha256"][:12],
        **binding,
        "loss": loss_named(config, run.record.get("loss_sha256")),
        **budget,
    }


def of_same_images(runs: Sequence[Run]) -> None:
    """Raise UserError where runs have other images than the first, or another split of them."""

    def images(run: Run) -> tuple[Any, ...]:
        return run.record["data"]["fingerprint"], run.config.data.split, run.config.data.group

    if others := [run.name for run in runs if images(run) != images(runs[0])]:
        raise UserError(
            f"{shorten(others)}: not the images of {runs[0].name}, or not its split of them, so that no figure means "
            "the same: compare runs on the same images, of the same size, with the same --split and --group"
        )


def grouped(runs: Sequence[Run]) -> dict[tuple[tuple[str, Any], ...], list[Run]]:
    """Choices -> the runs that made them, in the order given; raises UserError where two of them share a seed."""
    out: dict[tuple[tuple[str, Any], ...], list[Run]] = {}
    for run in runs:
        group = out.setdefault(tuple(choices(run).items()), [])
        if same := [other.name for other in group if other.config.train.seed == run.config.train.seed]:
            raise UserError(
                f"{same[0]} and {run.name} have one config and one seed, {run.config.train.seed}, and are no "
                "independent runs: leave one out, or train one with another --seed"
            )
        group.append(run)
    return out


def letters() -> Iterator[str]:
    """A to Z, AA to ZZ."""
    return (first + second for first in ("", *ascii_uppercase) for second in ascii_uppercase)


def measured(runs: Sequence[Run]) -> tuple[str, dict[str, Scores], list[str]]:
    """What the figures are, those of each run by its name, and what to note; raises UserError where there are none."""
    counts = Counter(extractor for run in runs for extractor in run.reports)
    extractor, count = counts.most_common(1)[0] if counts else ("", 0)
    if count == len(runs):
        chosen = {run.name: run.reports[extractor] for run in runs}
        found = {name: Scores(report["protocol"]["images_seen"], figures(report)) for name, report in chosen.items()}
        return held_out(chosen), found, []
    if silent := [run.name for run in runs if not run.live]:
        raise UserError(
            f"the runs have no figure in common, and no live score is in {shorten(silent)}: run `ptarmigan score RUN` "
            "on each of them"
        )
    found = {}
    for run in runs:
        last, best = max(run.live), min(run.live.values())
        found[run.name] = Scores(last, {"select KID, last": run.live[last], "select KID, best": best})
    lacking = [run.name for run in runs if extractor not in run.reports]
    return (
        "live scores: KID to the select part at a run's snapshots; the best is the least of many, and flatters",
        found,
        [f"for held-out figures{f' by {extractor}' * bool(count)} run `ptarmigan score RUN` on: {', '.join(lacking)}"],
    )


def held_out(reports: dict[str, Any]) -> str:
    """The protocol of reports, in words; raises UserError where it is not that of the first."""
    protocols = {name: report["protocol"] for name, report in reports.items()}
    first_name, first = next(iter(protocols.items()))
    for key in ALIKE:
        if others := [name for name, protocol in protocols.items() if protocol[key] != first[key]]:
            raise UserError(
                f"the scores differ in {key.replace('_', ' ')}: {first[key]} of {first_name}, "
                f"{protocols[others[0]][key]} of {shorten(others)}; run `ptarmigan score` on them again, with the same "
                "-n, --weights and images, and --time enough"
            )
    return (
        f"held-out figures by {first['extractor']}, weights {first['weights_sha256'][:8]}: {first['images_a_set']:,} "
        f"images a set against {first['held_out_images']:,} held-out images; {first['input']}"
    )


def of_all(runs: Sequence[Run], found: dict[str, Scores], notes: list[str]) -> dict[str, list[float]]:
    """Figure -> its value in each run, where every run has it."""
    scores = [found[run.name].figures for run in runs]
    names = dict.fromkeys(figure for figures in scores for figure in figures)
    out = {name: [figures[name] for figures in scores] for name in names if all(name in figures for figures in scores)}
    if lost := [name for name in names if name not in out]:
        notes.append(f"left out, because not all of {shorten([run.name for run in runs])} have it: {shorten(lost)}")
    return out


def figures(report: dict[str, Any]) -> dict[str, float]:
    """The figures of a report that are compared, each a mean over generation seeds."""
    out: dict[str, float] = {}
    for name, row in report["figures"].items():
        called = {"frechet": report["protocol"]["frechet_is_called"], "kid": "KID"}.get(name, name)
        out[called] = row["held_out"]["mean"]
        if name == "kid":
            out["KID excess"] = row["excess"]["mean"]
    if "generated" in report.get("accuracy", {}):
        out["class accuracy"] = report["accuracy"]["generated"]["mean"]
    classes = report.get("classes", {})
    if diversities := [entry["diversity"]["mean"] for entry in classes.values() if "diversity" in entry]:
        out["diversity"] = statistics.fmean(diversities)
    if "c_t" in report["copies"]:
        out["C_T"] = report["copies"]["c_t"]["mean"]
    for name, entry in classes.items():
        if "held_out" in entry.get("kid", {}):
            out[f"KID of {name}"] = entry["kid"]["held_out"]["mean"]
    return out


def beside(runs: Sequence[Run], found: dict[str, Scores]) -> list[str]:
    """What else differs: runs that are not at their end, images seen, precision, versions."""
    notes = []
    for run in runs:
        seen = found[run.name].images_seen
        if run.end is None or seen < run.end:
            notes.append(f"{run.name} is not at its end: {seen:,} images{f' of {run.end:,}' if run.end else ''}")
    if len({scores.images_seen for scores in found.values()}) > 1:
        notes.append("the runs have not seen equally many images: a part of a difference may come from that")
    for name in ("precision", "ptarmigan", "torch"):
        values = {run.name: {**run.record["versions"], "precision": run.record["precision"]}[name] for run in runs}
        if len(set(values.values())) > 1:
            notes.append(f"{name} differs: {', '.join(f'{value} in {run}' for run, value in values.items())}")
    return notes


def mean(values: Sequence[float]) -> Estimate:
    return Estimate(*metrics.interval(values)) if len(values) > 1 else Estimate(values[0])


def difference(values: Sequence[float], against: Sequence[float]) -> Estimate:
    if min(len(values), len(against)) > 1:
        return Estimate(*metrics.difference(values, against))
    return Estimate(statistics.fmean(values) - statistics.fmean(against))


def show(compared: Compared) -> None:
    """What was found, in a terminal."""
    console = Terminal()
    say = console.say

    def table(title: str, heads: Sequence[str], rows: dict[str, list[str]]) -> None:
        for start in range(0, len(heads), ACROSS):
            part = slice(start, start + ACROSS)
            lines = Table("", *heads[part], title=title, title_justify="left")
            for name, cells in rows.items():
                lines.add_row(name, *cells[part])
            console.print(lines, markup=False, highlight=False)

    groups = compared.groups
    say(compared.source)
    for group in groups:
        seeds = ("seeds " if len(group.seeds) > 1 else "seed ") + ", ".join(map(str, group.seeds))
        say(f"{group.name}: {seeds}; {span(group.images_seen)} images seen; {', '.join(group.runs)}")
    if compared.choices:
        rows = {field: [chosen(value) for value in values] for field, values in compared.choices.items()}
        table("what was chosen otherwise", [group.name for group in groups], rows)
    heads = [
        f"{group.name}, {len(group.seeds)} seeds" if len(group.seeds) > 1 else f"{group.name}, one seed"
        for group in groups
    ]
    names = dict.fromkeys(figure for group in groups for figure in group.figures)
    table("each figure", heads, {name: [number(group.figures.get(name)) for group in groups] for name in names})
    for group in groups[1:]:
        rows = {name: [number(found), verdict(found)] for name, found in group.differences.items()}
        table("", [f"{group.name} - {groups[0].name}", ""], rows)
    say("KID and Fréchet distance: lower is better")
    if any(len(group.seeds) > 1 for group in groups):
        say("±: 95 % interval over training seeds, for a difference Welch's")
        say("each row stands by itself: of runs that do not differ one row in twenty shows a difference")
    for note in compared.notes:
        say(f"note: {note}")


def span(counts: Sequence[int]) -> str:
    low, high = min(counts), max(counts)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def chosen(value: Any) -> str:
    return "-" if value is None else f"{value:,}" if type(value) is int else str(value)


def number(found: Estimate | None) -> str:
    if found is None:
        return "-"
    return f"{found.mean:.4g}" if found.high is None else shown({"mean": found.mean, "high": found.high})


def verdict(found: Estimate) -> str:
    if found.low is None or found.high is None:
        return "one seed: no interval"
    return "no difference shown" if found.low <= 0 <= found.high else "lower" if found.high < 0 else "higher"

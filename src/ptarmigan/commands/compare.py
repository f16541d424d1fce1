"""`compare`: group runs that differ only in their seed, and compare the groups with intervals over seeds."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from string import ascii_uppercase
from typing import Any, NamedTuple

from rich.table import Table

from ptarmigan.config import Config, config_of
from ptarmigan.config.sections import UNTRACKED
from ptarmigan.config.values import parse_images, parse_time
from ptarmigan.core.files import Damaged, load_header
from ptarmigan.core.log import read_log
from ptarmigan.core.paths import no_run, user_path
from ptarmigan.core.terminal import print_lines
from ptarmigan.core.types import UserError, printable, shorten
from ptarmigan.evaluation import intervals
from ptarmigan.evaluation.report import Rows, format_interval, html_table, text_of
from ptarmigan.generator.header import load_run_record, read_scores
from ptarmigan.training.run_folder import loss_named

PROTOCOL_KEYS = (
    "extractor", "weights_sha256", "input", "images_a_set", "held_out_images", "train_images", "data_fingerprint",
)  # fmt: skip
MAX_COLUMNS = 3  # groups in a table, so that it fits in 80 columns
DECIDING = "KID", "select KID, last"  # the figures that say which group is better: the first that both have


@dataclass(frozen=True)
class Estimate:
    """A mean over training seeds, or a difference of two means, with its 95 % interval: None for a single seed."""

    mean: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Group:
    """Runs that differ only in their seed."""

    name: str  # A, B, ...
    runs: tuple[str, ...]
    seeds: tuple[int, ...]
    images_seen: tuple[int, ...]  # by the generators that were scored
    figures: dict[str, Estimate]
    differences: dict[str, Estimate]  # from the figures of the first group; empty for the first

    @classmethod
    def of(
        cls,
        name: str,
        members: Sequence[RunRecord],
        scores: Mapping[str, RunScores],
        figures: Mapping[str, Sequence[float]],
        first: Mapping[str, Sequence[float]],
    ) -> Group:
        """A group and its estimates, from its figures and those of the first group, each by name and run."""
        return cls(
            name,
            tuple(run.name for run in members),
            tuple(run.config.train.seed for run in members),
            tuple(scores[run.name].images_seen for run in members),
            {figure: estimate(values) for figure, values in figures.items()},
            {figure: estimate_difference(of, first[figure]) for figure, of in figures.items() if figure in first},
        )


@dataclass(frozen=True)
class Comparison:
    """What `compare` returns; its text is what the command prints, and a notebook shows it as tables."""

    verdict: str  # whether the budgets differ, and which group is better than the first, or that it cannot be told
    source: str  # of the figures: their protocol
    groups: tuple[Group, ...]
    choices: dict[str, tuple[Any, ...]]  # config field -> its value in each group, if they are not all equal
    notes: tuple[str, ...]

    def __str__(self) -> str:
        return text_of(lines(self))

    def _repr_html_(self) -> str:
        parts = [f"<p><b>{escape(printable(self.verdict))}</b></p>"]
        parts += [html_table(rows) for _, rows in tables(self)]
        facts = [self.source, *map(describe, self.groups), *self.notes]
        return "".join(parts) + f"<ul>{''.join(f'<li>{escape(printable(fact))}</li>' for fact in facts)}</ul>"


def compare(*runs: str | Path) -> Comparison:
    """Compare runs by their scores: the mean over training seeds for each config, and its difference from the first.

    Runs that differ only in `seed`, or in fields that do not affect the result (where and how fast a run is computed),
    are one group.  The figures come from an extractor with which all runs were scored (`ptarmigan score RUN`), each a
    mean over generation seeds; if there is none, they are the live KID to the select part.  Intervals over training
    seeds are Student's, and Welch's for differences; a single seed has none.

    Raises UserError if a folder is not a run, if images, split or score protocols differ, if two runs have the same
    config and seed, or if a run has no score at all.
    """
    if len(runs) < 2:
        text = "compare needs at least 2 runs, as in `ptarmigan compare runs/photos-1 runs/photos-2`"
        raise UserError(text, "value-invalid")
    paths = [user_path(run, "run") for run in runs]
    if twice := [path for path, count in Counter(path.resolve() for path in paths).items() if count > 1]:
        raise UserError(f"{twice[0]} is given twice: name each run once", "value-invalid")
    records = [RunRecord.open(run) for run in paths]
    check_same_images(records)
    by_choices = group_by_config(records)
    source, scores, notes = choose_scores(records)
    groups: list[Group] = []
    first: dict[str, list[float]] = {}
    for letter, members in zip(group_names(), by_choices.values(), strict=False):
        figures = shared_figures(members, scores, notes)
        groups.append(Group.of(letter, members, scores, figures, first))
        first = first or figures
    choices = [dict(key) for key in by_choices]
    fields = {field: tuple(values[field] for values in choices) for field in choices[0]}
    differing = {field: values for field, values in fields.items() if len(set(values)) > 1}
    notes += other_differences(records, scores)
    if not {"time", "images"} & differing.keys() and len({of_run.images_seen for of_run in scores.values()}) > 1:
        notes.append("the runs have not seen the same number of images, which may explain part of a difference")
    return Comparison(conclude(groups, differing), source, tuple(groups), differing, tuple(notes))


def conclude(groups: Sequence[Group], choices: dict[str, tuple[Any, ...]]) -> str:
    """Whether the budgets differ, and for each group whether it is better than the first, in words."""
    first, *others = groups
    if not others:
        return (
            "All runs have one config: there is nothing to choose between, and the intervals are those over its seeds."
        )
    sentences = []
    if "time" in choices or "images" in choices:
        budgets = []
        for at, group in enumerate(groups):
            time, images = (choices[name][at] if name in choices else None for name in ("time", "images"))
            budget = " and ".join([*([time] if time else []), *([f"{images:,} images"] if images else [])])
            budgets.append(f"{group.name} {budget or 'another'}, {format_range(group.images_seen)} images seen")
        sentences.append(f"The budgets differ ({'; '.join(budgets)}): this alone may explain a difference.")
    for group in others:
        figure = next((name for name in DECIDING if name in group.differences), None)
        of = group.differences[figure] if figure else None
        unclear = f"It cannot be told whether {group.name} or {first.name} is better"
        if of is None or figure is None:
            sentences.append(f"{unclear}: they have no KID in common.")
        elif of.low is None or of.high is None:
            one = [each.name for each in (first, group) if len(each.seeds) == 1]
            sentences.append(f"{unclear}: {' and '.join(one)} {'have' if len(one) > 1 else 'has'} one seed only.")
        elif of.low <= 0 <= of.high:
            sentences.append(f"{unclear}: their {figure} differs by {format_estimate(of)}, which is within chance.")
        else:
            better, worse = (group, first) if of.mean < 0 else (first, group)
            size = format_estimate(Estimate(abs(of.mean), None, abs(of.mean) + of.high - of.mean))
            sentences.append(f"{better.name} is better than {worse.name}: its {figure} is lower by {size}.")
    return " ".join(sentences)


class RunRecord(NamedTuple):
    """What a run's folder holds."""

    name: str
    config: Config
    record: dict[str, Any]  # of config.json
    reports: dict[str, Any]  # extractor -> report on its generator
    live: dict[int, float]  # images seen -> live score
    end: int | None  # of training, in images; None: not planned yet

    @classmethod
    def open(cls, run: Path) -> RunRecord:
        if (run / "model.safetensors").is_file():
            raise UserError(f"{run} is a generator folder: name the folder of its run", "not-a-run")
        if not (run / "config.json").is_file():
            raise no_run(run)
        try:
            record = load_run_record(run)
        except Damaged as error:
            text = f"{error}; run `ptarmigan train` with the run's options again to rewrite it"
            raise UserError(text, "file-damaged") from None
        live: dict[int, float] = {}
        end = None
        for line in read_log(run / "metrics.jsonl"):
            seen = line["images_seen"]
            live = {at: kid for at, kid in live.items() if at <= seen}  # the run was rolled back from beyond
            if "select_kid" in line:
                live[seen] = line["select_kid"]
            end = line.get("end", end)
        return cls(str(run), config_of(record), record, read_reports(run / "generator"), live, end)


class RunScores(NamedTuple):
    images_seen: int
    figures: dict[str, float]


def read_reports(folder: Path) -> dict[str, Any]:
    """The reports on the generator in a folder, by extractor."""
    try:
        sha256 = load_header(folder / "model.safetensors").meta["sha256"]
        return read_scores(folder, sha256)
    except Damaged:  # or missing
        return {}


def config_choices(run: RunRecord) -> dict[str, Any]:
    """What defines a group: the budget, `init`, and every config field that affects the result, except the seed."""
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


def check_same_images(runs: Sequence[RunRecord]) -> None:
    """Raise UserError if the images of a run, or their split, are not those of the first run."""

    def images(run: RunRecord) -> tuple[Any, ...]:
        return run.record["data"]["fingerprint"], run.config.data.split, run.config.data.group

    if others := [run.name for run in runs if images(run) != images(runs[0])]:
        text = f"{shorten(others)}: the images or their split differ from those of {runs[0].name}, so scores cannot be "
        raise UserError(f"{text}compared: use the same images, --size, --split and --group", "data-mismatch")


def group_by_config(runs: Sequence[RunRecord]) -> dict[tuple[tuple[str, Any], ...], list[RunRecord]]:
    """Choices -> the runs with them, in the given order; raises UserError if two of them have the same seed."""
    out: dict[tuple[tuple[str, Any], ...], list[RunRecord]] = {}
    for run in runs:
        group = out.setdefault(tuple(config_choices(run).items()), [])
        if same := [other.name for other in group if other.config.train.seed == run.config.train.seed]:
            text = f"{same[0]} and {run.name} have the same config and seed {run.config.train.seed}, so they are not"
            raise UserError(f"{text} independent: leave one out, or train one with another --seed", "same-seed")
        group.append(run)
    return out


def group_names() -> Iterator[str]:
    """A to Z, AA to ZZ."""
    return (first + second for first in ("", *ascii_uppercase) for second in ascii_uppercase)


def choose_scores(runs: Sequence[RunRecord]) -> tuple[str, dict[str, RunScores], list[str]]:
    """The source of the figures, the scores by run name, and notes; raises UserError if there are no common scores."""
    counts = Counter(extractor for run in runs for extractor in run.reports)
    extractor, count = counts.most_common(1)[0] if counts else ("", 0)
    if count == len(runs):
        reports = {run.name: run.reports[extractor] for run in runs}
        seen = {name: report["protocol"]["images_seen"] for name, report in reports.items()}
        scores = {name: RunScores(seen[name], report_figures(report)) for name, report in reports.items()}
        return check_same_protocol(reports), scores, []
    if without := [run.name for run in runs if not run.live]:
        text = f"the runs have no score in common, and there is no live score of {shorten(without)}"
        raise UserError(f"{text}: run `ptarmigan score RUN` for each run", "no-scores")
    scores = {}
    for run in runs:
        last, best = max(run.live), min(run.live.values())
        scores[run.name] = RunScores(last, {"select KID, last": run.live[last], "select KID, best": best})
    lacking = [run.name for run in runs if extractor not in run.reports]
    return (
        "live scores: KID to the select part at snapshots; the best of many is optimistically biased",
        scores,
        [f"for held-out scores{f' by {extractor}' * bool(count)} run `ptarmigan score RUN` for: {', '.join(lacking)}"],
    )


def check_same_protocol(reports: dict[str, Any]) -> str:
    """The protocol of the reports in words; raises UserError if one differs from the first."""
    protocols = {name: report["protocol"] for name, report in reports.items()}
    first_name, first = next(iter(protocols.items()))
    for key in PROTOCOL_KEYS:
        if others := [name for name, protocol in protocols.items() if protocol[key] != first[key]]:
            other = protocols[others[0]][key]
            text = (
                f"{key.replace('_', ' ')} is {first[key]} in the scores of {first_name}, {other} in {shorten(others)}"
            )
            remedy = "score them again with the same -n, --weights and images, and a long enough --time"
            raise UserError(f"{text}: {remedy}", "protocols-differ")
    return (
        f"held-out scores by {first['extractor']}, weights {first['weights_sha256'][:8]}: {first['images_a_set']:,} "
        f"images per set against {first['held_out_images']:,} held-out images; {first['input']}"
    )


def shared_figures(runs: Sequence[RunRecord], scores: dict[str, RunScores], notes: list[str]) -> dict[str, list[float]]:
    """Figure -> its value in each run, for the figures that every run has."""
    by_run = [scores[run.name].figures for run in runs]
    names = dict.fromkeys(name for figures in by_run for name in figures)
    out = {name: [figures[name] for figures in by_run] for name in names if all(name in figures for figures in by_run)}
    if lost := [name for name in names if name not in out]:
        notes.append(f"left out, because some of {shorten([run.name for run in runs])} lack it: {shorten(lost)}")
    return out


def report_figures(report: dict[str, Any]) -> dict[str, float]:
    """The figures of a report that are compared, each a mean over generation seeds."""
    out: dict[str, float] = {}
    for name, row in report["figures"].items():
        label = {"frechet": report["protocol"]["frechet_is_called"], "kid": "KID"}.get(name, name)
        out[label] = row["held_out"]["mean"]
        if name == "kid":
            out["KID gap"] = row["excess"]["mean"]
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


def other_differences(runs: Sequence[RunRecord], scores: dict[str, RunScores]) -> list[str]:
    """Notes on runs that have not ended, and on differing precision and versions."""
    notes = []
    for run in runs:
        seen = scores[run.name].images_seen
        if run.end is None or seen < run.end:
            notes.append(f"{run.name} has not ended: {seen:,} images seen{f' of {run.end:,}' if run.end else ''}")
    for name in ("precision", "ptarmigan", "torch"):
        values = {run.name: {**run.record["versions"], "precision": run.record["precision"]}[name] for run in runs}
        if len(set(values.values())) > 1:
            notes.append(f"{name} differs: {', '.join(f'{value} in {run}' for run, value in values.items())}")
    return notes


def estimate(values: Sequence[float]) -> Estimate:
    return Estimate(*intervals.interval(values)) if len(values) > 1 else Estimate(values[0])


def estimate_difference(values: Sequence[float], against: Sequence[float]) -> Estimate:
    if min(len(values), len(against)) > 1:
        return Estimate(*intervals.difference(values, against))
    return Estimate(statistics.fmean(values) - statistics.fmean(against))


def describe(group: Group) -> str:
    """The runs of a group, in one line."""
    seeds = ("seeds " if len(group.seeds) > 1 else "seed ") + ", ".join(map(str, group.seeds))
    return f"{group.name}: {seeds}; {format_range(group.images_seen)} images seen; {', '.join(group.runs)}"


def tables(comparison: Comparison) -> list[tuple[str, Rows]]:
    """Each table with its title; a wide one in parts of MAX_COLUMNS groups."""
    out: list[tuple[str, Rows]] = []

    def table(title: str, heads: Sequence[str], rows: dict[str, list[str]]) -> None:
        for start in range(0, len(heads), MAX_COLUMNS):
            part = slice(start, start + MAX_COLUMNS)
            out.append((title, [["", *heads[part]], *([name, *cells[part]] for name, cells in rows.items())]))

    groups = comparison.groups
    if comparison.choices:
        rows = {field: [format_value(value) for value in values] for field, values in comparison.choices.items()}
        table("differences in config", [group.name for group in groups], rows)
    heads = [
        f"{group.name}, {len(group.seeds)} seeds" if len(group.seeds) > 1 else f"{group.name}, one seed"
        for group in groups
    ]
    names = dict.fromkeys(figure for group in groups for figure in group.figures)
    table("scores", heads, {name: [format_estimate(group.figures.get(name)) for group in groups] for name in names})
    for group in groups[1:]:
        rows = {name: [format_estimate(of), verdict(of)] for name, of in group.differences.items()}
        table("", [f"{group.name} - {groups[0].name}", ""], rows)
    return out


def lines(comparison: Comparison) -> list[str | Table]:
    """The comparison for a terminal."""
    groups = comparison.groups
    out: list[str | Table] = [comparison.verdict, comparison.source, *map(describe, groups)]
    for title, (head, *body) in tables(comparison):
        table = Table(*map(printable, head), title=title, title_justify="left")
        for row in body:
            table.add_row(*map(printable, row))
        out.append(table)
    out.append("KID and Fréchet distance: lower is better")
    if any(len(group.seeds) > 1 for group in groups):
        out.append("±: 95 % interval over training seeds (Welch's for a difference)")
        out.append("each row is a separate test: without a real difference, about 1 row in 20 still shows one")
    return [*out, *(f"note: {note}" for note in comparison.notes)]


def print_comparison(comparison: Comparison) -> None:
    print_lines(*lines(comparison))


def format_range(counts: Sequence[int]) -> str:
    low, high = min(counts), max(counts)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def format_value(value: Any) -> str:
    return "-" if value is None else f"{value:,}" if type(value) is int else str(value)


def format_estimate(of: Estimate | None) -> str:
    if of is None:
        return "-"
    return f"{of.mean:.4g}" if of.high is None else format_interval({"mean": of.mean, "high": of.high})


def verdict(of: Estimate) -> str:
    if of.low is None or of.high is None:
        return "one seed: no interval"
    return "no difference shown" if of.low <= 0 <= of.high else "lower" if of.high < 0 else "higher"

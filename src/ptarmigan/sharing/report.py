"""The report of a run: one page of HTML that needs no network, with its samples, findings, charts and scores."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ptarmigan.config import config_of, flatten
from ptarmigan.core.console import duration
from ptarmigan.core.files import Damaged, load_header, load_json
from ptarmigan.core.log import read_rows
from ptarmigan.core.types import COLOURS_IN_WORDS, counted
from ptarmigan.diagnosis.columns import Log
from ptarmigan.diagnosis.findings import KINDS, OF_SAMPLES, verdict
from ptarmigan.diagnosis.story import Event, events, now
from ptarmigan.evaluation.report import Rows, class_rows, html_table, score_rows, sentences
from ptarmigan.generator.header import load_run_record, read_scores
from ptarmigan.sharing.charts import chart_data, chart_section, curves_of
from ptarmigan.sharing.film import film, film_data, film_section, frame_of
from ptarmigan.sharing.markup import as_json, asset, text

NAME = "report.html"
CLASSES, OPEN = 200, 20  # that are listed; that are so without a click

Row = Mapping[str, Any]  # of a log
Record = Mapping[str, Any]  # of a run, from config.json


def page(run: Path, private: bool = False) -> str:
    """The report of a run as it is now, finished or not, in less than 5 MB.

    With `private` it also shows the training images of RUN/private/copies.png, which `score` writes.  Raises UserError
    where RUN/config.json is missing or damaged, or a file may not be read.
    """
    record, rows = load_run_record(run), read_rows(run / "metrics.jsonl")
    fields = config_of(record).flat()
    log = Log.of_run(rows, fields, str(run), record["data"]["split"]["train"])
    told = events(log) if rows else []
    found = now(told)
    said = verdict(log, found)
    pictures, panels = film(run), curves_of(rows)
    first = "".join(f"<dt>{name}</dt><dd>{text(fact)}</dd>" for name, fact in facts(run, record, [*rows.values()]))

    def caption(seen: int) -> str:
        return describe(seen, rows.get(seen, {}))

    parts = {
        "title": text(run.resolve().name),
        "verdict": text(said),
        "severity": found[0].severity if found else "healthy" if said == "healthy" else "early",
        "facts": first,
        "film": film_section(pictures, caption),
        "story": story_section(told, rows, log.judged > 0),
        "charts": chart_section(panels),
        "scores": score_section(run) + (copies_figure(run) if private else ""),
        "shown": "This page shows training images." if private else "This page shows no training image.",
        "data": data_section(record),
        "config": config_section(run, record, fields),
        "version": text(record["versions"]["ptarmigan"]),
        "film_data": as_json(film_data(pictures, caption)),
        "chart_data": as_json(chart_data(panels)),
        "style": asset("report/report.css"),
        "script": asset("report/report.js"),
    }
    return re.sub(r"\[\[(\w+)\]\]", lambda name: parts[name[1]], asset("report/report.html"))


def facts(run: Path, record: Record, rows: Sequence[Row]) -> list[tuple[str, str]]:
    """What the page says first: how far the run is, its live score and its best generator."""
    out = []
    if ticks := [row for row in rows if "clock" in row]:
        last = ticks[-1]
        done = "finished" if last.get("finished") else "not finished when this page was written"
        # the clock of a line is read before the snapshot that the line may have
        until = " until the last snapshot began" if "findings" in last else ""
        out.append(("Training", f"{last['images_seen']:,} images seen in {duration(last['clock'])}{until}, {done}"))
    if scores := [score for row in rows if (score := live_score(row))]:
        out.append(("Live score", scores[-1]))
    try:
        seen = load_json(run / "best" / "config.json")["images_seen"]
        out.append(("Best generator", f"in best/, after {seen:,} images"))
    except (Damaged, KeyError):  # or missing
        pass
    versions, system = record["versions"], record.get("machine", {}).get("system", "")
    made = f"ptarmigan {versions['ptarmigan']}, torch {versions['torch']}" + (f", {system}" if system else "")
    return [*out, ("Made by", made)]


def live_score(row: Row) -> str:
    """The live score of a row in words; "" if it has none."""
    if not {"select_kid", "select_kid_error"} <= row.keys():
        return ""
    return f"KID {row['select_kid']:.3g} ± {2 * row['select_kid_error']:.2g} (2 standard errors)"


def describe(seen: int, row: Row) -> str:
    """What stands below a grid of samples."""
    found = (", ".join(row["findings"]) or "no findings") if "findings" in row else ""
    return "; ".join(filter(None, [f"{seen:,} images seen", live_score(row), found]))


def story_section(told: Sequence[Event], rows: Mapping[int, Row], judged: bool) -> str:
    """The snapshots and the findings on a time line; `judged`: whether samples were."""
    if not rows:
        return "<p>Nothing is logged yet.</p>"
    end = max(rows)
    marks = "".join(
        f'<i class="{"warning" if row["findings"] else "healthy"}" '
        f'style="left:min({100 * seen / end:.2f}%,100% - .2rem)" title="{text(describe(seen, row))}"></i>'
        for seen, row in rows.items()
        if "findings" in row
    )
    explained = {id(effect): cause for cause in told for effect in cause.explained}
    blocks = (
        "".join(event_block(event, end, explained.get(id(event))) for event in told) or "<p>There are no findings.</p>"
    )
    unknown = "" if judged else f"<p>Not known without scored samples: {', '.join(OF_SAMPLES)}.</p>"
    return (
        (f'<p>Snapshots, with findings or without:</p><div class="track snapshots">{marks}</div>' if marks else "")
        + f'<div class="ends"><span>0</span><span>{end:,} images seen</span></div>'
        + blocks
        + unknown
    )


def event_block(event: Event, end: float, cause: Event | None) -> str:
    """A finding: when it held, what was measured, and what to do, if another finding is not its cause."""
    finding, until = event.finding, end if event.until is None else event.until
    when = f"since {event.since:,.0f} images" if event.until is None else f"{event.since:,.0f} to {until:,.0f} images"
    effects = ", ".join(other.finding.name for other in event.explained)
    remedy = f"What to do: {remedy_html(finding.remedy)}"
    if cause is not None:
        remedy = f"What to do is said under {text(cause.finding.name)}, which explains it."
    left, right = 100 * event.since / end, 100 * until / end
    return (
        f'<div class="event {finding.severity}"><h3>{text(finding.name)}: {text(KINDS[finding.name].verdict)}</h3>'
        f'<div class="track"><i style="left:min({left:.2f}%,100% - .4rem);width:{right - left:.2f}%"></i></div>'
        f"<p>{finding.severity}, {when}: {text(finding.evidence)}; reported if {text(finding.threshold)} "
        f"({text(finding.source)}).{f' It explains {text(effects)}.' if effects else ''}</p>"
        f"<p>{remedy}</p></div>"
    )


def remedy_html(remedy: str) -> str:
    """A remedy as code, where it is a command."""
    return f"<code>{text(remedy)}</code>" if remedy.startswith("ptarmigan ") else text(remedy)


def score_section(run: Path) -> str:
    """What `score` found for the run's generators."""
    out = []
    for folder, name in (("generator", "The last generator"), ("best", "The best generator")):
        if not (run / folder / "scores.json").exists():
            continue
        try:
            reports = read_scores(run / folder, load_header(run / folder / "model.safetensors").meta["sha256"])
        except Damaged as error:
            out.append(f"<p>{text(str(error))}</p>")
        else:
            out += [f"<h3>{name}, {text(kind)}</h3>{score_block(report)}" for kind, report in reports.items()]
    return "".join(out) or f"<p>Not scored yet: <code>{text(f'ptarmigan score {shlex.quote(str(run))}')}</code></p>"


def score_block(report: dict[str, Any]) -> str:
    """A report of `score`: the verdict, the worst class, and the tables."""
    distances = {
        name: entry["distance"]["mean"] for name, entry in report.get("classes", {}).items() if "distance" in entry
    }
    out = f"<p><strong>{text(report['verdict'])}</strong></p>" if "verdict" in report else ""
    if len(distances) > 1:
        worst = max(distances, key=lambda name: distances[name])
        out += f"<p>Worst class: {text(worst)}, at distance {distances[worst]:.2f}; other classes are at 1.</p>"
    out += "".join(table_html(rows) for rows in (score_rows(report), class_rows(report)[: CLASSES + 1]) if rows)
    return out + "".join(f'<p class="soft">{text(sentence)}</p>' for sentence in sentences(report))


def table_html(rows: Rows) -> str:
    """A table that scrolls sideways, and that opens by a click where it is long."""
    table = f'<div class="wide">{html_table(rows)}</div>'
    return f"<details><summary>{len(rows) - 1} classes</summary>{table}</details>" if len(rows) > OPEN + 1 else table


def copies_figure(run: Path) -> str:
    """The generated images that may be copies, each with its nearest training image."""
    words = "Generated images that may be copies, each followed by the training image that is nearest to it"
    frame = frame_of(run / "private" / "copies.png")
    return f"<figure>{frame.html(words)}<figcaption>{words}</figcaption></figure>" if frame else ""


def data_section(record: Record) -> str:
    """The images in words, and how many there are of each class."""
    spec, data = record["spec"], record["data"]
    parts = ", ".join(f"{count:,} {part}" for part, count in data["split"].items())
    names, counts = spec["class_names"], record["data"].get("train_counts")
    out = (
        f"<p>{text(data['name'])}: {counted(len(names), 'class')}; images of {spec['height']}x{spec['width']}, "
        f"{COLOURS_IN_WORDS[spec['channels']]}; {parts}. Fingerprint <code>{text(data['fingerprint'])}</code></p>"
    )
    if not counts:
        return out
    listed = [[name, f"{count:,}"] for name, count in zip(names, counts, strict=False)]
    more = f"<p>and {counted(len(names) - CLASSES, 'more class')}</p>" if len(names) > CLASSES else ""
    return f"{out}{table_html([['class', 'training images'], *listed[:CLASSES]])}{more}"


def config_section(run: Path, record: Record, fields: Mapping[str, Any]) -> str:
    """The command that repeats the run, and every option with its value."""
    given = {key for key, value in flatten(record.get("asked", {})).items() if value is not None}
    table = [["option", "value", ""]]
    table += [
        [name, "" if value is None else str(value), "given" if name in given else ""] for name, value in fields.items()
    ]
    command = f"ptarmigan train --config {shlex.quote(f'{run}/config.json')}"
    return (
        "<p>To repeat the run:</p>"
        f'<pre tabindex="0"><code>{text(command)}</code></pre>'
        f"<details><summary>Recipe {text(record['config']['recipe'])}, and every option</summary>"
        f'<div class="wide">{html_table(table)}</div></details>'
    )

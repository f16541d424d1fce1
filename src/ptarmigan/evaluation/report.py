"""The report of a score in words: for a terminal, as Markdown for a model card, and as HTML for a notebook."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ptarmigan.core.records import Accuracy, Columns, Copies, Interval, OfClass, Protocol
from ptarmigan.core.terminal import print_lines
from ptarmigan.core.types import printable

ORDER = "frechet", "kid", "precision", "recall", "density", "coverage", "variety"
MEANINGS = {
    "frechet": "distance from real images",
    "kid": "distance, fair for few images",
    "precision": "samples that look real",
    "recall": "real images within reach",
    "density": "how typical samples are",
    "coverage": "real images with a like sample",
    "variety": "how much samples differ",
}
LOWER = "frechet", "kid", "distance"  # of these less is better
CLASS_MEANINGS = (  # of the columns, all of slightly blurred images
    "recognised: how many samples a classifier of real images takes for the class asked for; of real: real images",
    "distance: how far from real images of the class; 0 for real images, 1 for images of the other classes",
    "variety: how much samples of the class differ from each other; 1 for real images",
)
Rows = list[list[str]]  # a header, then the lines of a table


@dataclass(frozen=True)
class Score:
    """What `score` returns: `verdict` in words and what it is based on; a notebook shows it as tables.

    An interval has `mean`, `low` and `high`: the mean over the sets and its 95 % interval.  docs/reading-scores.md
    explains the figures.
    """

    verdict: str
    figures: dict[str, Columns]  # over all classes: frechet (with enough images), kid, precision, recall, ...
    variety: Interval
    copies: Copies
    notes: list[str]
    protocol: Protocol
    classes: dict[str, OfClass] | None = None  # None where the classes are not known
    accuracy: Accuracy | None = None
    picture: str | None = None  # path of the picture of possible copies
    written: str | None = None  # where the report was written

    def __str__(self) -> str:
        return text_of(lines(self.record()))

    def _repr_html_(self) -> str:
        record = self.record()
        tables = "".join(html_table(rows) for rows in (score_rows(record), class_rows(record)) if rows)
        notes = "".join(f"<li>{escape(printable(sentence))}</li>" for sentence in sentences(record))
        return f"<p><b>{escape(printable(self.verdict))}</b></p>{tables}<ul>{notes}</ul>"

    def record(self) -> dict[str, Any]:
        """The report as in scores.json."""
        return {name: value for name, value in vars(self).items() if value is not None}


def score_rows(report: dict[str, Any], details: bool = False) -> Rows:
    """A row for each score over all classes; `details` are the scores against training images, in place of words."""
    columns = {"held_out": "your samples", "floor": "real images", "excess": "gap"}
    columns |= {"train": "against training"} if details else {}
    out = [["", *columns.values(), *([] if details else ["what it measures"])]]
    for name in ORDER:
        if name in report["figures"]:
            cells = [format_interval(report["figures"][name][column]) for column in columns]
        elif name in report:  # variety is a share of that of real images
            cells = [format_interval(report[name]), "1", f"{report[name]['mean'] - 1:.2f}", *(["-"] if details else [])]
        else:
            continue
        out.append([label_of(name, report), *cells, *([] if details else [MEANINGS[name]])])
    return out


def label_of(name: str, report: dict[str, Any]) -> str:
    """The name of a figure, with an arrow to where it is better."""
    label = {"frechet": report["protocol"]["frechet_is_called"], "kid": "KID"}.get(name, name)
    return f"{label} {'↓' if name in LOWER else '↑'}"


def class_rows(report: dict[str, Any]) -> Rows:
    """A row for each class with the figures of its verdict; [] if the classes are not known."""
    out = [["class", "images", "verdict", "recognised ↑", "of real", "distance ↓", "variety ↑"]]
    for name, entry in report.get("classes", {}).items():
        recognised = entry.get("recognised")
        out.append([
            name,
            f"{entry['train_images'] + entry['held_out_images']:,}" if "train_images" in entry else "-",
            entry.get("call", "-"),
            *(f"{recognised[side]['mean']:.0%}" if recognised else "-" for side in ("generated", "real")),
            *(format_interval(entry[figure]) if figure in entry else "-" for figure in ("distance", "variety")),
        ])  # fmt: skip
    return out if len(out) > 1 else []


def class_detail_rows(report: dict[str, Any]) -> Rows:
    """A row for each class with its scores over images that are not blurred; [] if the classes are not known."""
    out = [["class", "held out", "KID ↓", "of real", "accuracy ↑", "of real", "diversity ↑"]]
    for name, entry in report.get("classes", {}).items():
        kid, accuracy = entry.get("kid", {}), entry.get("accuracy")
        against = kid.get("held_out", kid.get("train"))
        out.append([
            name,
            f"{entry['held_out_images']:,}",
            (format_interval(against) + ("" if "held_out" in kid else " (training)")) if against else "-",
            format_interval(kid["floor"]) if "floor" in kid else "-",
            f"{accuracy['generated']['mean']:.3f}" if accuracy else "-",
            f"{accuracy['held_out']:.3f}" if accuracy else "-",
            f"{entry['diversity']['mean']:.2f}" if "diversity" in entry else "-",
        ])  # fmt: skip
    return out if len(out) > 1 else []


def sentences(report: dict[str, Any]) -> list[str]:
    """The lines below the tables: accuracy, copies, notes, and the protocol."""
    accuracy, copies, protocol, out = report.get("accuracy", {}), report["copies"], report["protocol"], []
    if "generated" in accuracy:
        out.append(
            f"class accuracy: {format_interval(accuracy['generated'])}; for held-out images {accuracy['held_out']:.3f} "
            "(classifier trained on training images; mean over classes)"
        )
    if "cas" in accuracy:
        cas, extractor = accuracy["cas"], protocol["frechet_is_called"].removeprefix("FD-")
        out.append(
            f"CAS-{'Inception' if extractor.startswith('FID') else extractor} (accuracy on held-out images of a "
            "classifier of these features trained on generated images): "
            f"{format_interval(cas['generated'])}; trained on as many real images: {format_interval(cas['train'])}"
        )
    c_t = ""
    if "c_t" in copies:
        null = f", 0±{2 * copies['c_t_null_deviation']:.1f} without copies" if "c_t_null_deviation" in copies else ""
        c_t = f"C_T {format_interval(copies['c_t'])} (far below 0 means copies{null}); "
    out.append(
        f"copies: {c_t}authenticity {format_interval(copies['authenticity'])}, for held-out images "
        f"{copies['authenticity_held_out']:.3f}; mean distance to the nearest training image, relative to that of "
        f"held-out images, {format_interval(copies['distance_ratio'])}; closer to a training image than any held-out "
        f"image: {copies['closer_than_held_out']['mean']:.1%}"
    )
    out += [f"note: {note}" for note in report["notes"]]
    origin = (
        f"seeds {protocol['seeds'][0]} to {protocol['seeds'][-1]}" if "seeds" in protocol else "parts of the images"
    )
    out.append(
        f"protocol: {protocol['sets']} sets ({origin}) of {protocol['images_a_set']:,} images against "
        f"{protocol['held_out_images']:,} held-out and {protocol['train_images']:,} training images; "
        f"{protocol['input']}; {protocol['extractor']}, weights {protocol['weights_sha256'][:8]}; mean and 95 % "
        "interval over the sets"
    )
    return out


def headline(report: dict[str, Any]) -> str:
    """One line: the verdict, Fréchet distance and KID with real images' value, and class accuracy."""
    parts = []
    for name in ("frechet", "kid"):
        if row := report["figures"].get(name):
            label = label_of(name, report).split()[0]
            parts.append(f"{label} {format_interval(row['held_out'])} (real images {format_interval(row['floor'])})")
    accuracy = report.get("accuracy", {})
    if "generated" in accuracy:
        real = f"held-out images {accuracy['held_out']:.3f}"
        parts.append(f"class accuracy {format_interval(accuracy['generated'])} ({real})")
    return " ".join([*([report["verdict"]] if "verdict" in report else []), ", ".join(parts)])


def format_interval(value: dict[str, float]) -> str:
    """Mean±half width, with as many digits as the interval justifies."""
    half = value["high"] - value["mean"]
    if half < 1e-6 or abs(value["mean"]) > 1e5:
        return f"{value['mean']:.4g}±{half:.2g}" if half >= 1e-6 else f"{value['mean']:.4g}±0"
    digits = 2
    while half < 2 * 10**-digits:
        digits += 1
    return f"{round(value['mean'], digits) + 0.0:.{digits}f}±{half:.{digits}f}"  # + 0.0: no -0.00


def markdown(report: dict[str, Any]) -> str:
    """The whole report for a model card."""
    parts = [f"**{_escaped(report['verdict'])}**"] if "verdict" in report else []
    parts += [_table(rows) for rows in (score_rows(report), class_rows(report), class_detail_rows(report)) if rows]
    return "\n\n".join([*parts, *(f"- {_escaped(sentence)}" for sentence in sentences(report))])


def _table(rows: Rows) -> str:
    head, *body = ["| " + " | ".join(map(_escaped, line)) + " |" for line in rows]
    return "\n".join([head, "|" + "---|" * len(rows[0]), *body])


def _escaped(text: str) -> str:
    return " ".join(text.split()).replace("|", r"\|")


def html_table(rows: Rows) -> str:
    """A table for a notebook."""
    head, *body = rows
    lines = ["".join(f"<th>{escape(printable(cell))}</th>" for cell in head)]
    lines += ["".join(f"<td>{escape(printable(cell))}</td>" for cell in line) for line in body]
    return f"<table>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"


def lines(report: dict[str, Any], details: bool = False) -> list[str | Table]:
    """The report for a terminal: the verdict, the tables, and what else there is to say."""
    out: list[str | Table] = [report["verdict"]]
    for rows in (score_rows(report, details), class_rows(report), class_detail_rows(report) if details else []):
        if rows:
            table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
            for name in rows[0]:
                table.add_column(name, overflow="fold")
            for line in rows[1:]:
                table.add_row(*(Text(printable(cell)) for cell in line))
            out.append(table)
    out += CLASS_MEANINGS if "classes" in report else ()
    out += sentences(report)
    if "picture" in report:
        out.append(f"generated images that may be copies, with their nearest training images: {report['picture']}")
    if "written" in report:
        out.append(f"report written to {report['written']}")
    return out


def text_of(lines: Sequence[str | Table]) -> str:
    """What `print_lines` prints on a terminal of 100 columns."""
    text = io.StringIO()
    console = Console(file=text, width=100)
    for line in lines:
        shown = printable(line) if isinstance(line, str) else line
        console.print(shown, markup=False, highlight=False, soft_wrap=isinstance(line, str))
    return text.getvalue()


def print_report(report: Score, details: bool = False) -> None:
    print_lines(*lines(report.record(), details))

"""The report of a score in words: for a terminal, and as Markdown for a model card."""

from __future__ import annotations

from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from ptarmigan.core.terminal import print_lines
from ptarmigan.core.types import printable

CAPTION = "generated against held-out and training images; real against held-out; excess"
FIDELITY = "precision", "recall", "density", "coverage"
COLUMNS = {"held_out": "held-out", "train": "training", "floor": "real images", "excess": "excess"}


def score_rows(report: dict[str, Any]) -> list[list[str]]:
    """A header, then a row for each score over all classes, with the columns of COLUMNS."""
    out = [["", *COLUMNS.values()]]
    for name, row in report["figures"].items():
        label = {"frechet": report["protocol"]["frechet_is_called"], "kid": "KID"}.get(name, name)
        out.append([label, *(format_interval(row[column]) for column in COLUMNS)])
    return out


def class_rows(report: dict[str, Any]) -> list[list[str]]:
    """A header, then a row for each class; [] if the classes are not known."""
    out = [["class", "images", "KID", "of real", "accuracy", "of real", "diversity"]]
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
        cas = accuracy["cas"]
        out.append(
            "CAS (accuracy on held-out images of a classifier trained on generated images): "
            f"{format_interval(cas['generated'])}; trained on as many real images: {format_interval(cas['train'])}"
        )
    c_t = f"C_T {format_interval(copies['c_t'])} (far below 0 means copies); " if "c_t" in copies else ""
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
    """One line: Fréchet distance and KID against held-out images, and class accuracy, each with real images' value."""
    rows = [row for row in score_rows(report)[1:] if row[0] not in FIDELITY]
    parts = [f"{name} {held_out} (real images {real})" for name, held_out, _, real, _ in rows]
    accuracy = report.get("accuracy", {})
    if "generated" in accuracy:
        real = f"held-out images {accuracy['held_out']:.3f}"
        parts.append(f"class accuracy {format_interval(accuracy['generated'])} ({real})")
    return ", ".join(parts)


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
    parts = [f"{CAPTION[0].upper()}{CAPTION[1:]}:", _table(score_rows(report))]
    if by_class := class_rows(report):
        parts.append(_table(by_class))
    return "\n\n".join([*parts, *(f"- {sentence}" for sentence in sentences(report))])


def _table(lines: list[list[str]]) -> str:
    escaped = [[" ".join(text.split()).replace("|", r"\|") for text in line] for line in lines]
    head, *body = ["| " + " | ".join(line) + " |" for line in escaped]
    return "\n".join([head, "|" + "---|" * len(lines[0]), *body])


def print_report(report: dict[str, Any]) -> None:
    for title, lines in ((CAPTION, score_rows(report)), ("each class against its held-out images", class_rows(report))):
        if lines:
            table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
            for name in lines[0]:
                table.add_column(name, overflow="fold")
            for line in lines[1:]:
                table.add_row(*(Text(printable(cell)) for cell in line))
            print_lines(title, table)
    print_lines(*sentences(report))
    if "picture" in report:
        print_lines(f"generated images that may be copies, with their nearest training images: {report['picture']}")
    if "written" in report:
        print_lines(f"report written to {report['written']}")

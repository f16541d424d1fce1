"""A score's report in words: for a terminal, and as Markdown for a model card."""

from __future__ import annotations

from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from ptarmigan.core.console import Terminal

AGAINST = "generated against held-out and training images; real against held-out; excess"
FIDELITY = "precision", "recall", "density", "coverage"
COLUMNS = {"held_out": "held-out", "train": "training", "floor": "real images", "excess": "excess"}


def rows(report: dict[str, Any]) -> list[list[str]]:
    """A head, then each figure over all classes, in the columns named above."""
    out = [["", *COLUMNS.values()]]
    for name, row in report["figures"].items():
        called = {"frechet": report["protocol"]["frechet_is_called"], "kid": "KID"}.get(name, name)
        out.append([called, *(shown(row[column]) for column in COLUMNS)])
    return out


def class_rows(report: dict[str, Any]) -> list[list[str]]:
    """A head, then each class: KID, its floor, accuracy, diversity as a share of the real one; [] without classes."""
    out = [["class", "images", "KID", "of real", "accuracy", "of real", "diversity"]]
    for name, entry in report.get("classes", {}).items():
        kid, accuracy = entry.get("kid", {}), entry.get("accuracy")
        against = kid.get("held_out", kid.get("train"))
        out.append([
            name,
            f"{entry['held_out_images']:,}",
            (shown(against) + ("" if "held_out" in kid else " (training)")) if against else "-",
            shown(kid["floor"]) if "floor" in kid else "-",
            f"{accuracy['generated']['mean']:.3f}" if accuracy else "-",
            f"{accuracy['held_out']:.3f}" if accuracy else "-",
            f"{entry['diversity']['mean']:.2f}" if "diversity" in entry else "-",
        ])  # fmt: skip
    return out if len(out) > 1 else []


def sentences(report: dict[str, Any]) -> list[str]:
    """What stands below the tables: accuracy, copies, notes, and the protocol."""
    accuracy, copies, protocol, out = report.get("accuracy", {}), report["copies"], report["protocol"], []
    if "generated" in accuracy:
        out.append(
            f"class accuracy {shown(accuracy['generated'])}, of held-out images {accuracy['held_out']:.3f} "
            "(a classifier trained on the training images; mean over classes)"
        )
    if "cas" in accuracy:
        cas = accuracy["cas"]
        out.append(
            f"CAS, accuracy on held-out images of a classifier trained on generated ones: {shown(cas['generated'])}, "
            f"on as many training images: {shown(cas['train'])}; GAN-test is the class accuracy"
        )
    c_t = f"C_T {shown(copies['c_t'])} (copies: far below 0), " if "c_t" in copies else ""
    out.append(
        f"copies: {c_t}authenticity {shown(copies['authenticity'])}, of held-out images "
        f"{copies['authenticity_held_out']:.3f}; distance to the nearest training image over that of held-out images "
        f"{shown(copies['distance_ratio'])}; nearer to one than any held-out image: "
        f"{copies['closer_than_held_out']['mean']:.1%}"
    )
    out += [f"note: {note}" for note in report["notes"]]
    drawn = f"seeds {protocol['seeds'][0]} to {protocol['seeds'][-1]}" if "seeds" in protocol else "parts of them"
    out.append(
        f"protocol: {protocol['sets']} sets ({drawn}) of {protocol['images_a_set']:,} images against "
        f"{protocol['held_out_images']:,} held-out images, {protocol['train_images']:,} training images; "
        f"{protocol['input']}; {protocol['extractor']}, weights {protocol['weights_sha256'][:8]}; mean and its 95 % "
        "interval over the sets"
    )
    return out


def headline(report: dict[str, Any]) -> str:
    """One line: distance, KID and accuracy on held-out images, each beside the floor."""
    named = [f"{line[0]} {line[1]} (real images {line[3]})" for line in rows(report)[1:] if line[0] not in FIDELITY]
    accuracy = report.get("accuracy", {})
    if "generated" in accuracy:
        named.append(f"class accuracy {shown(accuracy['generated'])} (held-out images {accuracy['held_out']:.3f})")
    return ", ".join(named)


def shown(value: dict[str, float]) -> str:
    """A mean and its interval, with as many digits as the interval is worth."""
    half = value["high"] - value["mean"]
    if half < 1e-6 or abs(value["mean"]) > 1e5:
        return f"{value['mean']:.4g}±{half:.2g}" if half >= 1e-6 else f"{value['mean']:.4g}±0"
    digits = 2
    while half < 2 * 10**-digits:
        digits += 1
    return f"{round(value['mean'], digits) + 0.0:.{digits}f}±{half:.{digits}f}"  # + 0.0: no -0.00


def markdown(report: dict[str, Any]) -> str:
    """The whole report for a model card."""
    parts = [f"{AGAINST[0].upper()}{AGAINST[1:]}:", _table(rows(report))]
    if by_class := class_rows(report):
        parts.append(_table(by_class))
    return "\n\n".join([*parts, *(f"- {sentence}" for sentence in sentences(report))])


def _table(lines: list[list[str]]) -> str:
    escaped = [[" ".join(text.split()).replace("|", r"\|") for text in line] for line in lines]
    head, *body = ["| " + " | ".join(line) + " |" for line in escaped]
    return "\n".join([head, "|" + "---|" * len(lines[0]), *body])


def show(report: dict[str, Any]) -> None:
    """The report in a terminal."""
    console = Terminal()
    say = console.say

    for title, lines in ((AGAINST, rows(report)), ("each class against its held-out images", class_rows(report))):
        if lines:
            say(title)
            table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
            for name in lines[0]:
                table.add_column(name, overflow="fold")
            for line in lines[1:]:
                table.add_row(*map(Text, line))
            console.print(table)
    for sentence in sentences(report):
        say(sentence)
    if "picture" in report:
        say(f"generated images beside the training images they are nearest to: {report['picture']}")
    if "written" in report:
        say(f"this report: {report['written']}")

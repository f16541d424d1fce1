"""Charts of a run's log over the images seen: a panel for each kind of term."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from ptarmigan.handbook.figures import Box, Line, Marks, Text, panel, svg_elements
from ptarmigan.sharing.markup import text

TITLES = {  # of the panels; a term d_NAME or g_NAME that is not here has a panel NAME
    "adv": "adversarial loss", "class": "class loss", "r1": "gradient penalties", "r2": "gradient penalties",
    "gp": "gradient penalties", "grad": "norm of the gradient", "select_kid": "live score",
    "augment_p": "augmentation", "augment_r": "augmentation", "images_per_second": "images per second",
    "variety": "samples", "movement": "samples", "copying": "samples", "class_accuracy": "classes",
    "real_accuracy": "classes", "colour_gap": "gaps", "gap": "gaps",
}  # fmt: skip
NOT_DRAWN = ("images_seen", "attempt", "clock", "end", "retry", "lr_scale", "back_from", "finished", "select_kid_error")
STYLES = ("real", "fake", "generator")  # of the curves of a panel, in their order
LARGEST = 1e100  # value that is drawn; NaN is not below it
POINTS = 300  # of a curve; each is a mean of neighbouring values
BOX: Box = (52, 30, 400, 192)  # of the curves in a chart of a page
CHART = (420, 240)  # its width and height

Curve = tuple[list[float], list[float]]  # images seen, values


def curves_of(rows: Mapping[int, Mapping[str, Any]]) -> dict[str, dict[str, Curve]]:
    """Panel title -> column of the log -> its curve, those of two values or more.

    `rows` are those of a metrics.jsonl, as `core.log.read_rows` returns them.
    """
    columns: dict[str, Curve] = {}
    for seen, row in rows.items():
        for name, value in row.items():
            drawn = name not in NOT_DRAWN and isinstance(value, int | float) and abs(value) < LARGEST
            for key, number in ((name, value), *band(name, row)) if drawn else ():
                columns.setdefault(key, ([], []))
                columns[key][0].append(float(seen))
                columns[key][1].append(float(number))
    panels: dict[str, dict[str, Curve]] = {title: {} for title in TITLES.values()}
    for name, curve in columns.items():
        of = name.split(" ")[0]
        kind = of[2:] if of[:2] in ("d_", "g_") else of
        if len(curve[0]) > 1:
            panels.setdefault(TITLES.get(kind, kind), {})[name] = thinned(curve)
    return {title: curves for title, curves in panels.items() if curves}


def band(name: str, row: Mapping[str, float]) -> list[tuple[str, float]]:
    """Two standard errors below and above a live score."""
    if name != "select_kid" or "select_kid_error" not in row:
        return []
    kid, error = row[name], row["select_kid_error"]
    return [(f"{name} -2 standard errors", kid - 2 * error), (f"{name} +2 standard errors", kid + 2 * error)]


def thinned(curve: Curve) -> Curve:
    """At most POINTS points, each the mean of as many neighbours."""
    size = math.ceil(len(curve[0]) / POINTS)

    def means(values: Sequence[float]) -> list[float]:
        return [statistics.fmean(values[at : at + size]) for at in range(0, len(values), size)]

    return means(curve[0]), means(curve[1])


def draw_panel(box: Box, title: str, curves: dict[str, Curve]) -> Marks:
    """A chart with its title at the left, and the names of its curves at the right above it."""
    seen = np.unique(np.concatenate([x for x, _ in curves.values()]))
    units = ((1e6, "million "), (1e3, "thousand "), (1, ""))
    unit, word = next((unit, word) for unit, word in units if seen[-1] >= 10 * unit or unit == 1)
    styles = {name: "other" if " " in name else STYLES[place % 3] for place, name in enumerate(curves)}
    lines = [(styles[name], torch.from_numpy(np.interp(seen, *curve))) for name, curve in curves.items()]
    span = max(1e-9, 0.1 * max(values.abs().max().item() for _, values in lines))  # so that ticks differ
    marks = panel(box, title, f"{word}images seen", torch.from_numpy(seen / unit), lines, least_span=span)
    at, y = box[2], box[1] - 8
    for name in reversed([name for name in curves if not name.endswith(" +2 standard errors")]):
        words = name.replace(" -2", " ±2").removeprefix("select_kid ")
        marks += [Text("label", (at, y), "end", words)]
        at -= 7.3 * len(words) + 6
        marks += [Line(styles[name], ((at - 20, y - 4), (at, y - 4)))]
        at -= 34
    return marks


def chart_section(panels: Mapping[str, dict[str, Curve]]) -> str:
    """The panels as figures of a page."""
    if not panels:
        return "<p>There are too few lines to draw.</p>"
    figures = "".join(
        f'<figure><svg viewBox="0 0 {CHART[0]} {CHART[1]}" role="img" aria-label="{text(title)} over the images seen">'
        f"{svg_elements(draw_panel(BOX, title, curves))}</svg><figcaption></figcaption></figure>"
        for title, curves in panels.items()
    )
    return f'<div class="charts">{figures}</div>'


def chart_data(panels: Mapping[str, dict[str, Curve]]) -> list[dict[str, Any]]:
    """The values that the script shows where the pointer is, to 4 digits; no bands."""
    return [
        {
            "box": dict(zip(("left", "top", "right", "bottom"), BOX, strict=True)),
            "first": min(x[0] for x, _ in curves.values()),
            "last": max(x[-1] for x, _ in curves.values()),
            "curves": {
                name: [x, [float(f"{value:.4g}") for value in y]] for name, (x, y) in curves.items() if " " not in name
            },
        }
        for curves in panels.values()
    ]

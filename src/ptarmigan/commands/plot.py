"""`ptarmigan plot`: the log of a run as an SVG, a panel for each kind of term."""

from __future__ import annotations

from pathlib import Path

from ptarmigan.core.files import check_new_path, write_atomic
from ptarmigan.core.log import read_rows
from ptarmigan.core.paths import no_run, user_path
from ptarmigan.core.types import UserError, printable
from ptarmigan.handbook.figures import WIDTH, Marks, Text, document
from ptarmigan.sharing.charts import STYLES, Curve, curves_of, draw_panel
from ptarmigan.training.checkpoint import checkpoints

LOOK = "".join(f".{style}{{stroke-width:1.5}}" for style in STYLES) + ".other{stroke-width:1;stroke-dasharray:3 3}"
HEAD, ROW = 44, 240  # heights of the title and of a row of two panels


def plot(run: str | Path, *, out: str | Path | None = None) -> Path:
    """Draw the log of a run, finished or not, into `out`, X.svg (default: the run's name), and return its path.

    Where steps were repeated after a stop or a rollback, the last attempt is drawn.  Raises UserError if `run` is not a
    run (not-a-run) or has logged nothing to draw (log-empty), for another ending (value-invalid), and if `out` exists
    (file-exists).
    """
    run = user_path(run, "run")
    log = run / "metrics.jsonl"
    if not log.is_file() and not checkpoints(run):
        raise no_run(run)
    target = Path(f"{run.resolve().name}.svg") if out is None else user_path(out, "out")
    panels = curves_of(read_rows(log))
    if not panels:
        raise UserError(f"{log} has fewer than two lines to draw: wait until the run has logged more", "log-empty")
    check_new_path(target, "out", ".svg")
    write_atomic(target, draw(printable(run.resolve().name), panels).encode())
    return target


def draw(name: str, panels: dict[str, dict[str, Curve]]) -> str:
    """The panels in rows of two, under the run's name."""
    drawing: Marks = [Text("title", (46, 28), "start", name)]
    for place, (title, curves) in enumerate(panels.items()):
        left = 60 + place % 2 * WIDTH / 2
        top = HEAD + place // 2 * ROW + 36.0
        drawing += draw_panel((left, top, left + WIDTH / 2 - 80, top + ROW - 90), title, curves)
    return document(drawing, HEAD + -(-len(panels) // 2) * ROW, LOOK, f"{name}: losses and scores over the images seen")

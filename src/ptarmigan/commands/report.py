"""`ptarmigan report`: the report of a run as a page, which training writes at each snapshot."""

from __future__ import annotations

from pathlib import Path

from ptarmigan.core.files import check_new_path, make_folder, write_atomic
from ptarmigan.core.paths import no_run, user_path
from ptarmigan.sharing.report import NAME, page


def report(run: str | Path, *, out: str | Path | None = None, private: bool = False) -> Path:
    """Write the report of a run, finished or not, with its scores, and return its path.

    The page replaces RUN/report.html, or is a new file `out`, X.html.  With `private` it also shows the training images
    that `score` found to be near to generated ones, and replaces RUN/private/report.html instead.  Raises UserError if
    `run` is not a run (not-a-run) or its record is damaged, for another ending (value-invalid), and if `out` exists
    (file-exists).
    """
    run = user_path(run, "run")
    if not (run / "config.json").is_file():
        raise no_run(run)
    if out is None:
        target = run / "private" / NAME if private else run / NAME
        make_folder(target.parent)
    else:
        target = check_new_path(user_path(out, "out"), "out", ".html")
    write_atomic(target, page(run, private).encode())
    return target

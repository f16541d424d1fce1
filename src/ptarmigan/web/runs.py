"""The runs that `ptarmigan explore` shows: which there are, and how far each one is."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Iterable
from contextlib import suppress
from operator import itemgetter
from pathlib import Path
from typing import Any

from ptarmigan.commands.compare import read_reports
from ptarmigan.commands.diagnose import diagnose
from ptarmigan.core.log import read_rows
from ptarmigan.core.types import COLOURS_IN_WORDS, UserError, class_name, counted, printable
from ptarmigan.evaluation.report import headline
from ptarmigan.generator.header import config_and_spec, load_run_record, state_of
from ptarmigan.training.run_folder import MARKER

GENERATOR = Path("generator", "model.safetensors")
COPIES = Path("private", "copies.png")  # which `score` writes
WATCHED = ("metrics.jsonl", "config.json", "samples", "generator", "generator/scores.json", "private")


def find_runs(given: Iterable[Path]) -> dict[str, Path]:
    """The runs that paths name, each that of a run or of a folder of runs, by an identifier for addresses."""
    found = [run for path in given for run in ([path] if is_run(path) else children(path))]
    return {identifier(run): run for run in found}


def is_run(folder: Path) -> bool:
    """Whether training made a folder, or at least began to."""
    with suppress(OSError):
        return (folder / MARKER).is_file() or (
            (folder / "config.json").is_file() and (folder / "metrics.jsonl").is_file()
        )
    return False


def children(folder: Path) -> list[Path]:
    """The runs in a folder, by name."""
    with suppress(OSError):
        return sorted(path for path in folder.iterdir() if is_run(path))
    return []


def identifier(run: Path) -> str:
    return hashlib.blake2b(str(run.resolve()).encode(errors="surrogateescape"), digest_size=6).hexdigest()


def signature(run: Path) -> tuple[object, ...]:
    """What changes when a file of a run does."""
    seen: list[object] = []
    for name in WATCHED:
        try:
            status = (run / name).stat()
            seen.append((status.st_mtime_ns, status.st_size))
        except OSError:  # it is not there yet, or no longer
            seen.append(None)
    return tuple(seen)


def described(run: Path, private: bool) -> dict[str, Any]:
    """All that the page says of a run; where it cannot be read, `fault` says why.

    `private`: whether training images may be shown.
    """
    out: dict[str, Any] = {"id": identifier(run), "name": printable(run.resolve().name)}
    if run.is_dir() and not (run / "config.json").exists():
        return out | {"verdict": "too early to judge", "state": "reading its images", "images": 0, "clock": 0}
    try:
        config, spec = config_and_spec(run / "config.json", load_run_record(run))
        rows = read_rows(run / "metrics.jsonl")
        conditional = config.model.conditional
        size = f"{spec.size}, {COLOURS_IN_WORDS[spec.channels]}"
        return out | {
            "facts": f"recipe {config.recipe}, {config.loss.loss} loss, {size}, {counted(spec.classes, 'class')}",
            "state": state_of(run) or "no step logged yet",
            "images": max(rows, default=0),
            "clock": next((row["clock"] for row in reversed(rows.values()) if "clock" in row), 0),
            "grids": grids(run, rows),
            "classes": [*map(class_name, spec.class_names)] if private and conditional else [],
            "generator": (run / GENERATOR).is_file(),
            "scores": [printable(headline(report)) for report in read_reports(run / "generator").values()],
            "private": private,
            "copies": private and (run / COPIES).is_file(),
            **judged(run),
        }
    except Exception as error:  # one that cannot be read hides no other
        return out | {"fault": printable(str(error))}


def grids(run: Path, rows: dict[int, dict[str, Any]]) -> list[dict[str, Any]]:
    """The images and seconds that each grid of samples was drawn after, in order, and the live score then."""
    numbers = sorted(int(path.stem) for path in (run / "samples").glob("*.png") if path.stem.isdecimal())
    logged = [(seen, row["clock"]) for seen, row in rows.items() if "clock" in row]
    out = []
    for images in numbers:
        at, row = bisect_right(logged, images, key=itemgetter(0)), rows.get(images, {})
        clock = logged[at - 1][1] if at else 0
        out.append(
            {"images": images, "clock": clock, "kid": row.get("select_kid"), "error": row.get("select_kid_error")}
        )
    return out


def judged(run: Path) -> dict[str, Any]:
    """The verdict on a run, with the severity of the finding that it names."""
    try:
        diagnosis = diagnose(run)
    except UserError as error:
        return {"verdict": "too early to judge" if error.code == "log-empty" else printable(str(error))}
    worst = next((finding.severity for finding in diagnosis.findings), "")
    return {"verdict": diagnosis.verdict, "severity": worst}


def inside(run: Path, path: Path) -> Path:
    """A file of a run; raises UserError (path-not-found) where it is missing, or a link leads out of the run."""
    with suppress(OSError):
        if path.is_file() and path.resolve().is_relative_to(run.resolve()):
            return path
    raise UserError(f"the run has no {path.relative_to(run)}", "path-not-found")

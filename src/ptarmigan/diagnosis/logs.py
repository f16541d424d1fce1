"""Read the log of a run of ptarmigan, or of another tool: JSON, StyleGAN's stats.jsonl, TensorBoard, CSV, text."""

from __future__ import annotations

import csv
import json
import re
import struct
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np

from ptarmigan.config import config_of
from ptarmigan.core.files import load_json
from ptarmigan.core.log import read_rows
from ptarmigan.core.records import RunRecord, check
from ptarmigan.core.types import UserError, printable, shorten
from ptarmigan.diagnosis.columns import Log, as_float

# ptarmigan's column -> what other tools call it, in lower case and with _ for every other character
ALIASES = {
    "d_adv": "d_loss loss_d lossd errd d_loss_total loss_d_loss discriminator_loss loss_discriminator disc_loss "
    "loss_disc dis_loss loss_dis critic_loss loss_critic d_total_loss",
    "g_adv": "g_loss loss_g lossg errg g_loss_total loss_g_loss generator_loss loss_generator gen_loss loss_gen "
    "g_total_loss",
    "d_grad": "d_grad_norm grad_norm_d discriminator_grad_norm",
    "g_grad": "g_grad_norm grad_norm_g generator_grad_norm",
    "augment_r": "loss_signs_real signs_real r_t",
    "images_seen": "images progress_images samples_seen",
    "kimg": "progress_kimg",
    "step": "steps global_step iteration iterations iter iters progress_tick",
    "epoch": "epochs",
}
KNOWN = {plain: name for name, others in ALIASES.items() for plain in (name, *others.split())}
PLACES = {"images_seen": "images", "kimg": "images", "step": "steps", "epoch": "epochs"}  # the first that is there
PREFIXES = ("train_", "training_", "losses_", "loss_")
SUFFIXES = ("_step", "_epoch")  # of Lightning
RUN = " - "  # of wandb, between the name of a run and that of a column
NEEDED = ("d_adv", "g_adv")
EVENTS = "*tfevents*"
WORD, NUMBER = r"[a-z][\w()./]*", r"[+-]?(?:\d+\.?\d*(?:e[+-]?\d+)?|nan|inf)"
PAIR = re.compile(rf"(?<![\w:])({WORD}(?: {WORD})?)[\"']?\s*[:=]\s*({NUMBER})", re.IGNORECASE)
COUNT = re.compile(r"\b(epoch|step|iteration|iter|kimg)\b\W{0,2}(\d+)", re.IGNORECASE)


def read(path: Path, given: Mapping[str, str]) -> Log:
    """The log of a run folder, or the log at a path; `given` maps a name to the column of the log that it stands for.

    Raises UserError: path-not-found, file-unreadable, log-empty, log-unclear, and columns-unknown where neither D's
    loss nor G's is found.
    """
    if not path.exists():
        raise UserError(f"{path} does not exist: name a run folder or a log", "path-not-found")
    run = path if path.is_dir() else path.parent
    if (run / "config.json").exists() and (path.is_dir() or path.name == "metrics.jsonl") and not given:
        return of_run(run)
    files = sorted(path.rglob(EVENTS)) if path.is_dir() else [path]
    if not files:
        raise UserError(f"{path} holds neither a run of ptarmigan nor TensorBoard's event files", "log-empty")
    if len(folders := sorted({str(file.parent) for file in files})) > 1:
        raise UserError(f"{path} holds the event files of several runs: name one, as {folders[0]}", "log-unclear")
    try:
        rows = [row for file in files for row in rows_of(file)]
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}", "file-unreadable") from None
    if not rows:
        text = f"{path} has no line that can be read as a log: JSON, CSV, or lines as `step 100 d_loss: 0.53`"
        raise UserError(text, "log-empty")
    return of_columns(path, rows, given)


def of_run(run: Path) -> Log:
    """The log of a run folder of ptarmigan; raises UserError (file-damaged, file-format, log-empty)."""
    path = run / "config.json"
    record = check(path, load_json(path), RunRecord)
    rows = read_rows(run / "metrics.jsonl")
    if not rows:
        raise UserError(f"{run / 'metrics.jsonl'} has no line yet: wait until the run has logged more", "log-empty")
    return Log.of_run(rows, config_of(record).flat(), str(run), record["data"]["split"]["train"])


def rows_of(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a file, as {column: value}; lines that cannot be read are left out."""
    if "tfevents" in path.name:
        yield from merged(event_values(path.read_bytes()))
        return
    text = path.read_text(encoding="utf-8-sig", errors="replace").replace("\0", "")  # UTF-16, as PowerShell writes it
    yield from json_rows(text) or printed_rows(text) or csv_rows(text.splitlines())


def json_rows(text: str) -> list[dict[str, Any]]:
    """The rows of JSON lines, of a list of objects, or of an object of lists, as Keras keeps its history."""
    if not text.lstrip().startswith(("{", "[")):
        return []
    with suppress(ValueError, RecursionError):
        whole = json.loads(text)
        if isinstance(whole, list):
            return [dict(flattened(row)) for row in whole]
        if lists := {name: values for name, values in whole.items() if isinstance(values, list)}:
            return [dict(zip(lists, row, strict=True)) for row in zip_longest(*lists.values())]
    rows = []
    for line in text.splitlines():
        with suppress(ValueError, RecursionError):
            rows.append(dict(flattened(json.loads(line))))
    return rows


def csv_rows(lines: list[str]) -> list[dict[str, Any]]:
    delimiter = max(",;\t", key=lines[0].count) if lines else ","
    rows = []
    with suppress(csv.Error):
        for row in csv.DictReader(lines, delimiter=delimiter, restkey="", restval=""):
            rows.append({name: number(value) for name, value in row.items() if name})
    return rows


def printed_rows(text: str) -> list[dict[str, Any]]:
    """The rows of lines that a program printed, as `Epoch [1/200] d_loss: 0.53`.

    Those without a known column are left out, but where there are no others, and most lines hold such pairs.
    """
    rows, lines = [], [line for line in re.sub(r"\x1b\[[0-9;]*m", "", text).splitlines() if line.strip()]
    for line in lines:
        if row := {name_of(pair[1]): number(pair[2]) for pair in PAIR.finditer(line)}:
            rows.append({count[1].lower(): number(count[2]) for count in COUNT.finditer(line)} | row)
    told = [row for row in rows if any(KNOWN.get(plain(name), "step") not in PLACES for name in row)]
    return told or (rows if 2 * len(rows) > len(lines) else [])


def name_of(words: str) -> str:
    """The name before a value: one or two words, of which the first may be another part of the line."""
    return words if plain(words) in KNOWN else words.split()[-1]


def number(text: Any) -> float | None:
    """The number that a text stands for; None for any other text and for none."""
    try:
        return float(text)
    except (TypeError, ValueError):
        return None


def flattened(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """The numbers of a JSON object by their path; the statistics that StyleGAN logs count by their mean."""
    if isinstance(value, dict):
        if isinstance(value.get("mean"), int | float) and "num" in value:
            yield name, value["mean"]
            return
        for key, inner in value.items():
            yield from flattened(inner, f"{name}/{key}" if name else key)
    elif isinstance(value, int | float):
        yield name, value


def of_columns(path: Path, rows: list[dict[str, Any]], given: Mapping[str, str]) -> Log:
    names = names_of(path, rows, given)
    loss = next(names[name] for name in NEEDED if name in names)
    place = next((name for name in PLACES if name in names and counts(names[name], rows, loss)), None)
    scale = 1000.0 if place == "kimg" else 1.0
    at = [as_float(row.get(names[place])) * scale if place else float(count) for count, row in enumerate(rows)]
    table = merged_rows(at, rows)
    values = {
        name: np.array([as_float(row.get(column)) for row in table.values()])
        for name, column in names.items()
        if name and name not in PLACES
    }
    return Log(np.array([*table], float), values, unit=PLACES[place] if place else "lines")


def names_of(path: Path, rows: list[dict[str, Any]], given: Mapping[str, str]) -> dict[str, str]:
    """ptarmigan's name -> the column of the log: the fullest of those that are known by it, or the given one."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    if missing := [column for column in given.values() if column not in columns]:
        raise UserError(
            f"map: {path} has no column {printable(missing[0])!r}; its columns are {listed(columns)}", "unknown-name"
        )
    fullest_last = sorted(columns, key=lambda column: sum(row.get(column) is not None for row in rows))
    names = {KNOWN.get(plain(column), ""): column for column in fullest_last} | {
        KNOWN.get(plain(name), name): column for name, column in given.items()
    }
    what = f"name the losses, as --map d_loss=COLUMN; its columns are {listed(columns)}"
    if not any(name in names for name in NEEDED):
        raise UserError(f"{path} has no column that is known as the loss of D or of G: {what}", "columns-unknown")
    runs = {column.partition(RUN)[0] for column in columns if RUN in column and KNOWN.get(plain(column)) in NEEDED}
    if len(runs) > 1 and not given:
        raise UserError(f"{path} holds the columns of several runs: {what}", "log-unclear")
    return names


def counts(column: str, rows: list[dict[str, Any]], loss: str) -> bool:
    """Whether no two values of a loss have the same place, as those within an epoch have."""
    places = [row.get(column) for row in rows if row.get(loss) is not None]
    return len({*places}) == len(places)


def merged_rows(at: list[float], rows: list[dict[str, Any]]) -> dict[float, dict[str, Any]]:
    """The rows by their place, in its order; those of one place are one row, and those without a place are left out."""
    table: dict[float, dict[str, Any]] = {}
    for place, row in zip(at, rows, strict=True):
        if np.isfinite(place):
            known = {name: value for name, value in row.items() if value is not None}
            table[place] = table.get(place, {}) | known
    return dict(sorted(table.items()))


def plain(column: str) -> str:
    """A column's name in lower case with _ for other characters, without what other tools add to it.

    That is the name of a run, as in wandb's `run - d_loss`, a word for training in front, and an ending of Lightning.
    """
    name = re.sub(r"[^a-z0-9]+", "_", column.split(RUN)[-1].lower()).strip("_")
    if name not in KNOWN:
        name = next((name.removesuffix(suffix) for suffix in SUFFIXES if name.endswith(suffix)), name)
    if name not in KNOWN:
        name = next((name.removeprefix(prefix) for prefix in PREFIXES if name.startswith(prefix)), name)
    return name


def listed(columns: list[str]) -> str:
    return printable(shorten(columns, 20))


# --- TensorBoard's event files ---------------------------------------------------------------------------------------


def event_values(content: bytes) -> Iterator[tuple[int, str, float]]:
    """(step, tag, value) of the scalars of an event file.

    A record is a length in 8 bytes, 4 bytes of checksum, so many bytes, and 4 bytes of checksum.  One that is cut off
    has no value, which is its last part.
    """
    start = 0
    while start + 12 <= len(content):
        (length,) = struct.unpack_from("<Q", content, start)
        yield from scalars(content[start + 12 : start + 12 + length])
        start += length + 16


def scalars(record: bytes) -> Iterator[tuple[int, str, float]]:
    """Those of an Event: its field 2 is the step, and field 5 a Summary, whose field 1 are values."""
    event = list(fields(record))
    step = next((value for key, value in event if key == 2 and isinstance(value, int)), 0)
    for summary in (value for key, value in event if key == 5 and isinstance(value, bytes)):
        for value in (value for key, value in fields(summary) if key == 1 and isinstance(value, bytes)):
            parts = dict(fields(value))  # 1: the tag, 2: a simple value, 8: a tensor
            tag, simple, tensor = parts.get(1), parts.get(2), parts.get(8)
            if isinstance(tensor, bytes):  # 4: its bytes, 5: its floats
                inner = dict(fields(tensor))
                simple = inner.get(5, inner.get(4)) if inner.get(1) == 1 else None
            if isinstance(tag, bytes) and isinstance(simple, bytes) and len(simple) == 4:
                yield step, tag.decode(errors="replace"), struct.unpack("<f", simple)[0]


def fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """(number, value) of a protocol buffer: an int for a varint, else the bytes; stops where they make no sense."""
    at = 0
    while at < len(message):
        key, at = varint(message, at)
        if key & 7 == 0:
            value, at = varint(message, at)
            yield key >> 3, value
            continue
        if key & 7 == 2:
            length, at = varint(message, at)
        elif key & 7 in (1, 5):
            length = 8 if key & 7 == 1 else 4
        else:
            return
        yield key >> 3, message[at : at + length]
        at += length


def varint(message: bytes, at: int) -> tuple[int, int]:
    """The number whose bytes begin at a place, 7 bits in each, and the place after it."""
    value = shift = 0
    while at < len(message):
        value |= (message[at] & 127) << shift
        at, shift = at + 1, shift + 7
        if message[at - 1] < 128:
            break
    return value, at


def merged(values: Iterable[tuple[int, str, float]]) -> Iterator[dict[str, Any]]:
    """Scalars as rows, one for each step."""
    rows: dict[int, dict[str, Any]] = {}
    for step, tag, value in values:
        rows.setdefault(step, {"step": step})[tag] = value
    yield from rows.values()

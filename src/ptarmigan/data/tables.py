"""Tables that name image files: CSV, TSV, JSON Lines, JSON such as StyleGAN's dataset.json, or a list in a text.

A table is rows of texts under named columns.  Which column names the files is found by looking for their values among
the files that there are.
"""

from __future__ import annotations

import csv
import io
import json
import posixpath
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any, NamedTuple

from ptarmigan.core.types import UserError, counted, shorten, unknown
from ptarmigan.data.scan import NAMED_AS_IMAGE

MAX_TABLE = 256 << 20  # bytes
MAX_COLUMNS = 10_000
MAX_CELL = 1 << 20  # characters
SAMPLED = 500  # rows that decide which columns may name files
UNIQUE = 0.9  # of the rows name a file of their own, in a column that names files but is not called so
NAMED = 0.5  # of the rows, or of the files, have to be found by a column that names files
# Names of columns, without case, spaces and punctuation.
PATH_NAMES = (
    "filename", "filepath", "file", "path", "image", "imagepath", "imagename", "imagefile", "img", "imgpath", "imgname",
    "imageid", "id", "imageindex", "fname", "name", "文件", "图片",
)  # fmt: skip
SPREADSHEETS = (".xlsx", ".xls", ".ods")
JSON_KEYS = ("labels", "images", "annotations", "data", "samples", "items")  # of a list of rows in a JSON object


def plain(name: str) -> str:
    """The name of a column without case, spaces and punctuation: 'File_Name' -> 'filename'."""
    return re.sub(r"[\W_]+", "", name.casefold())


@dataclass(frozen=True)
class Table:
    """Rows of texts under named columns."""

    where: str  # for messages
    folder: str  # in the data folder, that the paths may begin at; '' is the data folder itself
    columns: tuple[str, ...]
    rows: list[list[str]]  # each as long as `columns`

    def column(self, name: str) -> list[str]:
        at = self.columns.index(name)
        return [row[at] for row in self.rows]

    def named(self, given: str, option: str) -> str:
        """The column of this name, in any case; raises UserError (unknown-name), which lists the columns."""
        for name in (given, *self.columns):
            if name in self.columns and name.casefold() == given.casefold():
                return name
        error = unknown(f"{option}, a column of {self.where},", given, self.columns)
        raise UserError(error.text, error.code)


# --- reading ---------------------------------------------------------------------------------------------------------


def read_table(content: bytes, where: str, folder: str, files: Files) -> Table:
    """The table in a file's content; raises UserError (file-unreadable, labels-invalid) if it is none.

    The first row of a CSV or a text holds the names of the columns, unless it names an image: then the columns are
    called 1, 2 and so on.
    """
    if len(content) > MAX_TABLE:
        raise UserError(
            f"{where} is larger than {MAX_TABLE >> 20} MB: give a table of paths and labels", "labels-invalid"
        )
    wide = content.startswith((b"\xff\xfe", b"\xfe\xff"))
    ending = posixpath.splitext(where)[1].lower()
    if ending in SPREADSHEETS:
        raise UserError(f"{where} is a spreadsheet: save it as CSV, and give that file", "labels-invalid")
    try:
        text = content.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(f"{where} is not text in UTF-8: save it as UTF-8", "file-unreadable") from None
    try:
        if ending in (".jsonl", ".ndjson"):
            return _of_records(map(json.loads, filter(str.strip, text.splitlines())), where, folder)
        if ending == ".json":
            return _of_records(_json_rows(json.loads(text), where), where, folder)
        return _of_lines(text, where, folder, files)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError, csv.Error) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{where} cannot be read as a table of paths and labels: {reason}", "labels-invalid") from None


def _of_lines(text: str, where: str, folder: str, files: Files) -> Table:
    if "\0" in text:
        raise ValueError("it is not a text")
    csv.field_size_limit(MAX_CELL)
    text = re.sub(r"\Asep=.\r?\n", "", text)  # which Excel reads, and does not show
    lines = [line for line in islice(io.StringIO(text), 50) if line.strip()]
    rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(lines, where), skipinitialspace=True))
    rows = [[cell.strip() for cell in row] for row in rows]
    rows = [row for row in rows if any(row)]
    if not rows:
        raise ValueError("it is empty")
    head = rows[0]
    if any(
        cell.lower().endswith(NAMED_AS_IMAGE) or (plain(cell) not in PATH_NAMES and files.find(cell, folder))
        for cell in head
    ):
        head = [str(i + 1) for i in range(max(map(len, rows)))]
    else:
        rows = rows[1:]
    return _checked(where, folder, head, rows)


def _delimiter(lines: list[str], where: str) -> str:
    """The character that divides the first lines into the most columns, as many in each line."""
    best, most = ",", 1
    for delimiter in ("\t", ";", ",", "|", *(() if where.lower().endswith((".csv", ".tsv")) else (" ",))):
        try:
            widths = {len(row) for row in csv.reader(lines, delimiter=delimiter, skipinitialspace=True)}
        except csv.Error:
            continue
        if len(widths) == 1 and max(widths) > most:
            best, most = delimiter, max(widths)
    return best


def _json_rows(content: Any, where: str) -> list[Any]:
    """The rows in a JSON: a list of them, an object of file names and labels, or an object that holds one of these."""
    if isinstance(content, dict):
        if all(isinstance(content.get(key), list) for key in ("images", "annotations")):
            return _coco_rows(content, where)
        content = next((content[key] for key in JSON_KEYS if isinstance(content.get(key), dict | list)), content)
    if isinstance(content, dict):
        if all(isinstance(value, dict) for value in content.values()):
            return [{"file_name": key, **value} for key, value in content.items()]
        if all(map(str.isdecimal, content)):
            raise ValueError("it names numbers, not files")
        return [{"file_name": key, "label": value} for key, value in content.items()]
    if not isinstance(content, list):
        raise ValueError("it holds no list of paths and labels")
    pairs = all(isinstance(row, list) and len(row) == 2 for row in content)
    return [{"file_name": row[0], "label": row[1]} for row in content] if pairs else content


def _coco_rows(content: dict[str, Any], where: str) -> list[Any]:
    """The file and the category of each image in COCO's JSON; raises UserError if an image has several categories."""
    names = {one["id"]: one["name"] for one in content.get("categories") or ()}
    found: defaultdict[Any, set[Any]] = defaultdict(set)
    for one in content["annotations"]:
        if "category_id" in one:
            found[one["image_id"]].add(names.get(one["category_id"], one["category_id"]))
    if not found:
        raise ValueError("its annotations have no category")
    images = content["images"]
    if several := sum(len(found[image["id"]]) > 1 for image in images):
        text = f"{where} has several categories for {several:,} of {counted(len(images), 'image')}: an image needs one"
        raise UserError(f"{text} label, so cut out its objects, or give a table of one label each", "labels-several")
    return [{"file_name": image["file_name"], "category": "".join(map(str, found[image["id"]]))} for image in images]


def _of_records(records: Iterable[Any], where: str, folder: str) -> Table:
    """A table of objects; a list of numbers, such as StyleGAN's label vectors, becomes a column for each of them."""
    flat: list[dict[str, str]] = []
    columns: dict[str, None] = {}
    for record in records:
        if not isinstance(record, dict):
            raise ValueError(f"a row is {json.dumps(record)[:80]}, not an object with a path and a label")
        row: dict[str, str] = {}
        for key, value in record.items():
            if isinstance(value, list) and value and all(isinstance(one, int | float) for one in value):
                row |= {f"{key}[{i}]": _as_text(one) for i, one in enumerate(value[:MAX_COLUMNS])}
            else:
                row[key] = _as_text(value)
        flat.append(row)
        columns |= dict.fromkeys(row)
    if not flat:
        raise ValueError("it is empty")
    return _checked(where, folder, list(columns), [[row.get(name, "") for name in columns] for row in flat])


def _as_text(value: Any) -> str:
    if value is None:
        return ""
    return value.strip() if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _checked(where: str, folder: str, columns: list[str], rows: list[list[str]]) -> Table:
    width = len(columns)
    if width > MAX_COLUMNS:
        raise ValueError(f"it has {width:,} columns")
    for number, row in enumerate(rows, 1):
        if len(row) > width and any(row[width:]):
            raise ValueError(
                f"row {number} has {len(row)} values for {counted(width, 'column')}: quote what holds commas"
            )
    if twice := {name for name in columns if name and columns.count(name) > 1}:
        raise ValueError(f"the column {sorted(twice)[0]!r} is there twice")
    return Table(where, folder, tuple(columns), [[*row, *[""] * (width - len(row))][:width] for row in rows])


# --- which files it names --------------------------------------------------------------------------------------------


class Files:
    """Image files, found by what tables write for them.

    A path in a table may begin at the data folder, at the table's own folder, above the data folder
    (`D:\\set\\cat\\1.png` for `cat/1.png`) or below it (`1.png` for `cat/1.png`), and it may lack the file's ending.
    """

    def __init__(self, paths: Iterable[str]) -> None:
        self.paths = set(paths)

    @cached_property
    def by_name(self) -> dict[str, list[str]]:
        found: defaultdict[str, list[str]] = defaultdict(list)
        for path in self.paths:
            found[_folded(path.rpartition("/")[2])].append(path)
        return found

    @cached_property
    def by_stem(self) -> dict[str, list[str]]:
        found: defaultdict[str, list[str]] = defaultdict(list)
        for name, paths in self.by_name.items():
            found[posixpath.splitext(name)[0]] += paths
        return found

    def find(self, text: str, folder: str) -> list[str]:
        """The files that a text may name; several if it is not certain which."""
        text = text.replace("\\", "/")
        if not text or text.endswith("/") or "\0" in text:
            return []
        for start in (folder, ""):
            path = posixpath.normpath(posixpath.join(start, text))
            if path in self.paths:
                return [path]
        wanted = [piece for piece in _folded(text).split("/") if piece not in ("", ".", "..")]
        if not wanted:
            return []
        found = [path for path in self.by_name.get(wanted[-1], ()) if _ends_alike(_folded(path).split("/"), wanted)]
        if not found:
            stems = self.by_stem.get(wanted[-1], ())
            found = [path for path in stems if _ends_alike(posixpath.splitext(_folded(path))[0].split("/"), wanted)]
        exact = [path for path in found if path.endswith(text)] if len(found) > 1 else []
        return exact if len(exact) == 1 else found


def _folded(path: str) -> str:
    return unicodedata.normalize("NFC", path).casefold()


def _ends_alike(one: list[str], other: list[str]) -> bool:
    """Whether the shorter path is the end of the longer one."""
    count = min(len(one), len(other))
    return one[-count:] == other[-count:]


class Named(NamedTuple):
    """A table whose rows name files."""

    table: Table
    column: str  # that names them
    paths: list[str | None]  # [rows] the file that each row names; None if there is no such file, or several
    unclear: list[str]  # texts that may name several files
    missing: list[str]  # texts that name no file

    def values(self, column: str) -> dict[str, str]:
        """The value of a column for each file that is there; raises UserError if rows of one file differ."""
        out: dict[str, str] = {}
        for path, value in zip(self.paths, self.table.column(column), strict=True):
            if path is not None and out.setdefault(path, value) != value:
                text = f"{self.table.where} names {path} twice, with {out[path]!r} and with {value!r} as {column}"
                raise UserError(f"{text}: remove one of the rows", "labels-invalid")
        return out


def name_files(table: Table, files: Files, column: str | None) -> Named | None:
    """The files that each row names, by the given column or by the one whose values are files; None without one."""
    if column is not None:
        return _named_by(table, column, files)
    best: tuple[tuple[bool, int, int], Named] | None = None
    step = max(1, len(table.rows) // SAMPLED)
    for i, name in enumerate(table.columns):
        if not any(files.find(row[i], table.folder) for row in table.rows[::step]):
            continue
        named = _named_by(table, name, files)
        found = [path for path in named.paths if path is not None] + named.unclear
        count, called = len(set(found)), plain(name) in PATH_NAMES
        if count < NAMED * min(len(files.paths), len(table.rows)) or not (called or count >= UNIQUE * len(found)):
            continue
        whole = sum(text.lower().endswith(NAMED_AS_IMAGE) for text in table.column(name))
        rank = (called, whole, count)
        if best is None or rank > best[0]:
            best = rank, named
    return best[1] if best else None


def _named_by(table: Table, column: str, files: Files) -> Named:
    found = [(text, files.find(text, table.folder)) for text in table.column(column)]
    return Named(
        table, column, [paths[0] if len(paths) == 1 else None for _, paths in found],
        [text for text, paths in found if len(paths) > 1], [text for text, paths in found if text and not paths],
    )  # fmt: skip


def listed(columns: Iterable[str]) -> str:
    """Columns for a message."""
    return shorten([name or "(without a name)" for name in columns], 20)

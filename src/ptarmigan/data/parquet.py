"""Rows of a parquet file as files: images as the Hugging Face Hub stores them, with a label in each row.

An image is a struct of its bytes and its path, or a column of bytes.  Labels are numbers, whose names the file's
metadata hold, or texts.  Of the images, 64 rows are read at a time.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from ptarmigan.core.types import UserError, shorten
from ptarmigan.data.archive import MOST_BYTES, InOrder
from ptarmigan.data.arrays import as_user_error
from ptarmigan.data.labels import LABEL_NAMES
from ptarmigan.data.storage import FileLabels
from ptarmigan.data.tables import plain

ROWS = 64  # images that are read at once
IMAGE_NAMES = ("image", "img", "picture", "photo", "pixels", "png", "jpg", "jpeg")  # preferred, in this order


def open_parquet(path: Path, label_column: str | None = None) -> InOrder:
    """The images of a file, with their labels.

    Raises UserError: package-missing without pyarrow, file-unreadable, no-images if no column holds images,
    labels-invalid if several columns may be the labels, unknown-name if `label_column` is none.
    """
    pq = _pyarrow(path)
    with as_user_error(str(path)), pq.ParquetFile(path) as file:
        schema, features = file.schema_arrow, _features(file.schema_arrow.metadata)
        images, image_path = _image_column(path, schema)
        label = _label_column(path, schema, features, images.partition(".")[0], label_column)
        paths = _column(file, image_path) if image_path else []
        labels = _column(file, label) if label else []
        count = len(paths or labels) or file.metadata.num_rows
        if count > path.stat().st_size:
            raise ValueError(f"its header claims {count:,} rows, more than the file can hold")
    names = [f"{row:06d}" for row in range(count)]
    for row, name in enumerate(paths):
        if isinstance(name, str) and (base := name.replace("\\", "/").rpartition("/")[2][:255]):
            names[row] += f"-{base}"
    order = {name: row for row, name in enumerate(names)}
    of = None
    if label:
        classes = features.get(label, {}).get("names")
        given = zip(names, (_label(value, classes) for value in labels), strict=True)
        of = FileLabels(f"column {label}", {name: value for name, value in given if value})
    return InOrder(path, order, partial(_rows, path, images), labels=of)


def _pyarrow(path: Path) -> Any:
    try:
        import pyarrow.parquet
    except ImportError:
        text = f"{path} is a parquet file, which pyarrow reads: install it by pip install 'ptarmigan[parquet]'"
        raise UserError(text, "package-missing") from None
    return pyarrow.parquet


def _features(metadata: dict[bytes, bytes] | None) -> dict[str, dict[str, Any]]:
    """What the Hub's metadata say about each column: its type, and the names of the classes."""
    with suppress(ValueError, KeyError, TypeError, AttributeError, RecursionError):
        found = json.loads((metadata or {})[b"huggingface"])["info"]["features"]
        return {name: feature for name, feature in found.items() if isinstance(feature, dict)}
    return {}


def _image_column(path: Path, schema: Any) -> tuple[str, str]:
    """The column with the bytes of the images, and the one with their paths, or ''."""
    found = {}
    for field in schema:
        if str(field.type) in ("binary", "large_binary"):
            found[field.name] = (field.name, "")
        elif str(field.type).startswith("struct<"):
            inner = [field.type.field(i).name for i in range(field.type.num_fields)]
            if "bytes" in inner:
                found[field.name] = (f"{field.name}.bytes", f"{field.name}.path" if "path" in inner else "")
    if not found:
        text = f"{path} has no column of image files (its columns are {shorten(schema.names, 10)}): expected one of"
        raise UserError(f"{text} bytes, or of structs of bytes and path", "no-images")
    return found[next((name for name in IMAGE_NAMES if name in found), next(iter(found)))]


def _label_column(
    path: Path, schema: Any, features: dict[str, dict[str, Any]], image: str, given: str | None
) -> str | None:
    columns = [name for name in schema.names if name != image]
    if given is not None:
        if given not in columns:
            text = f"label_column: {path} has no column {given!r}; its columns are {shorten(columns, 10)}"
            raise UserError(text, "unknown-name")
        return given
    found = [name for name in columns if features.get(name, {}).get("_type") == "ClassLabel"]
    found = found or [name for name in columns if plain(name) in LABEL_NAMES]
    if len(found) > 1 and "label" not in found:
        text = f"{path} has several columns that may be the label ({shorten(found, 10)}): choose one by --label-column"
        raise UserError(text, "labels-invalid")
    return "label" if "label" in found else found[0] if found else None


def _column(file: Any, name: str) -> list[Any]:
    values = file.read(columns=[name], use_threads=False).column(0)
    for inner in name.split(".")[1:]:
        values = values.combine_chunks().field(inner)
    return list(values.to_pylist())


def _label(value: Any, classes: Any) -> str:
    """The label of a row as a text; '' if it has none, which the Hub writes as -1 in a test part."""
    if isinstance(classes, list) and isinstance(value, int):
        return str(classes[value]) if 0 <= value < len(classes) else ""
    return "" if value is None else str(value)


def _rows(path: Path, column: str) -> Iterator[tuple[int, bytes | None]]:
    """The number and content of each image; None for one that cannot be read."""
    row = 0
    with _pyarrow(path).ParquetFile(path, pre_buffer=False) as file:
        for group in range(file.num_row_groups):
            end = row + file.metadata.row_group(group).num_rows
            with suppress(Exception):  # of many types; the rest of the group is damaged
                for batch in file.iter_batches(ROWS, row_groups=[group], columns=[column], use_threads=False):
                    values = batch.column(0)
                    for inner in column.split(".")[1:]:
                        values = values.field(inner)
                    for value in values:
                        content = value.as_py()
                        yield row, content if content is not None and len(content) <= MOST_BYTES else None
                        row += 1
            while row < end:
                yield row, None
                row += 1

"""NumPy's files: .npz archives, and .npy files side by side."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from functools import partial
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np

from ptarmigan.core.types import OnProgress, UserError, shorten
from ptarmigan.data.arrays import (
    MAX_INFLATION,
    MAX_TRANSPOSED_BYTES,
    PART_WORDS,
    UNDECIDED,
    Arrays,
    StoredArray,
    Table,
    as_name,
    as_user_error,
    assemble,
    read_class_names,
)

NPZ_HINT = (
    "expected images uint8 [N,H,W,C] or [N,H,W] and labels [N], as arr_0 and arr_1, images and labels, x and y, "
    "or for each part, as x_train, y_train, x_test, y_test or train_images, train_labels, ...; class_names is optional"
)
IMAGE_KEYS = ("arr_0", "images", "image", "imgs", "x", "data")
LABEL_KEYS = ("arr_1", "labels", "label", "y", "targets", "target")


def read_npz(path: Path, on_progress: OnProgress | None = None) -> Arrays:
    """Images and labels under the usual names, whole or in parts: test is held out, val is the select part.

    on_progress(what, done, total) is called while the images are read for the range of their values.
    """
    with as_user_error(str(path)), zipfile.ZipFile(path) as archive:
        keys = sorted({name.removesuffix(".npy") for name in archive.namelist()})
    return _read_keys(path, keys, partial(_of_archive, path), None, on_progress)


def read_npy(folder: Path, names: list[str], on_progress: OnProgress | None = None) -> Arrays:
    """The same from .npy files, whose names without their ending are the keys; class names also from classes.txt."""
    keys = sorted(name[:-4] for name in names if name.lower().endswith(".npy"))
    file = {name[:-4]: folder / name for name in names}
    class_names = read_class_names(folder / "classes.txt") if "classes.txt" in names else None
    return _read_keys(folder, keys, lambda key: _of_file(file[key]), class_names, on_progress)


def _read_keys(
    path: Path,
    keys: list[str],
    open_array: Callable[[str], StoredArray],
    class_names: list[str] | dict[int, str] | None,
    on_progress: OnProgress | None,
) -> Arrays:
    images, labels, others = _sort_keys(path, keys)
    tables, notices = [], []
    found = []
    for part, key in sorted(images.items(), key=lambda item: PART_WORDS.get(item[0], UNDECIDED)):
        stored = open_array(labels[part]) if part in labels else None
        tables.append(Table(open_array(key), stored, PART_WORDS.get(part, UNDECIDED)))
        if key != "arr_0":  # as ptarmigan itself writes it
            found.append(f"{key} with {labels[part]}" if stored else key)
    names_from = "classes.txt" if class_names else f"{path} [class_names]"
    if "class_names" in others:
        others.remove("class_names")
        names, names_from = open_array("class_names"), f"{path} [class_names]"
        if names.dtype.kind not in "US" or len(names.shape) != 1 or prod(names.shape) * names.dtype.itemsize > 1 << 26:
            text = f"{names.where} is {names.dtype} {list(names.shape)}: expected a list of strings"
            raise UserError(text, "data-invalid")
        with as_user_error(names.where):
            class_names = [as_name(name) for chunk in names.chunks() for name in chunk]
    elif not labels:
        class_names = [path.stem]
        notices.append(f"{path} has no labels (arr_1): all of its images are one class")
    if others:
        notices.append(f"{path}: did not read {shorten(others)}")
    return assemble(tables, class_names, names_from, found, notices, on_progress=on_progress)


def _sort_keys(path: Path, keys: list[str]) -> tuple[dict[str, str], dict[str, str], list[str]]:
    """The keys of images and of labels by part ('' where the keys name none), and the other keys.

    Raises UserError (data-incomplete) where it is not certain which arrays hold the images and the labels.
    """
    words = {**dict.fromkeys(IMAGE_KEYS, 0), **dict.fromkeys(LABEL_KEYS, 1)}
    found: tuple[dict[str, str], dict[str, str]] = ({}, {})
    others = []
    for key in keys:
        first, _, last = key.lower().partition("_")
        if key.lower() in words:
            kind, part = words[key.lower()], ""
        elif first in PART_WORDS and last in words:
            kind, part = words[last], first
        elif last in PART_WORDS and first in words:
            kind, part = words[first], last
        else:
            others.append(key)
            continue
        if other := found[kind].get(part):
            raise _unclear(path, f"{other} and {key} could both be the {('images', 'labels')[kind]}")
        found[kind][part] = key
    images, labels = found
    if not images and not labels and len(others) == 1:
        images[""] = others.pop()
    held = f"it holds {', '.join(keys[:20]) or 'nothing'}"
    if not images:
        raise _unclear(path, held)
    parts = [PART_WORDS.get(part, UNDECIDED) for part in images]
    if UNDECIDED not in parts or len(set(parts)) < len(parts):
        raise _unclear(path, f"the arrays to train on are not clear: {held}")
    if lone := [key for part, key in labels.items() if part not in images]:
        raise _unclear(path, f"{lone[0]} has no images: {held}")
    lone = [key for part, key in images.items() if part not in labels]
    if lone and list(images) != [""]:
        raise _unclear(path, f"{lone[0]} has no labels: {held}")
    return images, labels, others


def _unclear(path: Path, text: str) -> UserError:
    return UserError(f"{path}: {text}; {NPZ_HINT}", "data-incomplete")


def _of_archive(path: Path, key: str) -> StoredArray:
    """An array of an .npz file."""

    def unpacked() -> IO[bytes]:
        with zipfile.ZipFile(path) as archive:  # the stream keeps the file open for as long as it needs it
            return archive.open(f"{key}.npy")

    with as_user_error(f"{path} [{key}]"), zipfile.ZipFile(path) as archive:
        size = archive.getinfo(f"{key}.npy").file_size
    return _open_npy(f"{path} [{key}]", unpacked, size, MAX_INFLATION * path.stat().st_size)


def _of_file(path: Path) -> StoredArray:
    """An array of an .npy file."""
    size = path.stat().st_size
    return _open_npy(str(path), lambda: path.open("rb"), size, size)


def _open_npy(where: str, unpacked: Callable[[], IO[bytes]], stored: int, most: int) -> StoredArray:
    """An array of `stored` bytes with its header, where at most `most` are plausible.

    The header is parsed as a literal; arrays of Python objects are refused.
    """

    def positioned() -> IO[bytes]:
        stream = unpacked()
        header(stream)
        return stream

    def header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
        version = np.lib.format.read_magic(stream)
        if version == (1, 0):
            return np.lib.format.read_array_header_1_0(stream)
        if version == (2, 0):
            return np.lib.format.read_array_header_2_0(stream)
        raise ValueError(f"npy format {version} is for named fields, not plain numbers")

    with as_user_error(where), unpacked() as stream:
        shape, fortran, dtype = header(stream)
        size = stored - stream.tell()
    if dtype.hasobject:
        text = f"{where} holds Python objects, which are unsafe to load (pickle): save numbers, or words by "
        text += "numpy.array(words, dtype=str)"
        raise UserError(text, "data-invalid")
    if size != prod(shape) * dtype.itemsize or min(shape, default=0) < 0 or size > most:
        raise UserError(f"{where} is damaged: {size} bytes cannot be {dtype} {list(shape)}", "file-damaged")
    if fortran and len(shape) > 1 and size > MAX_TRANSPOSED_BYTES:
        text = f"{where} is in column-major order and too large to turn in memory: save numpy.ascontiguousarray(x)"
        raise UserError(text, "data-invalid")
    return StoredArray(where, shape, dtype, positioned, fortran and len(shape) > 1)

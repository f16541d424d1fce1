"""IDX files, the format of MNIST, Fashion-MNIST and EMNIST."""

from __future__ import annotations

import gzip
import re
import struct
from math import prod
from pathlib import Path
from typing import IO, cast

import numpy as np

from ptarmigan.core.types import OnProgress, UserError
from ptarmigan.data.arrays import (
    HELD_OUT,
    MAX_INFLATION,
    UNDECIDED,
    Arrays,
    StoredArray,
    Table,
    as_user_error,
    assemble,
    read_class_names,
)

IDX_IMAGES = re.compile(r"(.*?)(train|t10k|test)-images[-.]idx[34]-ubyte(\.gz)?", re.IGNORECASE)


def idx_tables(folder: Path, names: list[str]) -> dict[str, tuple[str, str]]:
    """{'train' or 'test': (image file, label file)} among the file names of a folder; x is preferred to x.gz.

    Raises UserError if a label file is missing or the folder holds several data sets.
    """
    images: dict[str, dict[str, str]] = {}
    for name in sorted(names, reverse=True):  # x after x.gz, so that x overwrites it
        if match := IDX_IMAGES.fullmatch(name):
            images.setdefault(match[1], {})["train" if match[2].lower() == "train" else "test"] = name
    if len(images) > 1:
        found = ", ".join(sorted(images))
        raise UserError(f"{folder} holds several IDX data sets ({found}): put each in its own folder", "data-invalid")
    out = {}
    for part, name in next(iter(images.values()), {}).items():
        stem = re.sub(r"(\.gz)?$", "", re.sub(r"images([-.])idx[34]", r"labels\1idx1", name))
        labels = next((n for n in (stem, stem + ".gz") if n in names), None)
        if labels is None:
            raise UserError(f"{folder / name} has no labels: {stem} or {stem}.gz is missing", "data-incomplete")
        out[part] = (name, labels)
    if out and "train" not in out:
        text = f"{folder} holds only a test part ({out['test'][0]}): the train-images file is missing"
        raise UserError(text, "data-incomplete")
    return out


def read_idx(folder: Path, names: list[str], on_progress: OnProgress | None = None) -> Arrays:
    """The train part, then the test part, which is held out; class names from classes.txt or EMNIST's mapping.

    EMNIST's files hold their images transposed, so these are turned upright.
    """
    pairs = idx_tables(folder, names)
    tables = []
    for part in sorted(pairs, reverse=True):
        images, labels = (_open_idx(folder / name) for name in pairs[part])
        tables.append(Table(images, labels, HELD_OUT if part == "test" else UNDECIDED))
    prefix = cast(re.Match[str], IDX_IMAGES.fullmatch(pairs["train"][0]))[1]
    mapping, names_file = folder / f"{prefix}mapping.txt", folder / "classes.txt"
    class_names: list[str] | dict[int, str] | None = None
    if names_file.exists():
        class_names = read_class_names(names_file)
    elif mapping.exists():
        names_file = mapping
        with as_user_error(str(mapping)):  # EMNIST's: a label and the codes of its characters on each line
            lines = [[int(number) for number in line.split()[:2]] for line in mapping.read_text("utf-8").splitlines()]
            class_names = {label: chr(code) for label, code in lines}
    return assemble(
        tables, class_names, str(names_file),
        [pairs[part][0] for part in sorted(pairs, reverse=True)], transposed=prefix.lower().startswith("emnist-"),
        on_progress=on_progress,
    )  # fmt: skip


def _open_idx(path: Path) -> StoredArray:
    def unpacked() -> IO[bytes]:
        return cast(IO[bytes], gzip.open(path)) if path.suffix == ".gz" else path.open("rb")

    with as_user_error(str(path)), unpacked() as stream:
        zeros, kind, dims = struct.unpack(">HBB", stream.read(4))
        if zeros or kind != 0x08:
            raise ValueError("not an IDX file of unsigned bytes, which starts with the bytes 00 00 08")
        shape = struct.unpack(f">{dims}I", stream.read(4 * dims))
        if prod(shape) > (MAX_INFLATION if path.suffix == ".gz" else 1) * path.stat().st_size:
            raise ValueError(f"the header claims {prod(shape):,} bytes, more than the file can hold")

    def positioned() -> IO[bytes]:
        stream = unpacked()
        stream.read(4 + 4 * dims)
        return stream

    return StoredArray(str(path), shape, np.dtype(np.uint8), positioned)

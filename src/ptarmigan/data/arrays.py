"""Images that lie in arrays: IDX files and .npz archives, read in chunks and never unpickled."""

from __future__ import annotations

import gzip
import re
import struct
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
from numpy.typing import NDArray

from ptarmigan.core.types import UserError

TRAIN, SELECT, HELD_OUT, UNDECIDED = 0, 1, 2, -1  # UNDECIDED: the source does not say
CHUNK_BYTES = 16 << 20
DEFLATE = 1032  # no deflated byte becomes more bytes than this: a header that promises more lies
NPZ_HINT = (
    "an .npz holds arr_0 uint8 [N,H,W,C] or [N,H,W] and arr_1 integers [N] (class_names is optional), "
    "or MedMNIST's train_images, train_labels, val_images, ..."
)
IDX_IMAGES = re.compile(r"(.*?)(train|t10k|test)-images[-.]idx[34]-ubyte(\.gz)?", re.IGNORECASE)


@dataclass(frozen=True)
class Table:
    """One array inside a file, not read yet."""

    where: str  # for messages: the file, and the array's name in it
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    open: Callable[[], IO[bytes]]  # a stream that stands at the first element

    def chunks(self) -> Iterator[NDArray[Any]]:
        """The rows [M, ...] in turn, some 16 MB at a time; raises UserError where the file ends early."""
        row = prod(self.shape[1:]) * self.dtype.itemsize
        step = max(1, CHUNK_BYTES // max(1, row))
        with readable(self.where), self.open() as stream:
            for start in range(0, self.shape[0], step):
                count = min(step, self.shape[0] - start)
                data = stream.read(count * row)
                if len(data) < count * row:
                    raise EOFError(f"it ends after {start + len(data) // max(1, row)} of {self.shape[0]} items")
                yield np.frombuffer(data, self.dtype).reshape(count, *self.shape[1:])

    def whole(self) -> NDArray[Any]:
        parts = list(self.chunks())
        return np.concatenate(parts) if parts else np.empty(self.shape, self.dtype)


@dataclass(frozen=True)
class Arrays:
    """The contents of an array source: every table's images are of one shape [N,H,W] or [N,H,W,C], uint8."""

    images: tuple[Table, ...]
    labels: NDArray[np.int64]  # [N] over all tables
    own: NDArray[np.int8]  # [N] the part that the source itself names, or UNDECIDED
    class_names: tuple[str, ...]
    notices: tuple[str, ...] = ()

    @property
    def shape(self) -> tuple[int, int, int]:
        height, width, *channels = self.images[0].shape[1:]
        return height, width, channels[0] if channels else 1

    def chunks(self) -> Iterator[NDArray[np.uint8]]:
        """[M,H,W,C] in turn."""
        for table in self.images:
            for chunk in table.chunks():
                yield chunk.reshape(len(chunk), *self.shape)


@contextmanager
def readable(where: str) -> Iterator[None]:
    """Turn whatever a damaged or forbidden file raises into one sentence."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # zipfile, zlib, gzip and numpy's header parser raise a dozen kinds
        reason = error.strerror if isinstance(error, OSError) and error.strerror else " ".join(str(error).split())
        reason = reason or type(error).__name__
        raise UserError(f"{where} cannot be read: {reason}; is the file whole, and may you read it?") from error


# --- IDX ---------------------------------------------------------------------------------------------------


def idx_tables(folder: Path, names: list[str]) -> dict[str, tuple[str, str]]:
    """{'train' or 'test': (image file, label file)} among a folder's file names; plain wins over .gz.

    Raises UserError where the label file is missing or where the folder holds several sets.
    """
    images: dict[str, dict[str, str]] = {}
    for name in sorted(names, reverse=True):  # so that x comes after x.gz
        if match := IDX_IMAGES.fullmatch(name):
            images.setdefault(match[1], {})["train" if match[2].lower() == "train" else "test"] = name
    if len(images) > 1:
        raise UserError(f"{folder} holds several IDX sets ({', '.join(sorted(images))}): put each in its own folder")
    out = {}
    for part, name in next(iter(images.values()), {}).items():
        stem = re.sub(r"(\.gz)?$", "", re.sub(r"images([-.])idx[34]", r"labels\1idx1", name))
        labels = next((n for n in (stem, stem + ".gz") if n in names), None)
        if labels is None:
            raise UserError(f"{folder / name} has no labels beside it: {stem} (or .gz) is missing")
        out[part] = (name, labels)
    if out and "train" not in out:
        raise UserError(f"{folder} holds a test part alone ({out['test'][0]}): the train-images file is missing")
    return out


def read_idx(folder: Path, names: list[str]) -> Arrays:
    """The train part, then the test part (the source's own held-out); names from classes.txt, else '0', '1', ..."""
    images, labels, own = [], [], []
    for part, pair in sorted(idx_tables(folder, names).items(), reverse=True):
        table, numbers = (_idx(folder / name) for name in pair)
        _check(table, numbers)
        images.append(table)
        labels.append((numbers.where, numbers.whole()))
        own.append(np.full(table.shape[0], HELD_OUT if part == "test" else UNDECIDED, np.int8))
    text = folder / "classes.txt"
    given: list[str] | None = None
    if text.exists():
        with readable(str(text)):
            given = [line.strip() for line in text.read_text(encoding="utf-8").splitlines() if line.strip()]
    return _assemble(images, labels, own, given, str(text))


def _idx(path: Path) -> Table:
    def unpacked() -> IO[bytes]:
        return cast(IO[bytes], gzip.open(path)) if path.suffix == ".gz" else path.open("rb")

    with readable(str(path)), unpacked() as stream:
        zeros, kind, dims = struct.unpack(">HBB", stream.read(4))
        if zeros or kind != 0x08:
            raise ValueError("it does not begin as an IDX file of unsigned bytes does (00 00 08)")
        shape = struct.unpack(f">{dims}I", stream.read(4 * dims))
        if prod(shape) > DEFLATE * path.stat().st_size:
            raise ValueError(f"its header promises {prod(shape):,} bytes, more than the file can hold")

    def positioned() -> IO[bytes]:
        stream = unpacked()
        stream.read(4 + 4 * dims)
        return stream

    return Table(str(path), shape, np.dtype(np.uint8), positioned)


# --- npz ---------------------------------------------------------------------------------------------------


def read_npz(path: Path) -> Arrays:
    """arr_0 + arr_1 (+ class_names), or MedMNIST's keys: its test part is held-out, its val part is select."""
    with readable(str(path)), zipfile.ZipFile(path) as archive:
        keys = {name.removesuffix(".npy") for name in archive.namelist()}
    images, labels, own, notices = [], [], [], []
    if "arr_0" in keys:
        images.append(_npy(path, "arr_0"))
        count = images[0].shape[0] if images[0].shape else 0
        own.append(np.full(count, UNDECIDED, np.int8))
        if "arr_1" in keys:
            numbers = _npy(path, "arr_1")
            _check(images[0], numbers)
            labels.append((numbers.where, numbers.whole()))
        else:
            _check(images[0])
            labels.append((str(path), np.zeros(count, np.int64)))
            notices.append(f"{path} has no labels (arr_1): its images are one class")
    elif "train_images" in keys:
        for part, code in (("train", UNDECIDED), ("val", SELECT), ("test", HELD_OUT)):
            if f"{part}_images" not in keys:
                continue
            if f"{part}_labels" not in keys:
                raise UserError(f"{path} has {part}_images but no {part}_labels: {NPZ_HINT}")
            images.append(_npy(path, f"{part}_images"))
            numbers = _npy(path, f"{part}_labels")
            if numbers.shape[1:] == (1,):
                numbers = replace(numbers, shape=numbers.shape[:1])
            _check(images[-1], numbers)
            labels.append((numbers.where, numbers.whole()))
            own.append(np.full(images[-1].shape[:1], code, np.int8))
    else:
        raise UserError(f"{path} holds {', '.join(sorted(keys)) or 'nothing'}: {NPZ_HINT}")
    given = None
    if "class_names" in keys:
        table = _npy(path, "class_names")
        if table.dtype.kind != "U" or len(table.shape) != 1:
            raise UserError(f"{table.where} is {table.dtype} {list(table.shape)}: a list of strings is needed")
        given = [str(name) for name in table.whole()]
    elif notices:
        given = [path.stem]
    return _assemble(images, labels, own, given, f"{path} [class_names]", notices)


def _npy(path: Path, key: str) -> Table:
    """One member of an .npz; its header is parsed as a literal, and arrays of Python objects are refused."""
    where = f"{path} [{key}]"

    def positioned() -> IO[bytes]:
        with zipfile.ZipFile(path) as archive:  # the member keeps the file open for as long as it needs it
            stream = archive.open(f"{key}.npy")
        header(stream)
        return stream

    def header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
        version = np.lib.format.read_magic(stream)
        if version == (1, 0):
            return np.lib.format.read_array_header_1_0(stream)
        if version == (2, 0):
            return np.lib.format.read_array_header_2_0(stream)
        raise ValueError(f"its npy format {version} holds named fields, not plain numbers")

    with readable(where), zipfile.ZipFile(path) as archive, archive.open(f"{key}.npy") as stream:
        shape, fortran, dtype = header(stream)
        size = archive.getinfo(f"{key}.npy").file_size - stream.tell()
    if dtype.hasobject:
        raise UserError(
            f"{where} is an array of Python objects, which would need pickle: save plain numbers or strings"
        )
    if size != prod(shape) * dtype.itemsize or min(shape, default=0) < 0 or size > DEFLATE * path.stat().st_size:
        raise UserError(f"{where} is damaged: {size} bytes cannot be {dtype} {list(shape)}")
    if fortran and len(shape) > 1:
        raise UserError(f"{where} is stored column by column: save numpy.ascontiguousarray(x)")
    return Table(where, shape, dtype, positioned)


# --- both --------------------------------------------------------------------------------------------------


def _check(images: Table, labels: Table | None = None) -> None:
    """Raise UserError where the headers of images and their labels do not fit; nothing has been read yet."""
    if images.dtype != np.uint8:
        raise UserError(f"{images.where} is {images.dtype}: images are uint8, 0 to 255")
    if len(images.shape) not in (3, 4) or (len(images.shape) == 4 and images.shape[3] not in (1, 3, 4)):
        raise UserError(
            f"{images.where} has the shape {list(images.shape)}: [N,H,W] or [N,H,W,C] with C 1, 3 or 4 is needed"
        )
    if 0 in images.shape:
        raise UserError(f"{images.where} has the shape {list(images.shape)}: it holds no image")
    if labels is None:
        return
    if len(labels.shape) != 1:
        raise UserError(
            f"{labels.where} has the shape {list(labels.shape)}: one whole number an image is needed; "
            "for several labels an image, choose one"
        )
    if labels.shape[0] != images.shape[0]:
        raise UserError(
            f"{labels.where} has {labels.shape[0]} labels for the {images.shape[0]} images of {images.where}"
        )
    if labels.dtype.kind not in "iu":
        raise UserError(
            f"{labels.where} is {labels.dtype}: labels are whole numbers, 0 to the number of classes less one"
        )


def _assemble(
    images: list[Table],
    labels: list[tuple[str, NDArray[Any]]],
    own: list[NDArray[np.int8]],
    given: list[str] | None,
    names_from: str,
    notices: list[str] | None = None,
) -> Arrays:
    for table in images[1:]:
        if table.shape[1:] != images[0].shape[1:]:
            raise UserError(f"{table.where} has images {table.shape[1:]} and {images[0].where} {images[0].shape[1:]}")
    where, values = labels[0][0], np.concatenate([array for _, array in labels])
    found = np.unique(values)
    if found[0] != 0 or found[-1] != len(found) - 1:
        shown = ", ".join(map(str, found[:12])) + (", ..." if len(found) > 12 else "")
        raise UserError(
            f"{where} has the labels {shown}: classes are numbered 0, 1, 2, ... without a gap; renumber them"
        )
    names = given if given is not None else [str(number) for number in found]
    if len(names) != len(found):
        raise UserError(
            f"{names_from} has {len(names)} names, and the labels count {len(found)} classes (0 to {found[-1]})"
        )
    if len(set(names)) < len(names):
        raise UserError(f"{names_from} has the name {max(names, key=names.count)!r} twice: each class needs its own")
    return Arrays(tuple(images), values.astype(np.int64), np.concatenate(own), tuple(names), tuple(notices or ()))

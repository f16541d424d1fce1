"""Images in array files: IDX files and .npz archives, read in chunks and never unpickled."""

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

from ptarmigan.core.types import UserError, shorten

TRAIN, SELECT, HELD_OUT, UNDECIDED = 0, 1, 2, -1  # UNDECIDED: the source names no part
CHUNK_BYTES = 16 << 20
MAX_INFLATION = 1032  # deflate expands a byte to at most this many bytes: a header that claims more is false
NPZ_HINT = (
    "an .npz file needs arr_0 uint8 [N,H,W,C] or [N,H,W] and arr_1 integers [N] (class_names is optional), "
    "or MedMNIST's train_images, train_labels, val_images, ..."
)
IDX_IMAGES = re.compile(r"(.*?)(train|t10k|test)-images[-.]idx[34]-ubyte(\.gz)?", re.IGNORECASE)


@dataclass(frozen=True)
class StoredArray:
    """An array in a file, not read yet."""

    where: str  # for messages: the file, and the name of the array in it
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    open: Callable[[], IO[bytes]]  # a stream positioned at the first element

    def chunks(self) -> Iterator[NDArray[Any]]:
        """The rows [M, ...] in chunks of about 16 MB; raises UserError if the file is truncated."""
        row = prod(self.shape[1:]) * self.dtype.itemsize
        step = max(1, CHUNK_BYTES // max(1, row))
        with as_user_error(self.where), self.open() as stream:
            for start in range(0, self.shape[0], step):
                count = min(step, self.shape[0] - start)
                data = stream.read(count * row)
                if len(data) < count * row:
                    raise EOFError(f"truncated after {start + len(data) // max(1, row)} of {self.shape[0]} items")
                yield np.frombuffer(data, self.dtype).reshape(count, *self.shape[1:])

    def read(self) -> NDArray[Any]:
        parts = list(self.chunks())
        return np.concatenate(parts) if parts else np.empty(self.shape, self.dtype)


@dataclass(frozen=True)
class Arrays:
    """The contents of an array source; all images are uint8 of one shape, stored as [N,H,W] or [N,H,W,C]."""

    images: tuple[StoredArray, ...]
    labels: NDArray[np.int64]  # [N] over all arrays
    source_part: NDArray[np.int8]  # [N] SELECT or HELD_OUT if the source says so, else UNDECIDED
    class_names: tuple[str, ...]
    notices: tuple[str, ...] = ()

    @property
    def shape(self) -> tuple[int, int, int]:
        height, width, *channels = self.images[0].shape[1:]
        return height, width, channels[0] if channels else 1

    def chunks(self) -> Iterator[NDArray[np.uint8]]:
        """Chunks [M,H,W,C] in order."""
        for table in self.images:
            for chunk in table.chunks():
                yield chunk.reshape(len(chunk), *self.shape)


@contextmanager
def as_user_error(where: str) -> Iterator[None]:
    """Turn any exception that a damaged or unreadable file raises into a UserError."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # zipfile, zlib, gzip and numpy's header parser raise a dozen types
        reason = error.strerror if isinstance(error, OSError) and error.strerror else " ".join(str(error).split())
        reason = reason or type(error).__name__
        text = f"cannot read {where}: {reason}; check that the file is complete and that you may read it"
        raise UserError(text, "file-unreadable") from error


# --- IDX ---------------------------------------------------------------------------------------------------


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


def read_idx(folder: Path, names: list[str]) -> Arrays:
    """The train part, then the test part, which is held out; class names from classes.txt, else '0', '1', ..."""
    images, labels, source_part = [], [], []
    for part, pair in sorted(idx_tables(folder, names).items(), reverse=True):
        stored_images, stored_labels = (_open_idx(folder / name) for name in pair)
        _check_headers(stored_images, stored_labels)
        images.append(stored_images)
        labels.append((stored_labels.where, stored_labels.read()))
        source_part.append(np.full(stored_images.shape[0], HELD_OUT if part == "test" else UNDECIDED, np.int8))
    names_file = folder / "classes.txt"
    class_names: list[str] | None = None
    if names_file.exists():
        with as_user_error(str(names_file)):
            class_names = [line.strip() for line in names_file.read_text("utf-8").splitlines() if line.strip()]
    return _assemble(images, labels, source_part, class_names, str(names_file))


def _open_idx(path: Path) -> StoredArray:
    def unpacked() -> IO[bytes]:
        return cast(IO[bytes], gzip.open(path)) if path.suffix == ".gz" else path.open("rb")

    with as_user_error(str(path)), unpacked() as stream:
        zeros, kind, dims = struct.unpack(">HBB", stream.read(4))
        if zeros or kind != 0x08:
            raise ValueError("not an IDX file of unsigned bytes, which starts with the bytes 00 00 08")
        shape = struct.unpack(f">{dims}I", stream.read(4 * dims))
        if prod(shape) > MAX_INFLATION * path.stat().st_size:
            raise ValueError(f"the header claims {prod(shape):,} bytes, more than the file can hold")

    def positioned() -> IO[bytes]:
        stream = unpacked()
        stream.read(4 + 4 * dims)
        return stream

    return StoredArray(str(path), shape, np.dtype(np.uint8), positioned)


# --- npz ---------------------------------------------------------------------------------------------------


def read_npz(path: Path) -> Arrays:
    """arr_0 with optional arr_1 and class_names, or MedMNIST's arrays: test is held out, val is the select part."""
    with as_user_error(str(path)), zipfile.ZipFile(path) as archive:
        keys = {name.removesuffix(".npy") for name in archive.namelist()}
    images, labels, source_part, notices = [], [], [], []
    if "arr_0" in keys:
        images.append(_open_npy(path, "arr_0"))
        count = images[0].shape[0] if images[0].shape else 0
        source_part.append(np.full(count, UNDECIDED, np.int8))
        if "arr_1" in keys:
            stored_labels = _open_npy(path, "arr_1")
            _check_headers(images[0], stored_labels)
            labels.append((stored_labels.where, stored_labels.read()))
        else:
            _check_headers(images[0])
            labels.append((str(path), np.zeros(count, np.int64)))
            notices.append(f"{path} has no labels (arr_1): all of its images are one class")
    elif "train_images" in keys:
        for part, code in (("train", UNDECIDED), ("val", SELECT), ("test", HELD_OUT)):
            if f"{part}_images" not in keys:
                continue
            if f"{part}_labels" not in keys:
                raise UserError(f"{path} has {part}_images but no {part}_labels: {NPZ_HINT}", "data-incomplete")
            images.append(_open_npy(path, f"{part}_images"))
            stored_labels = _open_npy(path, f"{part}_labels")
            if stored_labels.shape[1:] == (1,):
                stored_labels = replace(stored_labels, shape=stored_labels.shape[:1])
            _check_headers(images[-1], stored_labels)
            labels.append((stored_labels.where, stored_labels.read()))
            source_part.append(np.full(images[-1].shape[:1], code, np.int8))
    else:
        raise UserError(f"{path} holds {', '.join(sorted(keys)) or 'nothing'}: {NPZ_HINT}", "data-incomplete")
    class_names = None
    if "class_names" in keys:
        stored = _open_npy(path, "class_names")
        if stored.dtype.kind != "U" or len(stored.shape) != 1:
            text = f"{stored.where} is {stored.dtype} {list(stored.shape)}: expected a list of strings"
            raise UserError(text, "data-invalid")
        class_names = [str(name) for name in stored.read()]
    elif notices:
        class_names = [path.stem]
    return _assemble(images, labels, source_part, class_names, f"{path} [class_names]", notices)


def _open_npy(path: Path, key: str) -> StoredArray:
    """An array of an .npz file.  Its header is parsed as a literal; arrays of Python objects are refused."""
    where = f"{path} [{key}]"

    def positioned() -> IO[bytes]:
        with zipfile.ZipFile(path) as archive:  # the stream keeps the file open for as long as it needs it
            stream = archive.open(f"{key}.npy")
        header(stream)
        return stream

    def header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
        version = np.lib.format.read_magic(stream)
        if version == (1, 0):
            return np.lib.format.read_array_header_1_0(stream)
        if version == (2, 0):
            return np.lib.format.read_array_header_2_0(stream)
        raise ValueError(f"npy format {version} is for named fields, not plain numbers")

    with as_user_error(where), zipfile.ZipFile(path) as archive, archive.open(f"{key}.npy") as stream:
        shape, fortran, dtype = header(stream)
        size = archive.getinfo(f"{key}.npy").file_size - stream.tell()
    if dtype.hasobject:
        text = f"{where} holds Python objects, which are unsafe to load (pickle): save plain numbers or strings"
        raise UserError(text, "data-invalid")
    if size != prod(shape) * dtype.itemsize or min(shape, default=0) < 0 or size > MAX_INFLATION * path.stat().st_size:
        raise UserError(f"{where} is damaged: {size} bytes cannot be {dtype} {list(shape)}", "file-damaged")
    if fortran and len(shape) > 1:
        raise UserError(f"{where} is in column-major order: save numpy.ascontiguousarray(x)", "data-invalid")
    return StoredArray(where, shape, dtype, positioned)


# --- both --------------------------------------------------------------------------------------------------


def _check_headers(images: StoredArray, labels: StoredArray | None = None) -> None:
    """Raise UserError if types or shapes of images and labels are not valid, without reading the arrays."""
    text, shape = "", list(images.shape)
    if images.dtype != np.uint8:
        text = f"{images.where} is {images.dtype}: expected images as uint8, 0 to 255"
    elif len(shape) not in (3, 4) or (len(shape) == 4 and shape[3] not in (1, 3, 4)):
        text = f"{images.where} has shape {shape}: expected [N,H,W], or [N,H,W,C] with C of 1, 3 or 4"
    elif 0 in shape:
        text = f"{images.where} has shape {shape}: it holds no images"
    elif labels is not None and len(labels.shape) != 1:
        text = (
            f"{labels.where} has shape {list(labels.shape)}: expected one integer per image; "
            "if images have several labels, choose one"
        )
    elif labels is not None and labels.shape[0] != shape[0]:
        text = f"{labels.where} has {labels.shape[0]} labels for the {shape[0]} images of {images.where}"
    elif labels is not None and labels.dtype.kind not in "iu":
        text = f"{labels.where} is {labels.dtype}: expected integer labels from 0 to the number of classes minus 1"
    if text:
        raise UserError(text, "data-invalid")


def _assemble(
    images: list[StoredArray],
    labels: list[tuple[str, NDArray[Any]]],
    source_part: list[NDArray[np.int8]],
    class_names: list[str] | None,
    names_from: str,
    notices: list[str] | None = None,
) -> Arrays:
    for other in images[1:]:
        if other.shape[1:] != images[0].shape[1:]:
            text = f"{other.where} has images of {other.shape[1:]}, {images[0].where} of {images[0].shape[1:]}"
            raise UserError(text, "data-invalid")
    where, values = labels[0][0], np.concatenate([array for _, array in labels])
    found = np.unique(values)
    if found[0] != 0 or found[-1] != len(found) - 1:
        text = f"{where} has the labels {shorten([str(label) for label in found], 12)}: number classes 0, 1, 2, ..."
        raise UserError(f"{text} without gaps", "labels-invalid")
    names = class_names if class_names is not None else [str(label) for label in found]
    if len(names) != len(found):
        text = f"{names_from} has {len(names)} names for the {len(found)} classes (0 to {found[-1]}) of the labels"
        raise UserError(text, "labels-invalid")
    if len(set(names)) < len(names):
        text = f"{names_from} has the name {max(names, key=names.count)!r} twice: each class needs its own name"
        raise UserError(text, "labels-invalid")
    parts = np.concatenate(source_part)
    return Arrays(tuple(images), values.astype(np.int64), parts, tuple(names), tuple(notices or ()))

"""Files that are written whole or not at all, and that are checked by their SHA-256 when they are read."""

from __future__ import annotations

import errno
import hashlib
import itertools
import json
import os
import secrets
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import safetensors

from ptarmigan.core.types import UserError

FORMAT = 1  # of every file that holds tensors, and of a run's config.json


class Damaged(UserError):
    """A file cannot be read, or is not what was written."""

    code = "file-damaged"


class OtherFormat(UserError):
    """A file is whole, but has a format that this version does not read."""

    code = "file-format"


def write_atomic(path: Path, content: bytes | Callable[[BinaryIO], object]) -> None:
    """Write bytes, or what `content(file)` writes, to a temporary file, sync it, and rename it to `path`.

    On any failure the old file at `path` is unchanged and no temporary file is left.  Raises UserError
    (file-unwritable) where the system refuses: permission, space, a missing folder.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        try:
            with open(beside, "xb") as file:
                if callable(content):
                    content(file)
                else:
                    file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(beside, path)
        finally:
            beside.unlink(missing_ok=True)
        sync_folder(path.parent)
    except OSError as error:
        remedy = "; free some space" if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
        raise UserError(f"cannot write {path}: {error.strerror or error}{remedy}", "file-unwritable") from error


def check_absent(path: Path, flag: str) -> None:
    """Raise UserError if the path is a file or a folder that is not empty (file-exists), or is not allowed."""
    try:
        taken = path.exists() and not (path.is_dir() and not any(path.iterdir()))
    except OSError as error:  # a name that is too long, a folder that may not be read
        raise UserError(
            f"{flag}: cannot use {path}: {error.strerror}; name another --{flag}", "file-unwritable"
        ) from None
    if taken:
        raise UserError(
            f"{flag}: {path} exists and is not overwritten; name another --{flag}, or remove it first", "file-exists"
        )


def unused(name: str) -> Path:
    """The first of NAME.png, NAME-2.png, NAME-3.png ... that does not exist, for a name with any ending."""
    first = Path(name)
    others = (first.with_stem(f"{first.stem}-{number}") for number in itertools.count(2))
    return next(path for path in itertools.chain([first], others) if not os.path.lexists(path))


def check_new_path(path: Path, flag: str, ending: str) -> Path:
    """Make the folder of a new file and return the file's path.

    Raises UserError: value-invalid for another ending, file-exists, file-unwritable.
    """
    if path.suffix.lower() != ending:
        better = path.parent / f"{path.stem or flag}{ending}"
        raise UserError(f"{flag}: expected a file X{ending}, got {path}; name it {better}", "value-invalid")
    check_absent(path, flag)
    make_folder(path.parent)
    return path


def make_folder(folder: Path) -> None:
    """Make a folder and its parents; raises UserError (file-unwritable) where the system refuses."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        file = next((path for path in (folder, *folder.parents) if os.path.lexists(path)), folder)
        raise UserError(
            f"{file} is not a folder, and one is needed there: move it away, or name another --out", "file-unwritable"
        ) from error
    except OSError as error:
        raise UserError(
            f"cannot make folder {folder}: {error.strerror}; name another one with --out", "file-unwritable"
        ) from error


def sync_folder(folder: Path) -> None:
    """Make renames inside `folder` survive a power cut, where the system has such a call."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def damaged(path: Path, error: Exception | None = None) -> Damaged:
    """The error for a file that could not be read or parsed; without `error`, for one with another SHA-256."""
    if isinstance(error, OSError):
        reason = error.strerror or str(error).removesuffix(f": {path}")  # safetensors gives no errno
        return Damaged(f"cannot read {path}: {reason}", "file-unreadable")
    if isinstance(error, KeyError):
        return Damaged(f"{path} is damaged, or was not written by ptarmigan: it has no entry {error}")
    if isinstance(error, TypeError | AttributeError | RecursionError):
        return Damaged(f"{path} is damaged, or was not written by ptarmigan: its entries have another structure")
    if isinstance(error, safetensors.SafetensorError):
        text = str(error).removeprefix("Error while deserializing header: ")
        return Damaged(f"{path} is damaged, or is not a safetensors file: {text}")
    return Damaged(f"{path} is damaged: {error or 'its content does not match the SHA-256 written in it'}")


def save_json(path: Path, record: dict[str, Any]) -> None:
    """Write a record as indented JSON, with the SHA-256 of its content as the last entry."""
    write_atomic(path, (json.dumps({**record, "sha256": _seal(record)}, indent=2) + "\n").encode())


def load_json(path: Path) -> dict[str, Any]:
    """What `save_json` wrote.

    Raises Damaged where it cannot be read or does not have its SHA-256; OtherFormat where it names another format.
    """
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        good = record.pop("sha256") == _seal(record)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise damaged(path, error) from None
    if not good:
        raise damaged(path)
    check_format(path, record.get("format", FORMAT))
    return record


SealedTensor = tuple[str, str, tuple[int, ...], memoryview]  # name, type, shape and bytes: what a SHA-256 covers


class Contents(NamedTuple):
    """What a file of tensors holds, without the tensors."""

    meta: dict[str, Any]
    shapes: dict[str, tuple[int, ...]]  # by the name of the tensor
    not_finite: list[str]  # names of tensors with a NaN or infinite value


def load_header(path: Path) -> Contents:
    """Read a file of tensors one tensor at a time and without torch; raises as `load_tensors` does."""
    shapes: dict[str, tuple[int, ...]] = {}
    not_finite: list[str] = []

    def visit(name: str, array: Any) -> SealedTensor:
        shapes[name] = array.shape
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            not_finite.append(name)
        return name, f"torch.{array.dtype}", array.shape, array.reshape(-1).view(np.uint8).data

    return Contents(read_sealed(path, "np", visit), shapes, not_finite)


def read_sealed(path: Path, framework: str, visit: Callable[[str, Any], SealedTensor]) -> dict[str, Any]:
    """Check the SHA-256 of a file of tensors and return its JSON.

    `visit(name, tensor)` is called for each tensor, an array of the framework ("np" or "pt"), one at a time, before the
    SHA-256 is known to be good.  Raises Damaged where the file cannot be read, is not ours, or does not have the
    SHA-256 that it names; OtherFormat where it is whole and has another format than FORMAT.
    """
    try:
        with safetensors.safe_open(path, framework) as file:
            meta: dict[str, Any] = json.loads((file.metadata() or {})["ptarmigan"])
            sha256 = meta.pop("sha256")
            good = sha256 == seal_tensors(meta, (visit(name, file.get_tensor(name)) for name in sorted(file.keys())))
    except (
        OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, safetensors.SafetensorError,
    ) as error:  # fmt: skip
        raise damaged(path, error) from None
    if not good:
        raise damaged(path)
    check_format(path, meta.get("format"))
    return {**meta, "sha256": sha256}


def seal_tensors(meta: dict[str, Any], tensors: Iterable[SealedTensor]) -> str:
    """The SHA-256 of JSON and of tensors in the order of their names."""
    sha = hashlib.sha256(json.dumps(meta, sort_keys=True).encode())
    for name, kind, shape, content in tensors:
        sha.update(f"{name} {kind} {shape}".encode())
        sha.update(content)
    return sha.hexdigest()


def check_format(path: Path, found: object) -> None:
    """Raise OtherFormat where a file's format is not the one that this version reads."""
    if type(found) is not int or found != FORMAT:  # True and 1.0 equal 1
        raise OtherFormat(
            f"{path} has format {found!r}, this ptarmigan reads format {FORMAT}: use the ptarmigan that wrote it"
        )


def _seal(record: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()

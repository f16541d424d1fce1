"""Files appear whole or not at all, and tensors come back as they went or are said to be damaged."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from ptarmigan.core.types import UserError

FORMAT = 1  # of every file that holds tensors, and of a run's config.json


class Damaged(UserError):
    """A file is not what was written."""

    code = "file-damaged"


class OtherFormat(UserError):
    """A file is whole, but has a format that this version does not read."""

    code = "file-format"


def write_atomic(path: Path, content: bytes | Callable[[BinaryIO], object]) -> None:
    """Write bytes, or what `content(file)` writes, to `path`: beside it, synced, then renamed over it.

    On any failure what was at `path` before is still there and nothing is left beside it.  Raises UserError
    where the system does not allow the writing (permission, space, a missing folder).
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
        remedy = "; make room, then the same command goes on" if error.errno == errno.ENOSPC else ""
        raise UserError(f"cannot write {path}: {error.strerror or error}{remedy}") from error


def check_new_path(path: Path, flag: str, endings: tuple[str, ...]) -> Path:
    """`path`, if it has one of the endings and nothing is there, and its folder made; else raises UserError."""
    if path.suffix.lower() not in endings:
        raise UserError(f"{flag}: {path} is no {' or '.join('X' + ending for ending in endings)}")
    if path.exists():
        raise UserError(f"{flag}: {path} exists already and is not overwritten: name another, or remove it first")
    make_folder(path.parent)
    return path


def make_folder(folder: Path) -> None:
    """Make a folder and those above it; raises UserError where the system does not allow it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make {folder}: {error.strerror}; name another place with --out") from None


def sync_folder(folder: Path) -> None:
    """Make a rename inside `folder` last through a power cut, where the system has such a call."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def save_json(path: Path, record: dict[str, Any]) -> None:
    """Write a record as JSON for readers, with the SHA-256 of its content as its last entry."""
    write_atomic(path, (json.dumps({**record, "sha256": _seal(record)}, indent=2) + "\n").encode())


def load_json(path: Path) -> dict[str, Any]:
    """What `save_json` wrote.

    Raises Damaged where it cannot be read or does not have its SHA-256; OtherFormat where it names another format.
    """
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        good = record.pop("sha256") == _seal(record)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise Damaged(f"cannot read {path}: {error}") from None
    if not good:
        raise Damaged(f"{path} is damaged: its content does not have the SHA-256 written in it")
    check_format(path, record.get("format", FORMAT))
    return record


def check_format(path: Path, found: object) -> None:
    """Raise OtherFormat where a file's format is not the one that this version reads."""
    if found != FORMAT:
        raise OtherFormat(
            f"{path} has format {found!r}, this ptarmigan reads format {FORMAT}: use the ptarmigan that wrote it"
        )


def _seal(record: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def save_tensors(path: Path, tensors: dict[str, Tensor], meta: dict[str, Any]) -> str:
    """Write tensors and JSON to one safetensors file, with a SHA-256 of both inside; returns the SHA-256.

    The JSON is one metadata entry, because the order of several is not fixed and equal content must give
    equal bytes.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    meta = {"format": FORMAT, **meta}
    sha256 = _digest(tensors, meta)
    text = json.dumps({**meta, "sha256": sha256}, sort_keys=True)
    write_atomic(path, safetensors.torch.save(tensors, {"ptarmigan": text}))
    return sha256


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What `save_tensors` wrote, on the CPU.

    Raises Damaged where the file cannot be read, is not ours, or does not have the SHA-256 that it names;
    OtherFormat where it is whole and has another format than FORMAT.
    """
    try:
        with safetensors.safe_open(path, "pt") as file:
            meta: dict[str, Any] = json.loads((file.metadata() or {})["ptarmigan"])
        tensors = safetensors.torch.load_file(path)
        sha256 = meta.pop("sha256")
        good = sha256 == _digest(tensors, meta)
    except (
        OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, safetensors.SafetensorError,
    ) as error:  # fmt: skip
        raise Damaged(f"cannot read {path}: {error}") from None
    if not good:
        raise Damaged(f"{path} is damaged: its content does not have the SHA-256 written in it")
    check_format(path, meta.get("format"))
    return tensors, {**meta, "sha256": sha256}


def _digest(tensors: dict[str, Tensor], meta: dict[str, Any]) -> str:
    sha = hashlib.sha256(json.dumps(meta, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        sha.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        sha.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return sha.hexdigest()

"""The pack: a source's images, decoded once into a memory-mapped uint8 array [N,H,W,C] in the cache, with labels."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
import shutil
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptarmigan.config import Data, parse_size
from ptarmigan.core.files import sync_folder
from ptarmigan.core.paths import user_path
from ptarmigan.core.types import OnProgress, UserError
from ptarmigan.data.index import DataSource
from ptarmigan.data.read import SourceReader, read_source

FORMAT = 1  # of a pack; part of its key, so packs of another format are not found
ARRAYS = ("labels", "source_part", "hashes", "source_indices")
CHECKED = 64  # images of a pack whose content hash is verified each time it is opened


@dataclass(frozen=True)
class Pack:
    images: NDArray[np.uint8]  # [N,H,W,C], memory-mapped, read only
    labels: NDArray[np.int64]  # [N]
    source_part: NDArray[np.int8]  # [N] SELECT or HELD_OUT if the source says so, else UNDECIDED
    hashes: NDArray[np.uint64]  # [N] of each image's bytes
    source_indices: NDArray[np.int64]  # [N] position in the source; images that cannot be decoded are skipped
    class_names: tuple[str, ...]
    formats: tuple[str, ...]  # of the image files, most frequent first; empty for arrays
    notices: tuple[str, ...]


def cache_folder() -> Path:
    """PTARMIGAN_CACHE if it is set, else `ptarmigan` in the system's folder for caches."""
    if chosen := os.environ.get("PTARMIGAN_CACHE"):
        return user_path(chosen, "PTARMIGAN_CACHE")
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or _home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        base = _home() / "Library" / "Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or _home() / ".cache"
    return Path(base) / "ptarmigan"


def _home() -> Path:
    try:
        return Path.home()
    except RuntimeError:
        text = "your home folder is not known, so there is no place for the cache: set PTARMIGAN_CACHE to a folder"
        raise UserError(text, "value-invalid") from None


def open_pack(source: DataSource, data: Data, on_progress: OnProgress | None = None) -> Pack:
    """The pack of a source in the configured shape, from the cache or newly written.

    A pack appears whole or not at all: of several processes that write one at the same time, the first to finish
    wins and the others use its pack.  A damaged pack is replaced.  Raises UserError if the source has no usable image,
    or the cache folder cannot be written or is too small.
    """
    folder = cache_folder() / "packs" / _cache_key(source, data)
    pack = _load_pack(folder)
    if pack is not None:
        return pack
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        unfinished = folder.with_name(f"{folder.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
        unfinished.mkdir()
    except OSError as error:
        raise _cannot_write(folder.parent, error) from error
    try:
        _remove_stale(folder.parent)
        _write_pack(unfinished, read_source(source, data, on_progress), source)
        _publish(unfinished, folder)
    except OSError as error:  # the reader's errors are UserErrors already
        raise _cannot_write(folder.parent, error) from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    pack = _load_pack(folder)
    if pack is None:
        raise UserError(f"{folder} was written but cannot be read back: check the disk", "file-damaged")
    return pack


def _cache_key(source: DataSource, data: Data) -> str:
    choices = [FORMAT, source.stamp, parse_size(data.size), data.channels, data.fit, data.window, data.max_pixels]
    return hashlib.blake2b(json.dumps(choices).encode(), digest_size=16).hexdigest()


def content_hash(image: NDArray[np.uint8]) -> int:
    """64 bits of BLAKE2b over an image's bytes."""
    return int.from_bytes(hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=8).digest(), "little")


def _write_pack(folder: Path, reader: SourceReader, source: DataSource) -> None:
    shape = reader.shape
    total = len(reader.labels)
    _check_space(folder, total * (shape.height * shape.width * shape.channels + 32))
    chunk_indices, hashes = [], []
    with open(folder / "images", "xb") as file:
        for chunk in reader.chunks:
            file.write(np.ascontiguousarray(chunk.images).data)
            hashes += [content_hash(image) for image in chunk.images]
            chunk_indices.append(chunk.source_indices)
        _sync(file)
    if not chunk_indices:
        raise UserError(f"no image in {source.root} can be decoded: {reader.notices[-1]}", "no-images")
    indices = np.concatenate(chunk_indices)
    labels, class_names = _drop_empty_classes(reader.labels[indices], reader)
    arrays: dict[str, NDArray[Any]] = {
        "labels": labels,
        "source_part": reader.source_part[indices],
        "hashes": np.array(hashes, np.uint64),
        "source_indices": indices.astype(np.int64),
    }
    for name, array in arrays.items():
        with open(folder / f"{name}.npy", "xb") as file:
            np.lib.format.write_array(file, array, allow_pickle=False)
            _sync(file)
    meta = {
        "shape": [len(indices), shape.height, shape.width, shape.channels],
        "class_names": class_names,
        "formats": reader.formats,
        "notices": reader.notices,
        "digest": _arrays_digest(folder),
    }
    with open(folder / "meta.json", "x", encoding="utf-8") as text:
        json.dump(meta, text)
        _sync(text)


def _drop_empty_classes(labels: NDArray[np.int64], reader: SourceReader) -> tuple[NDArray[np.int64], list[str]]:
    """Drop classes of which no image could be decoded, with a notice, and renumber the others."""
    found, renumbered = np.unique(labels, return_inverse=True)
    if len(found) < len(reader.class_names):
        lost = [name for label, name in enumerate(reader.class_names) if label not in found]
        reader.notices.append(f"left out these classes, because none of their images decode: {', '.join(lost)}")
    return renumbered.astype(np.int64), [reader.class_names[label] for label in found]


def _load_pack(folder: Path) -> Pack | None:
    """The pack, or None if there is none or it is damaged."""
    try:
        meta: dict[str, Any] = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        shape = tuple(meta["shape"])
        if meta["digest"] != _arrays_digest(folder) or (folder / "images").stat().st_size != int(np.prod(shape)):
            return None
        arrays = {name: np.load(folder / f"{name}.npy", allow_pickle=False) for name in ARRAYS}
        images = np.asarray(np.memmap(folder / "images", np.uint8, "r", shape=shape))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    checked = np.linspace(0, shape[0] - 1, min(CHECKED, shape[0])).astype(np.int64)
    if any(content_hash(images[i]) != arrays["hashes"][i] for i in checked):
        return None
    return Pack(
        images,
        **arrays,
        class_names=tuple(meta["class_names"]),
        formats=tuple(meta["formats"]),
        notices=tuple(meta["notices"]),
    )


def _arrays_digest(folder: Path) -> str:
    """Digest of all arrays but the images, which have hashes of their own."""
    digest = hashlib.blake2b(digest_size=16)
    for name in ARRAYS:
        digest.update((folder / f"{name}.npy").read_bytes())
    return digest.hexdigest()


def _publish(unfinished: Path, folder: Path) -> None:
    """Rename into place; if another process was first, keep its pack and drop ours."""
    sync_folder(unfinished)
    if folder.exists() and _load_pack(folder) is None:
        with suppress(FileNotFoundError):  # another process has moved it already
            shutil.rmtree(_move_aside(folder))
    try:
        os.rename(unfinished, folder)
    except OSError:
        if _load_pack(folder) is None:
            raise
    sync_folder(folder.parent)


def _move_aside(folder: Path) -> Path:
    """Rename a damaged pack, so that no process reads one that is half removed."""
    trash = folder.with_name(f"{folder.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    os.rename(folder, trash)
    return trash


def _remove_stale(packs: Path, older_than: float = 24 * 3600) -> None:
    """Remove unfinished packs that killed processes left at least a day ago."""
    for stale in packs.glob("*.tmp"):
        try:
            if time.time() - stale.stat().st_mtime > older_than:
                shutil.rmtree(stale, ignore_errors=True)
        except FileNotFoundError:  # another process removed it
            continue


def _check_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        room = f"{folder.parent} has {_format_bytes(free)} free and the decoded images need {_format_bytes(needed)}"
        raise UserError(f"{room}: free some space, or set PTARMIGAN_CACHE to another folder", "file-unwritable")


def _format_bytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.2f} MB"


def _sync(file: Any) -> None:
    file.flush()
    os.fsync(file.fileno())


def _cannot_write(folder: Path, error: OSError) -> UserError:
    if error.errno == errno.ENOSPC:
        return UserError(
            f"no space left in {folder}: free some, or set PTARMIGAN_CACHE to another folder", "file-unwritable"
        )
    text = f"cannot write the cache {folder}: {error.strerror or error}; set PTARMIGAN_CACHE to another folder"
    return UserError(text, "file-unwritable")

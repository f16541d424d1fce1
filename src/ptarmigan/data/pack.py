"""A source decoded once: uint8 [N,H,W,C] in one memory-mapped file, with labels and content hashes, in the cache."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
import shutil
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptarmigan.config import Data, parse_size
from ptarmigan.core.files import sync_folder
from ptarmigan.core.types import UserError
from ptarmigan.data.index import Source
from ptarmigan.data.read import Reading, read

FORMAT = 1  # of a pack; another number is another key, so old packs are simply not found
ARRAYS = ("labels", "own", "hashes", "places")
CHECKED = 64  # images of a pack whose content hash is compared each time it is opened

Progress = Callable[[int, int], object]  # (done, total)


@dataclass(frozen=True)
class Pack:
    images: NDArray[np.uint8]  # [N,H,W,C], memory-mapped, read only
    labels: NDArray[np.int64]  # [N]
    own: NDArray[np.int8]  # [N] the part that the source itself names, or UNDECIDED
    hashes: NDArray[np.uint64]  # [N] of each image's bytes
    places: NDArray[np.int64]  # [N] in the source, whose undecodable images are left out
    class_names: tuple[str, ...]
    notices: tuple[str, ...]


def cache_folder() -> Path:
    """PTARMIGAN_CACHE, or ptarmigan's folder in the system's place for caches."""
    if given := os.environ.get("PTARMIGAN_CACHE"):
        return Path(given).expanduser()
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "ptarmigan"


def open_pack(source: Source, data: Data, progress: Progress | None = None) -> Pack:
    """The pack of this source in this shape: found, or made.

    It appears whole or not at all, so several processes may race for it: the first to finish wins, and the
    others take its pack.  A damaged one is made anew.  Raises UserError where the source has no usable image,
    or where the cache folder cannot be written or has not enough room.
    """
    folder = cache_folder() / "packs" / _key(source, data)
    pack = _load(folder)
    if pack is not None:
        return pack
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        beside = folder.with_name(f"{folder.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
        beside.mkdir()
    except OSError as error:
        raise UserError(_unwritable(folder.parent, error)) from error
    try:
        _sweep(folder.parent)
        _write(beside, read(source, data), source, progress)
        _publish(beside, folder)
    except OSError as error:  # the reader's own errors are UserErrors already
        raise UserError(_unwritable(folder.parent, error)) from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    pack = _load(folder)
    if pack is None:
        raise UserError(f"{folder} was written and cannot be read back: is the disk sound?")
    return pack


def _key(source: Source, data: Data) -> str:
    choices = [FORMAT, source.stamp, parse_size(data.size), data.channels, data.fit]
    return hashlib.blake2b(json.dumps(choices).encode(), digest_size=16).hexdigest()


def content_hash(image: NDArray[np.uint8]) -> int:
    """64 bits of BLAKE2b over an image's bytes."""
    return int.from_bytes(hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=8).digest(), "little")


def _write(folder: Path, reading: Reading, source: Source, progress: Progress | None) -> None:
    shape = reading.shape
    total = len(reading.labels)
    _check_space(folder, total * (shape.height * shape.width * shape.channels + 32))
    places, hashes = [], []
    with open(folder / "images", "xb") as file:
        for chunk in reading.chunks:
            file.write(np.ascontiguousarray(chunk.images).data)
            hashes += [content_hash(image) for image in chunk.images]
            places.append(chunk.places)
            if progress is not None:
                progress(chunk.done, total)
        _sync(file)
    if not places:
        raise UserError(f"no image in {source.root} can be decoded: {reading.notices[-1]}")
    place = np.concatenate(places)
    labels, class_names = _without_empty(reading.labels[place], reading)
    arrays: dict[str, NDArray[Any]] = {
        "labels": labels,
        "own": reading.own[place],
        "hashes": np.array(hashes, np.uint64),
        "places": place.astype(np.int64),
    }
    for name, array in arrays.items():
        with open(folder / f"{name}.npy", "xb") as file:
            np.lib.format.write_array(file, array, allow_pickle=False)
            _sync(file)
    meta = {
        "shape": [len(place), shape.height, shape.width, shape.channels],
        "class_names": class_names,
        "notices": reading.notices,
        "digest": _digest(folder),
    }
    with open(folder / "meta.json", "x", encoding="utf-8") as text:
        json.dump(meta, text)
        _sync(text)


def _without_empty(labels: NDArray[np.int64], reading: Reading) -> tuple[NDArray[np.int64], list[str]]:
    """Classes of which no image could be decoded are dropped, aloud; the others close the gap."""
    found, closed = np.unique(labels, return_inverse=True)
    if len(found) < len(reading.class_names):
        lost = [name for label, name in enumerate(reading.class_names) if label not in found]
        reading.notices.append(f"no image of these classes can be decoded, so they are left out: {', '.join(lost)}")
    return closed.astype(np.int64), [reading.class_names[label] for label in found]


def _load(folder: Path) -> Pack | None:
    """The pack, or None where there is none or where it is not what was written."""
    try:
        meta: dict[str, Any] = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        shape = tuple(meta["shape"])
        if meta["digest"] != _digest(folder) or (folder / "images").stat().st_size != int(np.prod(shape)):
            return None
        arrays = {name: np.load(folder / f"{name}.npy", allow_pickle=False) for name in ARRAYS}
        images = np.asarray(np.memmap(folder / "images", np.uint8, "r", shape=shape))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    some = np.linspace(0, shape[0] - 1, min(CHECKED, shape[0])).astype(np.int64)
    if any(content_hash(images[i]) != arrays["hashes"][i] for i in some):
        return None
    return Pack(images, **arrays, class_names=tuple(meta["class_names"]), notices=tuple(meta["notices"]))


def _digest(folder: Path) -> str:
    """Over all that is small; the images have their own hashes."""
    digest = hashlib.blake2b(digest_size=16)
    for name in ARRAYS:
        digest.update((folder / f"{name}.npy").read_bytes())
    return digest.hexdigest()


def _publish(beside: Path, folder: Path) -> None:
    """Rename into place; where another process was first, its whole pack stands and ours is dropped."""
    sync_folder(beside)
    if folder.exists() and _load(folder) is None:
        with suppress(FileNotFoundError):  # another process has moved it already
            shutil.rmtree(_aside(folder))
    try:
        os.rename(beside, folder)
    except OSError:
        if _load(folder) is None:
            raise
    sync_folder(folder.parent)


def _aside(folder: Path) -> Path:
    """Move a damaged pack out of the way in one step, so that nobody reads it half removed."""
    trash = folder.with_name(f"{folder.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    os.rename(folder, trash)
    return trash


def _sweep(packs: Path, older_than: float = 24 * 3600) -> None:
    """Remove what killed processes left behind a day ago or more."""
    for left in packs.glob("*.tmp"):
        try:
            if time.time() - left.stat().st_mtime > older_than:
                shutil.rmtree(left, ignore_errors=True)
        except FileNotFoundError:  # another process swept it
            continue


def _check_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise UserError(
            f"{folder.parent} has {_size(free)} free and the decoded images need {_size(needed)}: "
            "make room, or name another folder in PTARMIGAN_CACHE"
        )


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.2f} MB"


def _sync(file: Any) -> None:
    file.flush()
    os.fsync(file.fileno())


def _unwritable(folder: Path, error: OSError) -> str:
    if error.errno == errno.ENOSPC:
        return f"no space left in {folder}: make room, or name another folder in PTARMIGAN_CACHE"
    return f"the cache {folder} cannot be written: {error.strerror or error}; name another folder in PTARMIGAN_CACHE"

"""The pack: a source's images, decoded once into a memory-mapped uint8 array [N,H,W,C] in the cache, with labels."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import platform
import random
import re
import secrets
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from ptarmigan.config import Data, parse_size
from ptarmigan.core.files import sync_folder
from ptarmigan.core.paths import user_path
from ptarmigan.core.types import OnProgress, UserError, counted, shorten
from ptarmigan.data.arrays import UNDECIDED
from ptarmigan.data.index import DataSource, FolderSource
from ptarmigan.data.read import SourceReader, read_source

FORMAT = 2  # of a pack; part of its key, so packs of another format are not found
ARRAYS = ("labels", "source_part", "hashes", "source_indices")
CHECKED_BYTES = 4_000_000_000  # checked each time a pack is opened: 1.2 GB a second on 2 cores, for 64x64 RGB
BLOCK_BYTES = 8 << 20  # pixels that are read at once
A_DAY = 24 * 3600


@dataclass(frozen=True)
class Pack:
    images: NDArray[np.uint8]  # [N,H,W,C], memory-mapped, read only
    labels: NDArray[np.int64]  # [N]
    source_part: NDArray[np.int8]  # [N] SELECT or HELD_OUT if the source says so, else UNDECIDED
    hashes: NDArray[np.uint64]  # [N] of each image's bytes
    source_indices: NDArray[np.int64]  # [N] position in the source; images that cannot be decoded are skipped
    class_names: tuple[str, ...]
    formats: tuple[str, ...]  # of the image files, most frequent first; empty for arrays
    understood: str  # how the arrays were understood; empty where the source's own sentence says it all
    notices: tuple[str, ...]
    unreadable: tuple[str, ...]  # paths in the source of files that the system did not let us read


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
    wins and the others use its pack.  A damaged pack is replaced, with a notice: all pixels are checked up to 4 GB, and
    4 GB of random images of a larger pack.  A pack that lacks files that could not be read is replaced as soon as one
    of them can be read.  Raises UserError if the source has no usable image, or the cache folder cannot be written or
    is too small.
    """
    folder = cache_folder() / "packs" / _cache_key(source, data)
    pack = _load_pack(folder, on_progress)
    if pack is not None and not any(_can_read(source, path) for path in pack.unreadable):
        return pack
    damaged = pack is None and folder.exists()
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _remove_partial_packs(folder.parent)
        _remove_pack(folder)
        with _partial_pack(folder) as partial:
            _write_pack(partial, read_source(source, data, on_progress), source)
            _publish(partial, folder)
    except OSError as error:  # the reader's errors are UserErrors already
        raise _cannot_write(folder.parent, error) from error
    pack = _load_pack(folder)
    if pack is None:
        raise UserError(f"{folder} was written but cannot be read back: check the disk", "file-damaged")
    if damaged:
        notice = f"the decoded images in {folder} were damaged and have been made anew: check the disk"
        pack = replace(pack, notices=(notice, *pack.notices))
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
    chunk_indices, hashes = [], [np.empty(0, np.uint64)]
    with open(folder / "images", "xb") as file:
        for chunk in reader.chunks:
            file.write(np.ascontiguousarray(chunk.images).data)
            hashes.append(np.fromiter(map(content_hash, chunk.images), np.uint64, len(chunk.images)))
            chunk_indices.append(chunk.source_indices)
        _sync(file)
    if not chunk_indices:
        raise UserError(f"no image in {source.root} can be decoded: {reader.notices[-1]}", "no-images")
    indices = np.concatenate(chunk_indices)
    unreadable = _unreadable(source, np.setdiff1d(np.arange(total), indices))
    keep, labels, class_names = _drop_classes(indices, reader, source)
    if len(keep) < len(indices):
        _keep_images(folder, keep, (len(indices), shape.height, shape.width, shape.channels))
    arrays: dict[str, NDArray[Any]] = {
        "labels": labels,
        "source_part": reader.source_part[indices[keep]],
        "hashes": np.concatenate(hashes)[keep],
        "source_indices": indices[keep].astype(np.int64),
    }
    for name, array in arrays.items():
        with open(folder / f"{name}.npy", "xb") as file:
            np.lib.format.write_array(file, array, allow_pickle=False)
            _sync(file)
    meta = {
        "shape": [len(keep), shape.height, shape.width, shape.channels],
        "class_names": class_names,
        "formats": reader.formats,
        "understood": reader.understood,
        "notices": reader.notices,
        "unreadable": unreadable,
    }
    with open(folder / "meta.json", "x", encoding="utf-8") as text:
        json.dump({**meta, "digest": _digest(folder, meta)}, text)
        _sync(text)


def _drop_classes(
    indices: NDArray[np.int64], reader: SourceReader, source: DataSource
) -> tuple[NDArray[np.int64], NDArray[np.int64], list[str]]:
    """Leave out the classes without an image that may be trained on, with a notice.

    indices: the images of the source that were decoded.  Returns the positions among them that are kept, the labels
    of those, renumbered, and the class names.  Raises UserError if no class is left.
    """
    names, labels = reader.class_names, reader.labels[indices]
    decoded = np.bincount(labels, minlength=len(names))
    to_train = np.bincount(labels[reader.source_part[indices] == UNDECIDED], minlength=len(names)) > 0
    if not to_train.any():
        text = f"{source.root}: no image of its train part can be read; {'; '.join(reader.notices)}"
        raise UserError(text, "too-few-images")
    if lost := [name for name, count in zip(names, decoded, strict=True) if not count]:
        reader.notices.append(
            f"left out {counted(len(lost), 'class')}, {shorten(lost)}: none of their images can be read"
        )
    if untaught := [f"{names[i]} ({decoded[i]:,})" for i in np.flatnonzero((decoded > 0) & ~to_train)]:
        reader.notices.append(
            f"left out {counted(len(untaught), 'class')}, {shorten(untaught)}: only the val and test parts have their "
            "images, and these parts are not trained on"
        )
    keep = np.flatnonzero(to_train[labels])
    renumbered = (np.cumsum(to_train) - 1)[labels[keep]]
    return keep, renumbered.astype(np.int64), [name for name, taught in zip(names, to_train, strict=True) if taught]


def _keep_images(folder: Path, keep: NDArray[np.int64], shape: tuple[int, ...]) -> None:
    """Write the images at the positions `keep` in place of all that were written."""
    written = np.memmap(folder / "images", np.uint8, "r", shape=shape)
    step = max(1, BLOCK_BYTES // int(np.prod(shape[1:])))
    with open(folder / "kept", "xb") as file:
        for start in range(0, len(keep), step):
            file.write(np.ascontiguousarray(written[keep[start : start + step]]).data)
        _sync(file)
    del written  # Windows does not replace a file that is mapped
    os.replace(folder / "kept", folder / "images")


def _unreadable(source: DataSource, missing: NDArray[np.int64]) -> list[str]:
    """The paths of those of the files that the system does not let us read: later it may."""
    if not isinstance(source, FolderSource):
        return []
    return [path for path in (source.paths[i] for i in missing) if not _can_read(source, path)]


def _can_read(source: DataSource, path: str) -> bool:
    assert isinstance(source, FolderSource)
    try:
        with source.storage.open(path) as file:
            file.read()
            return True
    except OSError:
        return False


def _load_pack(folder: Path, on_progress: OnProgress | None = None) -> Pack | None:
    """The pack, or None if there is none or it is damaged."""
    try:
        meta: dict[str, Any] = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        digest, shape = meta.pop("digest"), tuple(meta["shape"])
        if digest != _digest(folder, meta) or (folder / "images").stat().st_size != int(np.prod(shape)):
            return None
        arrays = {name: np.load(folder / f"{name}.npy", allow_pickle=False) for name in ARRAYS}
        if not _images_are_whole(folder / "images", shape, arrays["hashes"], on_progress):
            return None
        images = np.asarray(np.memmap(folder / "images", np.uint8, "r", shape=shape))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return Pack(
        images,
        **arrays,
        class_names=tuple(meta["class_names"]),
        formats=tuple(meta["formats"]),
        understood=meta["understood"],
        notices=tuple(meta["notices"]),
        unreadable=tuple(meta["unreadable"]),
    )


def _digest(folder: Path, meta: dict[str, Any]) -> str:
    """Digest of the meta data and of all arrays but the images, which have hashes of their own."""
    digest = hashlib.blake2b(json.dumps(meta, sort_keys=True).encode(), digest_size=16)
    for name in ARRAYS:
        digest.update((folder / f"{name}.npy").read_bytes())
    return digest.hexdigest()


def _images_are_whole(
    path: Path, shape: tuple[int, ...], hashes: NDArray[np.uint64], on_progress: OnProgress | None
) -> bool:
    """Whether each image has its hash; of more than CHECKED_BYTES a random sample is looked at."""
    size = int(np.prod(shape[1:]))
    step = max(1, BLOCK_BYTES // size)
    starts = list(range(0, shape[0], step))
    if shape[0] * size > CHECKED_BYTES:
        starts = sorted(random.Random().sample(starts, max(1, CHECKED_BYTES // (step * size))))

    def check(start: int) -> bool:
        with open(path, "rb") as file:  # not the memory map: there, a fault of the disk would end the process
            file.seek(start * size)
            images = np.frombuffer(file.read(step * size), np.uint8).reshape(-1, size)
        found = np.fromiter(map(content_hash, images), np.uint64, len(images))
        return bool((found == hashes[start : start + step]).all())

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for done, whole in enumerate(pool.map(check, starts), 1):
            if on_progress is not None:
                on_progress("checking images", done if whole else len(starts), len(starts))
            if not whole:
                pool.shutdown(cancel_futures=True)
                return False
    return True


def _publish(partial: Path, folder: Path) -> None:
    """Rename into place; if another process was first, keep its pack and drop ours."""
    sync_folder(partial)
    try:
        os.rename(partial, folder)
    except OSError:
        if _load_pack(folder) is None:
            raise
    sync_folder(folder.parent)


def _remove_pack(folder: Path) -> None:
    """Remove a pack if there is one; it is renamed first, so that no process reads one that is half removed."""
    trash = folder.with_name(_partial_name(folder))
    with suppress(FileNotFoundError):  # there is none, or another process removes it
        os.rename(folder, trash)
        shutil.rmtree(trash)


@contextmanager
def _partial_pack(folder: Path) -> Iterator[Path]:
    """A new folder beside `folder`, in which a pack is written; it is removed at the end if it still exists.

    A lock beside it, taken first, shows that the process lives, so other processes leave the folder alone.
    """
    partial = folder.with_name(_partial_name(folder))
    lock = FileLock(partial.with_suffix(".lock"))
    with suppress(Timeout, NotImplementedError):  # a file system without locks
        lock.acquire(timeout=0)
    try:
        with _termination_raises():
            partial.mkdir()
            yield partial
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()


def _partial_name(folder: Path) -> str:
    return f"{folder.name}.{_host()}-{os.getpid()}-{secrets.token_hex(4)}.tmp"


def _host() -> str:
    return re.sub(r"[^\w-]", "_", platform.node())


@contextmanager
def _termination_raises() -> Iterator[None]:
    """SIGTERM and SIGHUP end the process by SystemExit, unless the caller handles them itself.

    By default they would end it at once, and leave the partial pack until the next one is made.
    """

    def leave(number: int, _: object) -> None:
        raise SystemExit(128 + number)

    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    if threading.current_thread() is not threading.main_thread():  # only the main thread may set handlers
        numbers = []
    ours = [number for number in numbers if signal.getsignal(number) == signal.SIG_DFL]
    for number in ours:
        signal.signal(number, leave)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)


def _remove_partial_packs(packs: Path) -> None:
    """Remove the partial packs that dead processes left.

    A process of this machine is dead when its lock is free.  Locks may not reach from one machine to another, so what
    other machines left has to be without a change for a day as well.
    """
    for partial in packs.glob("*.tmp"):
        ours = partial.name.partition(".")[2].rpartition("-")[0].rpartition("-")[0] == _host()
        with suppress(OSError, Timeout, NotImplementedError):  # another process removes it, or holds it
            changed = max(path.stat().st_mtime for path in (partial, *partial.iterdir()))
            if ours or time.time() - changed > A_DAY:
                lock = FileLock(partial.with_suffix(".lock"))
                with lock.acquire(timeout=0):
                    shutil.rmtree(partial, ignore_errors=True)
                    Path(lock.lock_file).unlink(missing_ok=True)


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

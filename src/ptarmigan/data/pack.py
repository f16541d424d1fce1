"""The pack: a source's images, decoded once into a memory-mapped uint8 array [N,H,W,C] in the cache, with labels."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import random
import shutil
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ptarmigan.config import Data
from ptarmigan.config.values import parse_size
from ptarmigan.core.files import sync_folder
from ptarmigan.core.types import OnProgress, UserError, counted, shorten
from ptarmigan.data.arrays import UNDECIDED
from ptarmigan.data.cache import (
    JOURNAL,
    cache_folder,
    hold,
    in_bytes,
    make_room,
    mark_used,
    partial_pack,
    remove_left_behind,
    remove_pack,
)
from ptarmigan.data.decode import TargetShape
from ptarmigan.data.index import DataSource, FolderSource, MemorySource
from ptarmigan.data.read import SourceReader, read_source

if TYPE_CHECKING:
    from ptarmigan.data.stream import StreamedImages

FORMAT = 2  # of a pack; part of its key, so packs of another format are not found
ARRAYS = ("labels", "source_part", "hashes", "source_indices")
CHECKED_BYTES = 4_000_000_000  # checked each time a pack is opened: 1.2 GB a second on 2 cores, for 64x64 RGB
BLOCK_BYTES = 8 << 20  # pixels that are read at once
SHAPE = "shape"  # in a partial pack: the shape of its images
RECORD = np.dtype([("index", "<i8"), ("hash", "<u8")])  # one image in the journal of an unfinished pack


@dataclass(frozen=True)
class Pack:
    images: NDArray[np.uint8] | StreamedImages  # [N,H,W,C], read only
    labels: NDArray[np.int64]  # [N]
    source_part: NDArray[np.int8]  # [N] SELECT or HELD_OUT if the source says so, else UNDECIDED
    hashes: NDArray[np.uint64]  # [N] of each image's bytes
    source_indices: NDArray[np.int64]  # [N] position in the source; images that cannot be decoded are skipped
    class_names: tuple[str, ...]
    formats: tuple[str, ...]  # of the image files, most frequent first; empty for arrays
    understood: str  # how the arrays were understood; empty where the source's own sentence says it all
    notices: tuple[str, ...]
    unreadable: tuple[str, ...]  # paths in the source of files that the system did not let us read


def open_pack(source: DataSource, data: Data, on_progress: OnProgress | None = None) -> Pack:
    """The pack of a source in the configured shape, from the cache or newly written.

    A pack appears whole or not at all: of several processes that write one at the same time, the first to finish
    wins and the others use its pack.  What a killed process has decoded is not decoded again.  A damaged pack is
    replaced, with a notice: all pixels are checked up to 4 GB, and 4 GB of random images of a larger pack.  A pack that
    lacks files that could not be read is replaced as soon as one of them can be read.  Where PTARMIGAN_CACHE_LIMIT is
    set, packs that are not in use make room for a new one, with a notice.  Raises UserError if the source has no usable
    image, or the cache folder cannot be written or is too small.
    """
    folder = cache_folder() / "packs" / _cache_key(source, data)
    pack = _load_pack(folder, on_progress)
    notices = []
    if pack is None or any(_can_read(source, path) for path in pack.unreadable):
        if pack is None and folder.exists():
            notices = [f"the decoded images in {folder} were damaged and have been made anew: check the disk"]
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            remove_left_behind(folder.parent)
            remove_pack(folder)
            with partial_pack(folder) as partial:
                if made_room := _write_pack(partial, read_source(source, data, on_progress), source):
                    notices.append(made_room)
                _publish(partial, folder)
        except OSError as error:  # the reader's errors are UserErrors already
            raise _cannot_write(folder.parent, error) from error
        pack = _load_pack(folder)
        if pack is None:
            raise UserError(f"{folder} was written but cannot be read back: check the disk", "file-damaged")
    mark_used(folder, str(source.root if isinstance(source, MemorySource) else source.root.absolute()))
    return replace(pack, notices=(*notices, *pack.notices))


def _cache_key(source: DataSource, data: Data) -> str:
    choices = [FORMAT, source.stamp, parse_size(data.size), data.channels, data.fit, data.window, data.max_pixels]
    return hashlib.blake2b(json.dumps(choices).encode(), digest_size=16).hexdigest()


def content_hash(image: NDArray[np.uint8] | bytes) -> int:
    """64 bits of BLAKE2b over an image's bytes."""
    content = image if isinstance(image, bytes) else np.ascontiguousarray(image).data
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little")


def _write_pack(folder: Path, reader: SourceReader, source: DataSource) -> str | None:
    """Write a pack, but for what of it is there already; returns a sentence if others were removed to make room."""
    shape, total = reader.shape, len(reader.labels)
    before = _continue_partial(folder, shape)
    needed = (total - len(before)) * (shape.height * shape.width * shape.channels + 32)
    made_room = make_room(needed, folder)
    _check_space(folder, needed, source)
    done = _write_images(folder, reader, before)
    if not len(done):
        raise UserError(f"no image in {source.root} can be decoded: {reader.notices[-1]}", "no-images")
    order = done["index"].argsort()  # a storage may have an order of its own, and a file was perhaps read later
    indices = done["index"][order]
    unreadable = _unreadable(source, np.setdiff1d(np.arange(total), indices))
    keep, labels, class_names = drop_classes(indices, reader, source)
    if not np.array_equal(order[keep], np.arange(len(order))):
        _keep_images(folder, order[keep], (len(order), shape.height, shape.width, shape.channels))
    arrays: dict[str, NDArray[Any]] = {
        "labels": labels,
        "source_part": reader.source_part[indices[keep]],
        "hashes": done["hash"][order[keep]],
        "source_indices": indices[keep],
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
    for name in (JOURNAL, SHAPE):
        (folder / name).unlink()
    return made_room


def _write_images(folder: Path, reader: SourceReader, before: NDArray[Any]) -> NDArray[Any]:
    """Write the images that are not there yet; returns the records of all, in the order in which they were written."""
    parts = [before]
    with open(folder / "images", "ab") as file, open(folder / JOURNAL, "ab") as journal:
        for chunk in reader.chunks(before["index"]):
            records = np.empty(len(chunk.images), RECORD)
            records["index"], records["hash"] = chunk.source_indices, [*map(content_hash, chunk.images)]
            file.write(np.ascontiguousarray(chunk.images).data)
            file.flush()  # before the journal names them
            journal.write(records.data)
            journal.flush()
            parts.append(records)
        _sync(file)
    return np.concatenate(parts)


def _continue_partial(folder: Path, shape: TargetShape) -> NDArray[Any]:
    """The records [M] of the images in a partial pack that are whole and of this shape; the rest is removed."""
    done, whole, size = np.empty(0, RECORD), 0, shape.height * shape.width * shape.channels
    with suppress(OSError):
        if (folder / SHAPE).read_text(encoding="utf-8") == str(shape):
            done = np.fromfile(folder / JOURNAL, RECORD)
            with open(folder / "images", "rb") as file:
                while whole < len(done) and content_hash(file.read(size)) == done["hash"][whole]:
                    whole += 1
    for path in folder.iterdir():
        if path.name not in ("images", JOURNAL):
            path.unlink()
    for name, length in (("images", whole * size), (JOURNAL, whole * RECORD.itemsize)):
        with open(folder / name, "ab") as file:
            file.truncate(length)
    (folder / SHAPE).write_text(str(shape), encoding="utf-8")
    return done[:whole]


def drop_classes(
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
        with open(folder / "images", "rb") as file:
            hold(file)
            images = np.asarray(np.memmap(file, np.uint8, "r", shape=shape))
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


def _check_space(folder: Path, needed: int, source: DataSource) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        room = f"{folder.parent} has {in_bytes(free)} free and the decoded images need {in_bytes(needed)}"
        text = f"{room}: free some space, as with `ptarmigan cache --clear`, or set PTARMIGAN_CACHE to another folder"
        if source.root.suffix == ".tar":
            text += f"; to decode the shards while they are used, give file://{source.root.absolute().as_posix()}"
        raise UserError(text, "file-unwritable")


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

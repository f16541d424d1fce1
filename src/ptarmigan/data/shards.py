"""WebDataset shards at a URL: their images, labels and parts, from one pass over the headers in them."""

from __future__ import annotations

import hashlib
import posixpath
import tarfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ptarmigan.config import Data
from ptarmigan.core.files import save_json, write_atomic
from ptarmigan.core.types import OnProgress, UserError, class_name, counted, natural
from ptarmigan.data.archive import clean_name, tar_entries, tar_fault
from ptarmigan.data.arrays import UNDECIDED, as_user_error
from ptarmigan.data.bundle import expand, shards_name
from ptarmigan.data.cache import cache_folder, mark_used
from ptarmigan.data.index import DataSource, safe_name
from ptarmigan.data.labels import MANY, MOST_BYTES, NAME_FILES, Finder, Labels, label_in, until_first_dot
from ptarmigan.data.layout import stem
from ptarmigan.data.parts import said_parts, words_of_part
from ptarmigan.data.scan import NAMED_AS_IMAGE
from ptarmigan.data.split import group_keys
from ptarmigan.data.storage import is_litter

LABEL_FILES = (".cls", ".json", ".txt")  # the first of them that holds a label gives it
READ_AHEAD = 1 << 20  # bytes that are read at once where only headers and labels are wanted
LISTED_AT_ONCE = 16  # shards: over a network, most of the time is spent waiting


class ShardList(NamedTuple):
    """The images in one shard."""

    offset: NDArray[np.int64]  # [M] of each image's bytes
    size: NDArray[np.int64]  # [M] bytes
    key: NDArray[np.uint64]  # [M] hash of the shard's name, the image's name and its size
    label: NDArray[np.int64]  # [M] position in `texts`
    texts: NDArray[np.str_]  # [K] the labels in this shard; an empty text stands for none
    said: NDArray[np.str_]  # [1] where the labels are; empty if there are none


@dataclass(frozen=True)
class ShardSource(DataSource):
    """Images in shards at a URL, in the order in which they lie there."""

    file_system: Any  # of fsspec
    shards: tuple[str, ...]  # paths there
    shard: NDArray[np.int64]  # [N] position in `shards`
    offset: NDArray[np.int64]  # [N] of each image's bytes
    size: NDArray[np.int64]  # [N] bytes
    keys: NDArray[np.uint64]  # [N] hash of the shard's name, the image's name and its size
    labels: NDArray[np.int64]  # [N]
    source_part: NDArray[np.int8]  # [N] SELECT or HELD_OUT if the shard's name says so, else UNDECIDED
    class_names: tuple[str, ...]


def find_shards(url: str, data: Data, on_progress: OnProgress | None = None) -> ShardSource:
    """List the images in the shards at a URL: name-{000..123}.tar, one shard, or the folder that holds them.

    What a shard holds is kept in the cache until the shard changes.  Raises UserError: package-missing, path-not-found,
    file-unreadable, file-damaged, no-images, labels-invalid, options-conflict.
    """
    for option in ("labels", "path_column", "group"):
        if getattr(data, option) is not None:
            text = f"{option}: shards at a URL are streamed, with the labels that are in them; leave {option} out"
            raise UserError(f"{text}, or download the shards and give their path", "options-conflict")
    file_system, paths = _open_url(url)
    lists, stamps = _list_all(file_system, paths, url, data.label_column, on_progress)
    shard = np.repeat(np.arange(len(paths)), [len(one.offset) for one in lists])
    offset, size, keys = (np.concatenate([one[column] for one in lists]) for column in range(3))
    if not len(keys):
        raise UserError(f"{url} has no images: expected .tar files with images such as 0001.jpg in them", "no-images")
    name = shards_name(Path(url))
    labels, class_names, said = _classes(file_system, posixpath.dirname(paths[0]), lists, name, data)
    parts = np.array([UNDECIDED if (part := words_of_part(stem(path))) is None else part for path in paths], np.int8)
    parts[parts == parts[shard].min()] = UNDECIDED
    kept = np.flatnonzero(labels >= 0)
    notices = (f"left out: {counted(len(keys) - len(kept), 'image')} without a label",) * (len(kept) < len(keys))
    text = f"{counted(len(paths), 'shard')}, streamed: {counted(len(kept), 'image')}"
    text += f" in {len(class_names)} classes" if len(class_names) > 1 else f" of one class, {class_names[0]!r}"
    understood = "; ".join(filter(None, [text, said, *said_parts({*parts.tolist()})]))
    stamp = hashlib.blake2b(" ".join(stamps).encode(), digest_size=16).hexdigest()
    return ShardSource(
        safe_name(name), Path(url), stamp, understood, notices, file_system, tuple(paths), shard[kept], offset[kept],
        size[kept], keys[kept], labels[kept], parts[shard[kept]], class_names,
    )  # fmt: skip


def _open_url(url: str) -> tuple[Any, list[str]]:
    """The file system of a URL, and the paths of the shards there."""
    from fsspec.core import url_to_fs

    try:
        file_system, path = url_to_fs(url)
    except (ImportError, ValueError) as error:  # the scheme is unknown, or its package is not installed
        raise UserError(f"cannot open {url}: {error}", "package-missing") from None
    paths = expand(path)
    with as_user_error(url):
        if not paths:
            paths = sorted(file_system.glob(f"{path}/*.tar"), key=natural) if file_system.isdir(path) else [path]
    if not paths or not all(path.endswith(".tar") for path in paths):
        text = f"{url}: at a URL, expected .tar shards, as in name-{{000..123}}.tar, or the folder that holds them"
        raise UserError(f"{text}; download other data and give their path", "no-images")
    return file_system, paths


def _list_all(
    file_system: Any, paths: list[str], url: str, label_column: str | None, on_progress: OnProgress | None
) -> tuple[list[ShardList], list[str]]:
    """The images in each shard, and a text for each shard that changes when it does."""
    key = hashlib.blake2b(f"shards {url} {label_column}".encode(), digest_size=16).hexdigest()
    folder = cache_folder() / "packs" / key

    def list_one(path: str) -> tuple[ShardList, str]:
        with as_user_error(path):
            try:
                info = file_system.info(path)
            except FileNotFoundError:
                text = f"{path} does not exist: name the first and the last shard, as in shard-{{000..123}}.tar"
                raise UserError(text, "path-not-found") from None
            stamp = hashlib.blake2b(repr((path, sorted(info.items()))).encode(), digest_size=16).hexdigest()
            found = _kept(folder / f"{stamp}.npz")
            if found is None:
                with file_system.open(path, "rb", block_size=READ_AHEAD) as stream:
                    found = _list_shard(stream, path, info["size"], label_column)
                with suppress(OSError, UserError):  # a cache that may only be read, or that is full
                    folder.mkdir(parents=True, exist_ok=True)
                    write_atomic(folder / f"{stamp}.npz", lambda file: np.savez(file, **found._asdict()))
            return found, stamp

    lists, stamps = [], []
    with ThreadPoolExecutor(LISTED_AT_ONCE) as pool:
        try:
            for done, (found, stamp) in enumerate(pool.map(list_one, paths), 1):
                lists.append(found)
                stamps.append(stamp)
                if on_progress is not None:
                    on_progress("listing shards", done, len(paths))
        finally:
            pool.shutdown(cancel_futures=True)
    with suppress(OSError, UserError):
        save_json(folder / "meta.json", {"shape": [sum(len(one.offset) for one in lists)]})
    mark_used(folder, url)
    return lists, stamps


def _kept(path: Path) -> ShardList | None:
    """The list of a shard as it was kept; None if it was not, or is damaged."""
    with suppress(Exception), np.load(path, allow_pickle=False) as arrays:  # a damaged .npz raises many types
        return ShardList(**{name: arrays[name] for name in ShardList._fields})
    return None


def _list_shard(stream: IO[bytes], path: str, length: int, label_column: str | None) -> ShardList:
    """The images in a shard, with the labels in the files beside them, or else with the names of their folders."""
    images: dict[str, tuple[int, int]] = {}
    texts: dict[str, str] = {}  # label file -> label
    for entry in tar_entries(stream):
        if entry.offset + entry.size > length:
            raise UserError(f"{path} ends in the middle of {entry.name}: copy it again", "file-damaged")
        name = clean_name(entry.name)
        if (
            entry.kind == tarfile.DIRTYPE
            or name is None
            or tar_fault(entry.kind)
            or is_litter(posixpath.basename(name))
        ):
            continue
        ending = posixpath.splitext(name)[1].lower()
        if ending in NAMED_AS_IMAGE:
            images.pop(name, None)  # of a name that stands twice, the last one, in its place
            images[name] = entry.offset, entry.size
        elif ending in LABEL_FILES and (label_column is None or ending == ".json") and entry.size <= MOST_BYTES:
            stream.seek(entry.offset)
            texts[name] = label_in(stream.read(entry.size), ending, label_column)
    labels = [_text_beside(name, texts) for name in images]
    said = "the file beside each image"
    if not any(labels) and label_column is None:
        labels = [posixpath.basename(posixpath.dirname(name)) for name in images]
        said = "the folders in the shards" if any(labels) else ""
    found, label = np.unique(np.array(labels, np.str_), return_inverse=True)
    offset, size = np.array(list(images.values()), np.int64).reshape(-1, 2).T
    key = group_keys([f"{posixpath.basename(path)}/{name} {size}" for name, (_, size) in images.items()])
    return ShardList(offset, size, key, label, found, np.array([said]))


def _text_beside(name: str, texts: Mapping[str, str]) -> str:
    """The label in a file such as x.cls beside x.png; empty if there is none."""
    samples = posixpath.splitext(name)[0], until_first_dot(name)
    files = (sample + ending for ending in LABEL_FILES for sample in samples)
    return next((texts[file] for file in files if texts.get(file)), "")


def _classes(
    file_system: Any, folder: str, lists: list[ShardList], name: str, data: Data
) -> tuple[NDArray[np.int64], tuple[str, ...], str]:
    """[N] the label of each image, or -1; the class names; and what to say about them."""
    texts, known = np.unique(np.concatenate([one.texts for one in lists]), return_inverse=True)
    starts = np.cumsum([0, *(len(one.texts) for one in lists)])
    codes = np.concatenate([known[start:][one.label] for start, one in zip(starts, lists, strict=False)])
    used = {text: text for text in texts[np.unique(codes)].tolist() if text}
    if not used and data.label_column is None:
        return np.zeros(len(codes), np.int64), (class_name(name),), ""
    if not used:
        text = f"label_column: no .json in the shards has the key {data.label_column!r} with a text or a number"
        raise UserError(text, "unknown-name")
    if len(codes) >= MANY and len(used) > len(codes) / 2:
        text = f"the shards have {len(used):,} different labels for {len(codes):,} images"
        raise UserError(f"{text}: give the images of a class one label", "labels-invalid")
    with as_user_error(folder):
        beside = [file for file in NAME_FILES if file_system.exists(f"{folder}/{file}")]
        finder = Finder([], beside, lambda file: bytes(file_system.cat_file(f"{folder}/{file}")), data)
        names, order, renamed = finder.names(used, Labels("the shards"))
    number = {label: i for i, label in enumerate(order)}
    of_text = np.array([number[names[text]] if text in used else -1 for text in texts.tolist()])
    where = sorted({str(one.said[0]) for one in lists} - {""})
    return of_text[codes], tuple(order), "; ".join(filter(None, [f"labels from {' and '.join(where)}", renamed]))

"""Find the kind of data at a path: images in a folder or an archive, arrays, shards at a URL, or the embedded set."""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.resources import files as package_files
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ptarmigan.config import Data
from ptarmigan.core.paths import url_of, user_path
from ptarmigan.core.types import OnProgress, UserError, counted, natural, shorten
from ptarmigan.data.archive import archive_name
from ptarmigan.data.arrays import Arrays, as_array, read_memory
from ptarmigan.data.bundle import BRACES, expand, open_all, open_table_or_archive, shards_name
from ptarmigan.data.cifar import CIFAR_IMAGES, CIFAR_NAMES, check_no_pickles, read_cifar
from ptarmigan.data.disk import Disk, is_own, open_regular
from ptarmigan.data.idx import IDX_IMAGES, read_idx
from ptarmigan.data.labels import Finder, Labels, compared
from ptarmigan.data.layout import Layout, understand
from ptarmigan.data.npz import read_npy, read_npz
from ptarmigan.data.others import SUPPORTED, base, hint_for, no_images, notices_of_others
from ptarmigan.data.scan import Scan, content_digest, scan
from ptarmigan.data.storage import Storage
from ptarmigan.data.tables import MAX_TABLE

IN_MEMORY = "arrays in memory"  # what a run records in place of the path of its images
WHOLE_ARRAY = 1 << 28  # bytes; of a larger array file, three pieces are hashed


@dataclass(frozen=True)
class DataSource:
    """A folder or file with images, listed but not read."""

    name: str  # short, safe in a folder name
    root: Path  # the folder, or the single file
    stamp: str  # changes with any path, label or content: hashes of the files are part of it
    understood: str  # one sentence: what was found, and where the labels come from
    notices: tuple[str, ...]


@dataclass(frozen=True)
class FolderSource(DataSource):
    """One file per image, in a folder or in archives."""

    storage: Storage
    paths: tuple[str, ...]  # [N] in the storage, with '/'
    labels: NDArray[np.int64]  # [N]
    source_part: NDArray[np.int8]  # [N] SELECT or HELD_OUT if the source says so, else UNDECIDED
    class_names: tuple[str, ...]
    groups: tuple[str, ...] = ()  # [N] what the column says that `Data.group` names, if it names one

    def open(self, index: int) -> IO[bytes]:
        """The file of an image; raises OSError."""
        return self.storage.open(self.paths[index])


@dataclass(frozen=True)
class ArraySource(DataSource):
    """Files of arrays, an .npz file, or arrays in memory."""

    read: Callable[..., Arrays]  # of an OnProgress, or of nothing


@dataclass(frozen=True)
class MemorySource(ArraySource):
    """Arrays that the caller holds, and may change from one command to the next."""

    images: NDArray[Any] = field(kw_only=True)
    labels: NDArray[Any] | None = field(kw_only=True)
    class_names: list[str] | None = field(kw_only=True)

    @classmethod
    def of(cls, images: Any, labels: Any, class_names: Sequence[str] | None) -> MemorySource:
        """The arrays as they are now.  Raises UserError (data-invalid, labels-invalid) for other types."""
        names = class_names if class_names is None or isinstance(class_names, str) else [*class_names]
        if isinstance(names, str) or not all(isinstance(name, str) for name in names or []):
            raise UserError("class_names: expected a list of texts, one for each class", "labels-invalid")
        images, labels = as_array("images", images), None if labels is None else as_array("labels", labels)
        digest = hashlib.blake2b(json.dumps(names).encode(), digest_size=16)
        for array in (images, labels):
            if array is not None:
                digest.update(f"{array.dtype} {array.shape} ".encode())
                digest.update(np.ascontiguousarray(array).data)

        def read(_: OnProgress | None = None) -> Arrays:
            return read_memory(images, labels, names)

        return cls(
            "arrays", Path(IN_MEMORY), digest.hexdigest(), IN_MEMORY, (), read, images=images, labels=labels,
            class_names=names,
        )  # fmt: skip

    def again(self) -> MemorySource:
        """The same arrays as they are now."""
        return self.of(self.images, self.labels, self.class_names)


def find_source(path: str | Path | None, on_progress: OnProgress | None = None, data: Data | None = None) -> DataSource:
    """List the images at `path`; None is the embedded data set.

    data: its labels, label_column, path_column and group say which table the labels and groups of files come from.
    on_progress(what, done, total) is called while files are listed and read.  Raises UserError if there is nothing
    usable, or if it is not certain which images have labels.
    """
    data = data or Data()
    source = _find(path, on_progress, data)
    for option in ("labels", "label_column", "path_column"):
        if getattr(data, option) is not None and isinstance(source, ArraySource):
            text = f"{option}: {source.root} holds arrays, which have labels of their own; leave {option} out"
            raise UserError(text, "options-conflict")
    return source


def may_hold_data(path: str | Path) -> bool:
    """Whether a path exists, or stands for other paths: the URL of shards, or shard-{000..123}.tar."""
    return Path(path).exists() or url_of(path) is not None or BRACES.fullmatch(str(path)) is not None


def _find(path: str | Path | None, on_progress: OnProgress | None, data: Data) -> DataSource:
    if path is None:
        asset = Path(str(package_files("ptarmigan") / "assets" / "fashion-mnist-10k.npz"))
        return _of_npz(asset, "fashion-mnist", "the embedded images of Fashion-MNIST")
    root = user_path(path, "data")
    if not root.exists() and (url := url_of(path)):
        from ptarmigan.data.shards import find_shards

        return find_shards(url, data, on_progress)
    if not root.exists() and (shards := expand(str(root))):
        return _find_shards(root, shards, on_progress, data)
    try:
        if root.is_dir():
            if is_own(str(root)):
                text = f"{root} is an output folder of ptarmigan, not data: give the folder of the images"
                raise UserError(f"{text}; --out resumes a run, and --from starts with its weights", "no-images")
            return _find_in_folder(Disk(root), root.resolve().name or "data", on_progress, data)
        if not root.exists():
            text = f"{root} does not exist: give a folder of images or IDX files, a file such as an .npz, or nothing"
            raise UserError(text, "path-not-found")
        return _find_file(root, on_progress, data)
    except OSError as error:
        text = f"cannot read {error.filename or path}: {error.strerror or error}"
        raise UserError(text, "file-unreadable") from error


def _of_npz(path: Path, name: str, understood: str) -> ArraySource:
    return ArraySource(name, path, _array_stamp([path]), understood, (), partial(read_npz, path))


def _find_file(path: Path, on_progress: OnProgress | None, data: Data) -> DataSource:
    if not stat.S_ISREG(path.stat().st_mode):
        raise UserError(f"{path} is a FIFO, socket or device, not a file or folder: {SUPPORTED}", "no-images")
    if path.suffix.lower() == ".npz":
        return _of_npz(path, safe_name(path.stem), "an .npz file of images and labels")
    if path.suffix.lower() == ".npy":
        text = f"{path} is one array without names: save images and labels by numpy.savez('x.npz', arr_0=images, "
        raise UserError(f"{text}arr_1=labels), and give that file", "no-images")
    if (archive := open_table_or_archive(path, data.label_column, on_progress)) is not None:
        return _find_in_folder(archive, archive_name(path), on_progress, data)
    text = f"{path} is a single file, and neither an .npz file nor an archive that is read: {SUPPORTED}"
    raise UserError(f"{text}{hint_for([path.suffix.lower()])}", "no-images")


def _find_shards(pattern: Path, paths: list[str], on_progress: OnProgress | None, data: Data) -> DataSource:
    """The shards that a pattern with braces stands for."""
    if missing := next((path for path in paths if not Path(path).is_file()), None):
        text = f"{missing} of {pattern} does not exist: name the first and the last shard, as in shard-{{000..123}}.tar"
        raise UserError(text, "path-not-found")
    try:
        bundle = open_all(
            pattern.parent, [os.path.relpath(path, pattern.parent) for path in paths], data.label_column, on_progress
        )
    except OSError as error:
        raise UserError(
            f"cannot read {error.filename or pattern}: {error.strerror or error}", "file-unreadable"
        ) from error
    if bundle is None:
        raise UserError(f"{pattern}: these are no archives; {SUPPORTED}", "no-images")
    return _find_in_folder(replace(bundle, root=pattern), shards_name(pattern), on_progress, data)


def _find_in_folder(storage: Storage, full_name: str, on_progress: OnProgress | None, data: Data) -> DataSource:
    root, found = storage.root, scan(storage, on_progress)
    name = safe_name(full_name)
    others = [path for folder in found.tree.walk() for path in folder.others]
    if isinstance(storage, Disk):
        for kind in KINDS:
            if (source := _find_arrays(root, name, found, kind)) is not None:
                return source
        if not found.digests and (bundle := open_all(root, others, data.label_column, on_progress)):
            return _find_in_folder(bundle, full_name, on_progress, data)
    if not found.digests:
        check_no_pickles(root, [*map(base, others)])
        raise no_images(storage, found, others)
    finder = Finder(found.digests, others, lambda path: _content(storage.open(path)), data)
    layout, labels = _understand(storage, full_name, found, finder, data)
    class_names = tuple(layout.order or sorted({group.name for group in layout.groups}, key=natural))
    paths, codes, parts = _rows(layout, class_names, storage.order)
    if data.labels is None:
        others = [path for path in others if path not in finder.used]
        if layout.one_class:
            others = [path for path in others if path not in finder.unused]
            layout.notices += [*dict.fromkeys(finder.unused.values())][:3]
        if others:
            layout.notices += notices_of_others(storage, list(found.digests), others, layout)
    if labels is not None and labels.group and (lacking := [path for path in paths if not labels.group.get(path)]):
        text = f"group: {labels.where} has no {data.group} for {shorten(lacking, 3)}: every image needs a group"
        raise UserError(text, "value-invalid")
    groups = tuple(labels.group[path] for path in paths) if labels is not None and labels.group else ()
    facts = [
        f"{code} {part} {path} {found.digests[path]}" for path, code, part in zip(paths, codes, parts, strict=True)
    ]
    return FolderSource(
        name, root, _digest([*facts, *class_names]), layout.understood, (*layout.notices, *found.notices),
        storage, paths, np.array(codes, np.int64), np.array(parts, np.int8), class_names, groups,
    )  # fmt: skip


def _rows(
    layout: Layout, class_names: Sequence[str], order: Mapping[str, int] | None
) -> tuple[tuple[str, ...], tuple[int, ...], tuple[int, ...]]:
    """The path, label and part of each image: by class and part, or in the order of the storage if it has one."""
    number = {name: i for i, name in enumerate(class_names)}
    groups = sorted(layout.groups, key=lambda group: (number[group.name], group.part))
    rows = [(path, number[group.name], group.part) for group in groups for path in sorted(group.paths)]
    if order is not None:
        rows.sort(key=lambda row: order[row[0]])
    paths, codes, parts = zip(*rows, strict=True)
    return paths, codes, parts


def _understand(storage: Storage, name: str, found: Scan, finder: Finder, data: Data) -> tuple[Layout, Labels | None]:
    """The classes and parts of a folder, by its folders or by a table, and what tables say about its images."""
    layout, fault = None, None
    try:
        layout = understand(found.tree, name)
    except UserError as error:  # a table may say what the folders do not
        fault = error
    if data.labels is not None:
        labels: Labels | None = _given_labels(storage.root, finder, data.labels)
    elif storage.labels is not None:
        label = {path: name for path, name in storage.labels.of.items() if path in found.digests}
        labels = Labels(storage.root.name, said=storage.labels.said, label=label, named=set(found.digests))
    else:
        labels = finder.beside()
    given = (data.labels, data.label_column, data.path_column)
    asked = given != (None, None, None) or (labels is not None and labels.keeps)
    if labels is not None and (asked or (labels.said and (layout is None or layout.one_class))):
        layout = finder.applied(labels, layout)
    elif fault is not None or layout is None:
        raise fault or AssertionError
    elif labels is not None and labels.said:
        agreed, notice = compared(labels, layout)
        layout.understood = "; ".join(filter(None, [layout.understood, agreed]))
        layout.notices += filter(None, [notice])
    if labels is not None and labels.group:
        layout.understood += f"; groups from column {data.group} of {labels.where}"
    return layout, labels


def _given_labels(root: Path, finder: Finder, given: str) -> Labels:
    """The labels of the table that the user names, from the current folder on or from the data folder on."""
    path = user_path(given, "labels")
    if path.is_file():
        folder = os.path.relpath(path.resolve().parent, root.resolve()).replace(os.sep, "/")
        return finder.given(
            _content(open_regular(path)), given, "" if folder == "." or folder.startswith("..") else folder
        )
    inside = next((name for name in (given, path.name) if name in finder.others), None)
    if inside is None:
        text = f"labels: {given} does not exist, neither in the current folder nor in {root}: copy the table"
        raise UserError(f"{text} to the current folder", "path-not-found")
    return finder.given(finder.read(inside), inside, os.path.dirname(inside))


def _content(file: IO[bytes]) -> bytes:
    """The bytes of a table; of one that is too large, too many to be taken."""
    content = bytearray()
    with file:
        while len(content) <= MAX_TABLE and (piece := file.read(1 << 20)):
            content += piece
    return bytes(content)


class ArrayKind(NamedTuple):
    """A kind of files that hold arrays."""

    words: str  # what they are called
    images: re.Pattern[str]  # the names of those with images
    beside: re.Pattern[str]  # the names of others that are read with them
    read: Callable[..., Arrays]  # of the folder, the names of the files, and an OnProgress or nothing


KINDS = (
    ArrayKind("IDX files", IDX_IMAGES, re.compile(r".*-ubyte.*|.*classes\.txt|.*-mapping\.txt", re.DOTALL), read_idx),
    ArrayKind("CIFAR's binary files", CIFAR_IMAGES, CIFAR_NAMES, read_cifar),
    ArrayKind(".npy files", re.compile(r".+\.npy"), re.compile(r"classes\.txt"), read_npy),
)


def _find_arrays(root: Path, name: str, found: Scan, kind: ArrayKind) -> ArraySource | None:
    """Files of arrays in the folder itself, or in the only folder below it that has some if there are no images.

    Beside images only IDX files are taken for the data.
    """
    folders = [f for f in found.tree.walk() if any(kind.images.fullmatch(base(path)) for path in f.others)]
    if found.digests and kind.read is not read_idx:
        return None
    if len(folders) > 1 and folders[0].path and not found.digests:
        some = shorten([folder.path for folder in folders])
        raise UserError(f"{root} holds several sets of {kind.words} ({some}): give one of them", "layout-unclear")
    if len(folders) != 1 or (folders[0].path and found.digests):
        folders = [folder for folder in folders if not folder.path]
    if not folders:
        return None
    files = map(base, folders[0].others)
    used = [file for file in files if kind.images.fullmatch(file) or kind.beside.fullmatch(file)]
    folder = root / folders[0].path
    where = f" in {folders[0].path}/" if folders[0].path else ""
    stamp = _array_stamp([folder / file for file in used])
    notices = list(found.notices)
    if found.digests:
        notices.append(f"left out: {counted(len(found.digests), 'image file')} beside the {kind.words}")
    understood = f"{kind.words} of images and labels{where}"
    return ArraySource(name, folder, stamp, understood, tuple(notices), partial(kind.read, folder, used))


def _array_stamp(paths: list[Path]) -> str:
    facts = []
    for path in paths:
        with open_regular(path) as file:
            facts.append(f"{path.resolve()} {content_digest(file, WHOLE_ARRAY)}")
    return _digest(facts)


def _digest(lines: Iterable[str]) -> str:
    return hashlib.blake2b("\0".join(lines).encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()


def safe_name(name: str) -> str:
    return re.sub(r"[^\w.-]+", "-", name).strip("-.") or "data"

"""PATH -> what lies there: a folder of class folders, a flat folder, IDX files, an .npz, or the embedded set."""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files as package_files
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ptarmigan.core.types import UserError
from ptarmigan.data.arrays import HELD_OUT, IDX_IMAGES, SELECT, UNDECIDED, Arrays, read_idx, read_npz

ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif")
LOOKED_FOR = (
    "looked for class folders or images (PNG, JPEG, WebP, BMP, GIF), IDX files (train-images-idx3-ubyte[.gz]), an .npz"
)
PARTS = {
    "train": UNDECIDED, "training": UNDECIDED,
    "val": SELECT, "valid": SELECT, "validation": SELECT,
    "test": HELD_OUT, "testing": HELD_OUT,
}  # fmt: skip


@dataclass(frozen=True)
class Source:
    """A place with images, listed but not read."""

    name: str  # short, fit for a folder's name
    root: Path  # the folder, or the one file
    stamp: str  # changes when a path, size or time of change does
    notices: tuple[str, ...]


@dataclass(frozen=True)
class FolderSource(Source):
    """One file an image."""

    paths: tuple[str, ...]  # [N] below root, with '/'
    labels: NDArray[np.int64]  # [N]
    own: NDArray[np.int8]  # [N] the part that the source itself names, or UNDECIDED
    class_names: tuple[str, ...]


@dataclass(frozen=True)
class ArraySource(Source):
    """IDX files or an .npz."""

    names: tuple[str, ...]  # of the files in a folder; empty: root is an .npz

    def read(self) -> Arrays:
        return read_idx(self.root, list(self.names)) if self.names else read_npz(self.root)


def find(path: str | Path | None) -> Source:
    """List what lies at `path` (None: the embedded set).  Raises UserError with what was looked for and found."""
    if path is None:
        asset = Path(str(package_files("ptarmigan") / "assets" / "fashion-mnist-10k.npz"))
        return ArraySource("fashion-mnist", asset, _stamp(asset, [""]), (), ())
    root = Path(path).expanduser()
    try:
        if root.is_dir():
            return _folder(root)
        if not root.exists():
            raise UserError(f"{root} does not exist: give a folder of class folders, IDX files, an .npz, or nothing")
        if root.suffix.lower() != ".npz":
            raise UserError(f"{root} is a single file and no .npz: give the folder it lies in; {LOOKED_FOR}")
        return ArraySource(_short(root.stem), root, _stamp(root, [""]), (), ())
    except OSError as error:
        raise UserError(f"{error.filename or root} cannot be read: {error.strerror or error}") from error


def _folder(root: Path) -> Source:
    folders, files = _entries(root)
    full_name = root.resolve().name or "data"
    name = _short(full_name)
    if any(IDX_IMAGES.fullmatch(file) for file in files):
        used = [file for file in files if "-ubyte" in file or file == "classes.txt"]
        return ArraySource(name, root, _stamp(root, used), (), tuple(used))

    notices: list[str] = []
    others: Counter[str] = Counter()
    loose = [file for file in files if _is_image(file, others)]
    below = {folder: [p for p in _walk(root / folder, folder) if _is_image(p, others)] for folder in folders}
    empty = [folder for folder in folders if not below[folder]]
    below = {folder: paths for folder, paths in below.items() if paths}
    if not below and not loose:
        found = ", ".join(f"{count} {ending}" for ending, count in others.most_common(5)) or "nothing"
        if any(file.lower().endswith(".npz") for file in files):
            found += " (give the .npz itself)"
        raise UserError(f"{root} has no images: {LOOKED_FOR}; found {found}")
    if others:
        kinds = ", ".join(f"{count} {ending}" for ending, count in others.most_common(5))
        notices.append(f"passed over as no images: {kinds}")

    own_of: dict[str, int] = {}
    if not below:
        notices.append(f"{root} has no class folders: all images in it ({len(loose)}) are one class, {full_name!r}")
        below, own_of = {full_name: loose}, {full_name: UNDECIDED}
    else:
        if loose:
            notices.append(
                f"passed over, since they lie beside the class folders: {', '.join(loose[:3])} ({len(loose)} in all)"
            )
        if empty:
            notices.append(f"folders without images are no classes: {', '.join(empty[:5])}")
        below, own_of = _parts(root, below, notices)
    class_names = tuple(sorted({folder.rpartition("/")[2] for folder in below}))
    paths, labels, own = [], [], []
    for folder in sorted(below, key=lambda f: (class_names.index(f.rpartition("/")[2]), own_of[f])):
        paths += below[folder]
        labels += [class_names.index(folder.rpartition("/")[2])] * len(below[folder])
        own += [own_of[folder]] * len(below[folder])
    return FolderSource(
        name, root, _stamp(root, paths, *class_names), tuple(notices),
        tuple(paths), np.array(labels, np.int64), np.array(own, np.int8), class_names,
    )  # fmt: skip


def _parts(root: Path, below: dict[str, list[str]], notices: list[str]) -> tuple[dict[str, list[str]], dict[str, int]]:
    """Where the folders are train (and val, test), and class folders lie in each: those are the source's own parts."""
    nested = all(path.count("/") >= 2 for paths in below.values() for path in paths)
    named = all(folder.lower() in PARTS for folder in below) and any(PARTS[f.lower()] == UNDECIDED for f in below)
    if not (nested and named):
        return below, dict.fromkeys(below, UNDECIDED)
    notices.append(
        f"{root} names its own parts ({', '.join(below)}), with class folders in each: test is held out, val selects"
    )
    inner: dict[str, list[str]] = {}
    for paths in below.values():
        for path in paths:
            part, folder, _ = path.split("/", 2)
            inner.setdefault(f"{part}/{folder}", []).append(path)
    return inner, {key: PARTS[key.split("/")[0].lower()] for key in inner}


def _entries(folder: Path) -> tuple[list[str], list[str]]:
    """Sorted names of the folders and of the files in a folder, without hidden ones."""
    with os.scandir(folder) as entries:
        seen = [(entry.name, entry.is_dir()) for entry in entries if not entry.name.startswith((".", "__MACOSX"))]
    return sorted(name for name, is_dir in seen if is_dir), sorted(name for name, is_dir in seen if not is_dir)


def _walk(folder: Path, prefix: str) -> Iterator[str]:
    """Paths of all files below a folder; links are followed, but no folder is entered twice."""
    entered: set[tuple[int, int]] = set()
    waiting = [(folder, prefix)]
    while waiting:
        folder, prefix = waiting.pop()
        stat = folder.stat()
        if (stat.st_dev, stat.st_ino) in entered and stat.st_ino:
            continue
        entered.add((stat.st_dev, stat.st_ino))
        folders, files = _entries(folder)
        yield from (f"{prefix}/{name}" for name in files)
        waiting += [(folder / name, f"{prefix}/{name}") for name in reversed(folders)]


def _is_image(path: str, others: Counter[str]) -> bool:
    ending = os.path.splitext(path)[1].lower()
    if ending not in ENDINGS:
        others[ending or "without an ending"] += 1
    return ending in ENDINGS


def _stamp(root: Path, paths: list[str], *more: str) -> str:
    """Hex digest of paths, sizes and times of change; of a single file, '' below itself, with its full path."""
    digest = hashlib.blake2b(digest_size=16)
    for path in paths:
        try:
            stat = os.stat(f"{root}/{path}" if path else root)  # pathlib would cost more than the call
            line = f"{path or root.resolve()}\0{stat.st_size}\0{stat.st_mtime_ns}\n"
        except FileNotFoundError:  # a broken link: decoding will say so
            line = f"{path}\0missing\n"
        digest.update(line.encode("utf-8", "surrogateescape"))
    digest.update("\0".join(more).encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _short(name: str) -> str:
    return re.sub(r"[^\w.-]+", "-", name).strip("-.") or "data"

"""Find the kind of data at a path: class folders, a flat folder, IDX files, an .npz file, or the embedded set."""

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

from ptarmigan.core.types import OnProgress, UserError, shorten
from ptarmigan.data.arrays import HELD_OUT, IDX_IMAGES, SELECT, UNDECIDED, Arrays, read_idx, read_npz

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif")
SUPPORTED = (
    "expected class folders or images (PNG, JPEG, WebP, BMP, GIF), IDX files (train-images-idx3-ubyte[.gz]) or an .npz"
)
PART_FOLDERS = {
    "train": UNDECIDED, "training": UNDECIDED,
    "val": SELECT, "valid": SELECT, "validation": SELECT,
    "test": HELD_OUT, "testing": HELD_OUT,
}  # fmt: skip


@dataclass(frozen=True)
class DataSource:
    """A folder or file with images, listed but not read."""

    name: str  # short, safe in a folder name
    root: Path  # the folder, or the single file
    stamp: str  # changes with any path, size or modification time
    understood: str  # one sentence: what was found, and where the labels come from
    notices: tuple[str, ...]


@dataclass(frozen=True)
class FolderSource(DataSource):
    """One file per image."""

    paths: tuple[str, ...]  # [N] relative to root, with '/'
    labels: NDArray[np.int64]  # [N]
    source_part: NDArray[np.int8]  # [N] SELECT or HELD_OUT if the source says so, else UNDECIDED
    class_names: tuple[str, ...]


@dataclass(frozen=True)
class ArraySource(DataSource):
    """IDX files or an .npz file."""

    names: tuple[str, ...]  # of the IDX files in root; empty if root is an .npz file

    def read(self, on_progress: OnProgress | None = None) -> Arrays:
        return read_idx(self.root, list(self.names), on_progress) if self.names else read_npz(self.root, on_progress)


def find_source(path: str | Path | None) -> DataSource:
    """List the images at `path`; None is the embedded data set.  Raises UserError if there is nothing usable."""
    if path is None:
        asset = Path(str(package_files("ptarmigan") / "assets" / "fashion-mnist-10k.npz"))
        return ArraySource("fashion-mnist", asset, _stamp(asset, [""]), "the embedded images of Fashion-MNIST", (), ())
    root = Path(path).expanduser()
    try:
        if root.is_dir():
            return _find_in_folder(root)
        if not root.exists():
            text = f"{root} does not exist: give a folder of class folders or IDX files, an .npz file, or nothing"
            raise UserError(text, "path-not-found")
        if root.suffix.lower() == ".npy":
            text = f"{root} is one array without names: save images and labels by numpy.savez('x.npz', arr_0=images, "
            raise UserError(f"{text}arr_1=labels), and give that file", "no-images")
        if root.suffix.lower() != ".npz":
            raise UserError(f"{root} is a single file but not an .npz: give its folder; {SUPPORTED}", "no-images")
        return ArraySource(_safe_name(root.stem), root, _stamp(root, [""]), "an .npz file of images and labels", (), ())
    except OSError as error:
        text = f"cannot read {error.filename or root}: {error.strerror or error}"
        raise UserError(text, "file-unreadable") from error


def _find_in_folder(root: Path) -> DataSource:
    folders, files = _list_folder(root)
    full_name = root.resolve().name or "data"
    name = _safe_name(full_name)
    if any(IDX_IMAGES.fullmatch(file) for file in files):
        used = [file for file in files if "-ubyte" in file or file.endswith(("classes.txt", "-mapping.txt"))]
        return ArraySource(name, root, _stamp(root, used), "IDX files of images and labels", (), tuple(used))

    notices: list[str] = []
    others: Counter[str] = Counter()
    loose = [file for file in files if _is_image(file, others)]
    images_in = {folder: [p for p in _walk(root / folder, folder) if _is_image(p, others)] for folder in folders}
    empty = [folder for folder in folders if not images_in[folder]]
    images_in = {folder: paths for folder, paths in images_in.items() if paths}
    kinds = ", ".join(f"{count} {suffix}" for suffix, count in others.most_common(5))
    if not images_in and not loose:
        hint = " (give the path of the .npz file)" if any(file.lower().endswith(".npz") for file in files) else ""
        raise UserError(f"{root} has no images: {SUPPORTED}; found {kinds or 'nothing'}{hint}", "no-images")
    if others:
        notices.append(f"ignored files that are not PNG, JPEG, WebP, BMP or GIF: {kinds}")

    part_of: dict[str, int] = {}
    if not images_in:
        notices.append(f"{root} has no class folders: all of its {len(loose)} images are one class, {full_name!r}")
        images_in, part_of = {full_name: loose}, {full_name: UNDECIDED}
    else:
        if loose:
            notices.append(f"ignored {len(loose)} images outside the class folders: {shorten(loose, 3)}")
        if empty:
            notices.append(f"ignored folders without images: {shorten(empty)}")
        images_in, part_of = _part_folders(root, images_in, notices)
    class_names = tuple(sorted({folder.rpartition("/")[2] for folder in images_in}))
    paths, labels, source_part = [], [], []
    for folder in sorted(images_in, key=lambda f: (class_names.index(f.rpartition("/")[2]), part_of[f])):
        paths += images_in[folder]
        labels += [class_names.index(folder.rpartition("/")[2])] * len(images_in[folder])
        source_part += [part_of[folder]] * len(images_in[folder])
    return FolderSource(
        name, root, _stamp(root, paths, *class_names), "a folder of images; labels from the folders", tuple(notices),
        tuple(paths), np.array(labels, np.int64), np.array(source_part, np.int8), class_names,
    )  # fmt: skip


def _part_folders(
    root: Path, images_in: dict[str, list[str]], notices: list[str]
) -> tuple[dict[str, list[str]], dict[str, int]]:
    """Folders train and perhaps val or test, with class folders in each, are taken as the source's own parts."""
    nested = all(path.count("/") >= 2 for paths in images_in.values() for path in paths)
    parts = {PART_FOLDERS.get(folder.lower()) for folder in images_in}
    if not nested or None in parts or UNDECIDED not in parts:
        return images_in, dict.fromkeys(images_in, UNDECIDED)
    text = f"{root} is divided into {', '.join(images_in)} with class folders in each: test is held out"
    notices.append(f"{text}, val is the select part")
    inner: dict[str, list[str]] = {}
    for paths in images_in.values():
        for path in paths:
            part, folder, _ = path.split("/", 2)
            inner.setdefault(f"{part}/{folder}", []).append(path)
    return inner, {key: PART_FOLDERS[key.split("/")[0].lower()] for key in inner}


def _list_folder(folder: Path) -> tuple[list[str], list[str]]:
    """Sorted names of the folders and of the files in a folder, except hidden ones."""
    with os.scandir(folder) as entries:
        found = [(entry.name, entry.is_dir()) for entry in entries if not entry.name.startswith((".", "__MACOSX"))]
    return sorted(name for name, is_dir in found if is_dir), sorted(name for name, is_dir in found if not is_dir)


def _walk(folder: Path, prefix: str) -> Iterator[str]:
    """Paths of all files below a folder; links are followed, but no folder is visited twice."""
    visited: set[tuple[int, int]] = set()
    pending = [(folder, prefix)]
    while pending:
        folder, prefix = pending.pop()
        stat = folder.stat()
        if (stat.st_dev, stat.st_ino) in visited and stat.st_ino:
            continue
        visited.add((stat.st_dev, stat.st_ino))
        folders, files = _list_folder(folder)
        yield from (f"{prefix}/{name}" for name in files)
        pending += [(folder / name, f"{prefix}/{name}") for name in reversed(folders)]


def _is_image(path: str, others: Counter[str]) -> bool:
    suffix = os.path.splitext(path)[1].lower()
    if suffix not in SUFFIXES:
        others[suffix or "without a suffix"] += 1
    return suffix in SUFFIXES


def _stamp(root: Path, paths: list[str], *more: str) -> str:
    """Hex digest of paths, sizes and modification times; the path '' is root itself, by its full path."""
    digest = hashlib.blake2b(digest_size=16)
    for path in paths:
        try:
            stat = os.stat(f"{root}/{path}" if path else root)  # pathlib would take longer than the call
            line = f"{path or root.resolve()}\0{stat.st_size}\0{stat.st_mtime_ns}\n"
        except FileNotFoundError:  # a broken link: decoding reports it
            line = f"{path}\0missing\n"
        digest.update(line.encode("utf-8", "surrogateescape"))
    digest.update("\0".join(more).encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _safe_name(name: str) -> str:
    return re.sub(r"[^\w.-]+", "-", name).strip("-.") or "data"

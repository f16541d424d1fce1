"""One pass over a folder: its regular files, which of them are images, and a digest of what each holds."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, NamedTuple

from ptarmigan.core.types import OnProgress, counted, natural, shorten
from ptarmigan.data.decode import FORMATS

# The first bytes of each format.  PPM and BMP begin with two letters that a text may begin with as well, so more of
# their headers is compared.
SIGNATURES = {
    "PNG": rb"\x89PNG\r\n\x1a\n",
    "JPEG": rb"\xff\xd8\xff",
    "WEBP": rb"RIFF.{4}WEBP",
    "BMP": rb"BM.{12}[\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0",
    "GIF": rb"GIF8[79]a",
    "TIFF": rb"II[\x2a\x2b]\0|MM\0[\x2a\x2b]",
    "PPM": rb"P[1-6]\s+[#0-9]|Pf\s+[0-9]",
    "AVIF": rb".{4}ftypavi[fs]",
}
SUFFIXES = {
    "PNG": (".png", ".apng"),
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "WEBP": (".webp",),
    "BMP": (".bmp",),
    "GIF": (".gif",),
    "TIFF": (".tif", ".tiff"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
    "AVIF": (".avif",),
}
# The PNG text that the pictures of `sample`, of `replay` and of `score` begin with.
DRAWN = re.compile(
    rb"\x89PNG.{33}iTXt"
    rb"(seed\0.{4}[0-9]+.{8}iTXt(classes|generator)\0|images_seen\0.{4}[0-9]|pairs\0.{4}generated image)",
    re.DOTALL,
)
HEAD = 256  # bytes that these need
IS_IMAGE = re.compile(b"|".join(SIGNATURES[name] for name in FORMATS), re.DOTALL)
NAMED_AS_IMAGE = tuple(suffix for name in FORMATS for suffix in SUFFIXES[name])
# By content a raw photograph is a TIFF, but Pillow reads only its small preview.  The rest are unfinished downloads
# and copies that editors keep.
NO_IMAGES = (
    ".nef", ".nrw", ".cr2", ".cr3", ".arw", ".sr2", ".srf", ".dng", ".orf", ".rw2", ".pef", ".srw", ".raf", ".3fr",
    ".iiq", ".kdc", ".dcr", ".mos", ".erf", ".part", ".partial", ".crdownload", ".download", ".tmp", ".bak", "~",
)  # fmt: skip

# What systems and programs leave in folders; compared in lower case.  Names that begin with a dot are litter too.
LITTER = {
    "$recycle.bin", "recycler", "system volume information", "thumbs.db", "ehthumbs.db", "desktop.ini", "picasa.ini",
    "@eadir", "#recycle", "#snapshot", "@recycle", "@recently-snapshot", "@tmp", "__macosx", "icon\r",
    "$av_asw", "found.000", "network trash folder", "temporary items", "lost+found", "__pycache__", "node_modules",
}  # fmt: skip

WHOLE = 1 << 20  # bytes; of an image file that is larger, three pieces are hashed
PIECE = 64 << 10
BATCH = 32  # files that a thread reads before progress is reported
OPEN_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)


@dataclass(eq=False)
class Folder:
    """A folder and what is in it; all paths are relative to the folder that was scanned, with '/'."""

    path: str  # '' is the scanned folder itself
    folders: list[Folder] = field(default_factory=list)
    images: list[str] = field(default_factory=list)  # paths of image files
    others: list[str] = field(default_factory=list)  # paths of other files
    unlisted: bool = False  # ptarmigan wrote what is in it, or it cannot be read

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]

    def walk(self) -> Iterator[Folder]:
        """The folder itself, then all folders below it."""
        pending = [self]
        while pending:
            folder = pending.pop()
            yield folder
            pending += reversed(folder.folders)

    def all_images(self) -> list[str]:
        return [path for folder in self.walk() for path in folder.images]


@dataclass
class Scan:
    """What a folder holds, apart from litter and runs of ptarmigan."""

    tree: Folder
    digests: dict[str, str] = field(default_factory=dict)  # of the image files by path, or why one cannot be read
    notices: list[str] = field(default_factory=list)
    unreadable: bool = False  # some folder or file could not be read


# What is not listed: (what is done with it, what it is, the rest of that)
OUTSIDE = ("not followed", "link", " out of the folder; to use its files, copy them into the folder")
BROKEN = ("left out", "broken link", "")
AGAIN = ("not followed", "link", " to what has been read already")
SPECIAL = ("not opened", "special file", " such as a FIFO, socket or device")
FORBIDDEN = ("left out", "unreadable folder", "")
UNREADABLE = ("left out", "unreadable file", "")
OWN = ("left out", "output folder", " of ptarmigan")
DRAWINGS = ("left out", "picture", " that ptarmigan made")


class _Look(NamedTuple):
    """What one file is."""

    image: bool
    digest: str  # of an image's content, or why a file cannot be read
    drawn: bool = False  # ptarmigan wrote it


class _Link(NamedTuple):
    path: str
    parent: Folder


def scan(root: Path, on_progress: OnProgress | None = None) -> Scan:
    """List a folder and read its files: which are images is decided by their first bytes, or else by their names.

    Links are followed to files and folders below `root` alone, and each file and folder is read once.  FIFOs, sockets
    and devices are never opened.  Folders and files that cannot be read are left out and named in a notice; an image
    file (by its name) that cannot be read stays in the list, so that decoding reports it.  Runs and generators of
    ptarmigan are no data, nor are pictures that it wrote, unless there are no others.

    Raises OSError if `root` itself cannot be listed.
    """
    walk = _Walk(root, on_progress)
    tree = walk.run()
    files = [path for folder in tree.walk() for path in folder.others]
    found = dict(zip(files, _look_at_all(root, files, on_progress), strict=True))
    drawn = {path for path, look in found.items() if look.drawn}
    if len(drawn) == sum(look.image for look in found.values()):
        drawn = set()
    result = Scan(tree)
    for folder in tree.walk():
        folder.folders.sort(key=lambda sub: natural(sub.name))
        paths, folder.others = sorted(folder.others), []
        for path in paths:
            image, digest, _ = found[path]
            if image and path in drawn:
                walk.left_out[DRAWINGS].append(path)
                folder.unlisted = True
            elif image:
                folder.images.append(path)
                result.digests[path] = digest
            elif digest:
                walk.left_out[UNREADABLE].append(f"{path}: {digest}")
            else:
                folder.others.append(path)
    result.unreadable = bool(walk.left_out[FORBIDDEN] or walk.left_out[UNREADABLE])
    for (done, what, why), paths in walk.left_out.items():
        if paths:
            text = f"{done}: {counted(len(paths), what)}{why}"
            result.notices.append(f"{text} ({shorten(sorted(paths, key=natural), 3)})")
    return result


class _Walk:
    """Lists folders and files: first what lies in the folder itself, then what links lead to."""

    def __init__(self, root: Path, on_progress: OnProgress | None) -> None:
        self.root, self.on_progress = root, on_progress
        self.real_root = os.path.realpath(root)
        self.links: list[_Link] = []
        self.left_out: defaultdict[tuple[str, str, str], list[str]] = defaultdict(list)
        self.visited: set[tuple[int, int]] = set()  # device and inode of folders and files
        self.count = 0

    def run(self) -> Folder:
        tree = Folder("")
        with os.scandir(self.root):  # raises where the folder itself cannot be listed
            pass
        self.walk(tree)
        while self.links:
            links, self.links = self.links, []
            for link in sorted(links, key=lambda link: link.path):
                self.follow(link)
        return tree

    def walk(self, top: Folder) -> None:
        pending = [top]
        while pending:
            folder = pending.pop()
            try:
                real = os.stat(self.full(folder.path))
                if (real.st_dev, real.st_ino) in self.visited:
                    self.left_out[AGAIN].append(folder.path)
                    continue
                self.visited.add((real.st_dev, real.st_ino))
                with os.scandir(self.full(folder.path)) as found:
                    entries = [entry for entry in found if self.wanted(entry)]
            except OSError as error:
                folder.unlisted = True
                self.left_out[FORBIDDEN].append(f"{folder.path or self.root}: {error.strerror}")
                continue
            if folder.path and is_own(self.full(folder.path)):
                folder.unlisted = True
                self.left_out[OWN].append(folder.path)
                continue
            for entry in entries:
                self.sort_in(entry, folder, real.st_dev)
            pending += folder.folders

    def wanted(self, entry: os.DirEntry[str]) -> bool:
        self.count += 1
        if self.on_progress is not None and self.count % 100 == 0:
            self.on_progress("listing files", self.count, None)
        return not entry.name.startswith((".", "~$")) and entry.name.lower() not in LITTER

    def sort_in(self, entry: os.DirEntry[str], folder: Folder, device: int) -> None:
        path = f"{folder.path}/{entry.name}" if folder.path else entry.name
        if entry.is_symlink():
            self.links.append(_Link(path, folder))
        elif entry.is_dir():
            folder.folders.append(Folder(path))
        elif entry.is_file():
            self.visited.add((device, entry.inode()))
            folder.others.append(path)
        else:
            self.left_out[SPECIAL].append(path)

    def follow(self, link: _Link) -> None:
        full = self.full(link.path)
        try:
            real = os.stat(full)
        except PermissionError as error:
            self.left_out[FORBIDDEN].append(f"{link.path}: {error.strerror}")
            return
        except OSError:
            self.left_out[BROKEN].append(link.path)
            return
        target = os.path.realpath(full)
        if target != self.real_root and not target.startswith(os.path.join(self.real_root, "")):
            self.left_out[OUTSIDE].append(link.path)
        elif (real.st_dev, real.st_ino) in self.visited:
            self.left_out[AGAIN].append(link.path)
        elif stat.S_ISDIR(real.st_mode):
            folder = Folder(link.path)
            link.parent.folders.append(folder)
            self.walk(folder)
        elif stat.S_ISREG(real.st_mode):
            self.visited.add((real.st_dev, real.st_ino))
            link.parent.others.append(link.path)
        else:
            self.left_out[SPECIAL].append(link.path)

    def full(self, path: str) -> str:
        return f"{self.root}/{path}" if path else str(self.root)


def is_own(folder: str) -> bool:
    """Whether ptarmigan wrote this folder: a run, whatever state it is in, or a generator."""

    def has(name: str) -> bool:
        return os.path.exists(f"{folder}/{name}")

    if has(".ptarmigan-run"):
        return True
    return has("config.json") and (has("checkpoints") or has("metrics.jsonl") or has("model.safetensors"))


def _look_at_all(root: Path, files: list[str], on_progress: OnProgress | None) -> Iterator[_Look]:
    """What each file is, read in threads, in order."""
    batches = [files[start : start + BATCH] for start in range(0, len(files), BATCH)]
    done = 0
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for found in pool.map(lambda batch: [_look_at(f"{root}/{path}") for path in batch], batches):
            yield from found
            done += len(found)
            if on_progress is not None:
                on_progress("reading files", done, len(files))


def _look_at(path: str) -> _Look:
    name = path.lower()
    if name.endswith(NO_IMAGES):
        return _Look(False, "")
    named_as_image = name.endswith(NAMED_AS_IMAGE)
    try:
        with open_regular(path) as file:
            head = file.read(HEAD)
            if named_as_image or IS_IMAGE.match(head):
                return _Look(True, content_digest(file, WHOLE), DRAWN.match(head) is not None)
            return _Look(False, "")
    except OSError as error:
        return _Look(named_as_image, error.strerror or type(error).__name__)


def begins_as_image(path: Path) -> bool:
    """Whether the first bytes of a file are those of an image."""
    try:
        with open_regular(path) as file:
            return IS_IMAGE.match(file.read(HEAD)) is not None
    except OSError:
        return False


def open_regular(path: str | Path) -> IO[bytes]:
    """Open a regular file for reading, without waiting; raises OSError for a FIFO, a socket or a device."""
    file = os.fdopen(os.open(path, OPEN_FLAGS), "rb", buffering=0)
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(0, "not a regular file", str(path))
    return file


def content_digest(file: IO[bytes], whole: int) -> str:
    """Hex digest of a file's bytes.

    Of a file above `whole` bytes, its size, its modification time and three pieces of 64 KiB are hashed: the first,
    the middle and the last.
    """
    status = os.fstat(file.fileno())
    digest = hashlib.blake2b(str(status.st_size).encode(), digest_size=16)
    file.seek(0)
    if status.st_size <= whole:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    else:
        for position in (0, status.st_size // 2, status.st_size - PIECE):
            file.seek(position)
            digest.update(file.read(PIECE))
        digest.update(str(status.st_mtime_ns).encode())
    return digest.hexdigest()

"""A folder on the disk: its regular files, and those that links below it lead to."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import IO, ClassVar, NamedTuple

from ptarmigan.core.types import OnProgress
from ptarmigan.data.storage import FORBIDDEN, OWN, Folder, Listing, Omission, is_litter, is_written_by_us

OPEN_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
OUTSIDE = Omission("not followed", "link", " out of the folder; to use its files, copy them into the folder")
BROKEN = Omission("left out", "broken link")
AGAIN = Omission("not followed", "link", " to what has been read already")
IN_CLOUD = Omission("left out", "file", " that iCloud has not downloaded; open the folder in Finder to download it")
SPECIAL = Omission("not opened", "special file", " such as a FIFO, socket or device")


@dataclass(frozen=True)
class Disk:
    """The files of a folder.

    Links are followed to files and folders below `root` alone, and each file and folder is listed once.  FIFOs,
    sockets and devices are never opened.  Folders that cannot be read are left out.
    """

    root: Path
    order: ClassVar[None] = None
    labels: ClassVar[None] = None

    def listing(self, on_progress: OnProgress | None = None) -> Listing:
        return _Walk(self.root, on_progress).run()

    def open(self, path: str) -> IO[bytes]:
        return open_regular(f"{self.root}/{path}")


class _Link(NamedTuple):
    path: str
    parent: Folder


class _Walk:
    """Lists folders and files: first what lies in the folder itself, then what links lead to."""

    def __init__(self, root: Path, on_progress: OnProgress | None) -> None:
        self.root, self.on_progress = root, on_progress
        self.real_root = os.path.realpath(root)
        self.listing = Listing()
        self.omitted = self.listing.omitted
        self.links: list[_Link] = []
        self.visited: set[tuple[int, int]] = set()  # device and inode of folders and files
        self.count = 0

    def run(self) -> Listing:
        with os.scandir(self.root):  # raises where the folder itself cannot be listed
            pass
        self.walk(self.listing.tree)
        while self.links:
            links, self.links = self.links, []
            for link in sorted(links, key=lambda link: link.path):
                self.follow(link)
        return self.listing

    def walk(self, top: Folder) -> None:
        pending = [top]
        while pending:
            folder = pending.pop()
            try:
                real = os.stat(self.full(folder.path))
                if (real.st_dev, real.st_ino) in self.visited:
                    self.omitted[AGAIN].append(folder.path)
                    continue
                self.visited.add((real.st_dev, real.st_ino))
                with os.scandir(self.full(folder.path)) as found:
                    entries = [entry for entry in found if self.wanted(entry)]
            except OSError as error:
                folder.unlisted = True
                self.omitted[FORBIDDEN].append(f"{folder.path or self.root}: {error.strerror}")
                continue
            if folder.path and is_own(self.full(folder.path)):
                folder.unlisted = True
                self.omitted[OWN].append(folder.path)
                continue
            for entry in entries:
                self.sort_in(entry, folder, real.st_dev)
            pending += folder.folders

    def wanted(self, entry: os.DirEntry[str]) -> bool:
        self.count += 1
        if self.on_progress is not None and self.count % 100 == 0:
            self.on_progress("listing files", self.count, None)
        if entry.name.endswith(".icloud"):
            self.omitted[IN_CLOUD].append(entry.name)
        return not is_litter(entry.name)

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
            self.omitted[SPECIAL].append(path)

    def follow(self, link: _Link) -> None:
        full = self.full(link.path)
        try:
            real = os.stat(full)
        except PermissionError as error:
            self.omitted[FORBIDDEN].append(f"{link.path}: {error.strerror}")
            return
        except OSError:
            self.omitted[BROKEN].append(link.path)
            return
        target = os.path.realpath(full)
        if target != self.real_root and not target.startswith(os.path.join(self.real_root, "")):
            self.omitted[OUTSIDE].append(link.path)
        elif (real.st_dev, real.st_ino) in self.visited:
            self.omitted[AGAIN].append(link.path)
        elif stat.S_ISDIR(real.st_mode):
            folder = Folder(link.path)
            link.parent.folders.append(folder)
            self.walk(folder)
        elif stat.S_ISREG(real.st_mode):
            self.visited.add((real.st_dev, real.st_ino))
            link.parent.others.append(link.path)
        else:
            self.omitted[SPECIAL].append(link.path)

    def full(self, path: str) -> str:
        return f"{self.root}/{path}" if path else str(self.root)


def is_own(folder: str) -> bool:
    """Whether ptarmigan wrote this folder: a run, whatever state it is in, or a generator."""
    return is_written_by_us(lambda name: os.path.exists(f"{folder}/{name}"))


def open_regular(path: str | Path) -> IO[bytes]:
    """Open a regular file for reading, without waiting; raises OSError for a FIFO, a socket or a device."""
    file = os.fdopen(os.open(path, OPEN_FLAGS), "rb")
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(0, "not a regular file", str(path))
    return file

"""Where the bytes of a source's files lie: in a folder of the disk, in an archive, or in the rows of a table."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, NamedTuple, Protocol

from ptarmigan.core.types import OnProgress, counted, natural, shorten

# What systems and programs leave in folders; compared in lower case.  Names that begin with a dot are litter too.
LITTER = {
    "$recycle.bin", "recycler", "system volume information", "thumbs.db", "ehthumbs.db", "desktop.ini", "picasa.ini",
    "@eadir", "#recycle", "#snapshot", "@recycle", "@recently-snapshot", "@tmp", "__macosx", "icon\r",
    "$av_asw", "found.000", "network trash folder", "temporary items", "lost+found", "__pycache__", "node_modules",
}  # fmt: skip


class Omission(NamedTuple):
    """A kind of file that is not listed: what is done with it, what it is, and the rest of that."""

    done: str
    what: str
    rest: str = ""


FORBIDDEN = Omission("left out", "unreadable folder")
OWN = Omission("left out", "output folder", " of ptarmigan")
Omitted = defaultdict[Omission, list[str]]  # the paths of each kind


@dataclass(eq=False)
class Folder:
    """A folder and what is in it; all paths are relative to the root of the storage, with '/'."""

    path: str  # '' is the root
    folders: list[Folder] = field(default_factory=list)
    images: list[str] = field(default_factory=list)  # paths of image files
    others: list[str] = field(default_factory=list)  # paths of other files; before `scan`, of all files
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

    def with_images(self) -> list[Folder]:
        """The folders in it that have images in them or below."""
        return [sub for sub in self.folders if any(deeper.images for deeper in sub.walk())]

    def all_images(self) -> list[str]:
        return [path for folder in self.walk() for path in folder.images]


@dataclass
class Listing:
    """The files of a storage, and what is not among them."""

    tree: Folder = field(default_factory=lambda: Folder(""))
    omitted: Omitted = field(default_factory=lambda: defaultdict(list))


class FileLabels(NamedTuple):
    """What a storage itself says about the classes of its files."""

    said: str  # where the labels are
    of: Mapping[str, str]  # path -> label; files without one are missing


class Storage(Protocol):
    """Files under relative paths with '/'.  It can be pickled, so that another process opens the same files."""

    @property
    def root(self) -> Path:
        """The folder or file that the user gave."""

    @property
    def order(self) -> Mapping[str, int] | None:
        """The place of each file, if reading in this order is much faster than in another; else None."""

    @property
    def labels(self) -> FileLabels | None:
        """The labels that are stored beside the bytes of the files, as in a table; None if there are none."""

    def listing(self, on_progress: OnProgress | None = None) -> Listing:
        """All files but litter and the folders that ptarmigan wrote.  Raises OSError if `root` cannot be read."""

    def open(self, path: str) -> IO[bytes]:
        """One file, to be read and closed by the caller; it can be sought in, and ends where the file does.

        May be called in several threads.  Raises OSError with a `strerror` if the file cannot be read.
        """


def is_litter(name: str) -> bool:
    """Whether a file or folder of this name is no part of a data set."""
    return name.startswith((".", "~$")) or name.lower() in LITTER


def is_written_by_us(has: Callable[[str], bool]) -> bool:
    """Whether ptarmigan wrote a folder that has files or folders of these names: a run in any state, or a generator."""
    if has(".ptarmigan-run"):
        return True
    return has("config.json") and (has("checkpoints") or has("metrics.jsonl") or has("model.safetensors"))


def omission_notices(omitted: Omitted) -> list[str]:
    """A sentence for each kind."""
    return [
        f"{kind.done}: {counted(len(paths), kind.what)}{kind.rest} ({shorten(sorted(paths, key=natural), 3)})"
        for kind, paths in omitted.items()
        if paths
    ]

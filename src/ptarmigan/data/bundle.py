"""Several archives as one set of images: parts such as train.zip and test.zip, or the shards of one part."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from ptarmigan.core.types import OnProgress, UserError, natural
from ptarmigan.data.archive import NAME_ENDING, archive_name, listed, open_archive
from ptarmigan.data.disk import Disk
from ptarmigan.data.parquet import open_parquet
from ptarmigan.data.storage import FileLabels, Listing, Omitted, Storage

SAMPLE_ENDINGS = (".cls", ".json", ".txt")  # of what WebDataset stores beside an image
SHARD = re.compile(r"(?:(.*?)[-_.])?(\d+)(?:-of-\d+)?")  # train-00003-of-00010, shard_000003, 0003
BRACES = re.compile(r"(.*)\{(\d+)\.\.(\d+)\}([^{}]*)")
MOST_SHARDS = 100_000


@dataclass(frozen=True)
class Bundle:
    """Files of several storages."""

    root: Path
    parts: tuple[Storage, ...]
    where: Mapping[str, tuple[int, str]]  # path -> the number of the storage, and the path there
    omitted: Omitted
    order: Mapping[str, int] | None
    labels: FileLabels | None

    def listing(self, on_progress: OnProgress | None = None) -> Listing:
        return listed(self.where, (), self.omitted)

    def open(self, path: str) -> IO[bytes]:
        part, inner = self.where[path]
        return self.parts[part].open(inner)


def open_table_or_archive(path: Path, label_column: str | None, on_progress: OnProgress | None) -> Storage | None:
    """The files in a parquet table or in an archive; None if it is neither.  Raises OSError or UserError."""
    if path.suffix.lower() == ".parquet":
        return open_parquet(path, label_column)
    return open_archive(path, on_progress)


def open_all(
    root: Path, paths: Sequence[str], label_column: str | None, on_progress: OnProgress | None = None
) -> Bundle | None:
    """The archives and tables among the files below a folder, and the other files; None if there are none of them.

    Each is a folder of its name, such as train/ for train.zip.  Numbered shards of one name are one folder, if they
    hold samples as WebDataset stores them, or rows of a table.
    """
    archives: dict[str, Storage] = {}
    for path in sorted(paths, key=natural):
        if NAME_ENDING.search(path):
            opened = open_table_or_archive(root / path, label_column, on_progress)
            if opened is not None:
                archives[path] = opened
    if not archives:
        return None
    rest = [path for path in paths if path not in archives]
    where = {path: (0, path) for path in rest}
    omitted, order, labels, said = Omitted(list), dict[str, int](), dict[str, str](), list[str]()
    listings = [archive.listing(on_progress) for archive in archives.values()]
    sampled = [_holds_samples(archive, listing) for archive, listing in zip(archives.values(), listings, strict=True)]
    folders = _folders([*archives], sampled)
    for number, (archive, listing, (folder, prefix)) in enumerate(
        zip(archives.values(), listings, folders, strict=True), 1
    ):
        inner = [path for below in listing.tree.walk() for path in below.others]
        named = {path: _within(folder, prefix, path) for path in inner}
        where |= {named[path]: (number, path) for path in inner}
        for path in sorted(archive.order or (), key=(archive.order or {}).__getitem__):
            if path in named:
                order[named[path]] = len(order)
        if archive.labels is not None:
            labels |= {named[path]: label for path, label in archive.labels.of.items()}
            said.append(archive.labels.said)
        for kind, left in listing.omitted.items():
            omitted[kind] += [_within(folder, prefix, path) for path in left]
    if order:  # the files that can be read in any order come last
        order |= {path: len(order) + i for i, path in enumerate(path for path in where if path not in order)}
    both = FileLabels(" and ".join(dict.fromkeys(said)), labels) if said else None
    return Bundle(root, (Disk(root), *archives.values()), where, omitted, order or None, both)


def _holds_samples(storage: Storage, listing: Listing) -> bool:
    beside = (path for below in listing.tree.walk() for path in below.others)
    return storage.labels is not None or any(path.lower().endswith(SAMPLE_ENDINGS) for path in beside)


def _folders(paths: Sequence[str], sampled: Sequence[bool]) -> list[tuple[str, str]]:
    """(the folder that an archive becomes, what its files' names begin with) for each."""
    found = []
    for path, samples in zip(paths, sampled, strict=True):
        above, _, name = path.rpartition("/")
        name = archive_name(Path(name))
        shard = SHARD.fullmatch(name) if samples else None
        found.append(("/".join(filter(None, [above, shard[1]])), f"{shard[2]}-") if shard else (f"{above}/{name}", ""))
    twice = Counter(found)
    return [
        (f"{folder}/{path.rpartition('/')[2]}".lstrip("/") if twice[folder, prefix] > 1 else folder.lstrip("/"), prefix)
        for (folder, prefix), path in zip(found, paths, strict=True)
    ]


def _within(folder: str, prefix: str, path: str) -> str:
    above, _, name = path.rpartition("/")
    return "/".join(filter(None, [folder, above, f"{prefix}{name}"]))


def shards_name(path: Path) -> str:
    """The name of shards without their numbers: pets of pets-{000..123}.tar."""
    return re.sub(r"\{.*?\}", "", archive_name(path)).strip("-_.") or "shards"


def expand(pattern: str) -> list[str]:
    """The paths that shard-{000..123}.tar stands for; none if it is no such pattern."""
    return [*_expanded(pattern)] if BRACES.fullmatch(pattern) else []


def _expanded(pattern: str) -> Iterator[str]:
    if (match := BRACES.fullmatch(pattern)) is None:
        yield pattern
        return
    before, first, last, after = match.groups()
    if not 0 <= int(last) - int(first) < MOST_SHARDS:
        text = f"{pattern}: expected up to {MOST_SHARDS:,} numbers in ascending order, as in shard-{{000..123}}.tar"
        raise UserError(text, "value-invalid")
    for number in range(int(first), int(last) + 1):
        yield from _expanded(f"{before}{number:0{len(first)}}{after}")

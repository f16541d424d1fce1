"""Files in a .zip or a .tar, read in place: nothing is unpacked to the disk.

A member of a .zip or of a plain .tar is read at its offset.  A compressed .tar can only be read from its beginning:
its members are read in the order in which they lie there (`InOrder`).
"""

from __future__ import annotations

import bz2
import errno
import gzip
import io
import lzma
import os
import re
import stat
import tarfile
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Lock
from typing import IO, Any, ClassVar, NamedTuple, cast

from ptarmigan.core.types import OnProgress, UserError
from ptarmigan.data.arrays import as_user_error
from ptarmigan.data.disk import SPECIAL, open_regular
from ptarmigan.data.storage import OWN, FileLabels, Folder, Listing, Omission, Omitted, is_litter, is_written_by_us

MOST_BYTES = 256 << 20  # of a member, which is read whole
MOST_NAME = 1024  # characters of a member's path
MOST_RATIO = 200  # of the size of a member, or of a whole archive, to its compressed size
SMALL = 16 << 20  # bytes; smaller members and archives may have any ratio
KEPT_BYTES = 128 << 20  # of members that a stream has passed
SMALL_FILE, SMALL_FILES = 4096, 64 << 20  # bytes of a file that is kept for good, and of all such files
BLOCK = 512  # bytes; a tar consists of blocks of this size
MOST_PAX = 1 << 20  # bytes of a header with a long name
DAMAGED = "damaged in the archive"
STREAMS: dict[bytes, Callable[..., Any]] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\0": lzma.open}

NAME_ENDING = re.compile(r"(\.tar)?\.(zip|tar|tgz|tbz2?|txz|gz|bz2|xz|parquet)$", re.IGNORECASE)

UNSAFE = Omission("left out", "member", " of the archive whose name is absolute, leads out of it or is too long")
LINK = Omission("not followed", "link", " in the archive")
SPARSE = Omission("left out", "sparse file", " in the archive")
ENCRYPTED = Omission("left out", "encrypted member", "; unpack the archive with its password and give the folder")
UNPACKED = Omission("left out", "member", " compressed in a way that is not read; zip them in the usual way (deflate)")
LARGE = Omission("left out", "member", f" of more than {MOST_BYTES >> 20} MB")
BOMB = Omission("left out", "member", f" that unpacks to more than {MOST_RATIO} times its size in the archive")
TWICE = Omission("the last one is used", "name", " that the archive holds more than once")


class Member(NamedTuple):
    """Where a file lies in an archive."""

    offset: int  # of its bytes; in a .zip, of the header before them
    stored: int  # bytes in the archive
    size: int  # bytes of the file
    deflated: bool = False
    crc: int | None = None  # None in a .tar, which has none


@dataclass(frozen=True)
class Archive:
    """The files of a .zip or of a plain .tar."""

    root: Path
    members: Mapping[str, Member]
    folders: tuple[str, ...]
    omitted: Omitted
    order: ClassVar[None] = None
    labels: ClassVar[None] = None

    def listing(self, on_progress: OnProgress | None = None) -> Listing:
        return listed(self.members, self.folders, self.omitted)

    def open(self, path: str) -> IO[bytes]:
        member = self.members[path]
        with open_regular(self.root) as file:
            file.seek(member.offset)
            if member.crc is not None:
                header = file.read(30)  # its last four bytes are the lengths of two fields that follow
                if header[:4] != b"PK\3\4":
                    raise OSError(errno.EIO, DAMAGED, path)
                file.seek(sum(int.from_bytes(header[i : i + 2], "little") for i in (26, 28)), os.SEEK_CUR)
            content = file.read(member.stored)
        if member.deflated:
            try:
                content = zlib.decompressobj(-zlib.MAX_WBITS).decompress(content, member.size + 1)
            except zlib.error:
                raise OSError(errno.EIO, DAMAGED, path) from None
        if len(content) != member.size or member.crc not in (None, zlib.crc32(content)):
            raise OSError(errno.EIO, DAMAGED, path)
        return io.BytesIO(content)


class InOrder:
    """Files that can only be read one after another, such as those of a compressed .tar.

    A file that lies behind the last one is reached by reading on, an earlier one by beginning again, unless it is among
    the last ones, of which KEPT_BYTES are kept, or small.
    """

    def __init__(
        self,
        root: Path,
        order: Mapping[str, int],
        read: Callable[[], Iterator[tuple[int, bytes | None]]],
        folders: tuple[str, ...] = (),
        omitted: Omitted | None = None,
        labels: FileLabels | None = None,
    ) -> None:
        """read: yields the place in the order and the content of each file from the first on; None if it is damaged."""
        self.root, self.order, self.read, self.folders = root, order, read, folders
        self.omitted, self.labels = Omitted(list) if omitted is None else omitted, labels
        self.begin()

    def begin(self) -> None:
        self.lock, self.stream, self.next = Lock(), self.read(), 0
        self.end: int | None = None  # the place from which on nothing can be read
        self.kept: OrderedDict[int, bytes] = OrderedDict()
        self.kept_bytes = 0
        self.small: dict[int, bytes] = {}  # files such as labels, which are read in any order
        self.small_bytes = 0
        self.damaged: set[int] = set()

    def __getstate__(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("root", "order", "read", "folders", "omitted", "labels")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.begin()

    def listing(self, on_progress: OnProgress | None = None) -> Listing:
        return listed(self.order, self.folders, self.omitted)

    def open(self, path: str) -> IO[bytes]:
        wanted = self.order[path]
        with self.lock:
            if (content := self.kept.get(wanted, self.small.get(wanted))) is None:
                content = self.fetch(wanted)
        if content is None:
            raise OSError(errno.EIO, DAMAGED, path)
        return io.BytesIO(content)

    def fetch(self, wanted: int) -> bytes | None:
        """The file at this place; those that are passed are kept."""
        if wanted in self.damaged or (self.end is not None and wanted >= self.end):
            return None
        if wanted < self.next:
            self.stream, self.next = self.read(), 0
        try:
            for place, content in self.stream:
                self.next = place + 1
                if content is None:
                    self.damaged.add(place)
                else:
                    self.keep(place, content)
                if place >= wanted:
                    return content if place == wanted else None
        except Exception:  # of many types, from the libraries that unpack
            pass
        self.end = self.next
        return None

    def keep(self, place: int, content: bytes) -> None:
        if len(content) <= SMALL_FILE and place not in self.small and self.small_bytes < SMALL_FILES:
            self.small[place] = content
            self.small_bytes += len(content) + 150  # as much as Python needs beside
        self.kept_bytes += len(content) - len(self.kept.pop(place, b""))
        self.kept[place] = content
        while self.kept_bytes > KEPT_BYTES:
            self.kept_bytes -= len(self.kept.popitem(last=False)[1])


def open_archive(path: Path, on_progress: OnProgress | None = None) -> Archive | InOrder | None:
    """The files of an archive, which is known by its content; None if it is none.

    Raises OSError if it cannot be read, or UserError (file-unreadable, file-damaged) if it is damaged.
    """
    with open_regular(path) as file:
        head = file.read(BLOCK)
        if head.startswith((b"PK\3\4", b"PK\5\6")):
            with as_user_error(str(path)):
                return _zip_members(path, file)
        unpack = next((opener for magic, opener in STREAMS.items() if head.startswith(magic)), None)
        with as_user_error(str(path)):
            if unpack is None:
                return _tar_members(path, file, None, on_progress) if _is_header(head) else None
            file.seek(0)
            with unpack(file) as stream:
                if not _is_header(stream.read(BLOCK)):
                    return None
                return _tar_members(path, stream, unpack, on_progress)


def archive_name(path: Path) -> str:
    """The name of an archive without its ending."""
    return NAME_ENDING.sub("", path.name) or path.name


def listed(paths: Iterable[str], folders: Iterable[str], omitted: Omitted) -> Listing:
    """The tree of folders that the paths of an archive make."""
    listing = Listing()
    for kind, names in omitted.items():
        listing.omitted[kind] += names
    found = {"": listing.tree}

    def folder_of(path: str) -> Folder:
        missing = []
        while path not in found:
            missing.append(path)
            path = path.rpartition("/")[0]
        folder = found[path]
        for name in reversed(missing):
            found[name] = Folder(name)
            folder.folders.append(found[name])
            folder = found[name]
        return folder

    for path in folders:
        folder_of(path)
    for path in paths:
        folder_of(path.rpartition("/")[0]).others.append(path)
    for folder in [*found.values()]:
        inside = {path.rpartition("/")[2] for path in (*folder.others, *(sub.path for sub in folder.folders))}
        if folder.path and is_written_by_us(inside.__contains__):
            listing.omitted[OWN].append(folder.path or "the archive itself")
            folder.folders, folder.others, folder.unlisted = [], [], True
    for folder in listing.tree.walk():
        folder.folders = [sub for sub in folder.folders if not is_litter(sub.name)]
        folder.others = [path for path in folder.others if not is_litter(path.rpartition("/")[2])]
    return listing


class _Collector:
    """Sorts the members of an archive into those that are read and those that are not."""

    def __init__(self) -> None:
        self.members: dict[str, Member] = {}
        self.order: dict[str, int] = {}
        self.folders: list[str] = []
        self.omitted = Omitted(list)
        self.twice: set[str] = set()
        self.count = 0

    def folder(self, name: str) -> None:
        if (path := clean_name(name)) is not None:
            self.folders.append(path)

    def add(self, name: str, member: Member, fault: Omission | None = None) -> None:
        self.count += 1
        path = clean_name(name)
        if path is None:
            self.omitted[UNSAFE].append(name[:MOST_NAME])
        elif any(map(is_litter, path.split("/")[:-1])) or (fault is not None and is_litter(path.rpartition("/")[2])):
            return
        elif fault is not None:
            self.omitted[fault].append(path)
        elif member.size > MOST_BYTES:
            self.omitted[LARGE].append(path)
        elif member.deflated and member.size > max(SMALL, MOST_RATIO * member.stored):
            self.omitted[BOMB].append(path)
        else:
            if path in self.members and path not in self.twice:
                self.twice.add(path)
                self.omitted[TWICE].append(path)
            self.members[path] = member
            self.order[path] = self.count - 1


def clean_name(name: str) -> str | None:
    """The path of a member with '/'; None if it does not lie in the folder to which the archive would be unpacked."""
    pieces = [piece for piece in name.split("/") if piece not in ("", ".")]
    outside = name.startswith("/") or ".." in pieces or re.match("[A-Za-z]:", name)
    return None if outside or not pieces or len(name) > MOST_NAME else "/".join(pieces)


# --- zip -------------------------------------------------------------------------------------------------------------


def _zip_members(path: Path, file: IO[bytes]) -> Archive:
    found = _Collector()
    with zipfile.ZipFile(file) as archive:
        infos = archive.infolist()
    if sum(info.compress_size for info in infos) > path.stat().st_size:
        text = f"{path}: its members overlap, and no ordinary program makes such an archive; unpack it elsewhere"
        raise UserError(f"{text}, look at its files and give their folder", "file-damaged")
    for info in infos:
        name, mode = _zip_name(info), info.external_attr >> 16
        if info.is_dir() or name.endswith("/"):
            found.folder(name)
            continue
        fault = None
        if stat.S_ISLNK(mode):
            fault = LINK
        elif stat.S_IFMT(mode) not in (0, stat.S_IFREG):
            fault = SPECIAL
        elif info.flag_bits & 0x1:
            fault = ENCRYPTED
        elif info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            fault = UNPACKED
        deflated = info.compress_type == zipfile.ZIP_DEFLATED
        found.add(name, Member(info.header_offset, info.compress_size, info.file_size, deflated, info.CRC), fault)
    return Archive(path, found.members, tuple(found.folders), found.omitted)


def _zip_name(info: zipfile.ZipInfo) -> str:
    """The name of a member with '/'.  Some programs write UTF-8 without saying so, and backslashes."""
    name = info.filename
    if not info.flag_bits & 0x800:
        with suppress(UnicodeError):
            name = name.encode("cp437").decode()
    return name.replace("\\", "/")


# --- tar -------------------------------------------------------------------------------------------------------------


class _Entry(NamedTuple):
    name: str
    kind: bytes  # as tarfile's constants
    offset: int  # of its bytes
    size: int


def _is_header(block: bytes) -> bool:
    try:
        return bool(tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape").name)
    except tarfile.HeaderError:
        return False


def tar_entries(stream: IO[bytes]) -> Iterator[_Entry]:
    """The entries of a .tar in order; the stream may be moved between them.

    Raises ValueError if it is damaged or ends too early.  (tarfile itself ends without a word at a damaged header.)
    """
    position, long = 0, dict[str, str]()
    while True:
        stream.seek(position)
        block = stream.read(BLOCK)
        if not block or (not any(block) and len(block) == BLOCK):
            if stream.tell() < position:
                raise ValueError("it ends too early")
            return
        try:
            info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except tarfile.HeaderError as error:
            raise ValueError(f"no header at byte {position:,} ({error})") from None
        size = info.size
        if info.type == tarfile.XHDTYPE or info.type == tarfile.GNUTYPE_LONGNAME:
            content = stream.read(min(max(size, 0), MOST_PAX))
            if info.type == tarfile.XHDTYPE:
                long.update(_pax(content))
            else:
                long["path"] = content.split(b"\0")[0].decode("utf-8", "surrogateescape")
        elif info.type not in (tarfile.XGLTYPE, tarfile.GNUTYPE_LONGLINK):
            size = int(long.get("size", size))
            kind = tarfile.GNUTYPE_SPARSE if any(key.startswith("GNU.sparse") for key in long) else info.type
            yield _Entry(long.get("path", info.name), kind, position + BLOCK, size)
            if info.islnk() or info.issym() or info.isdir() or info.isdev():
                size = 0  # whatever the header says
            long = {}
        if size < 0:
            raise ValueError(f"a negative size at byte {position:,}")
        position += BLOCK + -(-size // BLOCK) * BLOCK


def _pax(content: bytes) -> dict[str, str]:
    """The records of an extended header: '27 path=cat/a-long-name.png' and a line break."""
    records = {}
    while content:
        length = int(content[:20].partition(b" ")[0])
        if not 0 < length <= len(content):
            raise ValueError("a damaged extended header")
        key, _, value = content[:length].partition(b" ")[2].rstrip(b"\n").partition(b"=")
        records[key.decode(errors="replace")] = value.decode("utf-8", "surrogateescape")
        content = content[length:]
    return records


def _tar_members(
    path: Path, stream: IO[bytes], unpack: Callable[..., Any] | None, on_progress: OnProgress | None
) -> Archive | InOrder:
    found, length = _Collector(), path.stat().st_size
    for number, entry in enumerate(tar_entries(stream)):
        if on_progress is not None and number % 100 == 0:
            on_progress("listing files", number, None)
        end = entry.offset + entry.size
        if entry.kind == tarfile.DIRTYPE or entry.name.endswith("/"):
            found.folder(entry.name)
        elif unpack is None and end > length:
            raise UserError(f"{path} ends in the middle of {entry.name}: copy or download it again", "file-damaged")
        elif end > max(SMALL, MOST_RATIO * length) and unpack is not None:
            text = f"{path} unpacks to more than {MOST_RATIO} times its size: unpack it yourself if you trust it"
            raise UserError(f"{text}, and give the folder", "file-damaged")
        else:
            found.add(entry.name, Member(entry.offset, entry.size, entry.size), tar_fault(entry.kind))
    if unpack is None:
        return Archive(path, found.members, tuple(found.folders), found.omitted)
    return InOrder(path, found.order, partial(_unpacked, path, unpack), tuple(found.folders), found.omitted)


def tar_fault(kind: bytes) -> Omission | None:
    if kind in (tarfile.LNKTYPE, tarfile.SYMTYPE):
        return LINK
    if kind == tarfile.GNUTYPE_SPARSE:
        return SPARSE
    return None if kind in (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE) else SPECIAL


def _unpacked(path: Path, unpack: Callable[..., Any]) -> Iterator[tuple[int, bytes]]:
    """The number and content of each file of a compressed .tar."""
    with open_regular(path) as file, cast(IO[bytes], unpack(file)) as stream:
        number = 0
        for entry in tar_entries(stream):
            if entry.kind == tarfile.DIRTYPE or entry.name.endswith("/"):
                continue
            if 0 <= entry.size <= MOST_BYTES and tar_fault(entry.kind) is None:
                content = stream.read(entry.size)
                if len(content) < entry.size:
                    raise ValueError("it ends too early")
                yield number, content
            number += 1

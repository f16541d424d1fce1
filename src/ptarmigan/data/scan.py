"""One pass over a storage: its files, which of them are images, and a digest of what each holds."""

from __future__ import annotations

import hashlib
import io
import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import IO, NamedTuple

from ptarmigan.core.types import OnProgress, natural
from ptarmigan.data.decode import FORMATS
from ptarmigan.data.storage import FORBIDDEN, Folder, Omission, Storage, omission_notices

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
    "DICOM": rb".{128}DICM",
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
    "DICOM": (".dcm", ".dicom"),
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

WHOLE = 1 << 20  # bytes; of an image file that is larger, three pieces are hashed
PIECE = 64 << 10
BATCH = 32  # files that a thread reads before progress is reported
UNREADABLE = Omission("left out", "unreadable file")
DRAWINGS = Omission("left out", "picture", " that ptarmigan made")


@dataclass
class Scan:
    """What a folder holds, apart from litter and runs of ptarmigan."""

    tree: Folder
    digests: dict[str, str] = field(default_factory=dict)  # of the image files by path, or why one cannot be read
    notices: list[str] = field(default_factory=list)
    unreadable: bool = False  # some folder or file could not be read


class _Look(NamedTuple):
    """What one file is."""

    image: bool
    digest: str  # of an image's content, or why a file cannot be read
    drawn: bool = False  # ptarmigan wrote it


def scan(storage: Storage, on_progress: OnProgress | None = None) -> Scan:
    """List and read the files of a storage: which are images is decided by their first bytes, or else by their names.

    Folders and files that cannot be read are left out and named in a notice; an image file (by its name) that cannot be
    read stays in the list, so that decoding reports it.  Runs and generators of ptarmigan are no data, nor are pictures
    that it wrote, unless there are no others.

    Raises OSError if the storage itself cannot be listed.
    """
    listing = storage.listing(on_progress)
    tree, omitted = listing.tree, listing.omitted
    files = [path for folder in tree.walk() for path in folder.others]
    if storage.order is not None:
        files.sort(key=storage.order.__getitem__)
    found = dict(zip(files, _look_at_all(storage, files, on_progress), strict=True))
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
                omitted[DRAWINGS].append(path)
                folder.unlisted = True
            elif image:
                folder.images.append(path)
                result.digests[path] = digest
            elif digest:
                omitted[UNREADABLE].append(f"{path}: {digest}")
            else:
                folder.others.append(path)
    result.unreadable = bool(omitted[FORBIDDEN] or omitted[UNREADABLE])
    result.notices = omission_notices(omitted)
    return result


def _look_at_all(storage: Storage, files: list[str], on_progress: OnProgress | None) -> Iterator[_Look]:
    """What each file is, read in threads, in order."""
    size = BATCH if storage.order is None else 1  # threads stay close to each other where the order matters
    batches = [files[start : start + size] for start in range(0, len(files), size)]
    done = 0
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for found in pool.map(lambda batch: [_look_at(storage, path) for path in batch], batches):
            yield from found
            done += len(found)
            if on_progress is not None:
                on_progress("reading files", done, len(files))


def _look_at(storage: Storage, path: str) -> _Look:
    name = path.lower()
    if name.endswith(NO_IMAGES):
        return _Look(False, "")
    named_as_image = name.endswith(NAMED_AS_IMAGE)
    try:
        with storage.open(path) as file:
            head = file.read(HEAD)
            if named_as_image or IS_IMAGE.match(head):
                return _Look(True, content_digest(file, WHOLE), DRAWN.match(head) is not None)
            return _Look(False, "")
    except OSError as error:
        return _Look(named_as_image, error.strerror or type(error).__name__)


def begins_as_image(file: IO[bytes]) -> bool:
    """Whether the first bytes of a file are those of an image."""
    file.seek(0)
    return IS_IMAGE.match(file.read(HEAD)) is not None


def content_digest(file: IO[bytes], whole: int) -> str:
    """Hex digest of a file's bytes.

    Of a file of the disk above `whole` bytes, its size, its modification time and three pieces of 64 KiB are hashed:
    the first, the middle and the last.
    """
    size = file.seek(0, os.SEEK_END)
    digest = hashlib.blake2b(str(size).encode(), digest_size=16)
    file.seek(0)
    if size <= whole or isinstance(file, io.BytesIO):
        while chunk := file.read(min(size, 1 << 20)):
            digest.update(chunk)
    else:
        for position in (0, size // 2, size - PIECE):
            file.seek(position)
            digest.update(file.read(PIECE))
        digest.update(str(os.fstat(file.fileno()).st_mtime_ns).encode())
    return digest.hexdigest()

"""The images of shards at a URL, read and decoded when they are wanted: none of them is kept on the disk."""

from __future__ import annotations

import io
import tarfile
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import IO, ClassVar

import numpy as np
from numpy.typing import NDArray

from ptarmigan.config import Data
from ptarmigan.core.types import OnProgress, UserError, counted
from ptarmigan.data.archive import BLOCK
from ptarmigan.data.decode import Limits, TargetShape, decode
from ptarmigan.data.index import FolderSource
from ptarmigan.data.pack import Pack, drop_classes
from ptarmigan.data.read import read_source, spread
from ptarmigan.data.shards import ShardSource
from ptarmigan.data.storage import Listing
from ptarmigan.data.workers import Failure, attempt, cores, pillow_without_warnings

WAITS = (1.0, 4.0, 15.0)  # seconds before a shard that cannot be read is tried again
MOST_BYTES = 16 << 20  # that are read by one request, if they are several images
MOST_GAP = 1 << 20  # bytes between two images that are read by one request
MOST_BROKEN = 100  # images of a class and part, one after another, that cannot be decoded


class ShardLost(UserError):
    """A shard cannot be read any more, or is another one."""

    code = "file-unreadable"
    of_one_rank = True


@dataclass
class ShardFiles:
    """The images of shards as files that are called by their numbers."""

    source: ShardSource
    notes: deque[str] = field(default_factory=deque)  # what is to be said to the user
    order: ClassVar[None] = None
    labels: ClassVar[None] = None

    @property
    def root(self) -> Path:
        return self.source.root

    def listing(self, on_progress: OnProgress | None = None) -> Listing:
        return Listing()  # the shards have been listed

    def open(self, path: str) -> IO[bytes]:
        return io.BytesIO(self.read(np.array([int(path)]))[0])

    def read(self, indices: NDArray[np.int64]) -> list[bytes]:
        """The bytes of images of one shard, in the order in which they lie there, by one request.

        Raises ShardLost if the shard cannot be read, or is not the one that was listed.
        """
        source = self.source
        path, offsets, sizes = source.shards[source.shard[indices[0]]], source.offset[indices], source.size[indices]
        start = int(offsets[0]) - BLOCK  # with the header, to compare it with the list
        content = self._fetch(path, start, int(offsets[-1] + sizes[-1]))
        files = []
        for at, size in zip((offsets - start).tolist(), sizes.tolist(), strict=True):
            if _size_in_header(content[at - BLOCK : at]) != size:
                text = f"{path} has changed since its images were listed: put the old one back to go on with a run"
                raise ShardLost(f"{text}, or start a new run")
            files.append(content[at : at + size])
        return files

    def _fetch(self, path: str, start: int, end: int) -> bytes:
        for wait in (*WAITS, None):
            try:
                content: bytes = self.source.file_system.cat_file(path, start, end)
                if len(content) == end - start:
                    return content
                reason = f"it ends before byte {end:,}"
            except FileNotFoundError:
                raise ShardLost(f"{path} is gone: put it back, and give the same command again") from None
            except Exception as error:  # each file system has types of its own
                reason = " ".join(str(error).split())[:200] or type(error).__name__
            if wait is not None:
                self.notes.append(f"cannot read {path} ({reason}): trying again in {wait:g} s")
                time.sleep(wait)
        text = f"cannot read {path} in {len(WAITS) + 1} attempts ({reason}): check the connection and the file"
        raise ShardLost(f"{text}, and give the same command again")


def _size_in_header(block: bytes) -> int | None:
    try:
        return tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape").size
    except tarfile.HeaderError:
        return None


class StreamedImages:
    """The images of shards [N,H,W,C], as an array that is read and decoded where it is indexed.

    An image that cannot be decoded is replaced by the next one of its kind, which is said in `files.notes`.
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, files: ShardFiles, shape: TargetShape, max_pixels: int, kind: NDArray[np.int64]) -> None:
        """kind [N]: a number for each class in each part; a damaged image is replaced by one of the same kind."""
        self.files, self.kind, self.limits = files, kind, Limits(max_pixels)
        self.shape = len(kind), shape.height, shape.width, shape.channels
        self.decode = partial(decode, shape=shape)
        self.replaced: set[int] = set()
        self.pool = ThreadPoolExecutor(max(4, cores()), "stream")  # over a network, some of them wait

    @property
    def nbytes(self) -> int:
        return int(np.prod(self.shape))

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, at: int | slice | NDArray[np.int64]) -> NDArray[np.uint8]:
        if isinstance(at, slice):
            at = np.arange(*at.indices(len(self)))
        indices = np.atleast_1d(at)
        images = np.empty((len(indices), *self.shape[1:]), np.uint8)
        with pillow_without_warnings():
            for done in self.start(indices, images, np.arange(len(indices))):
                done.result()
        return images if np.ndim(at) else images[0]

    def start(
        self, indices: NDArray[np.int64], images: NDArray[np.uint8], wanted: NDArray[np.int64]
    ) -> list[Future[None]]:
        """Begin to read the images at the indices [M] into `images` [M,H,W,C], at the wanted places of the M.

        The `result` of each answer waits for a part of them.
        """
        order = wanted[indices[wanted].argsort(kind="stable")]

        def fill(places: NDArray[np.int64]) -> None:
            contents = self.files.read(indices[places])
            for place, content in zip(places.tolist(), contents, strict=True):
                images[place] = self._decoded(int(indices[place]), content)

        return [self.pool.submit(fill, places) for places in self._requests(indices, order)]

    def _requests(self, indices: NDArray[np.int64], order: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
        """The places in `order`, divided into those whose images are read at once."""
        source, sorted_ = self.files.source, indices[order]
        begins = source.offset[sorted_]
        ends = begins + source.size[sorted_]
        apart = (np.diff(source.shard[sorted_]) != 0) | (begins[1:] - ends[:-1] > MOST_GAP)
        first = 0
        for i in range(1, len(order) + 1):
            if i == len(order) or apart[i - 1] or ends[i] - begins[first] > MOST_BYTES:
                yield order[first:i]
                first = i

    def _decoded(self, index: int, content: bytes) -> NDArray[np.uint8]:
        image = attempt(io.BytesIO(content), self.decode, self.limits)
        if not isinstance(image, Failure):
            return image
        if index not in self.replaced:
            self.replaced.add(index)
            reason = f"{image.reason}: {image.detail}" if image.detail else image.reason
            self.files.notes.append(f"{self.place(index)} cannot be decoded ({reason}): another image stands for it")
        other = index
        for _ in range(MOST_BROKEN):
            other = self._next(other)
            found = attempt(io.BytesIO(self.files.read(np.array([other]))[0]), self.decode, self.limits)
            if not isinstance(found, Failure):
                return found
        text = f"{self.place(index)} cannot be decoded, nor can the {MOST_BROKEN} images of its class that follow it"
        raise ShardLost(f"{text}: repair the shards")

    def _next(self, index: int) -> int:
        """The image of the same kind that follows this one; the first one follows the last."""
        same = np.flatnonzero(self.kind == self.kind[index])
        return int(same[(same.searchsorted(index) + 1) % len(same)])

    def place(self, index: int) -> str:
        """Where an image lies."""
        source = self.files.source
        return f"{source.shards[source.shard[index]]}, byte {source.offset[index]:,}"


def take_notes(images: NDArray[np.uint8] | StreamedImages) -> list[str]:
    """What has gone wrong since the last call with images that are streamed, in sentences."""
    notes = images.files.notes if isinstance(images, StreamedImages) else deque[str]()
    return [notes.popleft() for _ in range(len(notes))]


def open_stream(source: ShardSource, data: Data, on_progress: OnProgress | None = None) -> Pack:
    """The images of shards in the configured shape, which a sample of them decides where the config does not.

    Raises UserError: no-images if none of the sample can be decoded, options-conflict, and ShardLost.
    """
    if data.balance:
        text = (
            "balance: shards at a URL are streamed, where classes cannot be balanced; leave --balance out, or download"
        )
        raise UserError(f"{text} the shards and name their path", "options-conflict")
    chosen = np.array(spread(list(range(len(source.keys)))))
    sample = FolderSource(
        source.name, source.root, source.stamp, source.understood, (), ShardFiles(source), tuple(map(str, chosen)),
        source.labels[chosen], source.source_part[chosen], source.class_names,
    )  # fmt: skip
    reader = read_source(sample, data, on_progress)
    notices = reader.notices
    if len(chosen) < len(source.keys):
        notices = [f"of a sample of {counted(len(chosen), 'image')}: {notice}" for notice in notices]
    reader = replace(reader, labels=source.labels, source_part=source.source_part, notices=notices)
    keep, labels, class_names = drop_classes(np.arange(len(source.keys)), reader, source)
    columns = {name: getattr(source, name)[keep] for name in ("shard", "offset", "size")}
    files = ShardFiles(replace(source, **columns))
    return Pack(
        StreamedImages(files, reader.shape, data.max_pixels, labels), labels, source.source_part[keep],
        source.keys[keep], keep, tuple(class_names), reader.formats, "", tuple(notices), (),
    )  # fmt: skip

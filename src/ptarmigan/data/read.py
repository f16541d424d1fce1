"""Read a source in chunks of images of one shape, for pack.py to write."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ptarmigan.config import Data
from ptarmigan.config.values import parse_window
from ptarmigan.core.types import OnProgress, UserError, counted, shorten
from ptarmigan.data.decode import (
    OF_16_BITS,
    ImageHeader,
    Limits,
    Look,
    TargetShape,
    Window,
    choose_channels,
    choose_fit,
    choose_size,
    choose_window,
    decode,
    look,
    read_header,
    read_values,
    share_cut,
    to_shape,
)
from ptarmigan.data.index import ArraySource, DataSource, FolderSource
from ptarmigan.data.workers import Failure, Work, read_files

T = TypeVar("T")
CHUNK = 256  # images that are passed on at once, which bounds the memory used
LOOKED_AT = 1000  # images, evenly spread over the source, whose pixels decide on colour, transparency and the window
CUT = 0.03  # of an image's area; less is lost where the sides are rounded to multiples of 4


class Chunk(NamedTuple):
    source_indices: NDArray[np.int64]  # [M]
    images: NDArray[np.uint8]  # [M,H,W,C]


@dataclass
class SourceReader:
    """A source of known image shape.  Its chunks can be read only once; reading them may add to `notices`.

    chunks(done): the images but for those at the indices `done` [M], which have been read before.
    """

    shape: TargetShape
    labels: NDArray[np.int64]  # [N]
    source_part: NDArray[np.int8]  # [N]
    class_names: tuple[str, ...]
    chunks: Callable[[NDArray[np.int64]], Iterator[Chunk]]
    formats: tuple[str, ...] = ()  # of the image files, most frequent first
    understood: str = ""  # how arrays were understood
    notices: list[str] = field(default_factory=list)


def read_source(source: DataSource, data: Data, on_progress: OnProgress | None = None) -> SourceReader:
    """Read every header and choose the shape.  Raises UserError if no image can be decoded.

    on_progress(what, done, total) is called after each file that is read, also while the chunks are.
    """
    if isinstance(source, FolderSource):
        return _FolderReader(source, data, on_progress).open()
    assert isinstance(source, ArraySource)
    arrays = source.read(on_progress)
    height, width, channels = arrays.shape
    size = choose_size([(height, width)], data)
    channels = choose_channels([Look(channels > 1, channels == 4)], data)
    shape = TargetShape(*size, channels, choose_fit(channels, data))
    notices = [*arrays.notices, *_crop_notice([(height, width)] * len(arrays.labels), shape)]
    chunks = partial(_resize_arrays, arrays.chunks(), shape, len(arrays.labels), on_progress)
    return SourceReader(
        shape, arrays.labels, arrays.source_part, arrays.class_names, chunks, understood=arrays.understood,
        notices=notices,
    )  # fmt: skip


def _resize_arrays(
    chunks: Iterable[NDArray[np.uint8]],
    shape: TargetShape,
    total: int,
    on_progress: OnProgress | None,
    before: NDArray[np.int64],
) -> Iterator[Chunk]:
    done = 0
    for images in chunks:
        if done < len(before):  # these were read from the start, and in the same chunks
            done += len(images)
            continue
        if images.shape[1:] != (shape.height, shape.width, shape.channels):
            squeezed = images[..., 0] if images.shape[3] == 1 else images
            images = np.stack([to_shape(Image.fromarray(image), shape) for image in squeezed])
        done += len(images)
        if on_progress is not None:
            on_progress("decoding images", done, total)
        yield Chunk(np.arange(done - len(images), done), images)


class _FolderReader:
    """Reads the image files of a source; collects which of them failed, and why."""

    def __init__(self, source: FolderSource, data: Data, on_progress: OnProgress | None) -> None:
        self.source, self.data, self.on_progress = source, data, on_progress
        self.limits = Limits(data.max_pixels)
        self.failed: dict[int, Failure] = {}  # by index
        self.notices: list[str] = []

    def open(self) -> SourceReader:
        source, data = self.source, self.data
        headers = dict(sorted(self._map("reading headers", read_header, range(len(source.paths)))))
        channels = self._channels(headers)
        window = self._window([i for i, header in headers.items() if header.deep])
        good = [headers[i] for i in headers if i not in self.failed]
        if not good:
            text = f"no image in {source.root} can be decoded{self._failures()}"
            raise UserError(f"{text}; replace these files, or give other data", "no-images")
        sizes = [(header.height, header.width) for header in good]
        shape = TargetShape(*choose_size(sizes, data), channels, choose_fit(channels, data), window)
        self.notices += _crop_notice(sizes, shape)
        if count := sum(header.several for header in good):
            self.notices.append(f"only the first frame or page is used of {counted(count, 'file')} with several")
        if count := sum(header.deep_colour for header in good):
            self.notices.append(f"only the upper 8 bits are used of {counted(count, 'image')} with colours of 16 bits")
        formats = tuple(name for name, _ in Counter(header.format for header in good).most_common())
        return SourceReader(
            shape, source.labels, source.source_part, source.class_names, partial(self._chunks, shape), formats,
            notices=self.notices,
        )  # fmt: skip

    def _channels(self, headers: dict[int, ImageHeader]) -> int:
        """The channels that the config says, or else the pixels; what that costs is added to the notices."""
        data = self.data
        if data.channels is not None or not headers:
            return data.channels or 1
        chosen = spread(list(headers))
        doubtful = [i for i in chosen if headers[i].colour or headers[i].alpha]
        found = dict(self._map("looking for colour", look, doubtful))
        looks = {i: found.get(i, Look(False, False)) for i in chosen if i not in self.failed}
        if not looks:
            return 1
        channels = choose_channels(list(looks.values()), data)
        coloured, transparent = (sum(getattr(one, of) for one in looks.values()) for of in Look._fields)
        grey = len(looks) - coloured
        stored = sum(headers[i].colour and not one.coloured for i, one in looks.items())
        of = f"of {len(looks):,} images" + (f" (a sample of {len(headers):,})" if len(chosen) < len(headers) else "")
        if channels == 4:
            text = f"{transparent:,} {of} have transparency, so it is kept (--channels 3 puts them on white instead)"
            self.notices.append(text)
        elif transparent:
            self.notices.append(f"{transparent:,} {of} have transparency and are put on white (--channels 4 keeps it)")
        if channels == 3 and grey:
            self.notices.append(f"{grey:,} {of} are grey and get three equal channels (--channels 1 makes all grey)")
        if channels == 1 and coloured:
            self.notices.append(f"{coloured:,} {of} are in colour and become grey (--channels 3 keeps their colour)")
        if channels == 1 and stored:
            self.notices.append(f"{stored:,} {of} are stored in colour but are grey: they get one channel")
        return channels

    def _window(self, deep: list[int]) -> Window:
        """The values that become 0 and 255 in images of 16 bits or more, with a notice."""
        if not deep:
            return OF_16_BITS
        chosen = spread(deep)
        found = self._map("reading the range of values", read_values, chosen)
        values = [one for _, one in found]
        if not values:
            return OF_16_BITS
        least, largest = min(one.low for one in values), max(one.high for one in values)
        given = parse_window(self.data.window)
        window = Window(*given) if given else choose_window(values)
        text = (
            f"{counted(len(deep), 'image')} of 16 bits or more: converted to 8 bits on one linear scale, from "
            f"{window.low:g} (becomes 0) to {window.high:g} (becomes 255)"
        )
        if given is None and window == values[0].window:
            text += ", the window that the files state (--window LOW,HIGH sets another scale)"
        elif given is None and window == (least, largest):
            text += ", their least and largest value"
        elif given is None:
            text += (
                f", between which 99.8 % of their pixels lie; the other values, from {least:g} to {largest:g}, are "
                "clipped (--window LOW,HIGH sets another scale)"
            )
        self.notices.append(text)
        if broken := sum(not one.finite for one in values):
            self.notices.append(f"NaN becomes 0 in {counted(broken, 'image')} with NaN or infinite pixels")
        return window

    def _chunks(self, shape: TargetShape, before: NDArray[np.int64]) -> Iterator[Chunk]:
        count = len(self.source.paths)
        part: dict[int, NDArray[np.uint8]] = {}
        done = {*before.tolist()}
        todo = [i for i in range(count) if i not in self.failed and i not in done]
        for i, image in self._map("decoding images", partial(decode, shape=shape), todo, len(done), in_processes=True):
            part[i] = image
            if len(part) == CHUNK:
                yield Chunk(np.array(list(part)), np.stack(list(part.values())))
                part = {}
        if part:
            yield Chunk(np.array(list(part)), np.stack(list(part.values())))
        if self.failed:
            self.notices.append(f"{len(self.failed):,} of {count:,} files cannot be decoded{self._failures()}")

    def _failures(self) -> str:
        """How many files failed for each reason if there are several, then some files, at first one of each reason."""
        counts = Counter(reason for reason, _ in self.failed.values())
        seen: Counter[str] = Counter()
        files = []
        for index, (reason, detail) in sorted(self.failed.items()):
            text = f"{detail}: {reason}" if detail else reason
            files.append((seen[reason], -counts[reason], f"{self.source.paths[index]} ({text})"))
            seen[reason] += 1
        names = [name for *_, name in sorted(files, key=lambda file: file[:2])]
        kinds = ", ".join(f"{count} {reason}" for reason, count in counts.most_common())
        return (f" ({kinds}): " if len(counts) > 1 else ": ") + shorten(names, 3)

    def _map(
        self, what: str, work: Work[T], indices: Sequence[int], before: int = 0, in_processes: bool = False
    ) -> Iterator[tuple[int, T]]:
        """(index, result) of work(file, limits=...), in the order of the storage if it has one; collects failures."""
        if (place := self.source.storage.order) is not None:
            indices = sorted(indices, key=lambda index: place[self.source.paths[index]])
        paths = [self.source.paths[index] for index in indices]
        answers = read_files(self.source.storage, paths, work, self.limits, in_processes)
        for done, (index, answer) in enumerate(zip(indices, answers, strict=True), before + 1):
            if self.on_progress is not None:
                self.on_progress(what, done, before + len(indices))
            if isinstance(answer, Failure):
                self.failed[index] = answer
            else:
                yield index, answer


def spread(indices: list[int]) -> list[int]:
    """At most LOOKED_AT of the indices, evenly spread."""
    places = np.linspace(0, len(indices) - 1, min(LOOKED_AT, len(indices)))
    return [indices[int(place)] for place in places]


def _crop_notice(sizes: list[tuple[int, int]], shape: TargetShape) -> list[str]:
    """What the crop cuts off the images, where it is more than CUT of one of them."""
    if shape.fit != "crop":
        return []
    cut = np.array([share_cut(height, width, shape) for height, width in sizes])
    if not (count := int((cut > CUT).sum())):
        return []
    return [
        f"{count:,} of {len(sizes):,} images are cropped to {shape.height}x{shape.width} and lose "
        f"{100 * cut[cut > CUT].mean():.2g} % of their area on average (--fit pad or --fit stretch keeps all of it; "
        "--size HEIGHTxWIDTH sets another shape)"
    ]

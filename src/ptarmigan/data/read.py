"""A source's images, brought to one shape, in chunks: what pack.py writes."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from ptarmigan.config import Data
from ptarmigan.core.types import UserError
from ptarmigan.data.decode import Header, Shape, choose_shape, decode, extremes, probe, to_shape
from ptarmigan.data.index import ArraySource, FolderSource, Source

T = TypeVar("T")
CHUNK = 256  # files decoded before their pixels are handed on: bounds the memory


class Chunk(NamedTuple):
    places: NDArray[np.int64]  # [M] in the source
    images: NDArray[np.uint8]  # [M,H,W,C]
    done: int  # places of the source dealt with so far


@dataclass
class Reading:
    """A source whose shape is known and whose images can be taken once; `notices` grow while they are."""

    shape: Shape
    labels: NDArray[np.int64]  # [N]
    own: NDArray[np.int8]  # [N]
    class_names: tuple[str, ...]
    chunks: Iterator[Chunk]
    notices: list[str] = field(default_factory=list)


def read(source: Source, data: Data) -> Reading:
    """Look at every header, choose the shape.  Raises UserError where no image can be decoded."""
    if isinstance(source, FolderSource):
        return _read_folder(source, data)
    assert isinstance(source, ArraySource)
    arrays = source.read()
    height, width, channels = arrays.shape
    shape = choose_shape([Header(height, width, channels > 1, channels == 4, False)], data)
    chunks = _fit(arrays.chunks(), shape)
    return Reading(shape, arrays.labels, arrays.own, arrays.class_names, chunks, list(arrays.notices))


def _fit(chunks: Iterable[NDArray[np.uint8]], shape: Shape) -> Iterator[Chunk]:
    done = 0
    for images in chunks:
        if images.shape[1:] != (shape.height, shape.width, shape.channels):
            squeezed = images[..., 0] if images.shape[3] == 1 else images
            images = np.stack([to_shape(Image.fromarray(image), shape) for image in squeezed])
        done += len(images)
        yield Chunk(np.arange(done - len(images), done), images, done)


def _read_folder(source: FolderSource, data: Data) -> Reading:
    failed: dict[int, str] = {}  # place -> reason
    places = list(range(len(source.paths)))
    path = [source.root / p for p in source.paths]
    headers = dict(_each(lambda i: probe(path[i]), places, failed))
    deep = [i for i, header in headers.items() if header.deep]
    values = [pair for _, pair in _each(lambda i: extremes(path[i]), deep, failed)]
    good = [i for i in headers if i not in failed]
    if not good:
        raise UserError(f"no image in {source.root} can be decoded: {_names(source, failed)}")
    shape = choose_shape([headers[i] for i in good], data)
    reading = Reading(shape, source.labels, source.own, source.class_names, iter(()))
    if values:
        shape = replace(shape, window=(min(low for low, _ in values), max(high for _, high in values)))
        reading.notices.append(
            f"16 bit images ({len(values)}) were brought to 8 bit by one window for the whole set: "
            f"its darkest value {shape.window[0]} is 0, its brightest {shape.window[1]} is 255"
        )
    if shape.channels == 4 and data.channels is None:
        reading.notices.append("most images have alpha, so it is kept (--channels 3 composes them on white)")

    def chunks() -> Iterator[Chunk]:
        for start in range(0, len(places), CHUNK):
            part = [i for i in places[start : start + CHUNK] if i not in failed]
            images = dict(_each(lambda i: decode(path[i], shape), part, failed))
            if images:
                yield Chunk(np.array(list(images)), np.stack(list(images.values())), min(start + CHUNK, len(places)))
        if failed:
            reading.notices.append(f"{len(failed)} of {len(places)} files cannot be decoded: {_names(source, failed)}")

    reading.chunks = chunks()
    return reading


def _each(work: Callable[[int], T], places: list[int], failed: dict[int, str]) -> Iterator[tuple[int, T]]:
    """(place, result) in order, from a pool of threads (Pillow decodes outside Python's lock); failures are noted."""

    def attempt(place: int) -> T | None:
        try:
            return work(place)
        except Exception as error:  # a damaged file can make Pillow raise anything
            failed[place] = _reason(error)
            return None

    with _bombs_raise(), ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(places), CHUNK):
            part = places[start : start + CHUNK]
            for place, result in zip(part, pool.map(attempt, part), strict=True):
                if result is not None:
                    yield place, result


@contextmanager
def _bombs_raise() -> Iterator[None]:
    """Pillow's warnings about odd files are silent, but for images too large to be honest: those fail."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "no image"
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return f"more than {Image.MAX_IMAGE_PIXELS} pixels"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__


def _names(source: FolderSource, failed: dict[int, str], most: int = 3) -> str:
    shown = [f"{source.paths[place]} ({failed[place]})" for place in sorted(failed)[:most]]
    return ", ".join(shown) + (f" and {len(failed) - most} more" if len(failed) > most else "")

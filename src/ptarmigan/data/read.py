"""Read a source in chunks of images of one shape, for pack.py to write."""

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
from ptarmigan.core.types import OnProgress, UserError, shorten
from ptarmigan.data.decode import ImageHeader, TargetShape, choose_shape, decode, read_header, to_shape, value_range
from ptarmigan.data.index import ArraySource, DataSource, FolderSource

T = TypeVar("T")
CHUNK = 256  # files decoded before their pixels are passed on, which bounds the memory used


class Chunk(NamedTuple):
    source_indices: NDArray[np.int64]  # [M]
    images: NDArray[np.uint8]  # [M,H,W,C]
    done: int  # images of the source processed so far, including those that cannot be decoded


@dataclass
class SourceReader:
    """A source of known image shape.  Its chunks can be read once, and reading them may add `notices`."""

    shape: TargetShape
    labels: NDArray[np.int64]  # [N]
    source_part: NDArray[np.int8]  # [N]
    class_names: tuple[str, ...]
    chunks: Iterator[Chunk]
    formats: tuple[str, ...] = ()  # of the image files, most frequent first
    understood: str = ""  # how arrays were understood
    notices: list[str] = field(default_factory=list)


def read_source(source: DataSource, data: Data, on_progress: OnProgress | None = None) -> SourceReader:
    """Read every header and choose the shape.  Raises UserError if no image can be decoded."""
    if isinstance(source, FolderSource):
        return _read_folder(source, data)
    assert isinstance(source, ArraySource)
    arrays = source.read(on_progress)
    height, width, channels = arrays.shape
    shape = choose_shape([ImageHeader(height, width, channels > 1, channels == 4, False)], data)
    chunks = _resize_arrays(arrays.chunks(), shape)
    return SourceReader(
        shape, arrays.labels, arrays.source_part, arrays.class_names, chunks, understood=arrays.understood,
        notices=list(arrays.notices),
    )  # fmt: skip


def _resize_arrays(chunks: Iterable[NDArray[np.uint8]], shape: TargetShape) -> Iterator[Chunk]:
    done = 0
    for images in chunks:
        if images.shape[1:] != (shape.height, shape.width, shape.channels):
            squeezed = images[..., 0] if images.shape[3] == 1 else images
            images = np.stack([to_shape(Image.fromarray(image), shape) for image in squeezed])
        done += len(images)
        yield Chunk(np.arange(done - len(images), done), images, done)


def _read_folder(source: FolderSource, data: Data) -> SourceReader:
    failed: dict[int, str] = {}  # index -> reason
    indices = list(range(len(source.paths)))
    path = [source.root / p for p in source.paths]
    headers = dict(_map_in_threads(lambda i: read_header(path[i]), indices, failed))
    sixteen_bit = [i for i, header in headers.items() if header.sixteen_bit]
    values = [pair for _, pair in _map_in_threads(lambda i: value_range(path[i]), sixteen_bit, failed)]
    good = [i for i in headers if i not in failed]
    if not good:
        raise UserError(f"no image in {source.root} can be decoded: {_describe(source, failed)}", "no-images")
    shape = choose_shape([headers[i] for i in good], data)
    reader = SourceReader(shape, source.labels, source.source_part, source.class_names, iter(()))
    if values:
        shape = replace(shape, window=(min(low for low, _ in values), max(high for _, high in values)))
        reader.notices.append(
            f"{len(values)} images of 16 bits were converted to 8 bits on one linear scale: their darkest value, "
            f"{shape.window[0]}, became 0, and their brightest, {shape.window[1]}, became 255"
        )
    if shape.channels == 4 and data.channels is None:
        reader.notices.append("most images have transparency, so it is kept (--channels 3 puts them on white instead)")

    def chunks() -> Iterator[Chunk]:
        for start in range(0, len(indices), CHUNK):
            part = [i for i in indices[start : start + CHUNK] if i not in failed]
            images = dict(_map_in_threads(lambda i: decode(path[i], shape), part, failed))
            if images:
                yield Chunk(np.array(list(images)), np.stack(list(images.values())), min(start + CHUNK, len(indices)))
        if failed:
            text = f"{len(failed)} of {len(indices)} files cannot be decoded: {_describe(source, failed)}"
            reader.notices.append(text)

    reader.chunks = chunks()
    return reader


def _map_in_threads(work: Callable[[int], T], indices: list[int], failed: dict[int, str]) -> Iterator[tuple[int, T]]:
    """(index, result) in order, computed in threads (Pillow releases Python's lock); failures go into `failed`."""

    def attempt(index: int) -> T | None:
        try:
            return work(index)
        except Exception as error:  # a damaged file can make Pillow raise anything
            failed[index] = _reason(error)
            return None

    with _bombs_as_errors(), ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(indices), CHUNK):
            part = indices[start : start + CHUNK]
            for index, result in zip(part, pool.map(attempt, part), strict=True):
                if result is not None:
                    yield index, result


@contextmanager
def _bombs_as_errors() -> Iterator[None]:
    """Silence Pillow's warnings about unusual files, except decompression bombs: those raise."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "not an image"
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return f"more than {Image.MAX_IMAGE_PIXELS} pixels"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__


def _describe(source: FolderSource, failed: dict[int, str]) -> str:
    return shorten([f"{source.paths[index]} ({reason})" for index, reason in sorted(failed.items())], 3)

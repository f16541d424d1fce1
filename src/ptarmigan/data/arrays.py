"""Images in arrays, of files that are read in chunks or in memory.

What a file means is decided by its key names, shapes, types and values.  Where the meaning is certain, the
file is read and one sentence says how (`Arrays.understood`); otherwise a UserError says what to do.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from math import prod
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ptarmigan.core.types import OnProgress, UserError, class_name, counted, natural, shorten

TRAIN, SELECT, HELD_OUT, UNDECIDED = 0, 1, 2, -1  # UNDECIDED: the source names no part
CHUNK_BYTES = 16 << 20
CHUNK_IMAGES = 1024
MAX_INFLATION = 1032  # deflate expands a byte to at most this many bytes: a header that claims more is false
SIDES = (8, 8192)  # pixels of an image's side
MAX_IMAGE_BYTES = 64 << 20  # of one image, in the type that it is stored in
MAX_TRANSPOSED_BYTES = 256 << 20  # of an array in column-major order, which is read whole
MAX_TEXT = 1024  # bytes of a class name
FILLED = 0.9  # of a range of values is reached by images that are certain to be in this range
PART_WORDS = {
    "train": UNDECIDED, "training": UNDECIDED, "trainval": UNDECIDED,
    "val": SELECT, "valid": SELECT, "validation": SELECT, "dev": SELECT,
    "test": HELD_OUT, "testing": HELD_OUT, "eval": HELD_OUT, "evaluation": HELD_OUT, "holdout": HELD_OUT,
    "heldout": HELD_OUT, "训练": UNDECIDED, "验证": SELECT, "测试": HELD_OUT,
}  # fmt: skip


@dataclass(frozen=True)
class StoredArray:
    """An array in a file, not read yet."""

    where: str  # for messages: the file, and the name of the array in it
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    open: Callable[[], IO[bytes]]  # a stream positioned at the first element
    column_major: bool = False  # the first axis varies fastest in the file

    def chunks(self) -> Iterator[NDArray[Any]]:
        """The rows [M, ...] in chunks of about 16 MB; raises UserError if the file is truncated."""
        row = prod(self.shape[1:]) * self.dtype.itemsize
        step = max(1, CHUNK_BYTES // max(1, row))
        if self.column_major:
            turned = replace(self, shape=self.shape[::-1], column_major=False)
            whole = np.concatenate(list(turned.chunks())).T
            yield from (np.ascontiguousarray(whole[start : start + step]) for start in range(0, self.shape[0], step))
            return
        with as_user_error(self.where), self.open() as stream:
            for start in range(0, self.shape[0], step):
                count = min(step, self.shape[0] - start)
                data = stream.read(count * row)
                if len(data) < count * row:
                    raise EOFError(f"truncated after {start + len(data) // max(1, row)} of {self.shape[0]} items")
                yield np.frombuffer(data, self.dtype).reshape(count, *self.shape[1:])


@dataclass(frozen=True)
class ArrayInMemory(StoredArray):
    """An array that the caller holds."""

    values: NDArray[Any] = field(kw_only=True)

    @classmethod
    def of(cls, where: str, values: NDArray[Any]) -> ArrayInMemory:
        return cls(where, values.shape, values.dtype, io.BytesIO, values=values)

    def chunks(self) -> Iterator[NDArray[Any]]:
        step = max(1, CHUNK_BYTES * len(self.values) // max(1, self.values.nbytes))
        yield from (self.values[start : start + step] for start in range(0, len(self.values), step))


@dataclass(frozen=True)
class Layout:
    """How the numbers of an array are read as uint8 images [N,H,W,C]."""

    channels_first: bool = False  # stored as [N,C,H,W]
    transposed: bool = False  # stored as [N,W,H]
    low: float = 0  # the value that becomes 0
    high: float = 255  # the value that becomes 255

    def images(self, chunk: NDArray[Any]) -> NDArray[np.uint8]:
        """uint8 [M,H,W,C]"""
        if (self.low, self.high) != (0, 255):
            chunk = (chunk.astype(np.float32) - self.low) * (255 / (self.high - self.low))
        if chunk.dtype.kind == "f":
            chunk = np.rint(chunk)
        if self.channels_first:
            chunk = chunk.transpose(0, 2, 3, 1)
        if self.transposed:
            chunk = chunk.swapaxes(1, 2)
        chunk = chunk.astype(np.uint8, copy=False)
        return chunk if chunk.ndim == 4 else chunk[..., None]


@dataclass(frozen=True)
class Arrays:
    """The contents of an array source; all images have one shape."""

    images: tuple[StoredArray, ...]
    layout: Layout
    labels: NDArray[np.int64]  # [N] over all arrays
    source_part: NDArray[np.int8]  # [N] SELECT or HELD_OUT if the source says so, else UNDECIDED
    class_names: tuple[str, ...]
    understood: str  # how many images and classes there are, which arrays were read, and how
    notices: tuple[str, ...] = ()

    @property
    def shape(self) -> tuple[int, int, int]:
        height, width, channels = _sides(self.images[0], self.layout.channels_first)
        return (width, height, channels) if self.layout.transposed else (height, width, channels)

    def chunks(self) -> Iterator[NDArray[np.uint8]]:
        """Chunks [M,H,W,C] in order."""
        for table in self.images:
            for chunk in table.chunks():  # of small images it may hold many, which may be enlarged
                yield from (self.layout.images(chunk[i : i + CHUNK_IMAGES]) for i in range(0, len(chunk), CHUNK_IMAGES))


class Table(NamedTuple):
    """The images of one part, with their labels."""

    images: StoredArray
    labels: StoredArray | None
    part: int


@contextmanager
def as_user_error(where: str) -> Iterator[None]:
    """Turn any exception that a damaged or unreadable file raises into a UserError."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # zipfile, zlib, gzip and numpy's header parser raise a dozen types
        reason = error.strerror if isinstance(error, OSError) and error.strerror else " ".join(str(error).split())
        reason = reason[:200] or type(error).__name__  # zipfile quotes the whole file
        text = f"cannot read {where}: {reason}; check that the file is complete and that you may read it"
        raise UserError(text, "file-unreadable") from error


# --- arrays in memory --------------------------------------------------------------------------------------


def as_array(what: str, given: Any) -> NDArray[Any]:
    """A numpy array of an array, of a tensor on any device, or of a list; raises UserError (data-invalid)."""
    try:
        array = np.asarray(given.detach().cpu() if hasattr(given, "detach") else given)
    except (TypeError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        with suppress(TypeError, ValueError):  # of members that are no arrays themselves
            first, second = list(dict.fromkeys(np.shape(one) for one in given))[:2]
            reason = f"one is {[*first]} and another {[*second]}; convert all of them to one shape"
        raise UserError(f"{what}: cannot be read as one array of numbers: {reason}", "data-invalid") from None
    if array.dtype == object and all(isinstance(value, str) for value in array.flat):  # as pandas holds words
        return array.astype(str)
    if array.dtype.hasobject:
        raise UserError(f"{what}: expected an array of numbers, got {type(given).__name__} of objects", "data-invalid")
    return array


def read_memory(images: NDArray[Any], labels: NDArray[Any] | None, class_names: list[str] | None) -> Arrays:
    """Images and labels as `Dataset.from_arrays` takes them; raises UserError."""
    if images.dtype.kind == "f" and images.size:
        raise UserError(f"images: expected uint8, 0 to 255, got {images.dtype}; {conversion(images)}", "data-invalid")
    if labels is not None and images.ndim > 2 and labels.shape[:1] != images.shape[:1]:
        counts = [array.shape[0] if array.ndim else 0 for array in (labels, images)]
        raise UserError(f"labels: got {counts[0]:,} for {counts[1]:,} images: give one for each image", "data-invalid")
    stored = None if labels is None else ArrayInMemory.of("labels", labels)
    names = ["images"] if labels is None and class_names is None else class_names
    return assemble([Table(ArrayInMemory.of("images", images), stored, UNDECIDED)], names, "class_names", [])


def conversion(images: NDArray[Any]) -> str:
    """What to write to turn images of floats into uint8."""
    low, high = float(images.min()), float(images.max())
    for scaled, bottom, top in (("images * 255", 0, 1), ("(images + 1) * 127.5", -1, 1), ("images", 0, 255)):
        if bottom <= low and high <= top:
            return f'their values are {low:g} to {high:g}: write numpy.rint({scaled}).astype("uint8")'
    return f'their values are {low:g} to {high:g}: scale them to 0 to 255 and convert them by .astype("uint8")'


# --- both --------------------------------------------------------------------------------------------------


def _sides(images: StoredArray, channels_first: bool) -> tuple[int, int, int]:
    """Height, width and channels as stored."""
    if len(images.shape) == 3:
        return images.shape[1], images.shape[2], 1
    _, height, width, channels = (images.shape[axis] for axis in ((0, 2, 3, 1) if channels_first else (0, 1, 2, 3)))
    return height, width, channels


def _channels_first(images: StoredArray) -> bool:
    """Whether the images are [N,C,H,W]; raises UserError for what are not images, by the header alone."""
    text, shape = "", list(images.shape)
    wanted = "expected [N,H,W], or [N,H,W,C] with C of 1, 3 or 4"
    first = len(shape) == 4 and shape[1] in (1, 3, 4)
    if images.dtype.kind not in "uif":
        text = f"{images.where} is {images.dtype}: expected images as uint8, 0 to 255"
    elif 0 in shape:
        text = f"{images.where} has shape {shape}: it holds no images"
    elif len(shape) == 2:
        text = f"{images.where} has shape {shape}: {wanted}; if each row is an image, reshape it"
    elif len(shape) not in (3, 4) or (len(shape) == 4 and first == (shape[3] in (1, 3, 4))):
        text = f"{images.where} has shape {shape}: {wanted}"
    elif len(shape) == 3 and shape[2] in (1, 3, 4):
        text = f"{images.where} has shape {shape}, as one image has: {wanted}"
    else:
        height, width, channels = _sides(images, first)
        stored = height * width * channels * images.dtype.itemsize
        if min(height, width) < SIDES[0] or max(height, width) > SIDES[1] or stored > MAX_IMAGE_BYTES:
            text = (
                f"{images.where} holds images of {height}x{width}: expected sides from {SIDES[0]} to {SIDES[1]:,} "
                f"pixels, and at most {MAX_IMAGE_BYTES >> 20} MB an image; resize them first"
            )
    if text:
        raise UserError(text, "data-invalid")
    return first


def _value_range(tables: Sequence[Table], on_progress: OnProgress | None) -> tuple[float, float]:
    """The values that become 0 and 255; raises UserError where the images' values do not make that certain.

    Values of uint8 are 0 to 255, and the images are read only until one is above 1.
    """
    low, high = np.inf, -np.inf
    done, total = 0, sum(table.images.shape[0] for table in tables)
    for table in tables:
        for chunk in table.images.chunks():
            if not np.isfinite(chunk).all():
                raise UserError(f"{table.images.where} holds NaN or infinity: remove these images", "data-invalid")
            low, high = min(low, float(chunk.min())), max(high, float(chunk.max()))
            if high > 1 and table.images.dtype == np.uint8:
                return 0, 255
            done += len(chunk)
            if on_progress is not None:
                on_progress("reading the range of values", done, total)
    whole = tables[0].images.dtype.kind in "ui"
    ranges = [(0, 255)] if whole else [(0, 1), (0, 255), (-1, 1)]
    for bottom, top in ranges:
        margin = (1 - FILLED) * (top - bottom)
        if bottom <= low and top - margin <= high <= top and (bottom == 0 or low <= bottom + margin):
            return bottom, top
    where, kind = tables[0].images.where, tables[0].images.dtype
    text = f"{where} is {kind} with values from {low:g} to {high:g}, so it is not certain which value is black and"
    raise UserError(f"{text} which is white: scale them to 0 to 255 and save them as uint8", "data-invalid")


def as_name(value: Any) -> str:
    """A label or name as a class name."""
    text = value.decode(errors="surrogateescape") if isinstance(value, bytes) else str(value)
    return class_name(text.strip())


def _not_labels(labels: StoredArray, images: StoredArray, columns: int) -> str:
    """Why an array cannot hold a label for each image; '' if it can."""
    shape, dtype = list(labels.shape), labels.dtype
    if not shape or shape[0] != images.shape[0]:
        count = shape[0] if shape else 0
        return f"{labels.where} has {count} labels for the {images.shape[0]} images of {images.where}"
    if len(shape) > 2 or 0 in shape:
        return f"{labels.where} has shape {shape}: expected one label per image"
    if dtype.kind not in "uifbUS" or (columns and dtype.kind in "US"):
        return f"{labels.where} is {dtype} {shape}: expected one whole number or word per image"
    if prod(shape[1:]) * dtype.itemsize > MAX_IMAGE_BYTES or (dtype.kind in "US" and dtype.itemsize > MAX_TEXT):
        return f"{labels.where} is {dtype} {shape}: its labels are too long"
    return ""


def _read_labels(labels: StoredArray, images: StoredArray, index_of: dict[Any, int]) -> tuple[NDArray[np.int64], str]:
    """[N] the index of each label in `index_of`, which is extended by new labels, and how the labels were stored.

    The labels are whole numbers of any type, words, or rows with a single 1, whose column is the label.  Raises
    UserError for others.
    """
    shape, dtype = list(labels.shape), labels.dtype
    columns = shape[1] if len(shape) == 2 and shape[1] > 1 else 0
    if text := _not_labels(labels, images, columns):
        raise UserError(text, "data-invalid")
    codes = []
    for chunk in labels.chunks():
        if columns:
            if not (((chunk == 0) | (chunk == 1)).all() and (chunk.sum(1) == 1).all()):
                text = f"{labels.where} has shape {shape}, and its rows do not have a single 1 each: expected one label"
                raise UserError(f"{text} per image; if images have several labels, choose one", "data-invalid")
            values = chunk.argmax(1)
        elif dtype.kind == "f":
            if not (np.isfinite(chunk) & (chunk == np.rint(chunk)) & (abs(chunk) < 2**53)).all():
                text = f"{labels.where} is {dtype} with values that are not whole: expected one whole number per image"
                raise UserError(text, "labels-invalid")
            values = chunk.reshape(-1).astype(np.int64)
        else:
            values = chunk.reshape(-1)
        distinct, inverse = np.unique(values, return_inverse=True)
        with as_user_error(labels.where):  # words may hold numbers that are no characters
            known = [as_name(value) if dtype.kind in "US" else value.item() for value in distinct]
        if "" in known:
            raise UserError(f"{labels.where} has an empty label: name its class", "labels-invalid")
        codes.append(np.array([index_of.setdefault(value, len(index_of)) for value in known], np.int64)[inverse])
    how = "one-hot rows" if columns else {"f": f"{dtype} numbers", "b": "true and false"}.get(dtype.kind, "")
    return np.concatenate(codes), "words" if dtype.kind in "US" else how


def _check_alike(parts: list[StoredArray]) -> bool:
    """Raise UserError unless all images have one shape and type; returns whether their channels come first."""
    first, others = parts[0], parts[1:]
    channels_first = _channels_first(first)
    for other in others:
        if _channels_first(other) != channels_first or other.shape[1:] != first.shape[1:]:
            here, there = list(other.shape[1:]), list(first.shape[1:])
            raise UserError(f"{other.where} has images of {here}, {first.where} of {there}", "data-invalid")
        if other.dtype != first.dtype:
            text = f"{other.where} is {other.dtype}, {first.where} is {first.dtype}: save both as uint8"
            raise UserError(text, "data-invalid")
    return channels_first


def _number_labels(tables: list[Table], where: str) -> tuple[NDArray[np.int64], list[Any], str]:
    """[N] labels 0, 1, 2, ..., the value that each stands for in the files, and how these are stored."""
    index_of: dict[Any, int] = {}
    codes, stored_as = [], ""
    for table in tables:
        if table.labels is None:
            codes, index_of = [np.zeros(table.images.shape[0], np.int64)], {0: 0}
        else:
            code, stored_as = _read_labels(table.labels, table.images, index_of)
            codes.append(code)
    values = list(index_of)
    order = _class_order(values, where)
    labels = np.argsort(order)[np.concatenate(codes)]
    if len(labels) >= 100 and len(values) > len(labels) / 2:
        text = f"{where} has {len(values):,} different labels for {len(labels):,} images"
        raise UserError(f"{text}: give the images of a class one label", "labels-invalid")
    return labels, [values[i] for i in order], stored_as


def assemble(
    tables: list[Table],
    class_names: list[str] | dict[int, str] | None,
    names_from: str,
    found: list[str],
    notices: Sequence[str] = (),
    transposed: bool = False,
    on_progress: OnProgress | None = None,
) -> Arrays:
    """Check that the tables fit together, and number the classes 0, 1, 2, ..."""
    first = _check_alike([table.images for table in tables])
    where = tables[0].labels.where if tables[0].labels else tables[0].images.where
    labels, values, stored_as = _number_labels(tables, where)
    names, renamed = names_of_labels(values, class_names, names_from, where)
    low, high = _value_range(tables, on_progress)
    layout = Layout(first, transposed, low, high)
    roles = {UNDECIDED: "", SELECT: " (select part)", HELD_OUT: " (held out)"}
    images, classes = counted(len(labels), "image"), counted(len(values), "class")
    facts = [
        f"{images} of one class, {names[0]!r}" if len(values) == 1 else f"{images} in {classes}",
        ", ".join(name + roles[table.part] for name, table in zip(found, tables, strict=False)),
        "channels first" * first,
        f"values {low:g} (black) to {high:g} (white)" * (tables[0].images.dtype != np.uint8),
        "each image is turned upright, because EMNIST's files hold it transposed" * transposed,
        f"labels as {stored_as}" * bool(stored_as),
        renamed,
    ]
    source_part = [np.full(table.images.shape[0], table.part, np.int8) for table in tables]
    return Arrays(
        tuple(table.images for table in tables), layout, labels, np.concatenate(source_part), tuple(names),
        "; ".join(filter(None, facts)), tuple(notices),
    )  # fmt: skip


def _class_order(values: list[Any], where: str) -> list[int]:
    """The order of the classes: numbers by value, words in natural order."""
    if len({isinstance(value, str) for value in values}) > 1:
        raise UserError(f"{where} has numbers, and another part has words for labels: use one kind", "labels-invalid")
    return sorted(range(len(values)), key=lambda i: natural(values[i]) if isinstance(values[i], str) else values[i])


def names_of_labels(
    values: list[Any], given: list[str] | dict[int, str] | None, names_from: str, where: str
) -> tuple[list[str], str]:
    """The name of each label, the labels in order, and what to say about them.

    As many names as labels are in the order of the labels.  More names than labels belong to the labels 0, 1, 2 and so
    on, where the labels contain 0; the names without images are left out.
    """
    words, numbered = isinstance(values[0], str), values == list(range(len(values)))
    if isinstance(given, dict):
        names, said = [given.get(value, str(value)) for value in values], f"names from {Path(names_from).name}"
    elif given is None or words:
        names = [str(value) for value in values]
        said = "" if words or numbered else f"the labels {shorten(names, 8)} are renumbered from 0 and keep their names"
        if given is not None and set(given) != set(names):
            raise UserError(f"{names_from} and the labels of {where} do not name the same classes", "labels-invalid")
    elif len(given) == len(values):
        names = given
        said = (
            ""
            if numbered
            else f"the class names are those of the labels {shorten([str(value) for value in values], 8)}"
        )
    elif values[0] == 0 and values[-1] < len(given):
        names = [given[value] for value in values]
        lost = [name for name in given if name not in names]
        said = f"left out, because no image has their labels: {shorten(lost)}"
    else:
        found = f"the {len(values)} classes ({values[0]} to {values[-1]}) of {where}"
        raise UserError(f"{names_from} has {len(given)} names for {found}", "labels-invalid")
    names = [class_name(name) for name in names]
    if len(set(names)) < len(names):
        text = f"{names_from} has the name {max(names, key=names.count)!r} twice: each class needs its own name"
        raise UserError(text, "labels-invalid")
    return names, said


def read_class_names(path: Path) -> list[str] | dict[int, str]:
    """`class_names_in` a file; raises UserError (file-unreadable)."""
    with as_user_error(str(path)):
        return class_names_in(path.read_bytes())


def class_names_in(content: bytes) -> list[str] | dict[int, str]:
    """The lines of a file of class names, or {number: name} where each line begins with a number of its own."""
    try:
        lines = [line.strip() for line in content.decode("utf-8-sig").splitlines() if line.strip()]
    except UnicodeDecodeError:
        raise UserError("the class names are not text in UTF-8: save them as UTF-8", "file-unreadable") from None
    pairs = [re.fullmatch(r"(-?\d{1,9})[\s,;:]+(.+)", line) for line in lines]
    numbers = [int(pair[1]) for pair in pairs if pair]
    if len(set(numbers)) == len(lines):
        return {int(pair[1]): pair[2].strip() for pair in pairs if pair}
    return lines

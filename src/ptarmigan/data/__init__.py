"""From a path to labelled images: index -> decode -> pack -> split.  batches.py goes on from there, with torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ptarmigan import config
from ptarmigan.config.values import parse_split
from ptarmigan.core.console import Display, Terminal
from ptarmigan.core.types import ImageSpec, OnProgress, UserError, counted, shorten
from ptarmigan.data.arrays import HELD_OUT, SELECT, TRAIN, UNDECIDED
from ptarmigan.data.index import IN_MEMORY, DataSource, FolderSource, MemorySource, find_source
from ptarmigan.data.pack import Pack, open_pack
from ptarmigan.data.shards import ShardSource
from ptarmigan.data.split import (
    DEFAULT_SPLIT,
    MIN_HELD_OUT,
    MIN_SELECT,
    assign_parts,
    classes_missing_a_part,
    group_keys,
    matches,
    useful_split,
)
from ptarmigan.data.stream import StreamedImages, open_stream

__all__ = ["HELD_OUT", "SELECT", "TRAIN", "Dataset", "open_dataset", "recorded_data"]


@dataclass(frozen=True)
class Dataset:
    """Labelled images of one shape; each belongs to the train, select or held-out part."""

    spec: ImageSpec
    images: NDArray[np.uint8] | StreamedImages  # [N,H,W,C], memory-mapped or streamed, read only
    labels: NDArray[np.int64]  # [N], 0 .. spec.classes - 1
    part: NDArray[np.uint8]  # [N], TRAIN 0, SELECT 1, HELD_OUT 2
    split: str  # the shares of the parts, as 90/5/5, or none: as asked for, or as chosen for so many images
    hashes: NDArray[np.uint64]  # [N], of each image's bytes; of streamed ones, of their files' names and sizes
    name: str  # short, safe in a folder name
    fingerprint: str  # hex digest of the hashes, labels, class names and shape
    understood: str  # one sentence: what was found at the path, and where the labels come from
    formats: tuple[str, ...]  # the formats of the image files, most frequent first, as Pillow names them: PNG, JPEG
    notices: tuple[str, ...]  # sentences to show to the user
    source: DataSource
    source_indices: NDArray[np.int64]  # [N] position in the source

    @classmethod
    def from_arrays(
        cls, images: ArrayLike, labels: ArrayLike | None = None, class_names: Sequence[str] | None = None
    ) -> Dataset:
        """A data set of images in memory, for `train`, `score` and `replay`.

        images: uint8 [N, H, W], or [N, H, W, C] with C of 1, 3 or 4; channels may come first.  labels [N]: whole
        numbers or words; None makes all images one class.  class_names: the name of each label, by default the label
        itself.  Arrays and tensors are taken, on any device.  The images are fitted to the size that `train` would
        choose and divided into parts; a command with other options, such as size or split, reads the arrays again.

        Raises UserError: data-invalid, labels-invalid.
        """
        source = MemorySource.of(images, labels, class_names)
        with Display(Terminal(stderr=True)) as display:
            return _open(source, config.Data(), display.preparing)

    def __repr__(self) -> str:
        spec, parts = self.spec, ", ".join(f"{count:,} {name}" for name, count in self.counts().items() if count)
        shape = f"{spec.size}x{spec.channels}"
        return f"<Dataset of {shape} images in {counted(spec.classes, 'class')}: {parts}>"

    def origin(self, index: int) -> str:
        """The file of an image, or its position in an array file."""
        if isinstance(self.images, StreamedImages):
            return self.images.place(index)
        position, source = int(self.source_indices[index]), self.source
        if isinstance(source, FolderSource):
            return str(source.root / source.paths[position])
        return f"image {position} of {source.root}"

    def indices(self, part: int = TRAIN) -> NDArray[np.int64]:
        """Indices of the images of a part, ascending."""
        return np.flatnonzero(self.part == part)

    def counts(self) -> dict[str, int]:
        """Number of images in each part, by name."""
        return {name: len(self.indices(part)) for part, name in enumerate(("train", "select", "held-out"))}

    def class_counts(self) -> dict[str, int]:
        """Number of training images of each class, by name."""
        counts = np.bincount(self.labels[self.indices()], minlength=self.spec.classes)
        return dict(zip(self.spec.class_names, counts.tolist(), strict=True))

    def fewer_than(self, batch: int) -> str | None:
        """A warning if there are fewer training images than one batch, else None."""
        count = len(self.indices())
        if count >= batch:
            return None
        return f"{count} training images do not fill a batch of {batch}: each batch repeats images; expect memorisation"


def open_dataset(
    path: str | Path | Dataset | None, data: config.Data, on_progress: OnProgress | None = None
) -> Dataset:
    """Find, decode and split the images at `path`; decoded images are cached.  None is the embedded data set.

    path: a folder of images or of files of arrays, an archive, a file of arrays, the URL of shards, which are streamed,
    or a data set whose source is opened again.
    on_progress(what, done, total) is called while files are listed and images are decoded.
    Raises UserError if there are no usable images.
    """
    if isinstance(path, Dataset):
        return _open(path.source.again() if isinstance(path.source, MemorySource) else path.source, data, on_progress)
    return _open(find_source(path, on_progress, data), data, on_progress)


def recorded_data(run: Path, source: str) -> str | None:
    """What `open_dataset` takes for the source in a run's record; raises UserError (data-missing) for arrays."""
    if source == IN_MEMORY:
        text = f"{run} was trained on arrays, which it does not keep: give them again, as data=ptarmigan.Dataset."
        text += "from_arrays(images, labels), or save them by numpy.savez('x.npz', arr_0=images, arr_1=labels) and give"
        raise UserError(f"{text} that file", "data-missing")
    return None if source == "embedded" else source


def _open(source: DataSource, data: config.Data, on_progress: OnProgress | None) -> Dataset:
    if data.group is not None and not isinstance(source, FolderSource):
        text = f"group: {source.root} holds arrays, and --group needs image files with paths; leave --group out"
        raise UserError(text, "options-conflict")
    if isinstance(source, ShardSource):
        pack = open_stream(source, data, on_progress)
    else:
        pack = open_pack(source, data, on_progress)
    groups = None
    if data.group is not None:
        assert isinstance(source, FolderSource)
        names = source.groups or matches(source.paths, data.group)
        groups = group_keys([names[position] for position in pack.source_indices])
    split, part = _divide(pack, pack.hashes if groups is None else groups, data.split)
    if isinstance(pack.images, StreamedImages):
        pack.images.kind = 3 * pack.labels + part
    height, width, channels = pack.images.shape[1:]
    dataset = Dataset(
        spec=ImageSpec(height, width, channels, pack.class_names),
        images=pack.images,
        labels=pack.labels,
        part=part,
        split=split,
        hashes=pack.hashes,
        name=source.name,
        fingerprint=_fingerprint(pack),
        understood=": ".join(filter(None, (source.understood, pack.understood))),
        formats=pack.formats,
        notices=(*source.notices, *pack.notices),
        source=source,
        source_indices=pack.source_indices,
    )
    more = _notices_of_split(dataset, pack.source_part, data)
    if groups is not None:
        more += _notices_of_groups(dataset, groups)
    if data.balance:
        more += _notices_of_balance(dataset)
    return replace(dataset, notices=(*dataset.notices, *more))


def _divide(pack: Pack, keys: NDArray[np.uint64], asked: str | None) -> tuple[str, NDArray[np.uint8]]:
    """The split, by default one whose parts are all of use, and [N] the part of each image; equal keys share one."""
    split = asked or DEFAULT_SPLIT
    part = assign_parts(pack.labels, keys, pack.source_part, parse_split(split))
    if asked is None and (useful := useful_split(part, pack.source_part)) != split:
        return useful, assign_parts(pack.labels, keys, pack.source_part, parse_split(useful))
    return split, part


def _fingerprint(pack: Pack) -> str:
    digest = hashlib.blake2b(json.dumps([pack.images.shape, pack.class_names]).encode(), digest_size=16)
    digest.update(pack.hashes.astype("<u8").tobytes())
    digest.update(pack.labels.astype("<i8").tobytes())
    return digest.hexdigest()


def _notices_of_split(dataset: Dataset, source_part: NDArray[np.int8], data: config.Data) -> list[str]:
    notices, part = [], dataset.part
    uses = {
        SELECT: f"to select the best generator (which takes {MIN_SELECT} images)",
        HELD_OUT: f"for `score` (which takes {MIN_HELD_OUT} images)",
    }
    none = [use for code, use in uses.items() if not (part == code).any()]
    if data.split is None and none:
        notices.append(
            f"no images are set aside {' or '.join(none)}, because they would be too large a share of "
            f"{(source_part == UNDECIDED).sum():,} images; --split {DEFAULT_SPLIT} sets some aside all the same"
        )
    if data.split != "none" and (lacking := classes_missing_a_part(dataset.labels, part, dataset.spec.class_names)):
        notices.append(
            f"too few images or groups for a train, a select and a held-out part in each of these classes: "
            f"{shorten(lacking)}; scores do not cover them"
        )
    return notices


def _notices_of_groups(dataset: Dataset, groups: NDArray[np.uint64]) -> list[str]:
    """groups: [N] the group of each image."""
    train, held_out = dataset.indices(TRAIN), dataset.indices(HELD_OUT)
    shared = np.isin(groups[train], groups[held_out]).sum()
    if not shared:
        return []
    return [
        f"{shared:,} of {len(train):,} training images are of a group that has held-out images too, because the data "
        "set's own test part is used as it is: scores will be better than they should be"
    ]


def _notices_of_balance(dataset: Dataset) -> list[str]:
    counts = dataset.class_counts()
    if len(counts) == 1:
        return ["the images have one class, so --balance changes nothing"]
    least, most = min(counts, key=counts.__getitem__), max(counts, key=counts.__getitem__)
    often = ""
    if counts[most] > counts[least]:
        times = f"{counts[most] / counts[least]:.3g} times" if counts[least] else ""
        often = f": an image of {least} is seen {times} as often as one of {most}"
    return [f"batches draw every class equally often{often}; scores keep each class's share of the images"]

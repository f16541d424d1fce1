"""From a path to training batches: index -> decode -> pack -> split -> batches."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ptarmigan import config
from ptarmigan.core.types import ImageSpec, OnProgress, UserError, shorten
from ptarmigan.data.arrays import HELD_OUT, SELECT, TRAIN
from ptarmigan.data.batches import Batches
from ptarmigan.data.index import DataSource, FolderSource, find_source
from ptarmigan.data.pack import Pack, open_pack
from ptarmigan.data.split import assign_parts, classes_missing_a_part, group_keys

__all__ = ["HELD_OUT", "SELECT", "TRAIN", "Batches", "Dataset", "open_dataset"]

FEW_IMAGES = 100  # training images of a class; with fewer, a GAN mostly memorises them


@dataclass(frozen=True)
class Dataset:
    """Labelled images of one shape; each belongs to the train, select or held-out part."""

    spec: ImageSpec
    images: NDArray[np.uint8]  # [N,H,W,C], memory-mapped, read only
    labels: NDArray[np.int64]  # [N], 0 .. spec.classes - 1
    part: NDArray[np.uint8]  # [N], TRAIN 0, SELECT 1, HELD_OUT 2
    hashes: NDArray[np.uint64]  # [N], of each image's bytes
    name: str  # short, safe in a folder name
    fingerprint: str  # hex digest of the hashes, labels, class names and shape
    understood: str  # one sentence: what was found at the path, and where the labels come from
    formats: tuple[str, ...]  # the formats of the image files, most frequent first, as Pillow names them: PNG, JPEG
    notices: tuple[str, ...]  # sentences to show to the user
    source: DataSource
    source_indices: NDArray[np.int64]  # [N] position in the source

    def origin(self, index: int) -> str:
        """The file of an image, or its position in an array file."""
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

    def fewer_than(self, batch: int) -> str | None:
        """A warning if there are fewer training images than one batch, else None."""
        count = len(self.indices())
        if count >= batch:
            return None
        return f"{count} training images do not fill a batch of {batch}: each batch repeats images; expect memorisation"


def open_dataset(path: str | Path | None, data: config.Data, on_progress: OnProgress | None = None) -> Dataset:
    """Find, decode and split the images at `path`; decoded images are cached.  None is the embedded data set.

    path: a folder of class folders, a flat folder of images, a folder of IDX files, or an .npz file.
    on_progress(what, done, total) is called while files are listed and images are decoded.
    Raises UserError if there are no usable images.
    """
    source = find_source(path)
    if data.group is not None and not isinstance(source, FolderSource):
        text = f"group: {source.root} holds arrays, and --group needs image files with paths; leave --group out"
        raise UserError(text, "options-conflict")
    pack = open_pack(source, data, on_progress)
    keys = pack.hashes
    if data.group is not None:
        assert isinstance(source, FolderSource)
        keys = group_keys([source.paths[position] for position in pack.source_indices], data.group)
    part = assign_parts(pack.labels, keys, pack.source_part, config.parse_split(data.split))
    if not (part == TRAIN).any():
        raise UserError(f"{source.root}: no training images are left; change --split", "too-few-images")
    height, width, channels = pack.images.shape[1:]
    return Dataset(
        spec=ImageSpec(height, width, channels, pack.class_names),
        images=pack.images,
        labels=pack.labels,
        part=part,
        hashes=pack.hashes,
        name=source.name,
        fingerprint=_fingerprint(pack),
        understood=": ".join(filter(None, (source.understood, pack.understood))),
        formats=pack.formats,
        notices=(*source.notices, *pack.notices, *_notices(pack, part, keys, data)),
        source=source,
        source_indices=pack.source_indices,
    )


def _fingerprint(pack: Pack) -> str:
    digest = hashlib.blake2b(json.dumps([pack.images.shape, pack.class_names]).encode(), digest_size=16)
    digest.update(pack.hashes.astype("<u8").tobytes())
    digest.update(pack.labels.astype("<i8").tobytes())
    return digest.hexdigest()


def _notices(pack: Pack, part: NDArray[np.uint8], keys: NDArray[np.uint64], data: config.Data) -> list[str]:
    names, notices = pack.class_names, []
    if data.split != "none" and (lacking := classes_missing_a_part(pack.labels, part, names)):
        notices.append(
            f"too few images or groups to put some in each of train, select and held-out: {shorten(lacking)}; "
            "scores do not cover these classes"
        )
    leaked = np.isin(keys[part == TRAIN], keys[part == HELD_OUT]).sum()
    if leaked:
        notices.append(
            f"{leaked} of {(part == TRAIN).sum()} training images are duplicates of held-out images, because the data "
            "set's own test part is used as it is: scores are optimistically biased"
        )
    counts = np.bincount(pack.labels[part == TRAIN], minlength=len(names))
    if few := [f"{names[i]} {counts[i]}" for i in np.flatnonzero(counts < FEW_IMAGES)]:
        notices.append(
            f"fewer than {FEW_IMAGES} training images in {len(few)} of {len(names)} classes ({shorten(few)}): expect "
            "samples that copy the training images or look alike; use more images, --augment gentle with a long "
            "budget, or --flip if mirrored images are valid"
        )
    return notices

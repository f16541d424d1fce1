"""From a path to images that can be trained on: index -> decode -> pack -> split -> batches."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ptarmigan import config
from ptarmigan.core.types import ImageSpec, UserError
from ptarmigan.data.arrays import HELD_OUT, SELECT, TRAIN
from ptarmigan.data.batches import Batches, Loaded
from ptarmigan.data.index import FolderSource, Source, find
from ptarmigan.data.pack import Pack, Progress, open_pack
from ptarmigan.data.split import group_keys, missing, split

__all__ = ["HELD_OUT", "SELECT", "TRAIN", "Batches", "Dataset", "Loaded", "open_dataset"]

FEW = 100  # images a class below which a GAN mostly repeats what it saw


@dataclass(frozen=True)
class Dataset:
    """Labelled images of one shape, each in one part."""

    spec: ImageSpec
    images: NDArray[np.uint8]  # [N,H,W,C], memory-mapped, read only
    labels: NDArray[np.int64]  # [N], 0 .. spec.classes - 1
    part: NDArray[np.uint8]  # [N], TRAIN 0, SELECT 1, HELD_OUT 2
    hashes: NDArray[np.uint64]  # [N], of each image's bytes
    name: str  # short, fit for a run's folder
    fingerprint: str  # hex, over what was packed: hashes, labels, class names, shape
    notices: tuple[str, ...]  # sentences that a user should see
    source: Source
    places: NDArray[np.int64]  # [N] in the source

    def origin(self, index: int) -> str:
        """Where an image comes from: its file, or its place in an array."""
        place, source = int(self.places[index]), self.source
        if isinstance(source, FolderSource):
            return str(source.root / source.paths[place])
        return f"image {place} of {source.root}"

    def indices(self, part: int = TRAIN) -> NDArray[np.int64]:
        """Where the images of a part are, ascending."""
        return np.flatnonzero(self.part == part)

    def counts(self) -> dict[str, int]:
        """Images in each part, by its name."""
        return {name: len(self.indices(part)) for part, name in enumerate(("train", "select", "held-out"))}

    def fewer_than(self, batch: int) -> str | None:
        """What to expect where the training images do not fill one batch, else None."""
        count = len(self.indices())
        if count >= batch:
            return None
        return f"{count} training images are fewer than a batch of {batch}: a batch then repeats images; expect copies"


def open_dataset(path: str | Path | None, data: config.Data, progress: Progress | None = None) -> Dataset:
    """Find, decode (once; then from the cache) and split the images at `path`; None is the embedded set.

    path: a folder of class folders, a flat folder of images, a folder of IDX files, or an .npz.  progress(done, total)
    is called while images are decoded.  Raises UserError in one sentence where there is nothing usable.
    """
    source = find(path)
    if data.group is not None and not isinstance(source, FolderSource):
        raise UserError(f"group: {source.root} holds arrays, whose images have no path to search; leave --group out")
    pack = open_pack(source, data, progress)
    keys = pack.hashes
    if data.group is not None:
        assert isinstance(source, FolderSource)
        keys = group_keys([source.paths[place] for place in pack.places], data.group)
    part = split(pack.labels, keys, pack.own, config.parse_split(data.split))
    if not (part == TRAIN).any():
        raise UserError(f"{source.root}: no image is left to train on")
    height, width, channels = pack.images.shape[1:]
    return Dataset(
        spec=ImageSpec(height, width, channels, pack.class_names),
        images=pack.images,
        labels=pack.labels,
        part=part,
        hashes=pack.hashes,
        name=source.name,
        fingerprint=_fingerprint(pack),
        notices=(*source.notices, *pack.notices, *_notices(pack, part, keys, data)),
        source=source,
        places=pack.places,
    )


def _fingerprint(pack: Pack) -> str:
    digest = hashlib.blake2b(json.dumps([pack.images.shape, pack.class_names]).encode(), digest_size=16)
    digest.update(pack.hashes.astype("<u8").tobytes())
    digest.update(pack.labels.astype("<i8").tobytes())
    return digest.hexdigest()


def _notices(pack: Pack, part: NDArray[np.uint8], keys: NDArray[np.uint64], data: config.Data) -> list[str]:
    names, notices = pack.class_names, []
    if data.split != "none" and (lacking := missing(pack.labels, part, names)):
        notices.append(
            f"too few images (or groups) to share out among train, select and held-out: {_some(lacking)}; "
            "scores do not cover these classes"
        )
    leaked = np.isin(keys[part == TRAIN], keys[part == HELD_OUT]).sum()
    if leaked:
        notices.append(
            f"{leaked} of {(part == TRAIN).sum()} training images lie in the source's own test part too, which stands: "
            "scores on it are that much too kind"
        )
    counts = np.bincount(pack.labels[part == TRAIN], minlength=len(names))
    if few := [f"{names[i]} {counts[i]}" for i in np.flatnonzero(counts < FEW)]:
        notices.append(
            f"fewer than {FEW} training images in {len(few)} of {len(names)} classes ({_some(few)}): expect samples "
            "that repeat the training images or each other; more images help, long budgets "
            "with --augment gentle, and --flip where mirrored ones are true"
        )
    return notices


def _some(names: list[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")

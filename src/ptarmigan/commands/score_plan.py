"""Which images a score uses, and how many: as many as there are, or as the time allows."""

from __future__ import annotations

import time as clock
from math import ceil
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ptarmigan.commands.score_sources import ImageSource
from ptarmigan.core import seeding
from ptarmigan.core.types import UserError
from ptarmigan.data import HELD_OUT, TRAIN, Dataset
from ptarmigan.evaluation.features import Extractor
from ptarmigan.evaluation.verdict import EACH_OF_CLASS, MOST_OF_CLASS

DEFAULT_MIN, DEFAULT_MAX = 1000, 5000  # images per set, if the user does not choose
MIN_IMAGES = 6  # on each side: neighbourhoods reach to the fifth nearest other sample
FEW_HELD_OUT = 100  # with fewer, the choice of the held-out images adds more noise than the generated images do
MAX_HELD_OUT = 10_000  # held-out images that are used
EXTRACTION_SHARE = 0.7  # of the time, for extracting features; the rest is for the comparisons


class Plan(NamedTuple):
    """Which images are used, and how many."""

    n: int  # images per set
    sets: int
    train: NDArray[np.int64]  # indices in the data set
    held_out: NDArray[np.int64]
    softened: NDArray[np.int64]  # training images that are used for the verdict on classes
    images: int  # that go through the extractor in all

    @classmethod
    def make(
        cls, source: ImageSource, dataset: Dataset, n: int | None, extractor: Extractor, time: float, notes: list[str]
    ) -> Plan:
        """All images, or as many as `time` seconds allow; raises UserError if that is too few."""
        train, held_out = (shuffled(dataset.indices(part)) for part in (TRAIN, HELD_OUT))
        check_real_images(dataset, train, held_out, notes)
        held_out = held_out[:MAX_HELD_OUT]
        n = images_a_set(source, len(train), len(held_out), n)
        source.plan(n, dataset.labels[held_out], dataset.spec.classes)
        soft, soft_of_set = np.empty(0, np.int64), 0
        if dataset.spec.classes > 1 and (labels := source.labels(0)) is not None:
            soft = train[first_of_each_class(dataset.labels[train], MOST_OF_CLASS)]
            soft_of_set = len(first_of_each_class(labels, EACH_OF_CLASS))
        sets, rate = source.sets, images_per_second(dataset, held_out, extractor)
        per_set, fixed = len(source.in_overall(0)) + soft_of_set, len(held_out) + len(soft)
        budget = int(EXTRACTION_SHARE * time * rate) - fixed  # training and generated images
        least = min(len(train), max(n, len(held_out)))
        if len(train) > least and sets * per_set + len(train) > budget:
            fewer = max(least, budget - sets * per_set)
            notes.append(f"time {time:.0f}s: only {fewer:,} of {len(train):,} training images were used")
            train = train[:fewer]
        if sets * per_set + len(train) > budget:
            sets = max(2, (budget - len(train)) // per_set)
            if sets * per_set + len(train) > budget:
                needed = (fixed + len(train) + 2 * per_set) / rate / EXTRACTION_SHARE
                text = f"time {time:.0f}s is too short: two sets of {n:,} and the real images need about"
                text += f" {needed:.0f}s at {rate:.0f} images/s; use --time {ceil(needed / 50)}m or a smaller -n"
                raise UserError(text, "time-too-short")
            notes.append(f"time {time:.0f}s: only {sets} of {source.sets} sets were used")
        return cls(n, sets, train, held_out, soft, fixed + len(train) + sets * per_set)


def check_real_images(
    dataset: Dataset, train: NDArray[np.int64], held_out: NDArray[np.int64], notes: list[str]
) -> None:
    """Note few or leaked held-out images; raises UserError if there are too few on a side."""
    if min(len(held_out), len(train)) < MIN_IMAGES:
        text = f"too few images to judge: a score needs at least {MIN_IMAGES} training and {MIN_IMAGES} held-out "
        text += f"images, and there are {len(train):,} and {len(held_out):,}"
        raise UserError(f"{text}; train on more images, or with another --split", "too-few-images")
    if len(held_out) < FEW_HELD_OUT:
        notes.append(
            f"only {len(held_out)} images are held out: their choice adds noise that the intervals do not show"
        )
    if leaked := np.isin(dataset.hashes[train], dataset.hashes[held_out]).sum():
        notes.append(f"{leaked:,} training images are also held-out images: scores are optimistically biased")


def images_a_set(source: ImageSource, train: int, held_out: int, n: int | None) -> int:
    """`n`, or the number of images of each set that suits so many real images; raises UserError if `n` does not."""
    existing = source.max_per_set()
    if existing is not None and existing < MIN_IMAGES:
        text = f"{source.sets} sets of {existing} images each are too small: a set needs at least {MIN_IMAGES}"
        raise UserError(f"{text}; use fewer --seeds or more images", "too-few-images")
    most = train if existing is None else min(train, existing)
    if n is not None and not MIN_IMAGES <= n <= most:
        reason = "there are no more" if most < train else "there are no more training images to compare a set with"
        text = f"-n {n}: expected {MIN_IMAGES} to {most:,} images per set ({reason})"
        raise UserError(text, "value-out-of-range")
    disjoint = max(MIN_IMAGES, train // source.sets)  # so that the sets of training images do not overlap
    return n or min(most, disjoint, max(DEFAULT_MIN, min(held_out, DEFAULT_MAX)))


def first_of_each_class(labels: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """The indices of the first `most` labels of each class, in order."""
    return np.sort(np.concatenate([np.flatnonzero(labels == label)[:most] for label in np.unique(labels)]))


def shuffled(indices: NDArray[np.int64]) -> NDArray[np.int64]:
    return indices[seeding.permute(0, "score", 0, np.arange(len(indices)), len(indices))]


def images_per_second(dataset: Dataset, indices: NDArray[np.int64], extractor: Extractor) -> float:
    """The speed of the extractor: the best of four measurements, because other programs only slow it down."""
    images = dataset.images[np.resize(indices, 64)]
    durations = []
    for _ in range(4):
        start = clock.perf_counter()
        extractor(images)
        durations.append(clock.perf_counter() - start)
    return len(images) / min(durations)

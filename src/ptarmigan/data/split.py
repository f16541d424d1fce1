"""The split into train, select and held-out parts: decided by image content, or by group, without a seed."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from ptarmigan.core.types import UserError
from ptarmigan.data.arrays import HELD_OUT, SELECT, TRAIN, UNDECIDED

Shares = tuple[float, float, float]
DEFAULT_SPLIT = "90/5/5"
MIN_HELD_OUT = 10  # images; `score` says little with fewer
MIN_SELECT = 50  # images; with fewer there is no live score
MOST = 0.1  # of the images; one image of each small class would be more


def matches(paths: Sequence[str], pattern: str) -> list[str]:
    """[N] what `pattern` matches in each path: its first group if it has one, else the whole match."""
    regex = re.compile(pattern)
    texts = []
    for path in paths:
        match = regex.search(path)
        found = match and (match[1] if regex.groups else match[0])
        if found is None:
            text = f"group: '{pattern}' does not match {path}: every image needs a group"
            raise UserError(text, "value-invalid")
        texts.append(found)
    return texts


def group_keys(groups: Sequence[str]) -> NDArray[np.uint64]:
    """[N] the hash of each text."""
    texts = [text.encode("utf-8", "surrogateescape") for text in groups]
    return np.array([int.from_bytes(hashlib.blake2b(text, digest_size=8).digest()) for text in texts], np.uint64)


def useful_split(part: NDArray[np.uint8], source_part: NDArray[np.int8]) -> str:
    """DEFAULT_SPLIT without the parts that are too small in `part` to be of use, or too large: classes may be small.

    The shares of such parts go to train.  Parts that the source itself names stay.
    """
    sizes = np.bincount(part[source_part == UNDECIDED], minlength=3)
    select, held_out = (
        5 if (source_part == p).any() or least <= sizes[p] <= MOST * sizes.sum() else 0
        for p, least in ((SELECT, MIN_SELECT), (HELD_OUT, MIN_HELD_OUT))
    )
    return f"{100 - select - held_out}/{select}/{held_out}"


def assign_parts(
    labels: NDArray[np.int64], keys: NDArray[np.uint64], source_part: NDArray[np.int8], shares: Shares | None
) -> NDArray[np.uint8]:
    """[N] TRAIN, SELECT or HELD_OUT.  Images with equal keys (content hashes or group hashes) get the same part.

    Parts that the source itself names (`source_part`) are kept; the remaining images are divided among the remaining
    parts, with their shares scaled up.  shares None: all images go to train, except the source's own held-out part.

    Each class is divided separately: its keys, sorted by hash, fill held-out and then select up to their share of its
    images, with at least one key each; the rest go to train.  Sorting and cutting, unlike comparing each hash with a
    threshold, gives exact shares in small classes too, and an added image moves the cuts by a fraction of an image, so
    few others change part.  A key of several classes counts in each of them; classes of few keys are divided first,
    because they have the fewest options.  A class of fewer than 3 images, or of fewer keys than parts, goes to train,
    and where other classes leave a class no key to train on, its smallest does.
    """
    part = np.where(source_part == UNDECIDED, TRAIN, source_part).astype(np.uint8)
    if shares is None:
        return np.where(source_part == HELD_OUT, HELD_OUT, TRAIN).astype(np.uint8)
    open_parts = [p for p in (HELD_OUT, SELECT) if shares[p] > 0 and not (source_part == p).any()]
    rest = np.flatnonzero(source_part == UNDECIDED)
    if not open_parts or not len(rest):
        return part
    total = shares[TRAIN] + sum(shares[p] for p in open_parts)
    wanted = {p: shares[p] / total for p in open_parts}

    units, unit = np.unique(keys[rest], return_inverse=True)  # units are sorted by hash
    pairs, sizes = np.unique(np.stack([labels[rest], unit]), axis=1, return_counts=True)  # (class, unit) -> images
    cuts = np.flatnonzero(np.diff(pairs[0], prepend=-1, append=-1))
    classes = [(pairs[1, a:b], sizes[a:b]) for a, b in pairwise(cuts)]
    decided = np.full(len(units), UNDECIDED, np.int8)
    for members, images in sorted(classes, key=lambda c: len(c[0])):
        _assign_class(decided, members, images, wanted)
    for members, images in classes:
        if not (decided[members] == TRAIN).any():
            decided[members[np.argmin(images)]] = TRAIN
    part[rest] = decided[unit]
    return part


def _assign_class(
    decided: NDArray[np.int8], members: NDArray[np.int64], images: NDArray[np.int64], wanted: dict[int, float]
) -> None:
    """Assign a part to the units [U] of one class, sorted by hash, to which no smaller class has assigned one."""
    if images.sum() < 3 or len(members) <= len(wanted):
        wanted = {}
    for position, (part, share) in enumerate(wanted.items()):
        free = np.flatnonzero(decided[members] == UNDECIDED)
        need = share * images.sum() - images[decided[members] == part].sum()
        spare = len(free) - (len(wanted) - position)  # keep one for each later part and for train
        taken: list[int] = []
        for i in free:
            if need < 0.5 or len(taken) >= spare:
                break
            if images[i] / 2 <= need:  # closer to the share with it than without it
                taken.append(int(i))
                need -= images[i]
        if not taken and len(free) and not (decided[members] == part).any():
            taken = [int(free[np.argmin(images[free])])]
        decided[members[taken]] = part
    decided[members[decided[members] == UNDECIDED]] = TRAIN


def classes_missing_a_part(labels: NDArray[np.int64], part: NDArray[np.uint8], class_names: Sequence[str]) -> list[str]:
    """Names of the classes without an image in some part that other classes have images in."""
    table = np.zeros((len(class_names), 3), np.int64)
    np.add.at(table, (labels, part), 1)
    lacking = ((table == 0) & (table.sum(0) > 0)).any(1)
    return [name for name, lacks in zip(class_names, lacking, strict=True) if lacks]

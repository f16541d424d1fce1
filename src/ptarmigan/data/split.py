"""Which images train, which choose, which are held out: decided by content, once, without a seed."""

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


def group_keys(paths: Sequence[str], pattern: str) -> NDArray[np.uint64]:
    """[N] a hash of what `pattern` finds in each path: its first group if it has one, else the whole match."""
    regex = re.compile(pattern)
    keys = []
    for path in paths:
        match = regex.search(path)
        found = match and (match[1] if regex.groups else match[0])
        if found is None:
            raise UserError(f"group: '{pattern}' is not found in {path}: every image needs a group")
        keys.append(int.from_bytes(hashlib.blake2b(found.encode("utf-8", "surrogateescape"), digest_size=8).digest()))
    return np.array(keys, np.uint64)


def split(
    labels: NDArray[np.int64], keys: NDArray[np.uint64], own: NDArray[np.int8], shares: Shares | None
) -> NDArray[np.uint8]:
    """[N] TRAIN, SELECT or HELD_OUT; images of equal key (a content hash, or a group's) share a part.

    What the source itself decides stands (`own`), and the shares of the remaining parts are then scaled up over
    the rest.  shares None: all to train, but the source's own held-out part.

    Each class is cut on its own: its keys, in the order of their hashes, fill held-out, then select, up to the
    share of its images, and at least one key each; the rest train.  Ordering and cutting rather than comparing each
    hash with a threshold: the shares come out exact in small classes too, and an added image moves the cuts by a
    fraction of an image, so few others change part.  A key of several classes counts for each of them; classes of
    few keys choose first, since they have least to choose from.  A class of fewer than 3 images, or of fewer keys
    than parts, goes wholly to train.
    """
    part = np.where(own == UNDECIDED, TRAIN, own).astype(np.uint8)
    if shares is None:
        return np.where(own == HELD_OUT, HELD_OUT, TRAIN).astype(np.uint8)
    open_parts = [p for p in (HELD_OUT, SELECT) if shares[p] > 0 and not (own == p).any()]
    rest = np.flatnonzero(own == UNDECIDED)
    if not open_parts or not len(rest):
        return part
    total = shares[TRAIN] + sum(shares[p] for p in open_parts)
    wanted = {p: shares[p] / total for p in open_parts}

    units, unit = np.unique(keys[rest], return_inverse=True)  # units are sorted: the order of the hashes
    pairs, sizes = np.unique(np.stack([labels[rest], unit]), axis=1, return_counts=True)  # (class, unit) -> images
    cuts = np.flatnonzero(np.diff(pairs[0], prepend=-1, append=-1))
    classes = [(pairs[1, a:b], sizes[a:b]) for a, b in pairwise(cuts)]
    decided = np.full(len(units), UNDECIDED, np.int8)
    for members, images in sorted(classes, key=lambda c: len(c[0])):
        _cut(decided, members, images, wanted)
    part[rest] = decided[unit]
    return part


def _cut(
    decided: NDArray[np.int8], members: NDArray[np.int64], images: NDArray[np.int64], wanted: dict[int, float]
) -> None:
    """Decide the units [U] of one class that no smaller class has decided; they are ordered by hash."""
    if images.sum() < 3 or len(members) <= len(wanted):
        wanted = {}
    for position, (part, share) in enumerate(wanted.items()):
        free = np.flatnonzero(decided[members] == UNDECIDED)
        need = share * images.sum() - images[decided[members] == part].sum()
        spare = len(free) - (len(wanted) - position)  # one for each later part and for train
        taken: list[int] = []
        for i in free:
            if need < 0.5 or len(taken) >= spare:
                break
            if images[i] / 2 <= need:  # nearer to the share with it than without it
                taken.append(int(i))
                need -= images[i]
        if not taken and len(free) and not (decided[members] == part).any():
            taken = [int(free[np.argmin(images[free])])]
        decided[members[taken]] = part
    decided[members[decided[members] == UNDECIDED]] = TRAIN


def missing(labels: NDArray[np.int64], part: NDArray[np.uint8], class_names: Sequence[str]) -> list[str]:
    """Names of the classes that have no image in a part that other classes have."""
    table = np.zeros((len(class_names), 3), np.int64)
    np.add.at(table, (labels, part), 1)
    lacking = ((table == 0) & (table.sum(0) > 0)).any(1)
    return [name for name, lacks in zip(class_names, lacking, strict=True) if lacks]

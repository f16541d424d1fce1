"""Images that are nearly equal: saved again, resized, cropped by a few percent, or made brighter or darker.

An image's hash is 64 bits of its two-dimensional cosine transform.  Pairs whose hashes differ in at most 7 bits are
compared by more of the transform.  To find cropped copies, the transforms of five crops are compared with those of
whole images; no image is cropped for it, because a crop's transform is that of the image with other cosines.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from ptarmigan.core.types import OnProgress

SIDE = 8  # of the square of low frequencies that is hashed
MOST_BITS = 7  # bits in which the hashes of nearly equal images differ
BANDS = 4  # of 16 bits; two hashes that differ in at most 7 bits differ in at most one bit of one of them
FREQUENCIES = 16  # in each direction, of the transforms that are compared
ALIKE = 0.99  # cosine of the angle between the transforms of nearly equal images
CUT = 0.05  # of the height and width, cut off by the crops that are looked for
MOST_IMAGES = 100_000  # that are compared; the time grows faster than their number
MOST_PAIRS = 1_000_000  # that are kept
BLOCK = 1 << 19  # values that are transformed at once: few enough for a processor's cache
CANDIDATES = 1 << 20  # pairs that are compared at once
LUMA = np.array([0.299, 0.587, 0.114], np.float32)

Box = tuple[float, float, float, float]  # top, bottom, left, right, as shares of the height and the width
WHOLE: Box = (0, 1, 0, 1)
CROPS: tuple[Box, ...] = (
    (CUT / 2, 1 - CUT / 2, CUT / 2, 1 - CUT / 2), (0, 1 - CUT, 0, 1 - CUT), (0, 1 - CUT, CUT, 1),
    (CUT, 1, 0, 1 - CUT), (CUT, 1, CUT, 1),
)  # fmt: skip


def near_pairs(images: NDArray[np.uint8], on_progress: OnProgress | None = None) -> NDArray[np.int64]:
    """[P, 2] the pairs a < b of nearly equal images [N, H, W, C]; at most MOST_PAIRS.

    Images of one colour are like each other in nothing else, so the caller leaves them out.
    """
    hashes = dct_hashes(images, (WHOLE, *CROPS))
    whole = Vectors(images, WHOLE)
    found: list[NDArray[np.int64]] = []
    for done, box in enumerate((WHOLE, *CROPS)):
        other = whole if box is WHOLE else Vectors(images, box)
        for a, b in candidates(hashes[0], hashes[done]):
            different = a < b if box is WHOLE else a != b
            a, b = a[different], b[different]
            near = np.einsum("nf,nf->n", whole.of(a), other.of(b), dtype=np.float32) >= ALIKE
            found.append(np.sort(np.stack([a[near], b[near]], 1), axis=1))
        if on_progress is not None:
            on_progress("looking for near duplicates", done + 1, 1 + len(CROPS))
        if sum(map(len, found)) > MOST_PAIRS:
            break
    pairs = np.concatenate([np.empty((0, 2), np.int64), *found])
    return np.unique(pairs, axis=0)[:MOST_PAIRS]


def dct_hashes(images: NDArray[np.uint8], boxes: Sequence[Box]) -> NDArray[np.uint64]:
    """[B, N] for crops of images [N, H, W, C]: a bit for each of the 8x8 lowest frequencies, set above their median."""
    hashes = np.zeros((len(boxes), len(images)), np.uint64)
    waves = [waves_of(images, box, SIDE) for box in boxes]
    for part, pixels in in_blocks(images):
        for row, (rows, columns) in enumerate(waves):
            low = rows @ pixels @ columns.T  # [N, C, 8, 8]
            square = (np.tensordot(LUMA, low, (0, 1)) if low.shape[1] == 3 else low[:, 0]).reshape(len(low), -1)
            bits = square > np.median(square, axis=1, keepdims=True)
            hashes[row, part] = np.packbits(bits, axis=1).view(np.uint64)[:, 0]
    return hashes


class Vectors:
    """The low frequencies of crops of images without their mean, as vectors of length 1; computed where asked for."""

    def __init__(self, images: NDArray[np.uint8], box: Box) -> None:
        self.images, self.waves = images, waves_of(images, box, FREQUENCIES)
        length = images.shape[3] - (images.shape[3] == 4), *(len(wave) for wave in self.waves)
        self.known = np.zeros(len(images), bool)
        self.values = np.empty((len(images), math.prod(length)), np.float16)

    def of(self, indices: NDArray[np.int64]) -> NDArray[np.float16]:
        """[M, F] for the images at indices [M]."""
        new = np.unique(indices[~self.known[indices]])
        for part, pixels in in_blocks(self.images, new):
            rows, columns = self.waves
            low = rows @ pixels @ columns.T  # [N, C, F, F]
            low[:, :, 0, 0] -= low[:, :, 0, 0].mean(1, keepdims=True)  # brightness; differences of colour stay
            flat = low.reshape(len(low), -1)
            self.values[new[part]] = flat / (np.linalg.norm(flat, axis=1, keepdims=True) + 1e-6)
        self.known[new] = True
        return self.values[indices]


def waves_of(images: NDArray[np.uint8], box: Box, frequencies: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The cosine transforms of the rows and of the columns of images [N, H, W, C]."""
    height, width = images.shape[1:3]
    return (
        cosines(height, min(frequencies, height), *box[:2]),
        cosines(width, min(frequencies, width), *box[2:]),
    )


def in_blocks(
    images: NDArray[np.uint8], indices: NDArray[np.int64] | None = None
) -> Iterator[tuple[slice, NDArray[np.float32]]]:
    """Blocks of the images [N, H, W, C], or of those at indices, on white: their places, and pixels [M, C, H, W]."""
    step = max(1, BLOCK // max(1, images[:1].size))
    for start in range(0, len(images if indices is None else indices), step):
        part = slice(start, start + step)
        pixels = on_white(images[part if indices is None else indices[part]])
        yield part, np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))


def cosines(count: int, frequencies: int, low: float, high: float) -> NDArray[np.float32]:
    """[frequencies, count] the cosine transform of the part from `low` to `high` of a row of `count` pixels.

    A pixel that lies partly in it counts as much as it does.
    """
    edges = np.arange(count + 1) / count
    inside = (np.minimum(edges[1:], high) - np.maximum(edges[:-1], low)).clip(0) * count
    place = ((edges[1:] + edges[:-1]) / 2 - low) / (high - low)
    basis = np.cos(np.pi * np.arange(frequencies)[:, None] * place.clip(0, 1)) * inside
    basis[0] /= np.sqrt(2)
    scaled: NDArray[np.float32] = (basis * np.sqrt(2 / inside.sum())).astype(np.float32)
    return scaled


def on_white(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """[N, H, W, 1 or 3] the images, those of four channels on white."""
    pixels = images.astype(np.float32)
    if pixels.shape[3] == 4:
        return np.float32(255) + (pixels[..., :3] - np.float32(255)) * (pixels[..., 3:] / np.float32(255))
    return pixels


def candidates(a: NDArray[np.uint64], b: NDArray[np.uint64]) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Indices into hashes a [N] and b [M] of all pairs that differ in at most MOST_BITS bits; a pair may come again.

    Multi-index hashing (Norouzi, Punjani and Fleet, 2012): such a pair has a band of 16 bits in which at most one bit
    differs, so for each band the sorted values of b are searched for those of a, as they are and with each bit flipped.
    """
    for band in range(BANDS):
        shift = np.uint64(16 * band)
        of_a, of_b = (((hashes >> shift) & np.uint64(0xFFFF)).astype(np.uint16) for hashes in (a, b))
        order = np.argsort(of_b, kind="stable")
        values = of_b[order]
        for flipped in (0, *(1 << bit for bit in range(16))):
            probe = of_a ^ np.uint16(flipped)
            first, last = (np.searchsorted(values, probe, side) for side in ("left", "right"))
            for rows in np.split(np.arange(len(a)), _cuts(last - first)):
                count = (last - first)[rows]
                left = np.repeat(rows, count)
                offset = np.arange(len(left)) - np.repeat(np.cumsum(count) - count, count)
                right = order[np.repeat(first[rows], count) + offset]
                close = np.bitwise_count(a[left] ^ b[right]) <= MOST_BITS
                yield left[close], right[close]


def _cuts(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where to split the rows so that each piece has about CANDIDATES pairs."""
    return np.flatnonzero(np.diff(np.cumsum(counts) // CANDIDATES)) + 1


def groups_of(pairs: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """[count] the least index of the images that each image is connected with by pairs [P, 2]."""
    least = np.arange(count)
    while len(pairs):
        joined = np.minimum(least[pairs[:, 0]], least[pairs[:, 1]])
        before = least.copy()
        np.minimum.at(least, pairs[:, 0], joined)
        np.minimum.at(least, pairs[:, 1], joined)
        least = least[least]
        if (least == before).all():
            break
    return least

"""Stateless random draws: each is a function of (seed, purpose, global sample index).

A sample's draw is a fixed block of the output of Philox 4x64-10 (Salmon et al., SC 2011), a counter-based generator
that advances to any position in constant time.  Its key is (seed, purpose).  Draws do not depend on the batch size, the
device, the rank or the number of earlier steps.
"""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

WORDS = 4  # 64-bit words per step of Philox's counter
ROUNDS = 12  # of the permutation; with 4, a chi-square test rejects randomness for sets of fewer than about 30 images


def _key(seed: int, purpose: str) -> int:
    """A key of 128 bits from the seed and the purpose."""
    digest = hashlib.blake2b(f"{seed}:{purpose}".encode(), digest_size=16).digest()
    return int.from_bytes(digest, "little")


def words(seed: int, purpose: str, indices: NDArray[np.int64], count: int) -> NDArray[np.uint64]:
    """`count` 64-bit words for each sample: [N, count]; each run of consecutive indices takes one call."""
    block = -(-count // WORDS)
    out = np.empty((len(indices), block * WORDS), np.uint64)
    starts = np.flatnonzero(np.diff(indices, prepend=indices[:1] - 2) != 1)
    for start, stop in zip(starts, [*starts[1:], len(indices)], strict=True):
        stream = np.random.Philox(key=_key(seed, purpose)).advance(int(indices[start]) * block)
        out[start:stop] = stream.random_raw(int(stop - start) * block * WORDS).reshape(stop - start, -1)
    return out[:, :count]


def uniforms(seed: int, purpose: str, indices: NDArray[np.int64], count: int) -> Tensor:
    """Uniform draws [N, count], float64 in the open interval (0, 1)."""
    high = words(seed, purpose, indices, count) >> np.uint64(11)
    return torch.from_numpy((high + 0.5) * 2.0**-53)


def latents(seed: int, purpose: str, indices: NDArray[np.int64], dim: int, kind: str = "normal") -> Tensor:
    """Latents z [N, dim] float32: standard normal, or for any other kind uniform on (-1, 1) as in DCGAN."""
    u = uniforms(seed, purpose, indices, dim)
    return (torch.special.ndtri(u) if kind == "normal" else 2 * u - 1).float()


def masks(seed: int, purpose: str, indices: NDArray[np.int64], count: int, drop: float) -> Tensor:
    """Inverted dropout masks [N, count] float32: 0 with probability `drop`, rounded to 1/256, else 1/(1 - drop)."""
    raw = words(seed, purpose, indices, -(-count // 8)).view(np.uint8)[:, :count]
    level = round(drop * 256)
    return torch.from_numpy(raw >= level).float().mul_(256 / (256 - level))


def permute(seed: int, purpose: str, epoch: int, positions: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """Map positions in [0, size) one to one to indices in [0, size), in an order keyed by (seed, purpose, epoch)."""
    keys = words(seed, f"{purpose}:{epoch}", np.zeros(1, np.int64), ROUNDS)
    return permute_by(keys, positions, np.array([size]))


def permute_by(keys: NDArray[np.uint64], positions: NDArray[np.int64], sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Map each position [N] in [0, size) to an index in [0, size); those of one key and size are mapped one to one.

    keys [N or 1, ROUNDS], sizes [N or 1].  The map is a Feistel network on the smallest even number of bits that holds
    the size.  A result outside the range is mapped again until it is inside (cycle walking: Black and Rogaway, CT-RSA
    2002), so no list of indices is needed.
    """
    assert ((positions >= 0) & (positions < sizes)).all()
    bits = np.frexp(np.maximum(sizes - 1, 1))[1]  # bits in the largest index, sizes - 1
    halves = np.broadcast_to((-(-bits // 2)).astype(np.uint64), positions.shape)
    limits = np.broadcast_to(sizes.astype(np.uint64), positions.shape)
    keys = np.broadcast_to(keys, (len(positions), ROUNDS))
    out = positions.astype(np.uint64)
    outside = np.ones(len(out), bool)
    while outside.any():
        half = halves[outside]
        mask = (np.uint64(1) << half) - np.uint64(1)
        left, right = out[outside] >> half, out[outside] & mask
        for key in keys[outside].T:
            left, right = right, left ^ (_mix(right ^ key) & mask)
        out[outside] = (left << half) | right
        outside = out >= limits
    return out.astype(np.int64)


def _mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of splitmix64 (Steele et al., OOPSLA 2014): every output bit depends on every input bit."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))

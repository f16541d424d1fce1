"""All pairs of samples, of features [N, F] and [M, F], in blocks of rows, so that no N x M matrix is in memory.

Features are centred before any product, so that a large common offset costs no precision; distances do not change, and
the uncentred product is computed from the centred one.  Sums are float64.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

BLOCK_SIZE = 2**22  # pairs of samples, or of a sample and a feature, in one block
DOUBLE = torch.float64


class Centred(NamedTuple):
    features: Tensor  # [N, F], x - c
    squares: Tensor  # [N], |x - c|^2
    lift: Tensor  # [N] float64: (x - c).(y - c) / F plus the lifts of x and of y is x.y / F + 1


class Block(NamedTuple):
    """Some samples x against all samples y: [B, M]."""

    products: Tensor  # (x - c).(y - c)
    x: Centred
    y: Centred
    start: int | None  # the index in y of the first x, if x and y are of one set; else None
    diagonal: float  # the squared distance to use between a sample and itself

    def squared(self) -> Tensor:
        """|x - y|^2."""
        squared = torch.sub(self.y.squares, self.products, alpha=2).add_(self.x.squares[:, None]).clamp_min_(0)
        if self.start is not None:
            squared.diagonal(self.start).fill_(self.diagonal)
        return squared

    def nearest(self, k: int) -> Tensor:
        """The k smallest squared distances [B, k] of each x, ascending."""
        return self.squared().topk(k, largest=False).values

    def kernel_sum(self) -> float:
        """Sum of (x.y / F + 1)^3, without the pairs of a sample with itself."""
        base = torch.add(self.x.lift[:, None], self.products, alpha=1 / self.y.features.shape[1]).add_(self.y.lift)
        kernel = base.square().mul_(base)
        if self.start is not None:
            kernel.diagonal(self.start).zero_()
        return kernel.sum().item()


def pairs_within(x: Tensor, diagonal: float = math.inf) -> Iterator[Block]:
    """Blocks of all pairs of samples of one set."""
    both = centred(x, x.mean(dim=0, dtype=DOUBLE).to(x.dtype))
    start = 0
    for rows in in_blocks(both, block_rows(len(x))):
        yield Block(rows.features @ both.features.T, rows, both, start, diagonal)
        start += len(rows.features)


def pairs_across(x: Tensor, y: Tensor) -> Iterator[Block]:
    """Blocks of all pairs of a sample of x and one of y."""
    centre = x.mean(dim=0, dtype=DOUBLE).to(x.dtype)
    whole = centred(y, centre)
    for rows in in_blocks(centred(x, centre), block_rows(len(y))):
        yield Block(rows.features @ whole.features.T, rows, whole, None, 0)


def centred(x: Tensor, c: Tensor) -> Centred:
    """Samples [N, F] less the centre [F]."""
    features = x - c
    split = torch.split(features, block_rows(x.shape[1]))
    squares = torch.cat([rows.double().square().sum(dim=1) for rows in split]).to(x.dtype)
    c = c.double()
    lift = torch.cat([rows.double() @ c for rows in split]) / len(c) + (c.square().mean() + 1) / 2
    return Centred(features, squares, lift)


def in_blocks(x: Centred, rows: int) -> Iterator[Centred]:
    return (Centred(*parts) for parts in zip(*(torch.split(of, rows) for of in x), strict=True))


def block_rows(width: int) -> int:
    return max(1, BLOCK_SIZE // width)

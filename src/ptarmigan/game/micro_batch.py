"""Split a batch into parts that fit in memory, and add up their gradients.

The sum is the gradient of the whole batch as long as samples do not affect each other.  Batch norm in G normalises each
part by the statistics of that part; config/checks.py rejects batch norm in D with micro-batches.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ptarmigan.core.types import Batch
from ptarmigan.game.draws import Draws

Terms = dict[str, Tensor]  # name -> [N] a value per sample, or [] its mean


class Part(NamedTuple):
    """Some samples of a batch: real images, the fakes they are paired with, and their draws."""

    real: Batch
    fake: Batch
    draws: Draws


def slices(batch: int, size: int) -> list[slice]:
    """Slices of at most `size` that cover a batch; size 0 means the whole batch."""
    return [slice(start, min(start + (size or batch), batch)) for start in range(0, batch, size or batch)]


def split(real: Batch, fake: Batch, draws: Draws, size: int) -> list[Part]:
    """The parts of a batch, of at most `size` samples each."""
    parts = slices(len(real.labels), size)
    return [Part(Batch(*(t[p] for t in real)), Batch(*(t[p] for t in fake)), draws[p]) for p in parts]


def accumulate(terms: Callable[[Part], Terms], parts: Sequence[Part], inputs: list[Tensor]) -> Terms:
    """Add to each input's .grad the gradient of the sum of the terms' means over all parts; returns the means."""
    batch = sum(len(part.real.labels) for part in parts)
    means: Terms = {}
    for part in parts:
        shares = {name: values.sum() / batch for name, values in terms(part).items()}
        # not autograd.grad: .backward gives gradients the parameters' memory format, which fused Adam relies on
        torch.stack(list(shares.values())).sum().backward(inputs=inputs)  # type: ignore[no-untyped-call]
        means = {name: means.get(name, 0) + share.detach() for name, share in shares.items()}
    return means

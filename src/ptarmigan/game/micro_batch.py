"""A batch in parts that fit in memory, with the gradient of the whole: batch norm included.

Where no batch norm takes part, the gradients of the parts are added up and that is all.  Batch norm's mean and
variance are functions of the whole batch, s_k for its k-th call.  They are found one call after the other, each by a
pass over the parts in which all earlier ones are known.  Then, with the loss L(theta, s) and s_k the mean over the
batch of c_k, which depends on theta and on the earlier s,

    lambda_k = dL/ds_k + sum_{j>k} lambda_j dc_j/ds_k,     dL/dtheta = dL/dtheta|_s + sum_k lambda_k dc_k/dtheta:

one pass backwards for each call, from the last to the first, and one more into the parameters.  Memory is that of one
part; time grows with the number of batch norms.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ptarmigan.core import dist
from ptarmigan.networks.layers import BatchNorm

Terms = dict[str, Tensor]
DIMS = (0, 2, 3)


def parts_of(batch: int, size: int) -> list[slice]:
    """Slices of at most `size` that cover a batch; one alone where `size` is 0 or the batch is no larger."""
    return [slice(start, min(start + (size or batch), batch)) for start in range(0, batch, size or batch)]


def backward(
    terms: Callable[[slice], Terms], parts: Sequence[slice], network: nn.Module, inputs: list[Tensor]
) -> Terms:
    """Add to each input's .grad the gradient of the sum of the terms over all parts; returns each term's sum.

    `terms` of a part are its share in the whole batch's; `network` holds the batch norms that it runs through.
    """
    sums: Terms = {}
    with _whole(network, parts) as statistics:
        if statistics is not None:
            statistics.find(terms, parts)
            statistics.weigh(terms, parts)
        for part in parts:
            found = statistics.run(terms, part) if statistics is not None else (terms(part), 0.0)
            loss = torch.stack(list(found[0].values())).sum() + found[1]
            # backward, not autograd.grad: gradients in the parameters' memory format, which fused Adam takes on trust
            loss.backward(inputs=inputs)  # type: ignore[no-untyped-call]
            for name, value in found[0].items():
                sums[name] = sums[name] + value.detach() if name in sums else value.detach()
    return sums


@torch.no_grad()
def forward(images: Callable[[slice], Tensor], parts: Sequence[slice], network: nn.Module) -> Tensor:
    """Images of the whole batch, [N, ...], a part at a time and without a graph."""
    with _whole(network, parts) as statistics:
        if statistics is None:
            return torch.cat([images(part) for part in parts])

        def terms(part: slice) -> Terms:
            return {"": images(part)}

        statistics.find(terms, parts)
        return torch.cat([statistics.run(terms, part)[0][""] for part in parts])


@contextmanager
def _whole(network: nn.Module, parts: Sequence[slice]) -> Iterator[Statistics | None]:
    """Let the batch norms of a network take the whole batch's statistics; None where there is nothing to do."""
    norms = [part for part in network.modules() if isinstance(part, BatchNorm) and part.training]
    if len(parts) == 1 or not norms:
        yield None
        return
    statistics = Statistics()
    for norm in norms:
        norm.normalise = statistics.normalise
    try:
        yield statistics
    finally:
        for norm in norms:
            norm.normalise = None


class _Wanted(BaseException):  # which no `except Exception` of a user's own loss holds up
    """The call is reached whose statistics are being found: the rest of this pass is not needed."""


class Statistics:
    """Mean and variance over the whole batch, and over ranks, for each call of a batch norm in the order of calls."""

    def __init__(self) -> None:
        self.known: list[Tensor] = []  # s_k: mean and variance [2, C], leaves
        self.counts: list[int] = []  # of values that each is a mean over, on this rank
        self.weights: dict[int, Tensor] = {}  # lambda_k [2, C]
        self.place = 0  # of the next call in this pass
        self.through: Tensor | float = 0.0  # sum_k lambda_k c_k of this pass
        self.moments: list[tuple[int, Tensor, Tensor]] = []  # count, mean and variance of the wanted call, by part

    def run(self, terms: Callable[[slice], Terms], part: slice) -> tuple[Terms, Tensor | float]:
        """The terms of a part, and what it adds to them through the statistics."""
        self.place, self.through = 0, 0.0
        return terms(part), self.through

    def normalise(self, norm: BatchNorm, x: Tensor) -> Tensor:
        """Batch norm's output for a part [n, C, H, W] of the batch."""
        k, full = self.place, x.to(torch.promote_types(x.dtype, torch.float32))
        self.place += 1
        if k == len(self.known):
            variance, mean = torch.var_mean(full, DIMS, correction=0)
            self.moments.append((full.numel() // full.shape[1], mean, variance))
            raise _Wanted
        mean, variance = self.known[k]
        if k in self.weights:  # d var/d mean is 0, so the mean is held still within the variance
            deviations = full - mean.detach().view(1, -1, 1, 1)
            c = torch.stack([full.sum(DIMS), deviations.square().sum(DIMS)]) / self.counts[k]
            self.through = self.through + (self.weights[k] * c).sum()
        scale = norm.weight * (variance + norm.eps).rsqrt()
        out: Tensor = (full - mean.view(1, -1, 1, 1)) * scale.view(1, -1, 1, 1) + norm.bias.view(1, -1, 1, 1)
        return out.to(x.dtype)

    @torch.no_grad()
    def find(self, terms: Callable[[slice], Terms], parts: Sequence[slice]) -> None:
        """All s_k, each by a pass of its own."""
        while True:
            self.moments = []
            for part in parts:
                try:
                    self.run(terms, part)
                except _Wanted:
                    continue
                return
            counts, means, variances = zip(*self.moments, strict=True)
            share = torch.tensor(counts, dtype=means[0].dtype, device=means[0].device).div(sum(counts)).unsqueeze(1)
            mean = dist.average((share * torch.stack(means)).sum(0))
            spread = torch.stack(variances) + (torch.stack(means) - mean).square()
            variance = dist.average((share * spread).sum(0))
            self.known.append(torch.stack([mean, variance]).requires_grad_())
            self.counts.append(sum(counts))

    def weigh(self, terms: Callable[[slice], Terms], parts: Sequence[slice]) -> None:
        """All lambda_k, from the last to the first."""
        for k in reversed(range(len(self.known))):
            weight = torch.zeros_like(self.known[k])
            for part in parts:
                found, through = self.run(terms, part)
                loss = torch.stack(list(found.values())).sum() + through
                weight += torch.autograd.grad(loss, self.known[k])[0]
            self.weights[k] = dist.average(weight)

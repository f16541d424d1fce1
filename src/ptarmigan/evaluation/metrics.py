"""Scores of generated samples, each a function of features [N, F], float32 or float64, that can be used alone.

Pairs of samples are computed in blocks (`pairs.py`).  Every function raises UserError if there are too few samples or a
feature is not finite.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from ptarmigan.core.types import UserError
from ptarmigan.evaluation.pairs import DOUBLE, Block, block_rows, pairs_across, pairs_within

MIN_PER_CELL = 20  # samples of each kind in a k-means cell, for the normal approximation of its z-score


@dataclass(frozen=True)
class Gaussian:
    n: int  # the samples it was estimated from
    mean: Tensor  # [F] float64
    covariance: Tensor  # [F, F] float64, unbiased

    @cached_property
    def root(self) -> Tensor:
        """The symmetric square root of the covariance; cached, because a reference is compared with several sets."""
        values, vectors = torch.linalg.eigh(self.covariance)
        root: Tensor = vectors * values.clamp_min(0).sqrt() @ vectors.T
        return root


class PairStatistics(NamedTuple):
    """What `kid_and_fidelity` needs from one set, computed once for several comparisons."""

    features: Tensor  # [N, F]
    kernel: float  # sum of KID's kernel over all pairs of different samples
    near: Tensor  # [N, k] squared distances to the k nearest other samples


class Fidelity(NamedTuple):
    """Precision and recall (Kynkäänniemi et al. 2019), density and coverage (Naeem et al. 2020).

    The neighbourhood of a sample is the closed ball that reaches to its k-th nearest other sample of the same set.
    """

    precision: float  # [0, 1], share of fakes in the neighbourhood of a real sample
    recall: float  # [0, 1], share of real samples in the neighbourhood of a fake
    density: float  # >= 0, mean number of real neighbourhoods around a fake, over k: expectation 1 if p = q
    coverage: float  # [0, 1], share of real neighbourhoods that hold a fake: about 1 - (n / (n + m))^k if p = q


class KidAndFidelity(NamedTuple):
    kid: float
    fidelity: Fidelity


class JackknifedKid(NamedTuple):
    """KID, and its values with one block of samples left out, from which its noise is estimated."""

    kid: float
    left_out: list[float]  # the first half without a block of x each, the second half without a block of y each

    @property
    def error(self) -> float:
        """Standard error over the choice of both sets, by the delete-a-block jackknife."""
        return _jackknife_error(self.left_out)

    def above(self, other: JackknifedKid) -> tuple[float, float]:
        """This KID minus that of another y with the same x, and the standard error of this difference.

        Block k of both has the same samples of x, and may have the same latents, so their noise partly cancels.
        """
        differences = [a - b for a, b in zip(self.left_out, other.left_out, strict=True)]
        return self.kid - other.kid, _jackknife_error(differences)


class CopyingScore(NamedTuple):
    z: float  # far below 0: generated samples are closer to the training set than held-out samples are
    cells: int  # cells with enough samples, over which z is averaged
    null_deviation: float  # the standard deviation of z if p = q


def gaussian(features: Tensor) -> Gaussian:
    """Mean and unbiased covariance of N >= 2 samples, in float64, from blocks of centred samples."""
    _check_samples(features, least=2)
    mean = features.mean(dim=0, dtype=DOUBLE)
    scatter = torch.zeros(len(mean), len(mean), dtype=DOUBLE, device=mean.device)
    for rows in torch.split(features, block_rows(len(mean))):
        centred = rows - mean
        scatter.addmm_(centred.T, centred)
    return Gaussian(len(features), mean, scatter / (len(features) - 1))


def frechet(a: Gaussian, b: Gaussian) -> float:
    """|m1 - m2|^2 + Tr(S1 + S2 - 2 (S1 S2)^(1/2)), >= 0 (Dowson and Landau 1982; as a score Heusel et al. 2017, eq. 6).

    The trace of the root is the sum of the square roots of the eigenvalues of S1^(1/2) S2 S1^(1/2), which is symmetric,
    so it has no imaginary part at any rank.  Two sets of N samples of N(0, I) are on average (2 F + F (F + 1) / 2) / N
    apart: compare only at equal N.  Raises UserError with fewer than F + 1 samples on either side, which cannot give a
    covariance of full rank.
    """
    d, least = len(a.mean), min(a.n, b.n)
    if least <= d:
        text = f"a Fréchet distance of {d} features needs at least {d + 1} samples on each side, got {least}"
        raise UserError(f"{text}: use more, or use KID, which is unbiased at any number", "too-few-samples")
    product = a.root @ b.covariance @ a.root
    overlap = torch.linalg.eigvalsh((product + product.T) / 2).clamp_min(0).sqrt().sum()
    distance = (a.mean - b.mean).square().sum() + a.covariance.trace() + b.covariance.trace() - 2 * overlap
    return max(0.0, float(distance))  # it is below 0 only by rounding


def kid(x: Tensor, y: Tensor) -> float:
    """Unbiased MMD^2 with k(a, b) = (a.b / F + 1)^3, over all pairs, no subsets (Binkowski et al. 2018, 1801.01401).

    mean over i != j of k(x_i, x_j) and of k(y_i, y_j), minus 2 times the mean of k(x_i, y_j).  Its expectation is 0 if
    p = q, so negative values are valid and not clipped.  Needs 2 samples on each side.
    """
    _check_samples(x, y, least=2)
    xx, yy, xy = (
        sum(block.kernel_sum() for block in blocks) for blocks in (pairs_within(x), pairs_within(y), pairs_across(x, y))
    )
    return _squared_discrepancy(xx, yy, xy, len(x), len(y))


def kid_with_noise(x: Tensor, y: Tensor, blocks: int = 10) -> JackknifedKid:
    """`kid` with its noise, in about twice the time.  Needs 3 samples on each side."""
    _check_samples(x, y, least=3)
    blocks = min(blocks, len(x), len(y))
    xs, ys = torch.tensor_split(x, blocks), torch.tensor_split(y, blocks)
    xx, yy, xy = _kernel_sums(xs, xs), _kernel_sums(ys, ys), _kernel_sums(xs, ys)  # [blocks, blocks]

    def without(sums: Tensor, rows: list[int], columns: list[int]) -> float:
        rest = sums.sum() - sums[rows].sum() - sums[:, columns].sum() + sums[rows][:, columns].sum()
        return rest.item()

    def score(i: list[int], j: list[int]) -> float:
        n, m = len(x) - sum(len(xs[k]) for k in i), len(y) - sum(len(ys[k]) for k in j)
        return _squared_discrepancy(without(xx, i, i), without(yy, j, j), without(xy, i, j), n, m)

    left_out = [score([k], []) for k in range(blocks)] + [score([], [k]) for k in range(blocks)]
    return JackknifedKid(score([], []), left_out)


def pair_statistics(features: Tensor, k: int = 5) -> PairStatistics:
    """The statistics of one set that `kid_and_fidelity` needs, from at least k + 1 samples."""
    _check_samples(features, least=k + 1)
    kernel, near = zip(*((block.kernel_sum(), block.nearest(k)) for block in pairs_within(features)), strict=True)
    return PairStatistics(features, sum(kernel), torch.cat(near))


def kid_and_fidelity(real: PairStatistics, fake: PairStatistics, k_pr: int = 3, k_dc: int = 5) -> KidAndFidelity:
    """`kid` and `Fidelity` in one pass over all pairs, from `pair_statistics` with k = max(k_pr, k_dc).

    Neighbourhoods reach to the k_pr-th nearest sample for precision and recall, to the k_dc-th for the other two.
    """
    tally = _FidelityCounts(real.near[:, k_pr - 1], fake.near[:, k_pr - 1], real.near[:, k_dc - 1], k_dc)
    xy = 0.0
    for block in pairs_across(real.features, fake.features):
        xy += block.kernel_sum()
        tally.add(block)
    n, m = len(real.features), len(fake.features)
    return KidAndFidelity(_squared_discrepancy(real.kernel, fake.kernel, xy, n, m), tally.fidelity())


def c_t(held_far: Tensor, held_cell: Tensor, far: Tensor, cell: Tensor) -> CopyingScore:
    """C_T: are generated samples closer to the training set than held-out samples (Meehan et al. 2020, 2004.05675)?

    held_far, far: the distances of held-out and generated samples to the nearest training sample, and their cells.  In
    each k-means cell of the training features, z = (U - n m / 2) / sqrt(n m (n + m + 1) / 12), where U counts the
    pairs of a generated and a held-out sample in which the generated one is farther from its nearest training sample; a
    tie counts 1/2 (the variance is not corrected for ties, which makes |z| smaller).  C_T is the mean of z over cells,
    weighted by the number of held-out samples.  Cells with fewer than 20 held-out or 20 generated samples are left out,
    and the number of the others is returned; raises UserError if there are none.

    If p = q, C_T is near 0, with the sum of squared weights as variance: 1 for one cell, about 1 / cells for equal
    cells.  A low C_T does not prove copying: samples of less variance than the data also lower it, so check
    `diversity` too.
    """
    scores, weights = [], []
    cells = int(max(held_cell.max(), cell.max())) + 1
    for i in range(cells):
        here, held_here = far[cell == i], held_far[held_cell == i]
        if min(len(here), len(held_here)) >= MIN_PER_CELL:
            scores.append(_mann_whitney(here, held_here))
            weights.append(len(held_here))
    if not weights:
        text = f"none of {cells} cells has {MIN_PER_CELL} held-out and {MIN_PER_CELL} generated samples"
        numbers = f"there are {len(held_far)} and {len(far)}"
        raise UserError(f"{text} ({numbers}): use more samples or fewer cells", "too-few-samples")
    mean = sum(w * z for w, z in zip(weights, scores, strict=True)) / sum(weights)
    return CopyingScore(mean, len(weights), math.sqrt(sum(w * w for w in weights)) / sum(weights))


def authenticity(distances: Tensor, spacing: Tensor) -> float:
    """Share of generated g with d(g, x*) > d(x*, nearest other training sample), x* the training sample nearest to g.

    In [0, 1] (Alaa et al. 2021, 2102.08921).  If p = q it is not 1 but, depending on N, 1/3 for one feature and .7 to
    .8 for 32: compare it with the authenticity of held-out samples.
    distances, spacing: [N] both of these distances, of each g.
    """
    return (distances > spacing).double().mean().item()


def nearest(query: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
    """Distance to the nearest reference sample [N], exactly 0 for a copy, and its index [N] int64."""
    _check_samples(query, reference, least=1)
    indices = torch.cat([block.squared().argmin(dim=1) for block in pairs_across(query, reference)])
    size = block_rows(query.shape[1])
    distances = [
        (rows - reference[index]).norm(dim=1)
        for rows, index in zip(torch.split(query, size), torch.split(indices, size), strict=True)
    ]
    return torch.cat(distances), indices


def spacing_of(features: Tensor) -> Tensor:
    """Distance [N] from each sample to the nearest other one."""
    _check_samples(features, least=2)
    return torch.cat([block.nearest(1)[:, 0] for block in pairs_within(features)]).sqrt()


def nearest_centre(samples: Tensor, centres: Tensor) -> Tensor:
    """Index [N] int64 of the nearest centre."""
    return nearest(samples, centres)[1]


def diversity(features: Tensor) -> float:
    """Mean Euclidean distance over all pairs of N >= 2 samples."""
    _check_samples(features, least=2)
    total = sum(block.squared().sqrt_().sum(dtype=DOUBLE).item() for block in pairs_within(features, diagonal=0))
    return total / (len(features) * (len(features) - 1))


def k_means(features: Tensor, cells: int, seed: int) -> Tensor:
    """Centres [cells, F] by at most 100 of Lloyd's iterations after k-means++ (Arthur and Vassilvitskii 2007).

    There are fewer centres if there are fewer distinct samples.  A cell that becomes empty keeps its centre.
    """
    generator = torch.Generator().manual_seed(seed)
    first = torch.randint(len(features), (1,), generator=generator).item()
    centres = features[first : first + 1].clone()
    while len(centres) < cells and (distances := nearest(features, centres)[0]).any():
        chosen = torch.multinomial(distances.double().square().cpu(), 1, generator=generator)
        centres = torch.cat([centres, features[chosen.to(features.device)]])
    before = None
    for _ in range(100):
        labels = nearest(features, centres)[1]
        if before is not None and torch.equal(labels, before):
            break
        before = labels
        for cell in range(len(centres)):
            if (inside := labels == cell).any():
                centres[cell] = features[inside].mean(dim=0, dtype=DOUBLE)
    return centres


class _FidelityCounts:
    """Counts samples in neighbourhoods, over blocks of real samples against all fakes."""

    def __init__(self, real_pr: Tensor, fake_pr: Tensor, real_dc: Tensor, k_dc: int) -> None:
        self.real_pr, self.fake_pr, self.real_dc, self.k_dc = real_pr, fake_pr, real_dc, k_dc  # squared radii
        self.precise = torch.zeros_like(fake_pr, dtype=torch.bool)
        self.done = self.recalled = self.inside = self.covered = 0

    def add(self, block: Block) -> None:
        squared = block.squared()
        rows = slice(self.done, self.done + len(squared))
        self.done = rows.stop
        self.precise |= (squared <= self.real_pr[rows, None]).any(dim=0)
        self.recalled += int((squared <= self.fake_pr).any(dim=1).sum())
        held = (squared <= self.real_dc[rows, None]).sum(dim=1)  # fakes in each neighbourhood
        self.inside += int(held.sum())
        self.covered += int((held > 0).sum())

    def fidelity(self) -> Fidelity:
        n, m = len(self.real_pr), len(self.fake_pr)
        return Fidelity(
            precision=int(self.precise.sum()) / m,
            recall=self.recalled / n,
            density=self.inside / (self.k_dc * m),
            coverage=self.covered / n,
        )


def _kernel_sums(xs: Sequence[Tensor], ys: Sequence[Tensor]) -> Tensor:
    """[B, C] float64: the kernel's sum over the pairs of each block of x with each of y, without equal samples."""

    def pairs(i: int, j: int) -> Iterator[Block]:
        return pairs_within(xs[i]) if xs is ys and i == j else pairs_across(xs[i], ys[j])

    sums = torch.zeros(len(xs), len(ys), dtype=DOUBLE)
    for i in range(len(xs)):
        for j in range(i if xs is ys else 0, len(ys)):
            sums[i, j] = sum(block.kernel_sum() for block in pairs(i, j))
    return sums + sums.triu(1).T if xs is ys else sums


def _jackknife_error(left_out: Sequence[float]) -> float:
    """The standard error of a score of two sets from its values without a block: those of one set, then the other's."""
    blocks = len(left_out) // 2
    of_each_set = (statistics.pvariance(part) for part in (left_out[:blocks], left_out[blocks:]))
    return math.sqrt((blocks - 1) * sum(of_each_set))


def _squared_discrepancy(xx: float, yy: float, xy: float, n: int, m: int) -> float:
    return xx / (n * (n - 1)) + yy / (m * (m - 1)) - 2 * xy / (n * m)


def _mann_whitney(a: Tensor, b: Tensor) -> float:
    """z-score of the number of pairs with a > b; a tie counts 1/2."""
    n, m = len(a), len(b)
    b = b.sort().values
    u = (torch.searchsorted(b, a).sum() + torch.searchsorted(b, a, right=True).sum()).item() / 2
    return (u - n * m / 2) / math.sqrt(n * m * (n + m + 1) / 12)


def _check_samples(*sets: Tensor, least: int) -> None:
    for samples in sets:
        assert samples.ndim == 2
        assert samples.shape[1] == sets[0].shape[1]
        assert samples.dtype == sets[0].dtype
        if len(samples) < least:
            text = f"this score needs at least {least} samples on each side, got {len(samples)}"
            raise UserError(text, "too-few-samples")
        if not samples.isfinite().all():
            raise UserError("a feature is not finite: check the images and the network behind them", "not-finite")

"""The scores against definitions, closed forms and scipy; what they say of planted faults; how true intervals are."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import permutations, product

import pytest
import scipy.linalg
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ptarmigan.evaluation import intervals, metrics, pairs
from ptarmigan.evaluation.intervals import difference, interval, t_quantile
from ptarmigan.evaluation.metrics import (
    Gaussian,
    diversity,
    frechet,
    gaussian,
    k_means,
    kid,
    kid_and_fidelity,
    kid_with_noise,
    nearest,
    pair_statistics,
)
from support import raises


class Draws:
    """Normal numbers in float64, other ones at each call."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(self, *shape: int) -> Tensor:
        return torch.randn(shape, dtype=torch.float64, generator=self.generator)


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many blocks, the last one not full."""
    monkeypatch.setattr(pairs, "BLOCK_SIZE", 100)


def covariance(d: int, draws: Draws) -> Tensor:
    factor = draws(d, d + 3)
    return factor @ factor.T / d


def prdc(real: Tensor, fake: Tensor, k_pr: int = 3, k_dc: int = 5) -> metrics.Fidelity:
    statistics = (pair_statistics(of, max(k_pr, k_dc)) for of in (real, fake))
    return kid_and_fidelity(*statistics, k_pr, k_dc).fidelity


def c_t(train: Tensor, held_out: Tensor, generated: Tensor, cells: int, seed: int = 0) -> metrics.CopyingScore:
    centres = k_means(train, cells, seed)
    far, held_far = (nearest(samples, train)[0] for samples in (generated, held_out))
    held_cell, cell = (metrics.nearest_centre(samples, centres) for samples in (held_out, generated))
    return metrics.c_t(held_far, held_cell, far, cell)


def authenticity(train: Tensor, generated: Tensor) -> float:
    distances, indices = nearest(generated, train)
    return metrics.authenticity(distances, metrics.spacing_of(train)[indices])


# Fréchet


def test_a_gaussian_has_the_mean_and_the_unbiased_covariance_of_its_samples(small_blocks: None) -> None:
    x = Draws(0)(41, 7) + 3
    found = gaussian(x)
    assert found.n == 41
    torch.testing.assert_close(found.mean, x.mean(0))
    torch.testing.assert_close(found.covariance, x.T.cov())


def test_a_common_offset_costs_a_gaussian_no_digits() -> None:
    x = Draws(0)(500, 7).float() + 1e4  # what float32 holds of it is exact in float64
    torch.testing.assert_close(gaussian(x).covariance, x.double().T.cov(), rtol=1e-12, atol=1e-12)


def test_frechet_of_commuting_gaussians_is_that_of_their_standard_deviations() -> None:
    draws = Draws(1)
    turn = torch.linalg.qr(draws(6, 6)).Q
    s, t, m = draws(6).abs(), draws(6).abs(), draws(6)
    a = Gaussian(99, m, turn @ torch.diag(s**2) @ turn.T)
    b = Gaussian(99, torch.zeros_like(m), turn @ torch.diag(t**2) @ turn.T)
    assert frechet(a, b) == pytest.approx((m.square().sum() + (s - t).square().sum()).item(), rel=1e-12)


@pytest.mark.parametrize("d", [1, 2, 30])
def test_frechet_of_general_gaussians_is_that_of_scipys_square_root(d: int) -> None:
    draws = Draws(d)
    a, b = Gaussian(99, draws(d), covariance(d, draws)), Gaussian(99, draws(d), covariance(d, draws))
    root = scipy.linalg.sqrtm((a.covariance @ b.covariance).numpy()).real.trace()
    expected = (a.mean - b.mean).square().sum() + a.covariance.trace() + b.covariance.trace() - 2 * root
    assert frechet(a, b) == pytest.approx(expected.item(), rel=1e-10)
    assert frechet(a, b) == pytest.approx(frechet(b, a), rel=1e-12)


def test_frechet_of_a_gaussian_and_its_image_under_an_optimal_map_is_the_cost_of_the_map() -> None:
    """x -> T x with T symmetric and positive carries N(0, S) to N(0, T S T) at the cost Tr((T - I) S (T - I))."""
    draws = Draws(2)
    s, t, one = covariance(5, draws), covariance(5, draws), torch.eye(5, dtype=torch.float64)
    zero = torch.zeros(5, dtype=torch.float64)
    cost = ((t - one) @ s @ (t - one)).trace().item()
    assert frechet(Gaussian(99, zero, s), Gaussian(99, zero, t @ s @ t)) == pytest.approx(cost, rel=1e-10)


def test_frechet_of_features_that_never_fire_is_that_of_the_others() -> None:
    draws = Draws(3)
    x, y = draws(60, 4), draws(60, 4) * 2
    wide = [gaussian(torch.cat([of, torch.zeros(60, 20, dtype=of.dtype), of[:, :1]], 1)) for of in (x, y)]
    copied = [gaussian(torch.cat([of, of[:, :1]], 1)) for of in (x, y)]
    assert frechet(*wide) == pytest.approx(frechet(*copied), rel=1e-6)
    assert frechet(wide[0], wide[0]) == pytest.approx(0, abs=1e-6)


def frechet_bias(d: int, n: int) -> float:
    """[2 d + d (d + 1) / 2] / n: the expected `frechet` of two sets of n samples of N(0, I_d), for n far above d.

    The first term is E |m1 - m2|^2; the second E |S1 - S2|^2 / 4, the trace term's second order.
    """
    return (2 * d + d * (d + 1) / 2) / n


def test_frechet_of_two_samples_of_one_gaussian_is_its_bias() -> None:
    draws, d, n = Draws(4), 6, 1500
    values = [frechet(gaussian(draws(n, d)), gaussian(draws(n, d))) for _ in range(400)]
    mean = interval(values, 0.999)
    assert mean.low < frechet_bias(d, n) < mean.high
    assert mean.high - mean.low < 0.1 * frechet_bias(d, n)
    assert frechet_bias(6, 100) == pytest.approx((12 + 21) / 100)


@pytest.mark.parametrize("sides", [(5, 9), (9, 5)])
def test_frechet_of_too_few_samples_is_refused(sides: tuple[int, int]) -> None:
    draws = Draws(5)
    with raises("too-few-samples", "5 features", "6 samples", "got 5", "KID"):
        frechet(gaussian(draws(sides[0], 5)), gaussian(draws(sides[1], 5)))
    frechet(gaussian(draws(6, 5)), gaussian(draws(6, 5)))


# KID


def kid_by_loops(x: Tensor, y: Tensor) -> float:
    def kernel(a: Tensor, b: Tensor) -> float:
        return float((a @ b / len(a) + 1) ** 3)

    pair_statistics = [math.fsum(kernel(a, b) for a, b in permutations(s, 2)) / (len(s) * (len(s) - 1)) for s in (x, y)]
    return sum(pair_statistics) - 2 * math.fsum(kernel(a, b) for a, b in product(x, y)) / (len(x) * len(y))


@pytest.mark.parametrize(("n", "m"), [(2, 2), (2, 17), (31, 12)])
def test_kid_is_the_mean_over_pairs(n: int, m: int, small_blocks: None) -> None:
    draws = Draws(6)
    x, y = draws(n, 5) + 1, draws(m, 5) * 1.5
    assert kid(x, y) == pytest.approx(kid_by_loops(x, y), rel=1e-10)
    assert kid(x, y) == pytest.approx(kid(y, x), rel=1e-10)


def test_kid_of_two_samples_of_one_distribution_is_0_on_average_and_so_negative_for_many() -> None:
    draws = Draws(7)
    values = [kid(draws(40, 5) + 1, draws(25, 5) + 1) for _ in range(2000)]
    mean = interval(values, 0.999)
    assert mean.low < 0 < mean.high
    assert mean.high - mean.low < 0.3 * torch.tensor(values).std().item()
    assert 800 < sum(value < 0 for value in values) < 1600


@pytest.mark.parametrize(("n", "m", "blocks"), [(31, 23, 10), (7, 40, 7)])
def test_the_noise_of_kid_comes_from_leaving_out_blocks_of_either_set(
    n: int, m: int, blocks: int, small_blocks: None
) -> None:
    draws = Draws(8)
    x, y = draws(n, 5) + 1, draws(m, 5) * 1.5
    found = kid_with_noise(x, y)
    assert found.kid == pytest.approx(kid(x, y), rel=1e-10)

    def without(samples: Tensor) -> list[Tensor]:
        parts = torch.tensor_split(samples, blocks)
        return [torch.cat([*parts[:k], *parts[k + 1 :]]) for k in range(blocks)]

    expected = [*(kid(rest, y) for rest in without(x)), *(kid(x, rest) for rest in without(y))]
    assert found.left_out == pytest.approx(expected, rel=1e-10)


def test_the_noise_of_kid_and_of_a_difference_is_that_of_repeated_draws() -> None:
    draws = Draws(9)
    scores, errors, differences, their_errors = [], [], [], []
    for _ in range(60):
        x, latents = draws(60, 5), draws(50, 5)
        a, b = (kid_with_noise(x, fakes, blocks=5) for fakes in (latents + 0.5, latents * 1.2 + 0.5))
        scores.append(a.kid)
        errors.append(a.error)
        difference, error = a.above(b)
        differences.append(difference)
        their_errors.append(error)
    for values, estimated in ((scores, errors), (differences, their_errors)):
        root_mean_square = torch.tensor(estimated).square().mean().sqrt().item()
        assert root_mean_square == pytest.approx(torch.tensor(values).std().item(), rel=0.25)


# precision, recall, density, coverage


def prdc_by_loops(real: Tensor, fake: Tensor, k_pr: int, k_dc: int) -> tuple[float, float, float, float]:
    def reach(samples: Tensor, k: int) -> list[float]:
        return [
            sorted(float((a - b).norm()) for j, b in enumerate(samples) if j != i)[k - 1] for i, a in enumerate(samples)
        ]

    def inside(balls: Tensor, points: Tensor, k: int) -> list[list[bool]]:
        return [[bool((b - p).norm() <= r) for b, r in zip(balls, reach(balls, k), strict=True)] for p in points]

    def share(flags: list[bool]) -> float:
        return sum(flags) / len(flags)

    held = inside(real, fake, k_dc)
    return (
        share([any(row) for row in inside(real, fake, k_pr)]),
        share([any(row) for row in inside(fake, real, k_pr)]),
        sum(map(sum, held)) / (k_dc * len(fake)),
        share([any(column) for column in zip(*held, strict=True)]),
    )


@pytest.mark.parametrize(("n", "m", "k_pr", "k_dc"), [(40, 30, 3, 5), (25, 37, 1, 2), (6, 6, 3, 5)])
def test_fidelity_is_its_definition(n: int, m: int, k_pr: int, k_dc: int, small_blocks: None) -> None:
    draws = Draws(n)
    real, fake = draws(n, 4), draws(m, 4) * 0.7 + 0.5
    assert prdc(real, fake, k_pr, k_dc) == pytest.approx(prdc_by_loops(real, fake, k_pr, k_dc), rel=1e-12)


def test_fidelity_tells_dropping_from_inventing() -> None:
    draws = Draws(8)
    here, there = draws(200, 3), draws(200, 3) + 30
    drops = prdc(torch.cat([here, there]), draws(400, 3))
    assert drops.precision > 0.9
    assert drops.recall < 0.55
    assert drops.coverage < 0.55
    invents = prdc(here, torch.cat([draws(200, 3), there]))
    assert invents.precision < 0.55
    assert invents.recall > 0.9
    assert invents.density < 0.7


def test_a_neighbourhood_holds_its_border() -> None:
    real = torch.tensor([[0.0], [1.0], [5.0]])
    fake = torch.tensor([[-1.0], [9.0], [22.0]])  # on the border of 0's and of 5's, and outside
    assert prdc(real, fake, 1, 1) == pytest.approx((2 / 3, 1, 2 / 3, 2 / 3))
    assert prdc(fake, real, 1, 1).recall == pytest.approx(2 / 3)


def coverage_at_equality(n: int, m: int, k: int = 5) -> float:
    """1 - prod over j < k of (n - 1 - j) / (n - 1 + m - j): expected coverage of n real samples by m fakes if p = q.

    A real sample is not covered if its k nearest neighbours among the n - 1 other real samples and the m fakes are all
    real.
    """
    return 1 - math.prod((n - 1 - j) / (n - 1 + m - j) for j in range(k))


@pytest.mark.parametrize(("n", "m", "k"), [(30, 20, 5), pytest.param(12, 40, 2, marks=pytest.mark.slow)])
def test_coverage_and_density_at_equality(n: int, m: int, k: int) -> None:
    draws = Draws(9)
    found = [prdc(draws(n, 3), draws(m, 3), k, k) for _ in range(1500)]
    coverage = interval([each.coverage for each in found], 0.999)
    assert coverage.low < coverage_at_equality(n, m, k) < coverage.high
    assert coverage.high - coverage.low < 0.03
    density = interval([each.density for each in found], 0.999)
    assert density.low < 1 < density.high


def test_coverage_at_equality_of_many() -> None:
    assert coverage_at_equality(10**7, 10**7) == pytest.approx(1 - 0.5**5, abs=1e-6)
    assert coverage_at_equality(5, 3, 5) == 1  # 4 others cannot fill a neighbourhood of 5


def test_the_kid_of_one_pass_is_that_of_kid_alone(small_blocks: None) -> None:
    draws = Draws(10)
    real, fake = draws(50, 6) + 1, draws(37, 6) * 0.8
    both = kid_and_fidelity(pair_statistics(real), pair_statistics(fake))
    assert both.kid == pytest.approx(kid(real, fake), rel=1e-12)


# copying


def test_nearest_is_the_nearest_and_a_copy_is_at_0(small_blocks: None) -> None:
    draws = Draws(11)
    reference = draws(33, 5).float() + 100
    query = torch.cat([draws(20, 5).float() + 100, reference[7:9]])
    distances, indices = nearest(query, reference)
    exact = (query[:, None].double() - reference.double()).norm(dim=2)
    assert torch.equal(indices, exact.argmin(1))
    torch.testing.assert_close(distances.double(), exact.amin(1), rtol=1e-6, atol=0)
    assert distances[-2:].tolist() == [0, 0]


def test_c_t_is_its_definition(small_blocks: None) -> None:
    draws = Draws(12)
    middles = 4 * draws(4, 3)
    train, held_out, generated = (middles[torch.arange(n) % 4] + draws(n, 3) * s for n, s in
                                  ((150, 1), (91, 1), (107, 1.3)))  # fmt: skip
    held_out, generated = held_out[held_out[:, 0].argsort()][6:], torch.cat([generated, held_out[:9]])  # ties as well
    centres = k_means(train, 3, seed=5)

    def cell(a: Tensor) -> int:
        return int((a - centres).norm(dim=1).argmin())

    def far(a: Tensor) -> float:
        return float((a - train).norm(dim=1).min())

    total = weights = used = 0.0
    for i in range(3):
        made, held = ([far(a) for a in of if cell(a) == i] for of in (generated, held_out))
        n, m = len(made), len(held)
        if n >= 20 and m >= 20:
            u = sum((a > b) + 0.5 * (a == b) for a, b in product(made, held))
            total += m * (u - n * m / 2) / math.sqrt(n * m * (n + m + 1) / 12)
            weights += m
            used += 1
    found = c_t(train, held_out, generated, cells=3, seed=5)
    assert found.z == pytest.approx(total / weights, rel=1e-12)
    assert found.cells == used
    assert found == c_t(train, held_out, generated, cells=3, seed=5)


def test_the_z_score_of_one_cell_is_scipys_without_its_correction_of_ties() -> None:
    draws = Draws(13)
    train, held_out, generated = draws(60, 2), draws(40, 2), draws(50, 2) * 1.2
    far, far_held = (nearest(of, train)[0].numpy() for of in (generated, held_out))
    u = scipy.stats.mannwhitneyu(far, far_held, method="asymptotic", use_continuity=False)
    z = c_t(train, held_out, generated, cells=1).z
    assert 2 * scipy.stats.norm.sf(abs(z)) == pytest.approx(u.pvalue, rel=1e-9)
    assert (z > 0) == (u.statistic > 1000)


def test_c_t_leaves_out_cells_of_less_than_twenty() -> None:
    draws = Draws(14)
    left, right = draws(200, 2), draws(200, 2) + 50

    def some(n: int, m: int) -> Tensor:
        return torch.cat([left[:n] + 0.1, right[:m] + 0.1])

    train = torch.cat([left, right])
    assert c_t(train, some(20, 20), some(20, 20), cells=2).cells == 2
    assert c_t(train, some(20, 19), some(20, 20), cells=2).cells == 1
    assert c_t(train, some(20, 20), some(19, 20), cells=2).cells == 1
    with raises("too-few-samples", "2 cells", "20 held-out and 20 generated", "30 and 39"):
        c_t(train, some(20, 10), some(19, 20), cells=2)


@pytest.mark.slow
def test_c_t_of_one_distribution_is_a_z_score_and_its_mean_over_cells_narrower() -> None:
    draws = Draws(15)
    for cells, sd in ((1, 1.0), (4, 0.5)):
        zs = torch.tensor([c_t(draws(200, 4), draws(160, 4), draws(160, 4), cells=cells).z for _ in range(200)])
        assert abs(zs.mean()) < 4 * sd / 200**0.5
        assert 0.8 * sd < zs.std() < 1.25 * sd


def test_c_t_sees_copies_and_takes_too_little_variance_for_copies() -> None:
    draws = Draws(16)
    train, held_out = draws(1000, 8), draws(500, 8)
    copies = train[:500] + 0.05 * draws(500, 8)
    assert c_t(train, held_out, copies, cells=5).z < -8
    assert c_t(train, held_out, train[:500], cells=5).z < -8
    assert c_t(train, held_out, 0.9 * draws(500, 8), cells=5).z < -1.5  # nothing was copied
    assert c_t(train, held_out, 1.1 * draws(500, 8), cells=5).z > 1


def test_scores_leave_their_features_alone() -> None:
    draws = Draws(17)
    sets = [draws(40, 3) for _ in range(3)]
    before = [of.clone() for of in sets]
    c_t(*sets, cells=1)
    c_t(*sets, cells=2)
    kid_and_fidelity(*map(pair_statistics, sets[:2]))
    diversity(sets[0])
    assert all(torch.equal(a, b) for a, b in zip(sets, before, strict=True))


def test_k_means_finds_clusters_and_no_more_than_there_are() -> None:
    draws = Draws(18)
    middles = torch.tensor([[0.0, 0.0], [30.0, 0.0], [0.0, 30.0]], dtype=torch.float64)
    features = middles[torch.arange(90) % 3] + draws(90, 2)
    for seed in range(10):
        centres = k_means(features, 3, seed)
        near, at = nearest(middles, centres)
        assert near.max() < 1
        assert sorted(at.tolist()) == [0, 1, 2]
        assert torch.equal(centres, k_means(features, 3, seed))
    assert len(k_means(middles[[0, 1, 1, 0]], 3, 0)) == 2


def test_authenticity_is_its_definition_and_a_third_for_one_feature() -> None:
    draws = Draws(19)
    train, generated = draws(30, 3), draws(50, 3)
    expected = 0
    for g in generated:
        near = int((g - train).norm(dim=1).argmin())
        others = torch.cat([train[:near], train[near + 1 :]])
        expected += bool((g - train[near]).norm() > (others - train[near]).norm(dim=1).min())
    assert authenticity(train, generated) == expected / 50
    assert authenticity(train, train[:10]) == 0
    assert authenticity(torch.tensor([[0.0], [1.0]]), torch.tensor([[-1.0], [-1.1]])) == 0.5  # > 1, not >= 1
    line = interval([authenticity(draws(1000, 1), draws(1000, 1)) for _ in range(40)], 0.999)
    assert line.low < 1 / 3 < line.high
    assert line.high - line.low < 0.03
    assert 0.68 < authenticity(draws(1000, 32), draws(1000, 32)) < 0.82


def test_diversity_is_the_mean_distance(small_blocks: None) -> None:
    x = Draws(20)(43, 5)
    assert diversity(x) == pytest.approx(torch.pdist(x).mean().item(), rel=1e-12)
    assert diversity(x[:1].expand(9, 5)) == 0


# intervals


@given(st.integers(1, 200) | st.floats(1, 200), st.floats(0.01, 0.9999))
@settings(max_examples=300, deadline=None)
def test_the_quantile_is_scipys(degrees: float, level: float) -> None:
    assert t_quantile(level, degrees) == pytest.approx(scipy.stats.t.ppf((1 + level) / 2, degrees), rel=1e-9)


def test_an_interval_is_scipys() -> None:
    values = [1.0, 2.5, 2.0, 4.0]
    expected = scipy.stats.t.interval(0.9, 3, 2.375, scipy.stats.sem(values))
    assert interval(values, 0.9) == pytest.approx((2.375, *expected))
    with raises("too-few-samples", "at least 2", "got 1"):
        interval([1.0])


@pytest.mark.filterwarnings("ignore:Precision loss:RuntimeWarning")  # scipy's, of values that are all the same
@given(*[st.lists(st.floats(-9, 9).map(lambda x: round(x, 2)), min_size=2, max_size=6) for _ in range(2)])
@settings(max_examples=300, deadline=None)
def test_the_interval_of_a_difference_is_scipys(values: list[float], against: list[float]) -> None:
    found = difference(values, against)
    assert found.mean == pytest.approx(sum(values) / len(values) - sum(against) / len(against), abs=1e-9)
    if len(set(values)) == len(set(against)) == 1:  # scipy has no answer
        assert found.low == found.mean == found.high
        return
    expected = scipy.stats.ttest_ind(values, against, equal_var=False).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), rel=1e-9, abs=1e-9)


def frechet_to(real: Tensor) -> Callable[[Tensor], float]:
    against = gaussian(real)
    return lambda fake: frechet(against, gaussian(fake))


@pytest.mark.slow
@pytest.mark.parametrize("score", [frechet_to, lambda real: lambda fake: kid(real, fake)], ids=["frechet", "kid"])
def test_intervals_hold_the_expectation_as_often_as_they_say(
    score: Callable[[Tensor], Callable[[Tensor], float]],
) -> None:
    """2,000 times 5 generation seeds against one real set; the expectation from 10,000 others."""
    draws, n, d = Draws(21), 60, 3
    of = score(draws(n, d))

    def values(count: int) -> list[float]:
        return [of(0.8 * draws(n, d) + 0.5) for _ in range(count)]

    expectation = sum(values(10_000)) / 10_000
    found = [interval(values(5)) for _ in range(2000)]
    assert 0.93 <= sum(low < expectation < high for _, low, high in found) / 2000 <= 0.97


# all of them

SCORES: dict[str, Callable[[Tensor, Tensor], float]] = {
    "frechet": lambda x, y: frechet(gaussian(x), gaussian(y)),
    "kid": kid,
    "precision": lambda x, y: prdc(x, y).precision,
    "recall": lambda x, y: prdc(x, y).recall,
    "density": lambda x, y: prdc(x, y).density,
    "coverage": lambda x, y: prdc(x, y).coverage,
    "authenticity": authenticity,
    "distance": lambda x, y: nearest(x, y)[0].mean().item(),
    "diversity": lambda x, y: diversity(torch.cat([x, y])),
    "copying": lambda x, y: c_t(y, x[:40], x[40:], cells=1).z,
}


@pytest.mark.parametrize("name", SCORES)
@given(seed=st.integers(0, 2**32))
@settings(max_examples=20, deadline=None)
def test_turning_all_features_changes_nothing_and_neither_does_their_order(name: str, seed: int) -> None:
    draws, score = Draws(seed), SCORES[name]
    x, y = draws(80, 5), draws(50, 5) * 0.8 + 0.3
    turn = torch.linalg.qr(draws(5, 5)).Q
    expected = score(x, y)
    assert score(x @ turn, y @ turn) == pytest.approx(expected, rel=1e-7, abs=1e-9)
    if name != "copying":  # which has the first 40 held out
        shuffled = x[torch.randperm(80, generator=draws.generator)], y[torch.randperm(50, generator=draws.generator)]
        assert score(*shuffled) == pytest.approx(expected, rel=1e-7, abs=1e-9)


@pytest.mark.parametrize("name", SCORES)
@pytest.mark.parametrize("offset", [0.0, 300.0])
def test_float32_gives_what_float64_gives_even_far_from_the_origin(name: str, offset: float) -> None:
    draws, score = Draws(22), SCORES[name]
    x, y = (draws(200, 16) + offset).float(), (draws(150, 16) * 0.9 + 0.1 + offset).float()
    expected = score(x.double(), y.double())
    assert score(x, y) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("name", SCORES)
def test_features_that_are_not_finite_are_refused(name: str) -> None:
    x = torch.zeros(80, 3)
    x[30, 1] = math.nan
    with raises("not-finite", "feature"):
        SCORES[name](x, torch.zeros(80, 3))


@pytest.mark.parametrize(
    ("score", "least"),
    [(prdc, 6), (lambda x, y: pair_statistics(x), 6), (kid, 2), (authenticity, 2), (lambda x, y: diversity(x), 2)],
)
def test_too_few_samples_are_refused(score: Callable[[Tensor, Tensor], object], least: int) -> None:
    draws = Draws(23)
    score(draws(least, 3), draws(least, 3))
    with raises("too-few-samples", f"at least {least} samples", f"got {least - 1}"):
        score(draws(least - 1, 3), draws(least, 3))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_score_that_is_not_finite_has_no_interval(value: float) -> None:
    with raises("not-finite", "score"):
        interval([1.0, value, 2.0])


def test_c_t_names_its_deviation_if_nothing_is_copied() -> None:
    zs, deviations = [], []
    for seed in range(60):
        draw = torch.Generator().manual_seed(seed)
        train, held, made = (torch.randn((count, 2), generator=draw) for count in (200, 120, 120))
        found = c_t(train, held, made, cells=2)
        zs.append(found.z)
        deviations.append(found.null_deviation)
    assert float(torch.tensor(zs).std()) == pytest.approx(sum(deviations) / len(deviations), rel=0.3)


def test_a_share_has_wilsons_interval() -> None:
    for hits, n in ((0, 20), (7, 20), (20, 20), (140, 150)):
        expected = scipy.stats.binomtest(hits, n).proportion_ci(method="wilson")
        found = intervals.wilson(hits / n, n)
        assert (found.mean, found.low, found.high) == pytest.approx((hits / n, expected.low, expected.high), abs=1e-4)

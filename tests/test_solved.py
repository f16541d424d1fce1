"""Games with analytic solutions, played by the shipped steps.  The games are in solved_games.py.

D is linear in its parameters w, with features Phi of an image and its label.  Near p = q, where D is constant at its
equilibrium logit, the gradient vector field (minus both players' gradients: first of w, then of G's parameters) has
the same Jacobian for every game and loss:

    J = [ -(k M + gamma R)   -d B ]     M = E Phi Phi^T       R = E (d Phi / dx) (d Phi / dx)^T
    [     g B^T           0   ]     B = d E Phi(G) / d theta,   gamma = gamma_R1 + gamma_R2

The loss enters through three numbers only: d and g, the slopes of D's loss and of minus G's loss in the logit of a
fake, and k, the curvature of D's loss.  Under the relativistic loss M is the covariance within a class.  The
alternating update of rate h is (1 + h J_g) (1 + h J_d), where J_d and J_g are the rows of each player (Mescheder et
al. 2018, 1801.04406, for the Dirac-GAN).
"""

from __future__ import annotations

import cmath
import math
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import pytest
import torch
from torch import Tensor
from torch.nn.utils import parameters_to_vector, vector_to_parameters

import solved_games as games
from ptarmigan.config import Loss
from ptarmigan.core.types import Batch
from ptarmigan.game.step import d_step, g_step
from ptarmigan.losses.adversarial import OBJECTIVES, objective
from solved_games import LOSSES, Game
from support import GivenDraws

SLOW = pytest.mark.slow
SLOPES = {  # d, g, k at the equilibrium logit: 0; least_squares .5; smoothing log(.45/.55)
    "minimax": (0.5, 0.5, 0.5),
    "non_saturating": (0.5, 0.5, 0.5),
    "relativistic": (0.5, 0.5, 0.5),
    "least_squares": (0.5, 0.5, 2.0),
    "hinge": (1.0, 1.0, 0.0),
    "wasserstein": (1.0, 1.0, 0.0),
    "least_squares_pearson": (1.0, 0.0, 2.0),
    "smoothing": (0.45, 0.55, 0.495),
}
PENALTIES = ((0.0, 0.0), (0.3, 0.0), (0.0, 0.4), (0.3, 0.4))  # R1, R2
NORMAL = torch.tensor(
    [0, 0, 0, 0, math.sqrt(3), -math.sqrt(3)], dtype=torch.float64
)  # has the moments of N(0, 1) up to the 5th
REAL = torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.3, 0.6]], dtype=torch.float64)  # p(x|y) over three places
FAKE = torch.tensor([[0.2, 0.2, 0.6], [0.6, 0.3, 0.1]], dtype=torch.float64)
ROWS = (0, 0, 1)  # two thirds of the images are of class 0
PRIOR = torch.tensor([2 / 3, 1 / 3], dtype=torch.float64)


def gaussians(loss: Loss, rate: float = 1.0) -> Game:
    """N(0, 1) against mean + sd z for a quadratic D, to which only moments up to the fourth matter."""
    return games.game_on_a_line(NORMAL, 2, loss, rate)


def tabular(loss: Loss, rate: float = 1.0, q: Tensor = REAL) -> Game:
    """The shipped projection head on places and classes, against a free table of probabilities for each class."""
    labels, reals, fakes = games.pairs(ROWS, 3)
    D, of = games.WeightedDiscriminator(3, 2, "projection"), objective(loss)
    with torch.no_grad():
        D.head.source.bias.fill_(of.equilibrium_logit or 0.0)
    real = Batch(games.place_images(REAL, labels, reals), labels)
    return Game.create(games.TableGenerator(labels, fakes, q.log()), D, real, loss, rate, games.weighted_objective(of))


class Moments(NamedTuple):
    M: Tensor
    centred: Tensor  # M of centred features, within each class
    R: Tensor
    B: Tensor


def matrix(*rows: list[float]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def tabular_moments() -> Moments:
    """Phi = (e_x, 1, e_x in the rows of class y): source weight, bias and embedding of the head."""
    parts = []
    for y, (p, share) in enumerate(zip(REAL, PRIOR, strict=True)):
        of_image = torch.zeros(10, 3, dtype=torch.float64)  # by parameter and pixel
        of_image[:3] = torch.eye(3)
        of_image[4 + 3 * y : 7 + 3 * y] = torch.eye(3)
        phi = of_image.clone()
        phi[3] = 1
        mean, spread = phi @ p, torch.diag(p) - p.outer(p)
        by_table = torch.zeros(10, 6, dtype=torch.float64)
        by_table[:, 3 * y : 3 * y + 3] = phi @ spread
        centred = phi @ spread @ phi.T
        parts.append([share * of for of in (centred + mean.outer(mean), centred, of_image @ of_image.T, by_table)])
    return Moments(*(one + other for one, other in zip(*parts, strict=True)))


GAMES: dict[str, tuple[Callable[..., Game], Moments]] = {
    "dirac": (games.dirac, Moments(
        matrix([0, 0], [0, 1]), matrix([0, 0], [0, 0]), matrix([1, 0], [0, 0]), matrix([1], [0])
    )),
    "gaussians": (gaussians, Moments(
        matrix([1, 0, 0], [0, 3, 1], [0, 1, 1]), matrix([1, 0, 0], [0, 2, 0], [0, 0, 0]),
        matrix([1, 0, 0], [0, 4, 0], [0, 0, 0]), matrix([1, 0], [0, 2], [0, 0]),
    )),
    "tabular": (tabular, tabular_moments()),
}  # fmt: skip


def players(game: Game) -> list[torch.nn.Parameter]:
    return [*game.state.D.parameters(), *game.state.G.parameters()]


def moved(game: Game, start: Tensor, alternate: bool) -> Tensor:
    vector_to_parameters(start, players(game))
    game.move(alternate)
    return parameters_to_vector(players(game)).detach().clone()


def jacobian(game: Game, alternate: bool, eps: float = 1e-4) -> Tensor:
    """Jacobian of the shipped update, as a map of all parameters, at the present ones; by central differences."""
    start = parameters_to_vector(players(game)).detach().clone()
    columns = [
        (moved(game, start + eps * unit, alternate) - moved(game, start - eps * unit, alternate)) / (2 * eps)
        for unit in torch.eye(len(start), dtype=torch.float64)
    ]
    assert torch.equal(moved(game, start, alternate), start)  # p = q and D constant: neither player moves
    return torch.stack(columns, 1)


def field(game: Game) -> Tensor:
    """The Jacobian of the gradient vector field, which is what a simultaneous step of rate 1 adds."""
    whole = jacobian(game, alternate=False)
    return whole - torch.eye(len(whole), dtype=torch.float64)


def by_place(values: list[complex]) -> list[complex]:
    return sorted(values, key=lambda value: (round(value.real, 4), value.imag))


def spectrum(of: Tensor) -> list[complex]:
    return by_place(torch.linalg.eigvals(of).tolist())


def stated(name: str, moments: Moments, gamma: float) -> tuple[Tensor, Tensor]:
    """The rows of J that belong to D and to G, each with zeros in the rows of the other."""
    d, g, k = SLOPES[name]
    M, centred, R, B = moments
    if name == "relativistic":
        M = centred
    of_d, of_g = (torch.zeros(sum(B.shape), sum(B.shape), dtype=torch.float64) for _ in range(2))
    of_d[: len(B)] = torch.cat([-(k * M + gamma * R), -d * B], 1)
    of_g[len(B) :, : len(B)] = g * B.T
    return of_d, of_g


def test_every_loss_has_a_game() -> None:
    assert {loss.loss for loss in LOSSES.values()} == set(OBJECTIVES)
    assert set(SLOPES) == set(LOSSES)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("which", ["dirac", "gaussians", pytest.param("tabular", marks=SLOW)])
def test_every_game_has_the_stated_jacobian_at_its_equilibrium(which: str, name: str) -> None:
    """The field without penalties, with R1, R2 and both; the alternating step without penalties and with both."""
    create, moments = GAMES[which]
    one, rate = torch.eye(sum(moments.B.shape), dtype=torch.float64), 0.2
    for r1, r2 in PENALTIES:
        loss = replace(LOSSES[name], r1=r1, r2=r2)
        of_d, of_g = stated(name, moments, r1 + r2)
        torch.testing.assert_close(field(create(loss)), of_d + of_g, rtol=0, atol=1e-7)
        if bool(r1) == bool(r2):
            got = jacobian(create(loss, rate), alternate=True)
            torch.testing.assert_close(got, (one + rate * of_g) @ (one + rate * of_d), rtol=0, atol=1e-7)


# ---------------------------------------------------------------------------- the Dirac-GAN

TURNING = [
    name for name in LOSSES if name != "least_squares_pearson"
]  # losses whose G has a gradient at p = q when D has a slope


@pytest.mark.parametrize("name", TURNING)
def test_the_dirac_gan_circles_without_r1_and_r2(name: str) -> None:
    """Field: (-gamma +- sqrt(gamma^2 - 4 d g)) / 2, which is +-i sqrt(d g) without a penalty; and -k for D's constant.

    The eigenvalues of the alternating step have modulus 1 without a penalty, and sqrt(1 - h gamma) with one while they
    are complex.  Those of a simultaneous step without a penalty lie outside the unit circle.
    """
    d, g, k = SLOPES[name]
    constant, rate = (0.0 if name == "relativistic" else -k), 0.2
    for r1, r2 in (*PENALTIES, (0.9, 0.9)):
        gamma, loss = r1 + r2, replace(LOSSES[name], r1=r1, r2=r2)
        root = cmath.sqrt(gamma**2 - 4 * d * g)
        paper = by_place([(-gamma + root) / 2, (-gamma - root) / 2, constant])
        assert spectrum(field(games.dirac(loss))) == pytest.approx(paper, abs=1e-6)
        sizes = torch.linalg.eigvals(jacobian(games.dirac(loss, rate), alternate=True)[::2, ::2]).abs()
        assert sizes.prod().item() == pytest.approx(1 - rate * gamma, abs=1e-7)
        if gamma:
            assert sizes.max() < 1 - 1e-3
        if root.imag:
            assert sizes.tolist() == pytest.approx([math.sqrt(1 - rate * gamma)] * 2, abs=1e-7)
        if not gamma:
            outside = torch.linalg.eigvals(jacobian(games.dirac(loss, rate), alternate=False)[::2, ::2]).abs()
            assert outside.tolist() == pytest.approx([math.sqrt(1 + rate**2 * d * g)] * 2, abs=1e-7)


@pytest.mark.parametrize("name", ["relativistic", "wasserstein"])
def test_without_absolute_logits_any_constant_of_d_is_an_equilibrium(name: str) -> None:
    create, moments = GAMES["dirac"]
    game = create(LOSSES[name])
    with torch.no_grad():
        game.state.D.head.source.bias.fill_(3.0)
    torch.testing.assert_close(field(game), sum(stated(name, moments, 0.0)), rtol=0, atol=1e-7)


COMING_IN = {
    "minimax": 0.0, "hinge": 0.0, "wasserstein": 0.0,
    "non_saturating": 0.5, "relativistic": 0.5, "smoothing": 0.5, "least_squares": 2.0,
}  # fmt: skip


@pytest.mark.parametrize(
    "name", [name if name in ("minimax", "non_saturating") else pytest.param(name, marks=SLOW) for name in COMING_IN]
)
def test_the_dirac_gan_beyond_its_eigenvalues(name: str) -> None:
    """V = (g psi^2 + d theta^2) / 2 without a penalty: V' = -c V^2 in the mean over a turn, so 1/V grows at rate c.

    c = 0 for minimax, hinge and Wasserstein: their flow circles.  Non-saturating converges, but only like 1/sqrt(t):
    V' = -psi theta (sigma(psi theta) - sigma(-psi theta)) / 2 < 0.
    """
    d, g, _ = SLOPES[name]
    rate, steps = 0.2, 350
    places = torch.tensor(games.Plane(LOSSES[name], rate).path(0.0, 0.5, steps), dtype=torch.float64)
    inverse = 2 / (g * places[:, 0] ** 2 + d * places[:, 1] ** 2)
    turn = round(2 * math.pi / math.sqrt(d * g) / rate)
    slope = (inverse[-turn:].mean() - inverse[:turn].mean()) / (rate * (steps + 1 - turn))
    assert slope.item() == pytest.approx(COMING_IN[name], rel=0.03, abs=0.002)


def test_minimax_drifts_outwards() -> None:
    """The flow keeps psi^2 + theta^2, but alternating steps do not: the largest distance grows slowly."""

    def radius(rate: float, psi: float, theta: float, steps: int) -> list[float]:
        """The distances from the equilibrium by the slope sigma(psi theta), which both players share."""
        out = []
        for _ in range(steps):
            psi -= rate * theta / (1 + math.exp(-psi * theta))
            theta += rate * psi / (1 + math.exp(-psi * theta))
            out.append(math.hypot(psi, theta))
        return out

    shipped = games.Plane(LOSSES["minimax"], 0.2).path(1.0, 1.0, 100)
    assert [math.hypot(*place) for place in shipped[-100:]] == pytest.approx(radius(0.2, 1.0, 1.0, 100), abs=1e-12)
    assert max(radius(0.2, 1.0, 1.0, 1000)) == pytest.approx(1.417, abs=5e-4)
    assert max(radius(0.2, 1.0, 1.0, 100_000)) == pytest.approx(1.570, abs=5e-4)
    assert max(radius(0.5, 1.5, 0.0, 300)) == pytest.approx(1.636, abs=5e-4)


def test_wasserstein_stays_on_an_ellipse() -> None:
    rate = 0.1
    psi, theta = torch.tensor(games.Plane(LOSSES["wasserstein"], rate).path(0.0, 1.5, 300), dtype=torch.float64).T
    kept = psi**2 + theta**2 - rate * psi * theta
    torch.testing.assert_close(kept, torch.full_like(kept, 2.25), rtol=0, atol=1e-12)
    assert (psi > 1).any()
    assert (theta < -1).any()


def test_pearson_targets_give_g_no_slope_at_the_equilibrium() -> None:
    """G's slope at the equilibrium logit is 0: at theta = 0 every psi is at rest, and under R1 theta is like 1/sqrt(t).

    psi follows theta at -theta / gamma, so theta' = -theta^3 / gamma^2, and 1/theta^2 grows at rate 2 / gamma^2.
    """
    psi, theta = games.Plane(LOSSES["least_squares_pearson"], 0.2).path(0.0, 1.5, 150)[-1]
    assert abs(theta) < 1e-9
    assert psi < -1
    gamma, rate, steps = 0.7, 0.2, 500
    places = games.Plane(replace(LOSSES["least_squares_pearson"], r1=gamma), rate).path(0.0, 0.5, steps)
    (_, half), (_, end) = places[steps // 2], places[-1]
    assert (end**-2 - half**-2) / (rate * steps / 2) == pytest.approx(2 / gamma**2, rel=0.03)
    assert abs(end) > 0.03


# ---------------------------------------------------------------------------- two Gaussians


def test_curvature_of_d_damps_the_game_where_images_have_a_density() -> None:
    """With N(0, 1) in place of a point the curvature of cross-entropy damps the game; hinge and Wasserstein circle."""
    half, root = 0.5, math.sqrt(3) / 4
    location, scale = [-0.25 - root * 1j, -0.25 + root * 1j], [-half - half * 1j, -half + half * 1j]
    expected: dict[str, list[complex]] = {
        "minimax": [-1, *scale, *location],
        "non_saturating": [-1, *scale, *location],
        "relativistic": [-half - 2 * root * 1j, -half + 2 * root * 1j, *location, 0],
        "hinge": [-2j, -1j, 0, 1j, 2j],
        "wasserstein": [-2j, -1j, 0, 1j, 2j],
    }
    for name, values in expected.items():
        assert spectrum(field(gaussians(LOSSES[name]))) == pytest.approx(values, abs=1e-5)
    for name in TURNING:
        penalised = spectrum(field(gaussians(replace(LOSSES[name], r1=0.5, r2=0.5))))
        assert sum(value.real > -1e-6 for value in penalised) == (SLOPES[name][2] == 0 or name == "relativistic")


def test_r1_is_on_the_data_and_r2_on_generated_images() -> None:
    """E (w + 2 v x)^2 under N(0, 1) for R1 and under N(m, s^2) for R2, for D(x) = w x + v x^2."""
    game = gaussians(replace(LOSSES["hinge"], r1=0.3, r2=0.4))
    with torch.no_grad():
        game.state.G.mean.fill_(0.7)
        game.state.G.log_sd.fill_(math.log(1.3))
        game.state.D.head.source.weight.copy_(matrix([0.5, -0.2]))
    got = d_step(game.state, game.real, Batch(game.state.G(), game.real.labels), GivenDraws())
    assert got["r1"].item() == pytest.approx(0.15 * (0.5**2 + 0.4**2), abs=1e-12)
    assert got["r2"].item() == pytest.approx(0.2 * ((0.5 - 0.4 * 0.7) ** 2 + (0.4 * 1.3) ** 2), abs=1e-12)


CURVED = [name for name in TURNING if SLOPES[name][2]]
ENDS = [(name, 0.0, True) for name in CURVED] + [
    (name, gamma, gamma > 0) for name in ("hinge", "wasserstein") for gamma in (0.0, 0.4)
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "gamma", "there"), ENDS)
def test_two_gaussians_far_from_the_equilibrium(name: str, gamma: float, there: bool) -> None:
    """G from N(1.2, .6^2) by the alternating step; R1 and R2 of gamma / 2 each."""
    rate = 0.2 if name == "least_squares" else 0.4
    game = gaussians(replace(LOSSES[name], r1=gamma / 2, r2=gamma / 2), rate)
    G = game.state.G
    with torch.no_grad():
        G.mean.fill_(1.2)
        G.log_sd.fill_(math.log(0.6))
    away = []
    for _ in range(200):
        game.move()
        away.append(math.hypot(G.mean.item(), G.log_sd.item()))
    assert (away[-1] < 0.01) == there
    if not there:
        assert max(away[-60:]) > 0.05  # hinge converges until no logit is past its corners, then circles


def push(name: str, mean: float) -> float:
    """The change of G's mean per unit of rate in a shipped step, for N(mean, 1) against N(0, 1) and the optimal D."""
    z = torch.special.ndtri((torch.arange(8000, dtype=torch.float64) + 0.5) / 8000)
    G = games.Points(z)
    D = games.ConditionalDiscriminator(games.Powers(1), 1, 1, "none").double()
    with torch.no_grad():
        G.mean.fill_(mean)
        D.head.source.weight.fill_(-mean)
        D.head.source.bias.fill_(mean**2 / 2)
    labels = torch.zeros(len(z), dtype=torch.int64)
    game = Game.create(G, D, Batch(z.view(-1, 1, 1, 1), labels), LOSSES[name], 1.0, objective(LOSSES[name]))
    g_step(game.state, game.real, Batch(G(), labels), GivenDraws())
    return G.mean.item() - mean


def test_minimax_hardly_moves_a_bad_generator() -> None:
    """The change is -mean E sigma(f), at most exp(-mean^2 / 8) mean / 2; under non-saturating -mean E sigma(-f)."""
    x = torch.linspace(-12, 12, 2401, dtype=torch.float64)
    for mean in (0.5, 2.0, 4.0, 6.0):
        q = torch.exp(-0.5 * x**2) / math.sqrt(2 * math.pi)
        rejected = (q * torch.sigmoid(mean * x + mean**2 / 2)).sum().item() / 100  # E sigma(-f) at mean + x
        accepted = (q * torch.sigmoid(-mean * x - mean**2 / 2)).sum().item() / 100
        assert push("minimax", mean) == pytest.approx(-mean * accepted, rel=2e-3)
        assert push("non_saturating", mean) == pytest.approx(-mean * rejected, rel=2e-3)
        assert accepted <= math.exp(-(mean**2) / 8) / 2
    assert -push("minimax", 6.0) < 0.02
    assert -push("non_saturating", 6.0) > 5.9


# ---------------------------------------------------------------------------- a table of classes and places


def divergence(name: str) -> float:
    """L_D at the optimal D, for p(x, y) and q(x, y)."""
    p, q = PRIOR.unsqueeze(1) * REAL, PRIOR.unsqueeze(1) * FAKE

    def kl(a: Tensor, b: Tensor) -> Tensor:
        return (a * (a / b).log()).sum()

    def jsd(a: Tensor, b: Tensor) -> Tensor:
        return (kl(a, (a + b) / 2) + kl(b, (a + b) / 2)) / 2

    share = 0.9 * p / (p + q)
    crossed = sum(w * jsd(a.outer(b), b.outer(a)) for w, a, b in zip(PRIOR, REAL, FAKE, strict=True))
    return float({
        "minimax": 2 * math.log(2) - 2 * jsd(p, q),
        "non_saturating": 2 * math.log(2) - 2 * jsd(p, q),
        "smoothing": -((p + q) * (share * share.log() + (1 - share) * (1 - share).log())).sum(),
        "relativistic": math.log(2) - crossed,
        "least_squares": (p * q / (p + q)).sum() / 2,
        "least_squares_pearson": 2 * (p * q / (p + q)).sum(),
        "hinge": 2 - (p - q).abs().sum(),
    }[name])  # fmt: skip


def answer(name: str, T: Tensor, r1: float = 0.0, r2: float = 0.0) -> dict[str, Tensor]:
    """The terms of d_step for a D whose logits are T [K, S], given by its embedding alone."""
    game = tabular(replace(LOSSES[name], r1=r1, r2=r2), q=FAKE)
    with torch.no_grad():
        game.state.D.head.source.bias.zero_()
        game.state.D.head.embedding.weight.copy_(T)
    return d_step(game.state, game.real, Batch(game.state.G(), game.real.labels), GivenDraws())


@pytest.mark.parametrize("name", [name for name in LOSSES if name != "wasserstein"])
def test_the_loss_at_the_optimal_table_is_its_divergence(name: str) -> None:
    p, q = REAL, FAKE
    best = {
        "minimax": (p / q).log(), "non_saturating": (p / q).log(), "smoothing": (0.9 * p / (0.1 * p + q)).log(),
        "relativistic": (p / q).log() + torch.tensor([[0.4], [-1.0]]),  # the constant of each class is free
        "least_squares": p / (p + q), "least_squares_pearson": (p - q) / (p + q), "hinge": torch.sign(p - q),
    }[name]  # fmt: skip
    if name == "hinge":
        best = torch.where(p == q, 0.3, best)  # any value between -1 and 1 is optimal there
    got = answer(name, best)
    assert got["adv"].item() == pytest.approx(divergence(name), abs=1e-12)
    assert name == "hinge" or got["grad"].item() < 1e-12  # hinge has its minimum at a kink
    for y, x in ((0, 0), (0, 2), (1, 0), (1, 2)):
        for step in (-0.1, 0.1):
            beside = best.clone()
            beside[y, x] += step
            assert answer(name, beside)["adv"].item() > got["adv"].item() + 1e-5


@pytest.mark.parametrize(("r1", "r2"), PENALTIES[1:])
def test_the_optimal_penalised_wasserstein_table_is_the_gap_over_gamma(r1: float, r2: float) -> None:
    """L_D = -sum_y pi_y <T, p - q> + gamma |T|^2 / 2: T* = (p - q) / gamma, worth -E |p - q|^2 / (2 gamma)."""
    gamma, gap = r1 + r2, REAL - FAKE
    got = answer("wasserstein", gap / gamma, r1, r2)
    assert got["grad"].item() < 1e-14
    assert answer("wasserstein", 1.1 * gap / gamma, r1, r2)["grad"].item() > 1e-2
    squared = (PRIOR * gap.square().sum(1)).sum().item()
    whole = sum(value.item() for term, value in got.items() if term != "grad")
    assert whole - gamma / 2 == pytest.approx(
        -squared / (2 * gamma), abs=1e-14
    )  # D's slope in the weight's pixel is always 1


@pytest.mark.slow
@pytest.mark.parametrize(("name", "gamma", "there"), ENDS)
def test_a_table_of_probabilities_converges_to_the_data_per_class(name: str, gamma: float, there: bool) -> None:
    """G's rate is 2, D's 1 / k."""
    game = tabular(replace(LOSSES[name], r1=gamma / 2, r2=gamma / 2), 2.0, FAKE)
    game.state.opt_d.param_groups[0]["lr"] = 1 / max(SLOPES[name][2], 0.5)
    away = []
    for _ in range(300):
        game.move()
        away.append((game.state.G.log_q().exp() - REAL).abs().max().item())
    assert (away[-1] < 0.01) == there
    if not there:
        assert max(away[-100:]) > 0.1


# ---------------------------------------------------------------------------- ACGAN and the methods that repaired it


@pytest.mark.parametrize(
    ("conditioning", "class_fake"),
    [("auxiliary_classifier", False), ("auxiliary_classifier", True), *((name, True) for name in games.REPAIRS)],
)
def test_the_optimal_d_is_an_equilibrium_of_d_step(conditioning: str, class_fake: bool) -> None:
    """d_step has no gradient at the D of `set_best_discriminator`, and a higher loss where any part of it differs."""

    def step(beside: str = "") -> tuple[float, float]:
        game = games.overlapping_classes(conditioning, class_fake, 1.2, 0.8, every_pair=True)
        games.set_best_discriminator(game)
        if beside:
            weight = game.state.D.get_parameter(beside).detach().view(-1)
            weight[: len(weight) // 2] += 0.1  # half of the places, or of the classes
        terms = d_step(game.state, game.real, Batch(game.state.G(), game.real.labels), GivenDraws())
        return terms.pop("grad").item(), sum(term.item() for term in terms.values())

    slope, floor = step()
    assert slope < 1e-11
    parts = {"projection": ["embedding"], "twin_classifier": ["source", "classifier", "twin"]}
    for part in parts.get(conditioning, ["source", "classifier"]):
        slope, loss = step(f"head.{part}.weight")
        assert slope > 1e-3
        assert loss > floor + 1e-5


def acgan_loss(theta: Tensor, class_fake: bool) -> Tensor:
    """2 JSD of the marginals + .5 CE at the optimal classifier C, as a function of G's mean and log sd."""
    p, q = (log.exp() / 2 for log in (games.LOG_P, games.log_classes(*theta)))
    of_p, of_q = p.sum(0), q.sum(0)
    m = (of_p + of_q) / 2
    jsd2 = (of_p * (of_p / m).log() + of_q * (of_q / m).log()).sum()
    taught = p + q if class_fake else p
    return jsd2 - 0.5 * (q * (taught / taught.sum(0)).log()).sum()


def acgan_minimum(class_fake: bool) -> tuple[float, float]:
    """By Newton's method."""
    theta = torch.tensor([1.25, math.log(0.77)], dtype=torch.float64)
    for _ in range(12):
        slope = torch.autograd.functional.jacobian(lambda at: acgan_loss(at, class_fake), theta)
        theta = theta - torch.linalg.solve(
            torch.autograd.functional.hessian(lambda at: acgan_loss(at, class_fake), theta), slope
        )
    assert slope.abs().max() < 1e-12
    return theta[0].item(), theta[1].exp().item()


def test_acgan_shrinks_overlapping_classes_and_its_alternatives_do_not() -> None:
    """p(x|y) = N(+-1, 1): G moves away from the data under ACGAN, and returns to them under the other methods.

    With C on real images alone G ends at the minimum of 2 JSD + .5 CE.  With C on real and fake images the minimum is
    (1.285, .745), but G descends against a fixed C, and comes to rest at (1.290, .759).
    """
    alone, both = games.resting_point("auxiliary_classifier", False), games.resting_point("auxiliary_classifier", True)
    assert alone == pytest.approx((1.298, 0.785), abs=5e-4)
    assert alone == pytest.approx(acgan_minimum(False), abs=1e-9)
    assert both == pytest.approx((1.290, 0.759), abs=5e-4)
    assert acgan_minimum(True) == pytest.approx((1.285, 0.745), abs=5e-4)
    for conditioning in games.REPAIRS:
        assert games.resting_point(conditioning, True, *both) == pytest.approx((1, 1), abs=1e-9)

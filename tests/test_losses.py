"""Every adversarial loss against its theory, in float64: optimum, divergence, equilibrium, gradient, limits.

Data p = N(0, 1), generator q = N(.7, 1.3^2); expectations are trapezoidal sums over GRID, which converge
faster than any power of the spacing for smooth functions that fall off like these (error below 1e-12).
An expectation of d(real, fake) is taken over all pairs of grid points, so nothing here assumes that it splits.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from densities import GRID, SPREAD, P, Q, integral, jsd, kl, log_normal, pair_jsd, w1
from ptarmigan.config import Loss
from ptarmigan.config.sections import LOSSES
from ptarmigan.losses.adversarial import OBJECTIVES, Objective, objective, softplus

CROSSING = -0.7 / 0.3  # where the two distribution functions meet
ALPHA = 0.9
M = (P + Q) / 2

CASES = {name: objective(Loss(loss=name)) for name in OBJECTIVES} | {
    "smoothing": objective(Loss(loss="non_saturating", smoothing=ALPHA))
}
CROSS_ENTROPY = ("minimax", "non_saturating", "smoothing")
SMOOTH = [name for name in CASES if name not in ("hinge", "wasserstein")]  # D* has a gradient everywhere
BUMPS: list[Callable[[Tensor], Tensor]] = [
    torch.sin, torch.cos, torch.tanh, lambda x: torch.exp(-((x - 1) ** 2)), lambda x: (3 * x).cos() + x / 9
]  # fmt: skip


def expected_d(case: Objective, D: Tensor, p: Tensor = P, q: Tensor = Q) -> Tensor:
    """E d over pairs of a real and a fake; D holds the discriminator on the grid."""
    r, f = D[:, None].expand(len(D), len(D)), D.expand(len(D), len(D))
    return integral(p[:, None] * q * case.d(real=r, fake=f))


def expected_g(case: Objective, D: Tensor, q: Tensor, p: Tensor = P) -> Tensor:
    if case.relativistic:
        return integral(p[:, None] * q * case.g(real=D[:, None].expand(len(D), len(D)), fake=D.expand(len(D), len(D))))
    return integral(q * case.g(fake=D))


def optimum(name: str, x: Tensor, mean: float = 0.7, log_sd: float = SPREAD) -> Tensor:
    """D*, differentiable in x, for q = N(mean, exp(log_sd)^2)."""
    log_p, log_q = log_normal(x), log_normal(x, mean, log_sd)
    p, q = log_p.exp(), log_q.exp()
    return {
        "minimax": log_p - log_q,
        "non_saturating": log_p - log_q,
        "relativistic": log_p - log_q,
        "smoothing": (ALPHA * p / ((1 - ALPHA) * p + q)).log(),
        "least_squares": p / (p + q),
        "least_squares_pearson": (p - q) / (p + q),
        "hinge": torch.sign(p - q),
        "wasserstein": -(x - CROSSING).abs(),
    }[name]


def test_the_names_of_the_config_are_the_objectives() -> None:
    assert tuple(OBJECTIVES) == LOSSES


def test_the_quadrature_itself() -> None:
    for density, mean, variance in ((P, 0.0, 1.0), (Q, 0.7, 1.69)):
        assert integral(density).item() == pytest.approx(1, abs=1e-12)
        assert integral(density * GRID).item() == pytest.approx(mean, abs=1e-12)
        assert integral(density * (GRID - mean) ** 2).item() == pytest.approx(variance, abs=1e-12)


@pytest.mark.parametrize("name", [n for n in CASES if n != "wasserstein"])
def test_moving_the_optimal_discriminator_raises_its_loss(name: str) -> None:
    best = optimum(name, GRID)
    floor = expected_d(CASES[name], best)
    for bump, size in product(BUMPS, (-1.0, -0.1, 0.1, 1.0)):
        assert expected_d(CASES[name], best + size * bump(GRID)) > floor + 1e-6
    if name != "relativistic":
        assert expected_d(CASES[name], best + 0.1) > floor + 1e-6


def test_no_lipschitz_discriminator_has_a_lower_wasserstein_loss() -> None:
    best = optimum("wasserstein", GRID)
    floor = expected_d(CASES["wasserstein"], best)
    for other in [*(b(GRID) for b in BUMPS[:4]), GRID, -GRID, GRID.abs(), -(GRID - 1).abs()]:
        for share in (0.01, 0.3, 1.0):
            assert expected_d(CASES["wasserstein"], (1 - share) * best + share * other) >= floor
    assert expected_d(CASES["wasserstein"], 1.01 * best) < floor  # the bound on the slope is what holds it


@pytest.mark.parametrize("name", CASES)
def test_the_optimal_loss_is_its_divergence(name: str) -> None:
    share = ALPHA * P / (P + Q)
    stated = {
        "minimax": 2 * math.log(2) - 2 * jsd(P, Q),
        "non_saturating": 2 * math.log(2) - 2 * jsd(P, Q),
        "smoothing": -integral((P + Q) * (torch.xlogy(share, share) + torch.xlogy(1 - share, 1 - share))),
        "least_squares": integral(P * Q / (P + Q)) / 2,
        "least_squares_pearson": 2 * integral(P * Q / (P + Q)),
        "hinge": 2 * (1 - integral((P - Q).abs()) / 2),
        "wasserstein": -w1(Q, torch.tensor(0.7), torch.tensor(SPREAD)),
        "relativistic": math.log(2) - pair_jsd(P, Q),
    }[name]
    near = 1e-3 if name == "wasserstein" else 1e-10  # |x| has a kink, second order in the spacing
    assert expected_d(CASES[name], optimum(name, GRID)).item() == pytest.approx(float(stated), abs=near)


def test_pearson_squares_of_the_optimum() -> None:
    best = optimum("least_squares_pearson", GRID)
    assert integral((P + Q) * best**2).item() == pytest.approx(integral((P - Q) ** 2 / (P + Q)).item())


EQUILIBRIUM = {  # D*, L_D and L_G at p = q
    "minimax": (0.0, 2 * math.log(2), -math.log(2)),
    "non_saturating": (0.0, 2 * math.log(2), math.log(2)),
    "smoothing": (-0.2007, 1.3763, 0.7985),
    "least_squares": (0.5, 1 / 4, 1 / 8),
    "least_squares_pearson": (0.0, 1.0, 0.0),
    "hinge": (0.0, 2.0, 0.0),
    "wasserstein": (0.0, 0.0, 0.0),
    "relativistic": (0.0, math.log(2), math.log(2)),
}


@pytest.mark.parametrize("name", CASES)
def test_values_at_equilibrium(name: str) -> None:
    logit, d, g = EQUILIBRIUM[name]
    near = 5e-5 if name == "smoothing" else 1e-10  # stated to four places
    if name != "wasserstein":
        assert optimum(name, GRID, 0.0, 0.0) == pytest.approx(logit, abs=near)
    D = torch.full_like(GRID, logit)
    assert expected_d(CASES[name], D, P, P).item() == pytest.approx(d, abs=near)
    assert expected_g(CASES[name], D, P).item() == pytest.approx(g, abs=near)


def test_smoothing_bounds_the_logit_and_the_loss() -> None:
    best = optimum("smoothing", GRID, 30.0, 0.0)  # disjoint: all of p is far from q
    assert best.max().item() == pytest.approx(2.197, abs=5e-4)
    far = log_normal(GRID, 30.0).exp()
    at_most = torch.full_like(GRID, math.log(9))
    real_alone = CASES["smoothing"].d(real=at_most, fake=torch.full_like(GRID, -40.0))
    assert far.max() < 1e-60
    assert integral(P * real_alone).item() == pytest.approx(0.3251, abs=5e-5)


def divergences(name: str, mean: Tensor, log_sd: Tensor) -> Tensor:
    """What L_G's gradient is the gradient of, as a function of G's parameters."""
    q = log_normal(GRID, mean, log_sd).exp()
    m = (P + q) / 2
    match name:
        case "minimax":
            return 2 * jsd(P, q)
        case "non_saturating" | "smoothing":
            return kl(q, P) - 2 * jsd(P, q)
        case "least_squares":
            return kl(P, m) - integral(P**2 / (P + q)) / 2
        case "least_squares_pearson":
            return 2 * kl(P, m) - 2 * integral(P**2 / (P + q))
        case "hinge":
            return integral((P - q).abs())  # 2 TV
        case "wasserstein":
            return w1(q, mean, log_sd)
        case "relativistic":
            return kl(q, P) - pair_jsd(P, q)
    raise AssertionError(name)


@pytest.mark.parametrize("name", CASES)
def test_the_generator_descends_the_stated_divergence(name: str) -> None:
    """D* frozen at q, L_G as a function of G's density: its gradient in G's mean and log sd."""
    theta = torch.tensor([0.7, SPREAD], dtype=torch.float64, requires_grad=True)
    frozen = optimum(name, GRID)
    loss = expected_g(CASES[name], frozen, log_normal(GRID, theta[0], theta[1]).exp())
    (got,) = torch.autograd.grad(loss, theta)
    (stated,) = torch.autograd.grad(divergences(name, theta[0], theta[1]), theta)
    near = 3e-3 if name == "wasserstein" else 1e-9
    assert got.tolist() == pytest.approx(stated.tolist(), abs=near)
    assert stated.norm() > 0.05


@pytest.mark.parametrize("name", SMOOTH)
def test_the_gradient_through_samples_is_the_gradient_through_the_density(name: str) -> None:
    """As training takes it: through D*(G(z)), G(z) = mean + sd z."""
    theta = torch.tensor([0.7, SPREAD], dtype=torch.float64, requires_grad=True)
    z = GRID
    fake = optimum(name, theta[0] + theta[1].exp() * z)
    if CASES[name].relativistic:
        real, fake = torch.broadcast_tensors(optimum(name, GRID)[:, None], fake)
        loss = integral(P[:, None] * P * CASES[name].g(real=real, fake=fake))
    else:
        loss = integral(P * CASES[name].g(fake=fake))
    (got,) = torch.autograd.grad(loss, theta)
    (stated,) = torch.autograd.grad(divergences(name, theta[0], theta[1]), theta)
    assert got.tolist() == pytest.approx(stated.tolist(), abs=1e-8)


R = torch.tensor([-3.0, -0.4, 0.0, 0.3, 1.0, 2.5], dtype=torch.float64)
FAKE = torch.tensor([1.2, -2.0, 0.0, -0.7, 3.0, 0.6], dtype=torch.float64)
ONE, ZERO = torch.ones_like(R), torch.zeros_like(R)


def bce(logits: Tensor, target: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits, target, reduction="none")


def mse(a: Tensor, b: Tensor) -> Tensor:
    return F.mse_loss(a, b, reduction="none")


def clipped(values: Tensor) -> Tensor:
    return torch.tensor([max(0.0, v) for v in values.tolist()], dtype=values.dtype)


INDEPENDENT: dict[str, tuple[Tensor, Tensor]] = {
    "minimax": (bce(R, ONE) + bce(FAKE, ZERO), -bce(FAKE, ZERO)),
    "non_saturating": (bce(R, ONE) + bce(FAKE, ZERO), bce(FAKE, ONE)),
    "smoothing": (bce(R, ALPHA * ONE) + bce(FAKE, ZERO), bce(FAKE, ONE)),
    "least_squares": ((mse(R, ONE) + mse(FAKE, ZERO)) / 2, mse(FAKE, ONE) / 2),
    "least_squares_pearson": ((mse(R, ONE) + mse(FAKE, -ONE)) / 2, mse(FAKE, ZERO) / 2),
    "hinge": (clipped(ONE - R) + clipped(ONE + FAKE), -FAKE),
    "wasserstein": (FAKE - R, -FAKE),
    "relativistic": (bce(R - FAKE, ONE), bce(FAKE - R, ONE)),
}


@pytest.mark.parametrize("name", CASES)
def test_exact_values_sample_by_sample(name: str) -> None:
    case = CASES[name]
    d, g = INDEPENDENT[name]
    pair = {"real": R, "fake": FAKE} if case.relativistic else {"fake": FAKE}
    torch.testing.assert_close(case.d(real=R, fake=FAKE), d, rtol=1e-14, atol=1e-15)
    torch.testing.assert_close(case.g(**pair), g, rtol=1e-14, atol=1e-15)


def test_softplus_is_exact_where_pytorchs_turns_linear() -> None:
    x = torch.tensor([-800.0, -30.0, -1.0, 0.0, 1.0, 19.0, 21.0, 25.0, 36.0, 800.0], dtype=torch.float64)
    exact = [v + math.log1p(math.exp(-v)) if v > 0 else math.log1p(math.exp(v)) for v in x.tolist()]
    torch.testing.assert_close(softplus(x), torch.tensor(exact, dtype=x.dtype), rtol=1e-15, atol=0)
    assert (F.softplus(x[7]) - exact[7]).abs() > 1e-12


def test_smoothing_acts_on_the_real_target_alone() -> None:
    """Softening the fakes' target too would make 0 the optimum at p = q, and .9 : .1 weights log(9 p/q)."""
    real, fake = torch.zeros((), dtype=torch.float64), FAKE[0]
    smooth, plain = CASES["smoothing"], CASES["non_saturating"]
    moved = smooth.d(real=real, fake=fake) - smooth.d(real=real, fake=ZERO[0])
    assert moved == plain.d(real=real, fake=fake) - plain.d(real=real, fake=ZERO[0])
    assert smooth.g is plain.g
    assert not smooth.relativistic


def test_an_objective_without_smoothing_is_the_named_one() -> None:
    for name in OBJECTIVES:
        assert objective(Loss(loss=name)) is OBJECTIVES[name]
        assert OBJECTIVES[name].relativistic == (name == "relativistic")
    for name in ("minimax", "non_saturating"):
        assert objective(Loss(loss=name, smoothing=0.7)).d(real=R, fake=FAKE) == pytest.approx(
            bce(R, 0.7 * ONE) + bce(FAKE, ZERO)
        )


def test_identities() -> None:
    """s(-f) = s(f) - f; L_G(r, f) = L_D(f, r) and L_G - L_D = r - f for the relativistic pair."""
    torch.testing.assert_close(softplus(-R), softplus(R) - R, rtol=0, atol=1e-15)
    rel = CASES["relativistic"]
    assert torch.equal(rel.g(real=R, fake=FAKE), rel.d(real=FAKE, fake=R))
    torch.testing.assert_close(rel.g(real=R, fake=FAKE) - rel.d(real=R, fake=FAKE), R - FAKE, rtol=0, atol=1e-14)


@pytest.mark.parametrize("name", CASES)
def test_a_constant_added_to_d_means_nothing_to_differences_alone(name: str) -> None:
    moved = CASES[name].d(real=R + 2, fake=FAKE + 2) - CASES[name].d(real=R, fake=FAKE)
    if name in ("relativistic", "wasserstein"):
        assert moved.abs().max() < 1e-14
    else:
        assert moved.abs().max() > 1e-3


def test_relativistic_pairs_of_a_class_leave_a_constant_free_in_each() -> None:
    """D*(x, y) = log(p_y / q_y) + c(y), and L_D = E_y [log 2 - JSD(p_y x q_y || q_y x p_y)]."""
    rel = CASES["relativistic"]
    classes = [(P, Q), (log_normal(GRID, 2.0).exp(), log_normal(GRID, 1.0, -0.2).exp())]
    stated = sum(math.log(2) - pair_jsd(p, q).item() for p, q in classes) / 2
    for constants in ((0.0, 0.0), (3.0, -1.0)):
        best = sum(expected_d(rel, (p / q).log() + c, p, q) for (p, q), c in zip(classes, constants, strict=True))
        assert float(best) / 2 == pytest.approx(stated, abs=1e-10)


def test_wasserstein_of_two_shifted_normals() -> None:
    for mu in (-1.5, 0.4):
        D = -math.copysign(1, mu) * GRID
        assert expected_d(CASES["wasserstein"], D, P, log_normal(GRID, mu).exp()).item() == pytest.approx(
            -abs(mu), abs=1e-12
        )


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


SLOPES: dict[str, Callable[[float], float]] = {  # dL_G/df
    "minimax": lambda f: -sigmoid(f),
    "non_saturating": lambda f: -sigmoid(-f),
    "smoothing": lambda f: -sigmoid(-f),
    "least_squares": lambda f: f - 1,
    "least_squares_pearson": lambda f: f,
    "hinge": lambda f: -1.0,
    "wasserstein": lambda f: -1.0,
    "relativistic": lambda f: -sigmoid(0.5 - f),
}
LIMITS = {  # at f = -inf, +inf
    "minimax": (0.0, -1.0),
    "non_saturating": (-1.0, 0.0),
    "smoothing": (-1.0, 0.0),
    "hinge": (-1.0, -1.0),
    "wasserstein": (-1.0, -1.0),
    "relativistic": (-1.0, 0.0),
}


@pytest.mark.parametrize("name", CASES)
def test_how_hard_the_generator_is_pushed(name: str) -> None:
    case = CASES[name]
    fake = torch.tensor([-40.0, -2.0, 0.0, 0.7, 3.0, 40.0], dtype=torch.float64, requires_grad=True)
    loss = case.g(real=torch.full_like(fake, 0.5), fake=fake) if case.relativistic else case.g(fake=fake)
    (slope,) = torch.autograd.grad(loss.sum(), fake)
    assert slope.tolist() == pytest.approx([SLOPES[name](f) for f in fake.tolist()], abs=1e-12)
    if name in LIMITS:
        assert (slope[0].item(), slope[-1].item()) == pytest.approx(LIMITS[name], abs=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients_are_finite_at_a_thousand(name: str, dtype: torch.dtype) -> None:
    case = CASES[name]
    corners = torch.tensor(list(product((-1e3, 1e3), (-1e3, 1e3))), dtype=dtype)
    real, fake = (corners[:, i].clone().requires_grad_() for i in (0, 1))
    g = case.g(real=real, fake=fake) if case.relativistic else case.g(fake=fake)
    for loss, inputs in ((case.d(real=real, fake=fake), (real, fake)), (g, (fake,))):
        assert loss.isfinite().all()
        assert loss.dtype == dtype
        for gradient in torch.autograd.grad(loss.sum(), inputs):
            assert gradient.isfinite().all()


@pytest.mark.parametrize("player", ["d", "g"])
@pytest.mark.parametrize("shapes", [((8,), (4,)), ((8,), (1,)), ((8,), (8, 1))])
def test_a_relativistic_loss_refuses_logits_that_are_no_pairs(player: str, shapes: Any) -> None:
    real, fake = map(torch.zeros, shapes)
    loss = getattr(OBJECTIVES["relativistic"], player)
    with pytest.raises(ValueError, match=re.escape(f"{[*shapes[0]]} and fake {[*shapes[1]]}")):
        loss(real=real, fake=fake)

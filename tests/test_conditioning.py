"""The heads and the class terms: formulas, targets, optima, and what each does to G where q = p already."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ptarmigan.config import Loss, resolve
from ptarmigan.core import dist
from ptarmigan.core.types import DiscriminatorOutput
from ptarmigan.losses.adversarial import OBJECTIVES
from ptarmigan.losses.conditioning import (
    HEADS,
    AuxiliaryClassifier,
    ConditionalDiscriminator,
    DiscriminativeClassifier,
    Head,
    Projection,
    ReACGAN,
    TwinClassifier,
    classification_d,
    classification_g,
    d2d_ce,
    discriminative_d,
    discriminative_g,
    twin_g,
)
from support import raises

N, FEATURES, K = 5, 6, 3
LABELS = torch.tensor([0, 2, 1, 2, 0])
ASKED = torch.tensor([1, 0, 2, 1, 2])  # differs from LABELS everywhere
GRID = torch.linspace(-9, 9, 361, dtype=torch.float64)
CELL = 18 / 360


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def normal(x: Tensor, mean: Tensor | float = 0.0, sd: Tensor | float = 1.0) -> Tensor:
    return torch.exp(-0.5 * ((x - mean) / sd) ** 2) / (sd * math.sqrt(2 * math.pi))


def by_hand(logits: Tensor, label: int) -> float:
    """-log softmax(logits)[label]"""
    weights = [math.exp(v) for v in logits.tolist()]
    return -math.log(weights[label] / sum(weights))


@pytest.mark.parametrize("conditioning", HEADS)
def test_what_each_head_gives(conditioning: str) -> None:
    head = HEADS[conditioning](FEATURES, K).double()
    with torch.no_grad():
        for seed, parameter in enumerate(head.parameters()):
            parameter.copy_(numbers(*parameter.shape, seed=10 + seed))
    features = numbers(N, FEATURES)
    source = [features[i] @ head.source.weight[0] + head.source.bias[0] for i in range(N)]
    output, other = head(features, LABELS), head(features, ASKED)
    assert output.features is features
    assert output.logits.shape == (N,)
    if isinstance(head, Projection):
        inner = [features[i] @ head.embedding.weight[LABELS[i]] for i in range(N)]
        torch.testing.assert_close(output.logits, torch.stack(source) + torch.stack(inner))
        assert (output.logits - other.logits).abs().min() > 1e-3
    else:
        torch.testing.assert_close(output.logits, torch.stack(source))
        assert torch.equal(output.logits, other.logits)
    given = {
        name for name in ("class_logits", "twin_logits", "embedding", "proxy") if getattr(output, name) is not None
    }
    assert given == {
        "auxiliary_classifier": {"class_logits"}, "twin_classifier": {"class_logits", "twin_logits"},
        "discriminative_classifier": {"class_logits"}, "reacgan": {"embedding", "proxy"},
    }.get(conditioning, set())  # fmt: skip
    for name, layer in (("class_logits", "classifier"), ("twin_logits", "twin")):
        if name in given:
            linear, logits = getattr(head, layer), getattr(output, name)
            torch.testing.assert_close(logits, features @ linear.weight.T + linear.bias)
            assert logits.shape == (N, 2 * K if conditioning == "discriminative_classifier" else K)
            assert torch.equal(logits, getattr(other, name))  # the label is not read
    if isinstance(head, ReACGAN):
        embedding, proxy = features @ head.embed.weight.T + head.embed.bias, head.proxies.weight[LABELS]
        for got, raw in ((output.embedding, embedding), (output.proxy, proxy)):
            assert got.shape == (N, 512)
            torch.testing.assert_close(got, raw / raw.square().sum(1, keepdim=True).sqrt())
        assert torch.equal(output.embedding, other.embedding)


def test_the_names_of_the_heads_and_of_their_parameters() -> None:
    """Checkpoints hold these: a name that changes is a file that is lost."""
    assert {
        "none": Head,
        "auxiliary_classifier": AuxiliaryClassifier,
        "projection": Projection,
        "twin_classifier": TwinClassifier,
        "discriminative_classifier": DiscriminativeClassifier,
        "reacgan": ReACGAN,
    } == HEADS
    source, classifier = ["source.weight", "source.bias"], ["classifier.weight", "classifier.bias"]
    assert {name: [n for n, _ in head(FEATURES, K).named_parameters()] for name, head in HEADS.items()} == {
        "none": source,
        "auxiliary_classifier": source + classifier,
        "projection": [*source, "embedding.weight"],
        "twin_classifier": [*source, *classifier, "twin.weight", "twin.bias"],
        "discriminative_classifier": source + classifier,
        "reacgan": [*source, "embed.weight", "embed.bias", "proxies.weight"],
    }


class Body(nn.Module):
    def forward(self, images: Tensor, masks: list[Tensor] | None = None) -> Tensor:
        return images.flatten(1) if masks is None else images.flatten(1) * masks[0]


def test_the_head_reads_the_body_and_the_masks_reach_it() -> None:
    D = ConditionalDiscriminator(Body(), FEATURES, K, "projection").double()
    images, mask = numbers(N, 1, 2, 3), (numbers(N, FEATURES, seed=1) > 0).double()
    torch.testing.assert_close(D(images, LABELS).logits, D.head(images.flatten(1), LABELS).logits)
    assert torch.equal(D(images, LABELS, [mask]).features, images.flatten(1) * mask)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_heads_work_in_at_least_fp32_under_autocast(dtype: torch.dtype) -> None:
    at_least = torch.promote_types(dtype, torch.float32)
    D = ConditionalDiscriminator(Body(), FEATURES, K, "auxiliary_classifier").to(at_least)
    images = numbers(N, 1, 2, 3).to(dtype)
    with torch.autocast("cpu", torch.bfloat16):
        output = D(images, LABELS)
    assert output.logits.dtype == output.class_logits.dtype == output.features.dtype == at_least
    torch.testing.assert_close(output.logits, D.head(images.flatten(1).to(at_least), LABELS).logits)


def test_targets_are_the_labels_of_the_reals_and_the_classes_asked_of_the_fakes() -> None:
    real, fake = numbers(N, K), numbers(N, K, seed=1)
    ce_real = [by_hand(real[i], int(LABELS[i])) for i in range(N)]
    ce_fake = [by_hand(fake[i], int(ASKED[i])) for i in range(N)]
    labels = {"real_labels": LABELS, "fake_labels": ASKED}
    both = [a + b for a, b in zip(ce_real, ce_fake, strict=True)]
    assert classification_d(real, fake, **labels).tolist() == pytest.approx(both)
    assert classification_d(real, fake, **labels, fakes=True).tolist() == pytest.approx(both)
    assert classification_d(real, fake, **labels, fakes=False).tolist() == pytest.approx(ce_real)
    assert classification_g(fake, fake_labels=ASKED).tolist() == pytest.approx(ce_fake)


def test_without_fakes_no_gradient_reaches_them() -> None:
    real, fake = numbers(N, K).requires_grad_(), numbers(N, K, seed=1).requires_grad_()
    loss = classification_d(real, fake, real_labels=LABELS, fake_labels=ASKED, fakes=False)
    assert torch.autograd.grad(loss.sum(), fake, allow_unused=True) == (None,)


def test_an_always_right_class_logit_costs_nothing() -> None:
    """A softmax before the cross-entropy would leave log(1 + 9/e) = 1.461 for ten classes."""
    labels = torch.arange(10)
    right, wrong = 1e3 * torch.eye(10), 1e3 * torch.eye(10).roll(1, 0)
    assert classification_g(right, fake_labels=labels).abs().max() == 0
    assert classification_d(right, right, real_labels=labels, fake_labels=labels).abs().max() == 0
    assert classification_g(wrong, fake_labels=labels).min() == 1e3
    copied = F.cross_entropy(right.softmax(1), labels, reduction="none")
    assert copied.tolist() == pytest.approx([math.log(1 + 9 / math.e)] * 10)


# A tabular world: an image is one of four places, p(x, y) and q(x, y) are tables [4, 2].
P = torch.tensor([[4.0, 1], [2, 2], [1, 3], [1, 2]], dtype=torch.float64) / 16
Q = torch.tensor([[1.0, 1], [5, 1], [2, 2], [1, 3]], dtype=torch.float64) / 16


@pytest.mark.parametrize("fakes", [True, False])
def test_the_optimal_classifier_is_the_posterior_of_what_it_is_trained_on(fakes: bool) -> None:
    """p(y|x) on reals alone; (p(x,y) + q(x,y)) / (p(x) + q(x)) on both: there the gradient is 0."""
    joint = P + Q if fakes else P
    logits = joint.log().requires_grad_()
    real, fake = torch.cartesian_prod(torch.arange(8), torch.arange(8)).T  # every pair of (x, y) and (x', y')
    weights = P.flatten()[real] * Q.flatten()[fake]

    def expected(table: Tensor) -> Tensor:
        loss = classification_d(
            table[real // 2], table[fake // 2], real_labels=real % 2, fake_labels=fake % 2, fakes=fakes
        )
        return (weights * loss).sum()

    best = expected(logits)
    (gradient,) = torch.autograd.grad(best, logits)
    assert gradient.abs().max() < 1e-15
    for seed in range(4):
        assert expected(logits + 0.1 * numbers(4, 2, seed=seed)) > best


def acgan_class_term(mean: Tensor, log_sd: Tensor, shift: Tensor) -> Tensor:
    """E CE(c(G(z, y)), y), c = log p(y|x) of classes N(+-1, 1), G(z, y) = +-mean + shift + sd z."""
    total = torch.zeros((), dtype=torch.float64)
    for y, sign in enumerate((-1, 1)):
        x = sign * mean + shift + log_sd.exp() * GRID
        logits = torch.stack([-x, x], 1)  # log p(y|x) up to a constant: log p(x|y) = +-x - (x^2 + 1)/2
        ce = classification_g(logits, fake_labels=torch.full((len(GRID),), y))
        total = total + 0.5 * (normal(GRID) * ce).sum() * CELL
    return total


def test_acgan_pushes_a_perfect_generator_away() -> None:
    """At q = p its class term shrinks the spread and drives the classes apart; a common shift does nothing."""
    theta = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(acgan_class_term(*theta), theta)
    assert gradient.tolist() == pytest.approx([-0.4496, 0.4496, 0.0], abs=5e-5)


def test_acgans_class_term_is_a_divergence_plus_an_entropy() -> None:
    """With C trained on reals: KL(q(y|x) || p(y|x)) + H_q(Y|X), and it is this H that shrinks the classes."""
    mean, sd = torch.tensor(1.4, dtype=torch.float64), torch.tensor(0.8, dtype=torch.float64)
    q = 0.5 * torch.stack([normal(GRID, -mean, sd), normal(GRID, mean, sd)])
    p = 0.5 * torch.stack([normal(GRID, -1.0), normal(GRID, 1.0)])
    q_y, p_y = q / q.sum(0), p / p.sum(0)
    divergence = (q * (q_y / p_y).log()).sum() * CELL
    entropy = -(q * q_y.log()).sum() * CELL
    got = acgan_class_term(mean, sd.log(), torch.tensor(0.0, dtype=torch.float64))
    assert got.item() == pytest.approx((divergence + entropy).item(), abs=1e-9)


def projection_optimum(mean: float, sd: float) -> tuple[Projection, Tensor]:
    """A head on features (1, x, x^2) set to log p(x, y)/q(x, y), p = N(+-1, 1), q = N(+-mean, sd^2)."""
    head = Projection(3, 2).double()
    square, slope = 0.5 / sd**2 - 0.5, 1 - mean / sd**2
    table = torch.tensor([[0.0, -slope, 0.0], [0.0, slope, 0.0]], dtype=torch.float64)
    constant = math.log(sd) - 0.5 + 0.5 * (mean / sd) ** 2
    with torch.no_grad():
        head.source.weight.copy_(torch.tensor([[0.0, 0.0, square]], dtype=torch.float64))
        head.source.bias.fill_(constant)
        head.embedding.weight.copy_(table)
    return head, torch.stack([torch.ones_like(GRID), GRID, GRID**2], 1)


def test_the_projection_optimum_is_the_log_ratio_of_the_joint_densities() -> None:
    mean, sd = 0.6, 1.2
    head, features = projection_optimum(mean, sd)
    loss = torch.zeros((), dtype=torch.float64)
    for y, sign in enumerate((-1, 1)):
        labels = torch.full((len(GRID),), y)
        logits = head(features, labels).logits
        p, q = normal(GRID, sign), normal(GRID, sign * mean, sd)
        torch.testing.assert_close(logits, (p / q).log())
        # real and fake at the same place: the sum over pairs is the sum over each, since d splits
        d = OBJECTIVES["non_saturating"].d
        zero = torch.zeros_like(logits)
        halves = p * d(real=logits, fake=zero) + q * d(real=zero, fake=logits)
        loss = loss + 0.5 * halves.sum() * CELL
    for gradient in torch.autograd.grad(loss, list(head.parameters())):
        assert gradient.abs().max() < 1e-10


def test_projection_leaves_a_perfect_generator_alone() -> None:
    """At q = p its optimum is 0 whatever the class; there is no class term, and G's gradient is 0."""
    head, _ = projection_optimum(1.0, 1.0)
    theta = torch.tensor([1.0, 0.0], dtype=torch.float64, requires_grad=True)
    loss = torch.zeros((), dtype=torch.float64)
    for y, sign in enumerate((-1, 1)):
        x = sign * theta[0] + theta[1].exp() * GRID
        output = head(torch.stack([torch.ones_like(x), x, x**2], 1), torch.full((len(x),), y))
        assert output.class_logits is None
        loss = loss + 0.5 * (normal(GRID) * OBJECTIVES["non_saturating"].g(fake=output.logits)).sum() * CELL
    assert torch.autograd.grad(loss, theta)[0].tolist() == [0, 0]


# ---------------------------------------------------------------------------- TAC and ADC


def output(**given: Tensor) -> DiscriminatorOutput:
    nothing = torch.zeros(0)
    return DiscriminatorOutput(nothing, nothing, **given)


def test_the_targets_of_tac_and_adc() -> None:
    """Each sample's own: C's on reals, T's on fakes; y+ on reals, y- on fakes; G's difference of the two."""
    labels = {"real_labels": LABELS, "fake_labels": ASKED, "loss": Loss()}
    c, t, c_fake, t_fake = (numbers(N, K, seed=seed) for seed in range(4))
    tac = HEADS["twin_classifier"]
    got = tac.d_term(output(class_logits=c, twin_logits=t), output(class_logits=c_fake, twin_logits=t_fake), **labels)
    want = [by_hand(c[i], int(LABELS[i])) + by_hand(t_fake[i], int(ASKED[i])) for i in range(N)]
    assert got.tolist() == pytest.approx(want)
    got = tac.g_term(output(class_logits=c_fake, twin_logits=t_fake), fake_labels=ASKED, loss=Loss())
    want = [by_hand(c_fake[i], int(ASKED[i])) - by_hand(t_fake[i], int(ASKED[i])) for i in range(N)]
    assert got.tolist() == pytest.approx(want)

    c, c_fake = numbers(N, 2 * K, seed=4), numbers(N, 2 * K, seed=5)
    adc = HEADS["discriminative_classifier"]
    got = adc.d_term(output(class_logits=c), output(class_logits=c_fake), **labels)
    want = [by_hand(c[i], int(LABELS[i])) + by_hand(c_fake[i], K + int(ASKED[i])) for i in range(N)]
    assert got.tolist() == pytest.approx(want)
    got = adc.g_term(output(class_logits=c_fake), fake_labels=ASKED, loss=Loss())
    want = [by_hand(c_fake[i], int(ASKED[i])) - by_hand(c_fake[i], K + int(ASKED[i])) for i in range(N)]
    assert got.tolist() == pytest.approx(want)


def test_always_right_classifiers_of_tac_and_adc_cost_d_nothing() -> None:
    labels = torch.arange(10)
    right, wrong = 1e3 * torch.eye(10), 1e3 * torch.eye(10).roll(1, 0)
    of = {"real_labels": labels, "fake_labels": labels, "loss": Loss()}
    tac = TwinClassifier.d_term(
        output(class_logits=right, twin_logits=wrong), output(class_logits=wrong, twin_logits=right), **of
    )
    assert tac.abs().max() == 0
    none = torch.zeros(10, 10)
    real, fake = torch.cat([right, none], 1), torch.cat([none, right], 1)
    assert DiscriminativeClassifier.d_term(output(class_logits=real), output(class_logits=fake), **of).abs().max() == 0
    for logits in (fake, torch.cat([wrong, none], 1)):  # a fake called a real one, and called one of another class
        of_real = DiscriminativeClassifier.d_term(output(class_logits=logits), output(class_logits=fake), **of)
        assert of_real.min() == 1e3


def best_logits(conditioning: str) -> dict[str, Tensor]:
    """What D's class heads come to in the tabular world: C = p(y|x) and T = q(y|x); p(x, y) and q(x, y)."""
    if conditioning == "twin_classifier":
        return {"class_logits": P.log(), "twin_logits": Q.log()}
    return {"class_logits": torch.cat([P, Q], 1).log()}


def expected_d(conditioning: str, tables: dict[str, Tensor]) -> Tensor:
    """E of D's class term over every pair of (x, y) from p and (x', y') from q."""
    real, fake = torch.cartesian_prod(torch.arange(8), torch.arange(8)).T
    term = HEADS[conditioning].d_term(
        output(**{name: table[real // 2] for name, table in tables.items()}),
        output(**{name: table[fake // 2] for name, table in tables.items()}),
        real_labels=real % 2, fake_labels=fake % 2, loss=Loss(),
    )  # fmt: skip
    return (P.flatten()[real] * Q.flatten()[fake] * term).sum()


@pytest.mark.parametrize("conditioning", ["twin_classifier", "discriminative_classifier"])
def test_the_optimal_heads_of_tac_and_adc(conditioning: str) -> None:
    """There D's gradient is 0 and its term an entropy; every other table costs more."""
    tables = {name: table.requires_grad_() for name, table in best_logits(conditioning).items()}
    best = expected_d(conditioning, tables)
    for gradient in torch.autograd.grad(best, list(tables.values())):
        assert gradient.abs().max() < 1e-15
    if conditioning == "twin_classifier":  # H_p(Y|X) + H_q(Y|X)
        entropy = -(P * (P / P.sum(1, keepdim=True)).log() + Q * (Q / Q.sum(1, keepdim=True)).log()).sum()
    else:  # of label and source, given x
        both = (P + Q).sum(1, keepdim=True)
        entropy = -(P * (P / both).log() + Q * (Q / both).log()).sum()
    assert best.item() == pytest.approx(entropy.item(), abs=1e-14)
    for name, table in tables.items():
        for seed in range(4):
            assert expected_d(conditioning, tables | {name: table + 0.1 * numbers(*table.shape, seed=seed)}) > best
        moved = tables | {name: table + numbers(4, 1)}  # the same answers: a softmax does not see this
        assert expected_d(conditioning, moved).item() == pytest.approx(best.item(), abs=1e-14)


REAL_WORLD = (1.0, 0.0, 0.0)  # mean, log sd and common shift of the data: classes N(+-1, 1)


def log_joint(x: Tensor, world: Tensor | tuple[float, ...]) -> Tensor:
    """log p(x, y) of classes N(+-mean + shift, sd^2) with equal priors: [..., 2] at x [...]."""
    mean, log_sd, shift = torch.as_tensor(world, dtype=torch.float64)
    places = torch.stack([shift - mean, shift + mean])
    deviations = (x.unsqueeze(-1) - places) / log_sd.exp()
    return -0.5 * deviations.square() - log_sd - 0.5 * math.log(2 * math.pi) - math.log(2)


def optimal_head(conditioning: str, world: tuple[float, ...]) -> nn.Module:
    """The shipped head on features (1, x, x^2), at its best response to G's `world`."""

    def quadratic(of: tuple[float, ...]) -> Tensor:  # the weights [2, 3] of log p(x, y), by three points
        at = torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64)
        low, zero, high = log_joint(at, of)
        return torch.stack([zero, (high - low) / 2, (high + low) / 2 - zero], 1)

    p, q = quadratic(REAL_WORLD), quadratic(world)
    head = HEADS[conditioning](3, 2).double()
    weights = {"auxiliary_classifier": {"classifier": p}, "twin_classifier": {"classifier": p, "twin": q}}
    weights["discriminative_classifier"] = {"classifier": torch.cat([p, q])}
    with torch.no_grad():
        for name, weight in weights[conditioning].items():
            getattr(head, name).weight.copy_(weight)
            getattr(head, name).bias.zero_()
    return head


def g_term(conditioning: str, theta: Tensor, at: tuple[float, ...]) -> Tensor:
    """E of G's class term, G(z, y) = +-mean + shift + sd z of `theta`, against the head that is best at `at`."""
    head = optimal_head(conditioning, at)
    mean, log_sd, shift = theta
    total = torch.zeros((), dtype=torch.float64)
    for y, sign in enumerate((-1, 1)):
        x = sign * mean + shift + log_sd.exp() * GRID
        labels = torch.full((len(x),), y)
        made = head(torch.stack([torch.ones_like(x), x, x**2], 1), labels)
        term = head.g_term(made, fake_labels=labels, loss=Loss())
        total = total + 0.5 * (normal(GRID) * term).sum() * CELL
    return total


def slope_at(conditioning: str, world: tuple[float, ...]) -> list[float]:
    """The gradient of G's class term at `world`, against the head that is best there and is held still."""
    theta = torch.tensor(world, dtype=torch.float64, requires_grad=True)
    return torch.autograd.grad(g_term(conditioning, theta, world), theta)[0].tolist()


def test_what_separates_them_is_what_they_do_to_a_perfect_generator() -> None:
    """At q = p on overlapping classes: (d mean, d log sd, d shift) of G's class term."""
    assert slope_at("auxiliary_classifier", REAL_WORLD) == pytest.approx([-0.4496, 0.4496, 0], abs=5e-5)
    for conditioning in ("twin_classifier", "discriminative_classifier"):
        assert slope_at(conditioning, REAL_WORLD) == pytest.approx([0, 0, 0], abs=1e-12)


def test_the_half_of_adcs_term_that_resembles_acgans_does_the_same() -> None:
    """-log C(y+|x) alone, against the best C at q = p."""
    head = optimal_head("discriminative_classifier", REAL_WORLD)
    theta = torch.tensor(REAL_WORLD, dtype=torch.float64, requires_grad=True)
    total = torch.zeros((), dtype=torch.float64)
    for y, sign in enumerate((-1, 1)):
        x = sign * theta[0] + theta[2] + theta[1].exp() * GRID
        labels = torch.full((len(x),), y)
        logits = head(torch.stack([torch.ones_like(x), x, x**2], 1), labels).class_logits
        total = total + 0.5 * (normal(GRID) * classification_g(logits, fake_labels=labels)).sum() * CELL
    (gradient,) = torch.autograd.grad(total, theta)
    assert gradient.tolist() == pytest.approx([-0.4496, 0.4496, 0], abs=5e-5)


def divergence(conditioning: str, theta: Tensor) -> Tensor:
    """KL(q(y|x) || p(y|x)), which TAC leaves, or KL(q(x, y) || p(x, y)), which ADC does, by quadrature."""
    x = torch.linspace(-12, 12, 4801, dtype=torch.float64)
    p, q = log_joint(x, REAL_WORLD), log_joint(x, theta)
    ratio = q - p
    if conditioning == "twin_classifier":
        ratio = q.log_softmax(1) - p.log_softmax(1)
    return (q.exp() * ratio).sum() * (x[1] - x[0])


@pytest.mark.parametrize("world", [(1.4, math.log(0.8), 0.3), (0.6, math.log(1.3), -0.2)])
@pytest.mark.parametrize("conditioning", ["twin_classifier", "discriminative_classifier"])
def test_tac_and_adc_leave_a_divergence_and_no_entropy(conditioning: str, world: tuple[float, ...]) -> None:
    """Value and gradient, the heads at their best and held still."""
    theta = torch.tensor(world, dtype=torch.float64, requires_grad=True)
    left = divergence(conditioning, theta)
    assert left > 0.01
    assert g_term(conditioning, theta.detach(), world).item() == pytest.approx(left.item(), abs=1e-9)
    (gradient,) = torch.autograd.grad(left, theta)
    assert gradient.abs().min() > 1e-2
    assert slope_at(conditioning, world) == pytest.approx(gradient.tolist(), abs=1e-9)


def test_adc_at_its_optimum_in_the_tabular_world() -> None:
    """Unequal priors and marginals: E_q of G's term is KL(q(x, y) || p(x, y))."""
    made = torch.arange(8)
    term = discriminative_g(torch.cat([P, Q], 1).log()[made // 2], fake_labels=made % 2)
    assert (Q.flatten() * term).sum().item() == pytest.approx((Q * (Q / P).log()).sum().item(), abs=1e-15)


# ---------------------------------------------------------------------------- D2D-CE


def unit(*shape: int, seed: int = 0) -> Tensor:
    return F.normalize(numbers(*shape, seed=seed), dim=1)


def batch_of(count: int, classes: int, length: int = 5) -> tuple[Tensor, Tensor, Tensor]:
    """Embeddings, their proxies and labels of a random batch."""
    labels = torch.arange(count) * 7 % classes
    return unit(count, length), unit(classes, length, seed=1)[labels], labels


def double_loop(h: Tensor, v: Tensor, labels: Tensor, margin: float, temperature: float) -> list[float]:
    out = []
    for i in range(len(h)):
        a = min(float(h[i] @ v[i]) - margin, 0) / temperature
        under = math.exp(a)
        for j in range(len(h)):
            if j != i and labels[j] != labels[i]:
                under += math.exp(max(float(h[i] @ h[j]) - (1 - margin), 0) / temperature)
        out.append(-a + math.log(under))
    return out


@pytest.mark.parametrize(("margin", "temperature"), [(0.98, 0.5), (0.3, 0.5), (0.6, 0.1)])
def test_d2d_ce_is_the_double_loop(margin: float, temperature: float) -> None:
    h, v, labels = batch_of(12, 4)
    got = d2d_ce(h, v, labels, margin=margin, temperature=temperature)
    assert got.shape == (12,)
    assert got.tolist() == pytest.approx(double_loop(h, v, labels, margin, temperature), abs=1e-12)


def test_d2d_ce_of_the_reals_for_d_and_of_the_fakes_for_g() -> None:
    loss = Loss(class_margin=0.4, class_temperature=0.3)
    real = output(embedding=unit(N, 5), proxy=unit(N, 5, seed=1))
    fake = output(embedding=unit(N, 5, seed=2), proxy=unit(N, 5, seed=3))
    got = ReACGAN.d_term(real, fake, real_labels=LABELS, fake_labels=ASKED, loss=loss)
    assert got.tolist() == pytest.approx(double_loop(real.embedding, real.proxy, LABELS, 0.4, 0.3))
    got = ReACGAN.g_term(fake, fake_labels=ASKED, loss=loss)
    assert got.tolist() == pytest.approx(double_loop(fake.embedding, fake.proxy, ASKED, 0.4, 0.3))


def test_a_rank_contrasts_its_share_with_the_shares_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    h, v, labels = batch_of(12, 4)
    fields = {"margin": 0.6, "temperature": 0.5}
    whole = d2d_ce(h, v, labels, **fields)
    for share in (slice(0, 6), slice(6, 12)):
        alone = d2d_ce(h[share], v[share], labels[share], **fields)
        with monkeypatch.context() as patch:
            patch.setattr(dist, "gather", lambda rows: h if rows.ndim == 2 else labels.float())
            torch.testing.assert_close(d2d_ce(h[share], v[share], labels[share], **fields), whole[share])
        assert (alone - whole[share]).abs().min() > 1e-3


def test_the_floor_of_d2d_ce_is_log_of_one_plus_the_others_and_flat() -> None:
    """Each image at its class's proxy, proxies at right angles; n images of other classes."""
    labels = torch.tensor([0, 0, 0, 1, 1, 2])
    h = torch.eye(3, dtype=torch.float64)[labels].requires_grad_()
    v = torch.eye(3, dtype=torch.float64)[labels].requires_grad_()
    loss = d2d_ce(h, v, labels, margin=0.98, temperature=0.5)
    others = [3, 3, 3, 4, 4, 5]
    assert loss.tolist() == pytest.approx([math.log(1 + n) for n in others], abs=1e-15)
    for gradient in torch.autograd.grad(loss.sum(), (h, v)):
        assert gradient.abs().max() == 0
    assert (d2d_ce(unit(6, 3), v, labels, margin=0.98, temperature=0.5) >= loss - 1e-12).all()  # nowhere lower


def test_d2d_ce_of_a_batch_of_one_class_is_nothing() -> None:
    h, v = unit(6, 5).requires_grad_(), unit(6, 5, seed=1).requires_grad_()
    loss = d2d_ce(h, v, torch.full((6,), 2), margin=0.98, temperature=0.5)
    assert loss.tolist() == [0] * 6
    for gradient in torch.autograd.grad(loss.sum(), (h, v)):
        assert gradient.abs().max() < 1e-15


def test_the_maximum_taken_from_the_negatives_alone_is_another_loss() -> None:
    """A well-known implementation; with the maximum taken from all terms, and put back, it is this one."""
    h, v, labels = batch_of(64, 10, 128)
    a = ((h * v).sum(1) - 0.98).clamp(max=0) / 0.5
    b = (h @ h.T - 0.02).clamp(min=0) / 0.5
    negatives = (labels.unsqueeze(1) != labels).double()
    top = (b * negatives).amax(1)

    def total(shift_of_a: Tensor, put_back: Tensor) -> float:
        under = (a - shift_of_a).exp() + (negatives * (b - top.unsqueeze(1)).exp()).sum(1)
        return (-a + under.log() + put_back).mean().item()

    shipped = d2d_ce(h, v, labels, margin=0.98, temperature=0.5).mean().item()
    assert total(top, top) == pytest.approx(shipped, abs=1e-12)
    assert abs(total(0 * top, 0 * top) - shipped) > 0.1


# ---------------------------------------------------------------------------- extremes


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_class_terms_are_finite_where_logits_are_not_small(dtype: torch.dtype) -> None:
    labels = torch.arange(6) % 3
    signs = torch.sign(numbers(6, 6)).to(dtype)

    def check(function: Callable[..., Tensor], *inputs: Tensor) -> None:
        inputs = tuple(value.detach().requires_grad_() for value in inputs)
        loss = function(*inputs)
        assert loss.shape == (6,)
        assert loss.isfinite().all()
        for gradient in torch.autograd.grad(loss.float().sum(), inputs):
            assert gradient.isfinite().all()

    for scale in (1e3, -1e3):
        big, other = scale * signs[:, :3], scale * signs[:, 3:]
        check(lambda c, t: twin_g(c, t, fake_labels=labels), big, other)
        check(
            lambda c, f: discriminative_d(c, f, real_labels=labels, fake_labels=labels), scale * signs, -scale * signs
        )
        check(lambda f: discriminative_g(f, fake_labels=labels), scale * signs)
        check(lambda h, v: d2d_ce(h, v, labels, margin=0.98, temperature=0.5), big, other)
        check(lambda h, v: d2d_ce(h, v, labels, margin=0.98, temperature=0.01), F.normalize(big), F.normalize(other))


@pytest.mark.parametrize("conditioning", HEADS)
def test_heads_on_features_that_are_large_or_nothing(conditioning: str) -> None:
    head = HEADS[conditioning](FEATURES, K)
    for scale in (0.0, 1e3):
        features = (scale * numbers(N, FEATURES)).float().requires_grad_()
        real, fake = head(features, LABELS), head(features, ASKED)
        loss = (real.logits - fake.logits).sum()
        d = head.d_term(real, fake, real_labels=LABELS, fake_labels=ASKED, loss=Loss())
        g = head.g_term(fake, fake_labels=ASKED, loss=Loss())
        assert (d is None) == (g is None) == (conditioning in ("none", "projection"))
        if d is not None:
            loss = loss + d.sum() + g.sum()
        assert loss.isfinite()
        for gradient in torch.autograd.grad(loss, [features, *head.parameters()]):
            assert gradient.isfinite().all()


# ---------------------------------------------------------------------------- refusals


def test_fields_of_another_conditioning_are_refused() -> None:
    for conditioning in HEADS:
        for field, value, meant in (
            ("class_fake", False, ("auxiliary_classifier", "none")),
            ("class_margin", 0.9, ("reacgan", "none")),
            ("class_temperature", 0.3, ("reacgan", "none")),
        ):
            if conditioning in meant:
                resolve({"conditioning": conditioning, field: value})
            else:
                with raises("options-conflict", field, value, conditioning):
                    resolve({"conditioning": conditioning, field: value})


def test_a_contrast_is_not_taken_over_parts_of_a_batch() -> None:
    resolve({"conditioning": "twin_classifier", "micro_batch": 8})
    resolve({"conditioning": "reacgan", "micro_batch": 0})
    with raises("options-conflict", "micro_batch: 8", "reacgan", "--batch"):
        resolve({"conditioning": "reacgan", "micro_batch": 8})


@pytest.mark.parametrize(("field", "value"), [("class_temperature", 0), ("class_margin", 1.1), ("class_margin", -0.1)])
def test_a_margin_is_a_cosine_and_a_temperature_above_zero(field: str, value: float) -> None:
    with raises("value-out-of-range", field, float(value)):
        resolve({"conditioning": "reacgan", field: value})

"""The heads and the class terms: formulas, targets, optima, and what each does to G where q = p already."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ptarmigan.conditioning import (
    HEADS,
    AuxiliaryClassifier,
    ConditionalDiscriminator,
    Projection,
    Unconditional,
    classification_d,
    classification_g,
)
from ptarmigan.losses import OBJECTIVES

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
        inner = [features[i] @ head.embedding.weight[LABELS[i]] / math.sqrt(FEATURES) for i in range(N)]
        torch.testing.assert_close(output.logits, torch.stack(source) + torch.stack(inner))
        assert (output.logits - other.logits).abs().min() > 1e-3
    else:
        torch.testing.assert_close(output.logits, torch.stack(source))
        assert torch.equal(output.logits, other.logits)
    if isinstance(head, AuxiliaryClassifier):
        logits = features @ head.classifier.weight.T + head.classifier.bias
        torch.testing.assert_close(output.class_logits, logits)
        assert output.class_logits.shape == (N, K)
        assert torch.equal(output.class_logits, other.class_logits)
    else:
        assert output.class_logits is None


def test_the_names_of_the_heads() -> None:
    assert {
        "none": Unconditional,
        "auxiliary_classifier": AuxiliaryClassifier,
        "projection": Projection,
    } == HEADS


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


def test_where_acgan_leads_overlapping_classes() -> None:
    """2 JSD of the marginals + .5 of the class term: stationary at mean 1.298, sd .785 instead of 1, 1."""

    def total(theta: Tensor) -> Tensor:
        q = 0.5 * (normal(GRID, -theta[0], theta[1].exp()) + normal(GRID, theta[0], theta[1].exp()))
        p = 0.5 * (normal(GRID, -1.0) + normal(GRID, 1.0))
        m = (p + q) / 2
        jsd2 = ((p * (p / m).log() + q * (q / m).log()).sum()) * CELL
        return jsd2 + 0.5 * acgan_class_term(theta[0], theta[1], theta[0] * 0)

    def slope(mean: float, sd: float) -> list[float]:
        theta = torch.tensor([mean, math.log(sd)], dtype=torch.float64, requires_grad=True)
        return torch.autograd.grad(total(theta), theta)[0].tolist()

    assert slope(1.298, 0.785) == pytest.approx([0, 0], abs=1e-3)
    assert max(map(abs, slope(1, 1))) > 0.2


def projection_optimum(mean: float, sd: float) -> tuple[Projection, Tensor]:
    """A head on features (1, x, x^2) set to log p(x, y)/q(x, y), p = N(+-1, 1), q = N(+-mean, sd^2)."""
    head = Projection(3, 2).double()
    square, slope = 0.5 / sd**2 - 0.5, 1 - mean / sd**2
    table = torch.tensor([[0.0, -slope, 0.0], [0.0, slope, 0.0]], dtype=torch.float64)
    constant = math.log(sd) - 0.5 + 0.5 * (mean / sd) ** 2
    with torch.no_grad():
        head.source.weight.copy_(torch.tensor([[0.0, 0.0, square]], dtype=torch.float64))
        head.source.bias.fill_(constant)
        head.embedding.weight.copy_(table * math.sqrt(3))
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

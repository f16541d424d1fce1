"""The shipped steps: whom they change, through what, by exactly how much; and where the game goes near its end.

Every update is compared with one written here by hand: heads from their weights, losses from their formulas,
each sample's gradient penalty from its own Jacobian, plain gradient descent.  The fakes' labels y' differ
from the reals' y everywhere.  What becomes of whole games is in test_solved.py.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

import ptarmigan.losses.conditioning as conditioning_module
from ptarmigan.config import Config, Loss, Model, resolve
from ptarmigan.core.types import Batch, DiscriminatorOutput, ImageSpec
from ptarmigan.game.optim import adam
from ptarmigan.game.state import TrainState
from ptarmigan.game.step import d_step, g_step, generate
from ptarmigan.losses.adversarial import OBJECTIVES, Objective, objective
from ptarmigan.losses.conditioning import HEADS, ConditionalDiscriminator, Head
from support import GivenDraws, raises

N, K, SHAPE, F, Z, HIDDEN = 6, 3, (2, 3, 2), 12, 4, 5
Y = torch.tensor([0, 1, 2, 2, 1, 0])
ASKED = (Y + torch.tensor([1, 2, 1, 2, 1, 2])) % K  # y', never y
RATE = 0.3


def numbers(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(autouse=True)
def short_embeddings(monkeypatch: pytest.MonkeyPatch) -> None:
    """In few dimensions random directions are near as well as far, so that reacgan's margins cut on both sides."""
    monkeypatch.setattr(conditioning_module, "EMBEDDING", 4)


class Generator(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(K, Z)
        self.layer = nn.Linear(Z, F)

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        return self.layer(z + self.embedding(labels)).tanh().view(-1, *SHAPE)


class Body(nn.Module):
    """Smooth, so that every penalty bends it; one mask on its hidden layer."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(F, HIDDEN)

    def forward(self, images: Tensor, masks: list[Tensor] | None = None) -> Tensor:
        hidden = self.layer(images.flatten(1)).tanh()
        return hidden if masks is None else hidden * masks[0]


def state(loss: Loss, conditioning: str = "projection", make: Callable[..., Any] | None = None) -> TrainState:
    config = replace(Config(), loss=loss, model=replace(Model(), conditioning=conditioning))
    G, D = Generator().double(), ConditionalDiscriminator(Body(), HIDDEN, K, conditioning).double()
    with torch.no_grad():
        for seed, parameter in enumerate([*G.parameters(), *D.parameters()]):
            parameter.copy_(numbers(*parameter.shape, seed=100 + seed) / 2)
    make = make or (lambda parameters: torch.optim.SGD(parameters, lr=RATE, fused=True))
    return TrainState(
        config, ImageSpec(3, 2, 2, ("a", "b", "c")), G, D, copy.deepcopy(G), make(G.parameters()),
        make(D.parameters()), objective(loss), torch.zeros(()),
    )  # fmt: skip


class Play(NamedTuple):
    real: Batch
    fake: Batch
    masks: tuple[list[Tensor], list[Tensor]]
    u: Tensor

    @property
    def draws(self) -> GivenDraws:
        return GivenDraws(mix=self.u, halves=self.masks)


def play(of: TrainState, real_seed: int = 1, z_seed: int = 2) -> Play:
    masks = tuple([(numbers(N, HIDDEN, seed=s) > 0).double() + 0.5] for s in (3, 4))
    real = Batch(numbers(N, *SHAPE, seed=real_seed).tanh(), Y)
    fake = Batch(of.G(numbers(N, Z, seed=z_seed), ASKED), ASKED)
    return Play(real, fake, masks, torch.tensor([0.1, 0.9, 0.3, 0.5, 0.7, 0.2], dtype=torch.float64))


# ---------------------------------------------------------------------------- the reference, by hand


def by_hand_logits(D: nn.Module, images: Tensor, labels: Tensor, mask: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """The logits, and what the heads on the class give, by their names."""
    w = dict(D.named_parameters())
    h = (images.flatten(1) @ w["body.layer.weight"].T + w["body.layer.bias"]).tanh() * mask
    logits = h @ w["head.source.weight"][0] + w["head.source.bias"][0]
    if "head.embedding.weight" in w:
        logits = logits + torch.stack([h[i] @ w["head.embedding.weight"][labels[i]] for i in range(N)])
    linear = {
        name: h @ w[f"head.{name}.weight"].T + w[f"head.{name}.bias"]
        for name in ("classifier", "twin", "embed")
        if f"head.{name}.weight" in w
    }
    if "embed" in linear:
        linear["proxy"] = torch.stack([w["head.proxies.weight"][labels[i]] for i in range(N)])
    return logits, linear


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    return torch.stack([logits[i].logsumexp(0) - logits[i, labels[i]] for i in range(N)]).mean()


def cosine(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum() / ((a * a).sum() * (b * b).sum()).sqrt()


def contrast_by_hand(c: dict[str, Tensor], labels: Tensor, loss: Loss) -> Tensor:
    """D2D-CE over the batch, a pair of images at a time."""
    total = torch.zeros((), dtype=torch.float64)
    for i in range(N):
        a = torch.clamp(cosine(c["embed"][i], c["proxy"][i]) - loss.class_margin, max=0) / loss.class_temperature
        under = a.exp()
        for j in range(N):
            if labels[i] != labels[j]:
                near = cosine(c["embed"][i], c["embed"][j]) - 1 + loss.class_margin
                under = under + (torch.clamp(near, min=0) / loss.class_temperature).exp()
        total = total - a + under.log()
    return total / N


def class_term_d(conditioning: str, loss: Loss, c: dict[str, Tensor], c_fake: dict[str, Tensor]) -> Tensor | None:
    match conditioning:
        case "auxiliary_classifier":
            ce = cross_entropy(c["classifier"], Y)
            return ce + cross_entropy(c_fake["classifier"], ASKED) if loss.class_fake else ce
        case "twin_classifier":
            return cross_entropy(c["classifier"], Y) + cross_entropy(c_fake["twin"], ASKED)
        case "discriminative_classifier":
            return cross_entropy(c["classifier"], Y) + cross_entropy(c_fake["classifier"], K + ASKED)
        case "reacgan":
            return contrast_by_hand(c, Y, loss)
    return None


def class_term_g(conditioning: str, loss: Loss, c: dict[str, Tensor]) -> Tensor | None:
    match conditioning:
        case "auxiliary_classifier":
            return cross_entropy(c["classifier"], ASKED)
        case "twin_classifier":
            return cross_entropy(c["classifier"], ASKED) - cross_entropy(c["twin"], ASKED)
        case "discriminative_classifier":
            return cross_entropy(c["classifier"], ASKED) - cross_entropy(c["classifier"], K + ASKED)
        case "reacgan":
            return contrast_by_hand(c, ASKED, loss)
    return None


def log1pexp(x: Tensor) -> Tensor:
    return torch.logaddexp(x, torch.zeros_like(x))


def by_hand_d(loss: Loss, r: Tensor, f: Tensor) -> Tensor:
    match loss.loss:
        case "minimax" | "non_saturating":
            a = loss.smoothing
            return (a * log1pexp(-r) + (1 - a) * log1pexp(r) + log1pexp(f)).sum() / N
        case "least_squares":
            return ((r - 1) ** 2 + f**2).sum() / N / 2
        case "least_squares_pearson":
            return ((r - 1) ** 2 + (f + 1) ** 2).sum() / N / 2
        case "hinge":
            return (torch.clamp(1 - r, min=0) + torch.clamp(1 + f, min=0)).sum() / N
        case "wasserstein":
            return (f.sum() - r.sum()) / N
        case "relativistic":
            return log1pexp(-(r - f)).sum() / N
    raise AssertionError(loss)


def by_hand_g(loss: Loss, r: Tensor, f: Tensor) -> Tensor:
    return {
        "minimax": -log1pexp(f),
        "non_saturating": log1pexp(-f),
        "least_squares": (f - 1) ** 2 / 2,
        "least_squares_pearson": f**2 / 2,
        "hinge": -f,
        "wasserstein": -f,
        "relativistic": log1pexp(-(f - r)),
    }[loss.loss].sum() / N


def squared_slopes(D: nn.Module, images: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
    """|grad D|^2 one sample at a time."""
    out = []
    for i in range(N):
        x = images.detach().clone().requires_grad_()
        logit = by_hand_logits(D, x, labels, mask)[0][i]
        (gradient,) = torch.autograd.grad(logit, x, create_graph=True)
        out.append((gradient**2).sum())
    return torch.stack(out)


def terms_d(s: TrainState, p: Play) -> dict[str, Tensor]:
    loss, x, g = s.config.loss, p.real.images, p.fake.images.detach()
    (m,), (m_fake,) = p.masks
    r, c = by_hand_logits(s.D, x, Y, m)
    f, c_fake = by_hand_logits(s.D, g, ASKED, m_fake)
    terms = {"adv": by_hand_d(loss, r, f)}
    if (term := class_term_d(s.config.model.conditioning, loss, c, c_fake)) is not None:
        terms["class"] = loss.class_weight * term
    if loss.r1:
        terms["r1"] = loss.r1 * squared_slopes(s.D, x, Y, m).sum() / N / 2
    if loss.r2:
        terms["r2"] = loss.r2 * squared_slopes(s.D, g, ASKED, m_fake).sum() / N / 2
    if loss.gradient_penalty:
        mixed = torch.stack([p.u[i] * x[i] + (1 - p.u[i]) * g[i] for i in range(N)])
        slope = squared_slopes(s.D, mixed, Y, m).sqrt()
        terms["gp"] = loss.gradient_penalty * ((slope - 1) ** 2).sum() / N
    return terms


def terms_g(s: TrainState, p: Play) -> dict[str, Tensor]:
    loss, ((m,), (m_fake,)) = s.config.loss, p.masks
    r, _ = by_hand_logits(s.D, p.real.images, Y, m)
    f, c = by_hand_logits(s.D, p.fake.images, ASKED, m_fake)
    terms = {"adv": by_hand_g(loss, r, f)}
    if (term := class_term_g(s.config.model.conditioning, loss, c)) is not None:
        terms["class"] = loss.class_weight * term
    return terms


def expected(terms: dict[str, Tensor], module: nn.Module) -> tuple[dict[str, float], dict[str, Tensor]]:
    """Terms with the gradient's norm, and the parameters after a step of plain gradient descent."""
    total = torch.zeros((), dtype=torch.float64)
    for term in terms.values():
        total = total + term
    named = dict(module.named_parameters())
    gradients = torch.autograd.grad(total, list(named.values()), retain_graph=True)
    values = {name: term.item() for name, term in terms.items()}
    values["grad"] = math.sqrt(sum(g.square().sum().item() for g in gradients))
    after = {name: (w - RATE * g).detach() for (name, w), g in zip(named.items(), gradients, strict=True)}
    return values, after


def compare(got: dict[str, Tensor], module: nn.Module, values: dict[str, float], after: dict[str, Tensor]) -> None:
    assert list(got) == list(values)
    for name, value in values.items():
        assert got[name].item() == pytest.approx(value, rel=1e-9, abs=1e-12), name
        assert got[name].shape == ()
        assert not got[name].requires_grad
    for name, parameter in module.named_parameters():
        torch.testing.assert_close(parameter, nn.Parameter(after[name]), rtol=1e-9, atol=1e-12)
        assert parameter.isfinite().all()


PENALTIES: dict[str, dict[str, float]] = {
    "none": {}, "r1": {"r1": 0.6}, "r2": {"r2": 1.4}, "gp": {"gradient_penalty": 3.0},
    "all": {"r1": 0.6, "r2": 1.4, "gradient_penalty": 3.0},
}  # fmt: skip
PLAIN = Loss(r1=0, r2=0, class_weight=1.7, class_margin=0.3, class_temperature=0.4)  # cosines lie on both sides of .3
ADVERSARIAL = [replace(PLAIN, loss=name) for name in OBJECTIVES] + [
    replace(PLAIN, loss="non_saturating", smoothing=0.9)
]
WITHOUT_A_TERM = ("none", "projection")
CONDITIONINGS = (
    *WITHOUT_A_TERM, "auxiliary_classifier", "twin_classifier", "discriminative_classifier", "reacgan",
)  # fmt: skip


def name_of(value: object) -> str:
    return f"{value.loss}-{value.smoothing}" if isinstance(value, Loss) else str(value)


def test_reacgans_margins_cut_on_both_sides_here() -> None:
    s = state(PLAIN, "reacgan")
    p = play(s)
    for images, labels, mask in ((p.real.images, Y, p.masks[0][0]), (p.fake.images, ASKED, p.masks[1][0])):
        c = by_hand_logits(s.D, images, labels, mask)[1]
        drawn = [cosine(c["embed"][i], c["proxy"][i]).item() < PLAIN.class_margin for i in range(N)]
        others = [(i, j) for i in range(N) for j in range(N) if labels[i] != labels[j]]
        pushed = [cosine(c["embed"][i], c["embed"][j]).item() > 1 - PLAIN.class_margin for i, j in others]
        assert {True, False} == set(drawn) == set(pushed), (drawn, pushed)


@pytest.mark.parametrize("penalty", PENALTIES)
@pytest.mark.parametrize("conditioning", CONDITIONINGS)
@pytest.mark.parametrize("loss", ADVERSARIAL, ids=name_of)
def test_d_step_is_the_update_written_by_hand(loss: Loss, conditioning: str, penalty: str) -> None:
    s = state(replace(loss, **PENALTIES[penalty]), conditioning)
    p = play(s)
    values, after = expected(terms_d(s, p), s.D)
    got = d_step(s, p.real, p.fake, p.draws)
    compare(got, s.D, values, after)
    assert ("class" in got) == (conditioning not in WITHOUT_A_TERM)
    assert s.found_inf.item() == 0


@pytest.mark.parametrize("conditioning", CONDITIONINGS)
@pytest.mark.parametrize("loss", ADVERSARIAL, ids=name_of)
def test_g_step_is_the_update_written_by_hand(loss: Loss, conditioning: str) -> None:
    s = state(replace(loss, **PENALTIES["all"]), conditioning)  # penalties are D's alone
    p = play(s)
    values, after = expected(terms_g(s, p), s.G)
    got = g_step(s, p.real, p.fake, p.draws)
    compare(got, s.G, values, after)
    assert s.found_inf.item() == 0


@pytest.mark.parametrize("penalty", ["r1", "r2", "all"])
@pytest.mark.parametrize("step", range(7))
def test_lazy_penalties_count_at_every_third_step_three_times(penalty: str, step: int) -> None:
    s = state(replace(PLAIN, loss="relativistic", penalty_every=3, **PENALTIES[penalty]))
    s.images_seen = step * s.config.train.batch
    p = play(s)
    terms = terms_d(s, p)
    for name in {"r1", "r2"} & terms.keys():
        terms[name] = terms[name] * (3 if step % 3 == 0 else 0)
    values, after = expected(terms, s.D)
    compare(d_step(s, p.real, p.fake, p.draws), s.D, values, after)


def test_batch_norm_sees_real_and_fake_apart_and_other_ds_see_them_at_once() -> None:
    for d_norm, passes in (("batch", [N, N]), ("none", [2 * N])):
        s = state(replace(PLAIN, loss="hinge"))
        s.config = replace(s.config, model=replace(s.config.model, d_norm=d_norm))
        counts: list[int] = []
        s.D.register_forward_hook(lambda _, inputs, __, seen=counts: seen.append(len(inputs[0])))
        p = play(s)
        values, after = expected(terms_d(s, p), s.D)
        compare(d_step(s, p.real, p.fake, p.draws), s.D, values, after)
        assert counts == passes


def test_the_class_term_without_fakes() -> None:
    loss = Loss(loss="hinge", r1=0, r2=0, class_weight=0.4, class_fake=False)
    s = state(loss, "auxiliary_classifier")
    p = play(s)
    values, after = expected(terms_d(s, p), s.D)
    compare(d_step(s, p.real, p.fake, p.draws), s.D, values, after)


def test_without_masks_nothing_is_dropped() -> None:
    s = state(Loss(r1=0.6, r2=1.4, gradient_penalty=3.0))
    p = play(s)
    ones = torch.ones(N, HIDDEN, dtype=torch.float64)
    values, after = expected(terms_d(s, p._replace(masks=([ones], [ones]))), s.D)
    compare(d_step(s, p.real, p.fake, GivenDraws(mix=p.u)), s.D, values, after)
    values, after = expected(terms_g(s, p._replace(masks=([ones], [ones]))), s.G)
    compare(g_step(s, p.real, p.fake, GivenDraws()), s.G, values, after)


def test_a_gradient_penalty_without_places_is_a_mistake_of_the_caller() -> None:
    s = state(Loss(r1=0, r2=0, gradient_penalty=10.0))
    p = play(s)
    with pytest.raises(AssertionError):
        d_step(s, p.real, p.fake, GivenDraws())


def test_the_shipped_adam_takes_these_gradients() -> None:
    s = state(Loss(), make=lambda parameters: adam(parameters, 0.01, (0.0, 0.99)))
    p = play(s)
    before = copy.deepcopy(dict(s.D.named_parameters()))
    _, after = expected(terms_d(s, p), s.D)
    d_step(s, p.real, p.fake, p.draws)
    for name, parameter in s.D.named_parameters():
        gradient = (before[name] - after[name]) / RATE
        torch.testing.assert_close(  # the first step of Adam without momentum
            parameter.detach(), (before[name] - 0.01 * gradient / (gradient.abs() + 1e-8)).detach()
        )


# ---------------------------------------------------------------------------- whom a step touches


def marked(module: nn.Module) -> dict[str, Tensor]:
    """Give every parameter a gradient of its own, and remember all values and gradients."""
    for parameter in module.parameters():
        parameter.grad = torch.full_like(parameter, 7.0)
    return {name: value.clone() for name, value in module.state_dict().items()}


def untouched(module: nn.Module, before: dict[str, Tensor]) -> bool:
    return all(torch.equal(v, before[n]) for n, v in module.state_dict().items()) and all(
        p.grad is not None and bool((p.grad == 7).all()) for p in module.parameters()
    )


@pytest.mark.parametrize("conditioning", CONDITIONINGS)
@pytest.mark.parametrize("loss", ["minimax", "relativistic"])
def test_each_step_leaves_the_other_player_alone(loss: str, conditioning: str) -> None:
    s = state(Loss(loss=loss, gradient_penalty=1.0), conditioning)
    p = play(s)
    images = p.real.images.clone()
    generator, ema = marked(s.G), marked(s.ema)
    d_step(s, p.real, p.fake, p.draws)
    assert untouched(s.G, generator)
    discriminator = marked(s.D)
    g_step(s, p.real, p.fake, p.draws)  # D's step has left the one forward of G whole
    assert untouched(s.D, discriminator)
    assert not untouched(s.G, generator)
    assert untouched(s.ema, ema)
    assert torch.equal(p.real.images, images)
    assert not p.real.images.requires_grad  # borrowed, and given back as it was
    assert p.real.images.grad is None


def after_g(loss: str, real_seed: int, z_seed: int) -> Tensor:
    s = state(Loss(loss=loss))
    p = play(s, real_seed, z_seed)
    g_step(s, p.real, p.fake, p.draws)
    return nn.utils.parameters_to_vector(s.G.parameters()).detach()


@pytest.mark.parametrize("loss", OBJECTIVES)
def test_reals_reach_g_through_a_relativistic_loss_alone(loss: str) -> None:
    step = after_g(loss, 1, 2)
    assert torch.equal(step, after_g(loss, 1, 2))
    assert torch.equal(step, after_g(loss, 8, 2)) == (loss != "relativistic")
    assert not torch.equal(step, after_g(loss, 1, 8))


class Spy(Body):
    """Remembers how each forward was called."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[bool, bool, bool]] = []

    def forward(self, images: Tensor, masks: list[Tensor] | None = None) -> Tensor:
        self.calls.append((images.requires_grad, torch.is_grad_enabled(), torch.is_autocast_enabled("cpu")))
        return super().forward(images, masks)


def spied(loss: Loss) -> tuple[TrainState, Spy]:
    s = state(loss)
    spy = Spy().double()
    spy.load_state_dict(s.D.body.state_dict())
    s.D.body = spy
    s.opt_d = torch.optim.SGD(s.D.parameters(), lr=RATE, fused=True)
    return s, spy


@pytest.mark.parametrize(("r1", "r2"), list(product((0.0, 0.6), (0.0, 1.4))))
def test_images_carry_a_gradient_only_where_a_penalty_reads_it(r1: float, r2: float) -> None:
    for step in range(3):
        s, spy = spied(Loss(r1=r1, r2=r2, penalty_every=2))
        s.images_seen = step * s.config.train.batch
        p = play(s)
        d_step(s, p.real, p.fake, GivenDraws())
        assert spy.calls == [(r1 + r2 > 0 and step != 1, True, False)]


def test_g_keeps_no_graph_of_the_reals() -> None:
    s, spy = spied(Loss())
    p = play(s)
    g_step(s, p.real, p.fake, GivenDraws())
    assert spy.calls == [(True, True, False), (False, False, False)]
    s, spy = spied(Loss(loss="hinge"))
    p = play(s)
    g_step(s, p.real, p.fake, GivenDraws())
    assert spy.calls == [(True, True, False)]  # and does not look at them where they do not matter


def test_bf16_runs_bodies_under_autocast_and_the_rest_in_fp32() -> None:
    s, spy = spied(Loss(gradient_penalty=1.0))
    for net in (s.G, s.D):
        net.float()
    s.bf16 = True
    p = play(state(Loss()))
    p = Play(
        Batch(p.real.images.float(), Y), Batch(s.G(numbers(N, Z, seed=2).float(), ASKED), ASKED),
        tuple([m.float() for m in half] for half in p.masks), p.u.float(),
    )  # fmt: skip
    seen: list[torch.dtype] = []
    d, g = s.objective.d, s.objective.g

    def watched(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def call(real: Tensor, fake: Tensor) -> Tensor:
            assert not torch.is_autocast_enabled("cpu")
            seen.extend((real.dtype, fake.dtype))
            return function(real=real, fake=fake)

        return call

    s.objective = Objective(watched(d), watched(g), relativistic=True)
    terms = d_step(s, p.real, p.fake, p.draws) | g_step(s, p.real, p.fake, p.draws)
    assert [autocast for _, _, autocast in spy.calls] == [True] * 4
    assert seen == [torch.float32] * 4
    assert all(term.dtype == torch.float32 and term.isfinite() for term in terms.values())
    assert s.found_inf.item() == 0


# ---------------------------------------------------------------------------- divergence


def broken(kind: str) -> Callable[..., Tensor]:
    """A loss whose value alone, or gradient alone, is not finite."""

    def loss(fake: Tensor, real: Tensor | None = None) -> Tensor:
        if kind == "value inf":
            return 0 * fake + math.inf
        if kind == "value nan":
            return fake.detach() * math.nan + 0 * fake
        return (0 * fake).abs().sqrt()  # 0, with a slope of inf * 0

    return loss


@pytest.mark.parametrize("player", ["d", "g"])
@pytest.mark.parametrize("kind", ["value inf", "value nan", "gradient"])
def test_what_is_not_finite_stops_all_updates_for_good(kind: str, player: str) -> None:
    s = state(Loss(r1=0, r2=0), make=lambda parameters: adam(parameters, 0.01, (0.0, 0.99)))
    p = play(s)
    sound = s.objective
    bad = broken(kind)
    s.objective = Objective(bad, sound.g, True) if player == "d" else Objective(sound.d, bad)
    before = [{n: v.clone() for n, v in net.state_dict().items()} for net in (s.G, s.D)]
    got = d_step(s, p.real, p.fake, GivenDraws()) if player == "d" else g_step(s, p.real, p.fake, GivenDraws())
    assert s.found_inf.item() == 1
    assert not (got["adv"] + got["grad"]).isfinite()
    assert (kind == "gradient") == bool(got["adv"].isfinite())
    s.objective = sound
    for _ in range(2):
        d_step(s, p.real, p.fake, GivenDraws())
        g_step(s, p.real, Batch(s.G(numbers(N, Z, seed=2), ASKED), ASKED), GivenDraws())
    assert s.found_inf.item() == 1
    for net, values in zip((s.G, s.D), before, strict=True):
        assert all(torch.equal(v, values[n]) for n, v in net.state_dict().items())
    s.found_inf.zero_()
    d_step(s, p.real, p.fake, GivenDraws())
    assert not torch.equal(s.D.head.source.weight, before[1]["head.source.weight"])


# ---------------------------------------------------------------------------- games with known ends


class Place(nn.Module):
    """G of one point theta."""

    def __init__(self, at: float) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.tensor(at, dtype=torch.float64))

    def forward(self) -> Tensor:
        return self.theta.clone().view(1, 1, 1, 1)


class Slope(nn.Module):
    """D of one slope: psi x."""

    head = Head

    def __init__(self, slope: float) -> None:
        super().__init__()
        self.psi = nn.Parameter(torch.tensor(slope, dtype=torch.float64))

    def forward(self, images: Tensor, labels: Tensor, masks: object = None) -> DiscriminatorOutput:
        return DiscriminatorOutput(images.flatten(1), self.psi * images.flatten())


def game(G: nn.Module, D: nn.Module, loss: Loss, rate: float) -> TrainState:
    """Plain descent from G and D as they are."""
    opt_g, opt_d = (torch.optim.SGD(net.parameters(), lr=rate, fused=True) for net in (G, D))
    spec, config = ImageSpec(1, 1, 1, ("point",)), replace(Config(), loss=loss)
    return TrainState(config, spec, G, D, G, opt_g, opt_d, objective(loss), torch.zeros(()))


def test_wasserstein_with_its_penalty_stops_at_slope_one_plus_mu_over_twenty() -> None:
    """D's gradient through the shipped step is 0 there and nowhere near it."""
    mu = 0.6
    for slope, at_rest in ((1 + mu / 20, True), (1 + mu / 10, False), (1.0, False)):
        G, D = Place(-mu), Slope(slope)
        loss = Loss(loss="wasserstein", r1=0, r2=0, gradient_penalty=10.0)
        s = game(G, D, loss, 1.0)
        label = torch.zeros(1, dtype=torch.int64)
        real = Batch(torch.zeros(1, 1, 1, 1, dtype=torch.float64), label)
        got = d_step(s, real, Batch(G(), label), GivenDraws(mix=torch.tensor([0.3], dtype=torch.float64)))
        assert (got["grad"].item() < 1e-12) == at_rest
        assert got["gp"].item() == pytest.approx(10 * (slope - 1) ** 2)


class Table(nn.Module):
    """D that knows every place by heart: logits [places], and what its head gives by name [places, ...]."""

    def __init__(self, conditioning: str, logits: Tensor, **given: Tensor) -> None:
        super().__init__()
        self.head = HEADS[conditioning]
        self.logits, self.given = nn.Parameter(logits), nn.ParameterDict(given)

    def forward(self, images: Tensor, labels: Tensor, masks: object = None) -> DiscriminatorOutput:
        at = images.flatten().long()
        given = {name: table[labels if name == "proxy" else at] for name, table in self.given.items()}
        return DiscriminatorOutput(images.flatten(1), self.logits[at], **given)


REAL_PLACES = torch.tensor([0, 0, 0, 0, 1, 1, 1, 2])  # eight pairs over three places and two classes
FAKE_PLACES = torch.tensor([0, 1, 1, 1, 1, 2, 2, 2])
REAL_CLASSES = torch.tensor([0, 0, 0, 1, 1, 0, 1, 1])
FAKE_CLASSES = torch.tensor([1, 1, 1, 0, 0, 1, 0, 0])


@pytest.mark.parametrize("class_fake", [True, False])
@pytest.mark.parametrize("loss", ["minimax", "non_saturating", "smoothing", "least_squares", "least_squares_pearson"])
def test_a_tabular_discriminator_rests_at_its_optimum(loss: str, class_fake: bool) -> None:
    """d_step's gradient is 0 at the D* and class posterior of section 2 and 3, and not beside them."""
    p, q = (torch.bincount(places, minlength=3).double() for places in (REAL_PLACES, FAKE_PLACES))
    best = {
        "minimax": (p / q).log(), "non_saturating": (p / q).log(), "smoothing": (0.9 * p / (0.1 * p + q)).log(),
        "least_squares": p / (p + q), "least_squares_pearson": (p - q) / (p + q),
    }[loss]  # fmt: skip
    counts = torch.full((3, 2), 1e-30, dtype=torch.float64)
    counts.index_put_((REAL_PLACES, REAL_CLASSES), torch.ones(8, dtype=torch.float64), accumulate=True)
    if class_fake:
        counts.index_put_((FAKE_PLACES, FAKE_CLASSES), torch.ones(8, dtype=torch.float64), accumulate=True)
    chosen = Loss(loss=loss, r1=0, r2=0, class_fake=class_fake)
    if loss == "smoothing":
        chosen = replace(chosen, loss="non_saturating", smoothing=0.9)

    def slope(logits: Tensor, class_logits: Tensor) -> float:
        G, D = Place(0.0), Table("auxiliary_classifier", logits.clone(), class_logits=class_logits.clone())
        s = game(G, D, chosen, 1.0)
        real = Batch(REAL_PLACES.double().view(-1, 1, 1, 1), REAL_CLASSES)
        fake = Batch(FAKE_PLACES.double().view(-1, 1, 1, 1), FAKE_CLASSES)
        return d_step(s, real, fake, GivenDraws())["grad"].item()

    assert slope(best, counts.log()) < 1e-12
    assert slope(best + torch.tensor([0.1, 0, 0]), counts.log()) > 1e-3
    assert slope(best, counts.log() + torch.tensor([0.1, 0])) > 1e-3


def counted(places: Tensor, classes: Tensor) -> Tensor:
    """log of how many images there are [places, classes]; of none, very low."""
    counts = torch.full((3, 2), 1e-30, dtype=torch.float64)
    return counts.index_put_((places, classes), torch.ones(8, dtype=torch.float64), accumulate=True).log()


@pytest.mark.parametrize("conditioning", ["twin_classifier", "discriminative_classifier"])
def test_a_tabular_class_head_rests_at_its_optimum(conditioning: str) -> None:
    """d_step's gradient is 0 at C = p(y|x), T = q(y|x), or at log p(x, y) and log q(x, y), and not beside them."""
    p, q = counted(REAL_PLACES, REAL_CLASSES), counted(FAKE_PLACES, FAKE_CLASSES)
    best = {"class_logits": p, "twin_logits": q}
    if conditioning == "discriminative_classifier":
        best = {"class_logits": torch.cat([p, q], 1)}

    def slope(tables: dict[str, Tensor]) -> float:
        logits = p.exp().sum(1).log() - q.exp().sum(1).log()
        D = Table(conditioning, logits, **{name: table.clone() for name, table in tables.items()})
        s = game(Place(0.0), D, Loss(loss="minimax", r1=0, r2=0), 1.0)
        real = Batch(REAL_PLACES.double().view(-1, 1, 1, 1), REAL_CLASSES)
        fake = Batch(FAKE_PLACES.double().view(-1, 1, 1, 1), FAKE_CLASSES)
        return d_step(s, real, fake, GivenDraws())["grad"].item()

    assert slope(best) < 1e-12
    for name, table in best.items():
        for column in range(table.shape[1]):
            beside = table.clone()
            beside[:, column] += 0.1
            assert slope(best | {name: beside}) > 1e-3


def test_a_tabular_reacgan_rests_at_its_floor() -> None:
    """Images at their class's proxy, classes at right angles: log(1 + n), n = 4 of the other class, and no slope."""
    labels, places = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1]), torch.arange(8)
    at_rest = torch.eye(2, dtype=torch.float64)[labels]
    beside = at_rest.clone()
    beside[0] = torch.tensor([0.8, 0.6])
    for embedding, rests in ((at_rest, True), (beside, False)):
        D = Table("reacgan", torch.zeros(8).double(), embedding=embedding, proxy=torch.eye(2, dtype=torch.float64))
        s = game(Place(0.0), D, Loss(loss="wasserstein", r1=0, r2=0, class_weight=0.5), 0.1)
        real = Batch(places.double().view(-1, 1, 1, 1), labels)
        got = d_step(s, real, Batch(real.images.flip(0), labels), GivenDraws())
        assert (got["class"].item() == pytest.approx(0.5 * math.log(5), abs=1e-14)) == rests
        assert bool((D.given["embedding"].grad == 0).all()) == bool((D.given["proxy"].grad == 0).all()) == rests


class Points(nn.Module):
    """G whose images are its parameters, one number each."""

    def __init__(self, at: Tensor) -> None:
        super().__init__()
        self.at = nn.Parameter(at)

    def forward(self) -> Tensor:
        return self.at.clone().view(-1, 1, 1, 1)


class Square(nn.Module):
    """Features x and x^2, in which log densities of normals are linear."""

    def forward(self, images: Tensor, masks: object = None) -> Tensor:
        x = images.flatten(1)
        return torch.cat([x, x**2], 1)


@pytest.mark.parametrize("conditioning", ["auxiliary_classifier", "twin_classifier", "discriminative_classifier"])
def test_what_reaches_g_is_the_slope_of_log_densities(conditioning: str) -> None:
    """p(x|y) = N(+-1, 1), q(x|y) = N(+-.6, 1.2^2), the heads at their best, a source that G's images do not move.

    ADC: d log q(x, y) - d log p(x, y); TAC: of q(y|x) and p(y|x); ACGAN: -d log p(y|x).
    """
    mean, sd = 0.6, 1.2
    x, labels = torch.tensor([-1.5, -0.2, 0.4, 1.0, 2.5], dtype=torch.float64), torch.tensor([0, 1, 0, 1, 1])
    D = ConditionalDiscriminator(Square(), 2, 2, conditioning).double()
    of_p = torch.tensor([[-1, -0.5], [1, -0.5]], dtype=torch.float64)  # d log p(x, y) / d(x, x^2), by class
    of_q = torch.tensor([[-mean, -0.5], [mean, -0.5]], dtype=torch.float64) / sd**2
    with torch.no_grad():
        for parameter in D.parameters():
            parameter.zero_()
        D.head.classifier.weight.copy_(torch.cat([of_p, of_q]) if "discriminative" in conditioning else of_p)
        if conditioning == "twin_classifier":
            D.head.twin.weight.copy_(of_q)
        if conditioning == "discriminative_classifier":  # the constants of log p and log q
            D.head.classifier.bias.copy_(torch.tensor([-0.5] * 2 + [-0.5 * (mean / sd) ** 2 - math.log(sd)] * 2))
    G = Points(x.clone())
    s = game(G, D, Loss(loss="hinge", r1=0, r2=0, class_weight=1.7), 1.0)
    g_step(s, Batch(G().detach(), labels), Batch(G(), labels), GivenDraws())
    sign = 2 * labels.double() - 1
    p, q = sign - x, (sign * mean - x) / sd**2  # d log p(x|y), d log q(x|y)
    p_y = p - (torch.tanh(x) - x)  # less that of the mixture
    q_y = q - (mean * torch.tanh(mean * x / sd**2) - x) / sd**2
    want = {"auxiliary_classifier": -p_y, "twin_classifier": q_y - p_y, "discriminative_classifier": q - p}
    torch.testing.assert_close(G.at.grad, 1.7 / 5 * want[conditioning], rtol=1e-12, atol=1e-14)


# ---------------------------------------------------------------------------- refusals


@pytest.mark.parametrize("penalty", ["r1", "r2", "gradient_penalty"])
def test_batch_norm_in_d_is_refused_beside_a_gradient_penalty(penalty: str) -> None:
    given = {"loss": "hinge", "d_norm": "batch", "r1": 0, "r2": 0, "gradient_penalty": 0}
    resolve(given)
    with raises("options-conflict", "d_norm batch", f"{penalty} 2.5", "--d-norm none"):
        resolve(given | {penalty: 2.5})


def test_batch_norm_in_d_is_refused_with_the_relativistic_loss() -> None:
    given = {"loss": "relativistic", "r1": 0, "r2": 0}
    resolve(given)
    with raises("options-conflict", "d_norm batch", "relativistic"):
        resolve(given | {"d_norm": "batch"})


def test_smoothing_is_refused_where_there_is_no_target_to_smooth() -> None:
    for name in OBJECTIVES:
        if name in ("minimax", "non_saturating"):
            resolve({"loss": name, "smoothing": 0.9})
        else:
            with raises("options-conflict", "smoothing", name):
                resolve({"loss": name, "smoothing": 0.9})


@pytest.mark.parametrize("recipe", ["auto", "acgan"])
def test_convolutions_in_channels_last_learn_as_they_do_in_plain_memory(recipe: str) -> None:
    """Fused Adam reads parameter and gradient by their addresses: another memory format of one scrambles the update."""
    config = resolve({"recipe": recipe, "width": 4, "latent_dim": 5, "class_dim": 3, "dropout": 0.0})
    spec = ImageSpec(20, 18, 3, ("a", "b", "c"))
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(6, 3, 20, 18, generator=generator) * 2 - 1
    z = torch.randn(6, 5, generator=generator)
    after = []
    for layout in (torch.channels_last, torch.contiguous_format):
        state = TrainState.create(config, spec, torch.device("cpu"))
        for network in (state.G, state.D):
            network.double().to(memory_format=layout)
        real = Batch(images.double().contiguous(memory_format=layout), Y)
        for _ in range(2):
            fake = Batch(state.G(z.double(), ASKED), ASKED)
            d_step(state, real, fake, GivenDraws())
            g_step(state, real, fake, GivenDraws())
        after.append([parameter.detach() for net in (state.G, state.D) for parameter in net.parameters()])
    for one, other in zip(*after, strict=True):
        # Adam divides by sqrt(v): where a gradient is 0 but for rounding, only its sign is left
        assert ((one - other).abs() < 1e-9).double().mean() > 0.97


def test_generated_images_with_transparency_are_put_on_white() -> None:
    config = resolve({"width": 4, "latent_dim": 6, "class_dim": 4, "images": 64})
    state = TrainState.create(config, ImageSpec(16, 16, 4, ("a", "b")), torch.device("cpu"), False)
    z, labels = torch.randn(3, 6), torch.tensor([0, 1, 0])
    colour, alpha = state.G(z, labels).split((3, 1), 1)
    got = generate(state, z, labels)
    assert torch.allclose(got[:, :3], alpha.add(1) / 2 * colour + (1 - alpha) / 2, atol=1e-5)
    assert torch.allclose(got[:, 3:], alpha, atol=1e-5)

"""Every number and table of the losses page, computed by the functions that train."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ptarmigan.config import resolve
from ptarmigan.config.sections import LOSSES
from ptarmigan.handbook.figures import CLASSES, OTHERS, SMOOTHED, objective_named, split_d
from ptarmigan.losses.adversarial import minimax_g
from ptarmigan.losses.conditioning import classification_g, d2d_ce, discriminative_g, twin_g

ADVERSARIAL = (*LOSSES, "smoothing")
DIRAC = ("non_saturating", "minimax", "relativistic", "hinge", "wasserstein")  # the losses whose optimal logit is 0
EXAMPLE = (0.7, 1.3)  # mean and standard deviation of q beside p = N(0, 1)
FAR = 1e9  # the logit that stands for infinity
REACH, PER_UNIT = 20, 10  # range of the tables that the script reads, and values per unit
GRID = torch.arange(-400, 401, dtype=torch.float64) / 40
CELL = 20 / 800
PERFECT = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)  # theta of the data: mean, log sd, shift of N(+-1, 1)


def slope(of: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """d of / dx, by autograd."""
    x = x.detach().requires_grad_()
    return torch.autograd.grad(of(x).sum(), x)[0]


def g_loss(name: str) -> Callable[[Tensor], Tensor]:
    """G's loss over the logit of a fake; a relativistic loss is taken against a real logit of 0."""
    found = objective_named(name)
    return (lambda f: found.g(real=torch.zeros_like(f), fake=f)) if found.relativistic else lambda f: found.g(fake=f)


def best_logit(name: str, log_ratio: Tensor) -> Tensor:
    """D* at these values of log(p/q): the logit where p a'(D) + q b'(D) changes its sign, found by bisection.

    A relativistic D* is defined up to a constant: log(p/q) is returned, which a test proves to be an optimum.
    """
    found = objective_named(name)
    if found.relativistic:
        return log_ratio
    a, b = split_d(found)
    p, q = log_ratio.sigmoid(), (-log_ratio).sigmoid()
    low, high = torch.full_like(log_ratio, -64.0), torch.full_like(log_ratio, 64.0)
    for _ in range(70):
        middle = (low + high) / 2
        rise = p * slope(a, middle) + q * slope(b, middle)
        low, high = torch.where(rise <= 0, middle, low), torch.where(rise >= 0, middle, high)
    return (low + high) / 2


def tables() -> dict[str, Any]:
    """What the script draws each loss from: both players' losses and slopes over the logit, and D* over log(p/q)."""
    x = torch.arange(-REACH * PER_UNIT, REACH * PER_UNIT + 1, dtype=torch.float64) / PER_UNIT  # exact on any machine
    out: dict[str, Any] = {"from": -REACH, "step": 1 / PER_UNIT, "losses": {}}
    for name in ADVERSARIAL:
        found = objective_named(name)
        parts = dict(zip(("real", "fake"), split_d(found), strict=True)) | {"g": g_loss(name)}
        table: dict[str, Any] = {"pairs": found.relativistic, "potential": name == "wasserstein"}
        for key, part in parts.items():
            table |= {key: rounded(part(x) * torch.ones_like(x)), f"{key}_slope": rounded(slope(part, x))}
        if not table["potential"]:
            table["best"] = rounded(best_logit(name, x))
            table["jumps"] = best_logit(name, x).diff().max().item() > 2 / PER_UNIT  # as hinge's D* does at 0
        out["losses"][name] = table
    return out | {"dirac": DIRAC, "example": EXAMPLE}


def rounded(values: Tensor) -> list[float]:
    return [float(f"{value:.7g}") + 0.0 for value in values.tolist()]


def numbers() -> dict[str, float]:
    """Every number in the prose, by the key that the prose uses."""
    zero = torch.zeros(1, dtype=torch.float64)
    out: dict[str, float] = {}
    for name in ADVERSARIAL:
        a, b = split_d(objective_named(name))
        g, rest = g_loss(name), zero if name == "wasserstein" else best_logit(name, zero)
        pair = (a(rest - rest) if objective_named(name).relativistic else a(rest) + b(rest)).item()
        low, high = slope(g, torch.tensor([-FAR, FAR], dtype=torch.float64)).tolist()
        low, high = (math.copysign(math.inf, value) if abs(value) > 1e6 else value for value in (low, high))
        out |= {f"{name}.logit": rest.item(), f"{name}.d": pair, f"{name}.g": g(rest).item()}
        out |= {f"{name}.low": low, f"{name}.high": high, f"{name}.turn": abs(slope(g, rest).item())}
        out[f"{name}.example"] = example(name)
    out["half"] = out["non_saturating.d"] / 2
    a, b = split_d(objective_named("smoothing"))
    most = best_logit("smoothing", torch.tensor([2.0 * REACH], dtype=torch.float64))
    out |= {"alpha": SMOOTHED, "beta": 1 - SMOOTHED, "smoothing.most": most.item(), "smoothing.floor": a(most).item()}
    out |= {"ratio": SMOOTHED / (1 - SMOOTHED), "example.mean": EXAMPLE[0], "example.sd": EXAMPLE[1]}
    label = torch.zeros(1, dtype=torch.int64)
    sure = torch.cat([torch.full((1, 1), FAR), torch.zeros(1, CLASSES - 1)], 1).double()
    out["softmax"] = classification_g(sure.softmax(1), fake_labels=label).item()
    out["ignorant"] = classification_g(0 * sure, fake_labels=label).item()
    out |= {"ignorant.d": out["non_saturating.d"] + 2 * out["ignorant"]}
    out |= {"ignorant.g": out["non_saturating.g"] + out["ignorant"]}
    out |= classes()
    runs = recorded_runs()
    out |= {f"{name}.{score}": run[score][-1] for name, run in runs.items() for score in ("kid", "recall")}
    out |= {"runs.images": 1000 * runs["healthy"]["kid_images"][-1], "runs.data": 10_000}
    fields = resolve({}).loss
    everyone = torch.eye(OTHERS + 1, dtype=torch.float64)
    floor = d2d_ce(
        everyone, everyone, torch.arange(OTHERS + 1), margin=fields.class_margin, temperature=fields.class_temperature
    )
    out |= {"margin": fields.class_margin, "temperature": fields.class_temperature, "contrast": floor.max().item()}
    return out | {"K": CLASSES, "others": OTHERS}


@cache
def recorded_runs() -> dict[str, dict[str, list[float]]]:
    """What record_runs.py recorded: the losses of both players and the KID, by images seen in thousands."""
    found: dict[str, dict[str, list[float]]] = json.loads(Path(__file__).with_name("runs.json").read_text())
    return found


def normal(mean: Tensor | float, sd: Tensor | float, x: Tensor = GRID) -> Tensor:
    """log N(x; mean, sd^2)"""
    sd = torch.as_tensor(sd, dtype=torch.float64)
    return -0.5 * ((x - mean) / sd).square() - sd.log() - 0.5 * math.log(2 * math.pi)


def example(name: str) -> float:
    """L_D at D* for p = N(0, 1) and q = EXAMPLE, by quadrature."""
    log_p, log_q = normal(0.0, 1.0), normal(*EXAMPLE)
    p, q = log_p.exp(), log_q.exp()
    found = objective_named(name)
    a, b = split_d(found)
    potential = ((q - p).cumsum(0).sign() * CELL).cumsum(0)  # rises where q has more mass to the left than p
    D = potential if name == "wasserstein" else best_logit(name, log_p - log_q)
    if found.relativistic:
        real, fake = torch.broadcast_tensors(D[:, None], D)
        return (p[:, None] * q * found.d(real=real, fake=fake)).sum().item() * CELL**2
    return (p * a(D) + q * b(D)).sum().item() * CELL


def log_joint(theta: Tensor) -> Tensor:
    """log q(x, y) [2, x] of two equally likely classes N(+-mean + shift, sd^2); theta = mean, log sd, shift."""
    mean, log_sd, shift = theta
    return torch.stack([normal(sign * mean + shift, log_sd.exp()) for sign in (-1, 1)]) - math.log(2)


def class_cost(conditioning: str, fake: Tensor, fakes: bool = False) -> Tensor:
    """G's class term at (y, x) [2, x] against optimal heads, for data N(+-1, 1); `fake` is log q(x, y) [2, x].

    C is p(y|x), or with `fakes` the posterior of the mixture of p and q.
    """
    real = log_joint(PERFECT)
    c = torch.logaddexp(real, fake) if fakes else real
    terms = {
        "auxiliary_classifier": lambda y: classification_g(c.T, fake_labels=y),
        "twin_classifier": lambda y: twin_g(real.T, fake.T, fake_labels=y),
        "discriminative_classifier": lambda y: discriminative_g(torch.cat([real, fake]).T, fake_labels=y),
    }
    return torch.stack([terms[conditioning](torch.full((len(GRID),), y)) for y in (0, 1)])


def gradient(theta: Tensor, cost: Callable[[Tensor], Tensor]) -> Tensor:
    """d/d theta of E_q cost; `cost` is a function of log q(x, y) and detaches what is held constant."""
    theta = theta.detach().requires_grad_()
    fake = log_joint(theta)
    return torch.autograd.grad((fake.exp() * cost(fake)).sum() * CELL, theta)[0]


def acgan_equilibrium(fakes: bool, held: bool = True) -> Tensor:
    """Where G converges under 2 JSD + 1/2 of ACGAN's class term, starting at q = p: mean, log sd, shift (0).

    D and C are optimal.  With `held`, C is constant while G moves, as in training; otherwise it follows G.
    """
    real = log_joint(PERFECT)

    def cost(fake: Tensor) -> Tensor:
        still = fake.detach()
        source = minimax_g(real.logsumexp(0) - still.logsumexp(0))
        return source + class_cost("auxiliary_classifier", still if held else fake, fakes) / 2

    theta = PERFECT
    for _ in range(300):
        step = gradient(theta, cost)
        theta = theta - 0.5 * step
        if step.abs().max() < 1e-7:
            break
    return theta


def class_cost_held(conditioning: str, fake: Tensor) -> Tensor:
    return class_cost(conditioning, fake.detach())


def classes() -> dict[str, float]:
    """The size of ACGAN's fault, and its absence in TAC and ADC."""
    fake = log_joint(PERFECT)
    out = {"entropy": (fake.exp() * class_cost("auxiliary_classifier", fake)).sum().item() * CELL}
    for name in ("auxiliary_classifier", "twin_classifier", "discriminative_classifier"):
        found = gradient(PERFECT, partial(class_cost_held, name))
        out |= dict(zip((f"{name}.mean", f"{name}.log_sd", f"{name}.shift"), found.tolist(), strict=True))
    for key, fakes, held in (("of_real", False, True), ("of_both", True, True), ("of_sum", True, False)):
        mean, log_sd, _ = acgan_equilibrium(fakes, held).tolist()
        out |= {f"{key}.mean": mean, f"{key}.sd": math.exp(log_sd)}
    ndtr = torch.special.ndtr
    out["accuracy"] = ndtr(PERFECT[0]).item()
    out["accuracy.settled"] = ndtr(torch.tensor(out["of_both.mean"] / out["of_both.sd"], dtype=torch.float64)).item()
    return out

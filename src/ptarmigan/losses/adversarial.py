"""Adversarial losses: per-sample functions, logits [N] -> [N], of which the caller takes the mean.

`real` is D(x) and `fake` is D(G(z, y)), both raw scores without a sigmoid.  Everything is minimised.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import log

import torch
import torch.nn.functional as F
from torch import Tensor

from ptarmigan.config import Loss


def softplus(x: Tensor) -> Tensor:
    """s(x) = log(1 + exp(x)), exact at any x; F.softplus becomes linear at 20, with an error of 2e-9 there."""
    return -F.logsigmoid(-x)


def cross_entropy_d(real: Tensor, fake: Tensor, *, smoothing: float = 1.0) -> Tensor:
    """a s(-r) + (1 - a) s(r) + s(f) [N] from logits [N]: binary cross-entropy, target a for real, 0 for fake.

    a = 1: Goodfellow et al. 2014, eq. 1; a = .9: one-sided label smoothing, Salimans et al. 2016, section 3.4.
    """
    return smoothing * softplus(-real) + (1 - smoothing) * softplus(real) + softplus(fake)


def minimax_g(fake: Tensor) -> Tensor:
    """-s(f) [N] from logits [N]: the negative of D's loss (Goodfellow et al. 2014, eq. 1).

    Its gradient vanishes where D rejects a fake.
    """
    return -softplus(fake)


def non_saturating_g(fake: Tensor) -> Tensor:
    """s(-f) [N] from logits [N]: cross-entropy of D's answer on the fake against "real".

    Goodfellow et al. 2014, section 3.
    """
    return softplus(-fake)


def least_squares_d(real: Tensor, fake: Tensor, *, real_target: float = 1.0, fake_target: float = 0.0) -> Tensor:
    """(r - b)^2 / 2 + (f - a)^2 / 2 [N] from logits [N] (Mao et al. 2017, eq. 2)."""
    return 0.5 * (real - real_target).square() + 0.5 * (fake - fake_target).square()


def least_squares_g(fake: Tensor, *, target: float = 1.0) -> Tensor:
    """(f - c)^2 / 2 [N] from logits [N] (Mao et al. 2017, eq. 2)."""
    return 0.5 * (fake - target).square()


def hinge_d(real: Tensor, fake: Tensor) -> Tensor:
    """(1 - r)+ + (1 + f)+ [N] from logits [N] (Lim and Ye 2017)."""
    return F.relu(1 - real) + F.relu(1 + fake)


def hinge_g(fake: Tensor) -> Tensor:
    """-f [N] from logits [N] (Lim and Ye 2017); also the Wasserstein generator's (Arjovsky et al. 2017)."""
    return -fake


def wasserstein_d(real: Tensor, fake: Tensor) -> Tensor:
    """f - r [N] from logits [N], for a D kept 1-Lipschitz by a penalty (Arjovsky et al. 2017, eq. 2)."""
    return fake - real


def relativistic_d(real: Tensor, fake: Tensor) -> Tensor:
    """s(-(r - f)) [N] from logits [N], over pairs of one class (Jolicoeur-Martineau 2018; Huang et al. 2024, eq. 2).

    Pair i is real[i] and fake[i].  Raises ValueError if their shapes differ.
    """
    check_pairs(real, fake)
    return softplus(fake - real)


def relativistic_g(real: Tensor, fake: Tensor) -> Tensor:
    """s(-(f - r)) [N] from logits [N]: D's loss with real and fake exchanged.

    Jolicoeur-Martineau 2018; Huang et al. 2024, eq. 2.  Pair i is real[i] and fake[i].  Raises ValueError if their
    shapes differ.
    """
    check_pairs(real, fake)
    return softplus(real - fake)


def check_pairs(real: Tensor, fake: Tensor) -> None:
    """Raise ValueError if logits differ in shape: broadcasting would pair each with all others; not of numbers."""
    if real.shape != fake.shape and real.dim() and fake.dim():
        text = f"the relativistic loss compares pairs, but real has the shape {[*real.shape]} and fake {[*fake.shape]}"
        raise ValueError(f"{text}: give as many generated images as real ones, of the same classes, and logits [N]")


@dataclass(frozen=True)
class Objective:
    """A pair of losses: d(real=, fake=), and g(fake=), or g(real=, fake=) where it is relativistic; [N] each."""

    d: Callable[..., Tensor]
    g: Callable[..., Tensor]
    relativistic: bool = False
    equilibrium_logit: float | None = 0.0  # D's optimum at p = q; None where only differences of logits have a meaning

    def signs(self, real: Tensor, fake: Tensor) -> Tensor:
        """[N] 1 where D classifies a real image as real, -1 as fake; the mean is ADA's r_t (Karras et al. 2020).

        sign(r - equilibrium_logit), or sign(r - f) over pairs of one class.
        """
        return torch.sign(real - (fake if self.equilibrium_logit is None else self.equilibrium_logit)).detach()


OBJECTIVES = {
    "minimax": Objective(cross_entropy_d, minimax_g),
    "non_saturating": Objective(cross_entropy_d, non_saturating_g),
    "least_squares": Objective(least_squares_d, least_squares_g, equilibrium_logit=0.5),
    "least_squares_pearson": Objective(
        partial(least_squares_d, real_target=1.0, fake_target=-1.0), partial(least_squares_g, target=0.0)
    ),
    "hinge": Objective(hinge_d, hinge_g),
    "wasserstein": Objective(wasserstein_d, hinge_g, equilibrium_logit=None),
    "relativistic": Objective(relativistic_d, relativistic_g, relativistic=True, equilibrium_logit=None),
}


def objective(loss: Loss) -> Objective:
    """The pair of losses that a config names, with its label smoothing."""
    found, a = OBJECTIVES[loss.loss], loss.smoothing
    return Objective(partial(found.d, smoothing=a), found.g, equilibrium_logit=log(a / (2 - a))) if a < 1 else found

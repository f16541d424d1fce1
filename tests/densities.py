"""Two normal densities on a grid, p = N(0, 1) and q = N(.7, 1.3^2), with their divergences by quadrature."""

from __future__ import annotations

import math

import torch
from torch import Tensor

GRID = torch.linspace(-11, 13, 241, dtype=torch.float64)
CELL = 24 / 240
SPREAD = math.log(1.3)


def log_normal(x: Tensor, mean: Tensor | float = 0.0, log_sd: Tensor | float = 0.0) -> Tensor:
    log_sd = torch.as_tensor(log_sd, dtype=torch.float64)
    return -0.5 * ((x - mean) / log_sd.exp()) ** 2 - log_sd - 0.5 * math.log(2 * math.pi)


def integral(values: Tensor) -> Tensor:
    return values.sum() * CELL**values.ndim


P = log_normal(GRID).exp()
Q = log_normal(GRID, 0.7, SPREAD).exp()


def kl(a: Tensor, b: Tensor) -> Tensor:
    return integral(torch.where(a > 0, a * (a / b).log(), 0.0))


def jsd(a: Tensor, b: Tensor) -> Tensor:
    return (kl(a, (a + b) / 2) + kl(b, (a + b) / 2)) / 2


def pair_jsd(p: Tensor, q: Tensor) -> Tensor:
    """JSD(p x q || q x p)."""
    return jsd(p[:, None] * q, q[:, None] * p)


def w1(q: Tensor, mean: Tensor, log_sd: Tensor) -> Tensor:
    return integral((torch.special.ndtr(GRID) - torch.special.ndtr((GRID - mean) / log_sd.exp())).abs())

"""Adam for each player, and all that moves over a budget as functions of images seen."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from ptarmigan.config import Ramp, Scheduled


def adam(parameters: Iterable[nn.Parameter], lr: float, betas: tuple[Scheduled, Scheduled]) -> torch.optim.Optimizer:
    """Fused Adam (Kingma and Ba 2015): one kernel for all tensors, and it heeds `found_inf` on the device.

    Its betas are those of the first step; `advance` sets them, and the rate, at each.  On CUDA the rate is a number on
    the device, which a recorded step reads anew.  Where betas move, torch corrects the moments' bias by 1 - beta^t with
    the beta of step t.  Exact would be 1 less the product of the betas that were: the two part only while beta^t
    counts, in the first steps, where a ramp has hardly begun to move.
    """
    first, second = (at(beta, 0, 0, None) for beta in betas)
    tensors = list(parameters)
    if tensors[0].device.type != "cuda":
        return torch.optim.Adam(tensors, lr=lr, betas=(first, second), fused=True)
    rate = torch.tensor(lr, device=tensors[0].device)
    return torch.optim.Adam(tensors, lr=rate, betas=(first, second), fused=True, capturable=True)


def set_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Let the next updates be made at this learning rate."""
    group = optimizer.param_groups[0]
    if isinstance(group["lr"], Tensor):
        group["lr"].fill_(lr)
    else:
        group["lr"] = lr


def at(value: Scheduled, images: int, start: int, end: int | None) -> float:
    """A ramp's value after so many images: `first` until `start`, `last` from `end` on, half a cosine between.

    first + (last - first) (1 - cos(pi s)) / 2, s the share of the budget done (as in R3GAN: Huang et al. 2024,
    2501.05441).  Flat at both ends, so it is nearly there before the learning rate is too low to follow.  An end that
    is not known yet counts as far away.
    """
    if not isinstance(value, Ramp):
        return value
    share = 0.0 if end is None else min(1.0, max(0.0, (images - start) / (end - start)))
    weight = (1 - math.cos(math.pi * share)) / 2
    return value.first * (1 - weight) + value.last * weight


def learning_rate(base: float, images: int, start: int, end: int | None, anneal: float) -> float:
    """Constant since `start`, then linear to 0 over the last `anneal` share up to `end`.

    An end that is not known yet counts as far away.
    """
    if end is None or anneal == 0:
        return base
    return base * min(1.0, max(0.0, (end - images) / (end - start) / anneal))


def ema_decay(images: int, batch: int, half_life: float) -> float:
    """beta = .5^(batch / h), h = max(min(half_life, .05 images), 1e-8): short at first (as in ADA's code)."""
    return float(0.5 ** (batch / max(min(half_life, 0.05 * images), 1e-8)))


@torch.no_grad()
def update_ema(average: nn.Module, live: nn.Module, decay: float) -> None:
    """average <- decay average + (1 - decay) live, over parameters; buffers are left to `settle`."""
    torch._foreach_lerp_(list(average.parameters()), list(live.parameters()), 1 - decay)

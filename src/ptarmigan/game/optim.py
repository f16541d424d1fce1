"""Adam for each player, and the schedules as functions of images seen."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from ptarmigan.config.sections import Ramp, Scheduled


def adam(parameters: Iterable[nn.Parameter], lr: float, betas: tuple[Scheduled, Scheduled]) -> torch.optim.Optimizer:
    """Fused Adam (Kingma and Ba 2015): one kernel for all tensors, which skips the update where `found_inf` is set.

    `train_batch` sets the betas and the rate at each step.  On CUDA the rate is a tensor on the device, which a
    recorded graph reads at each replay.  If a beta is a ramp, torch corrects the bias of the moments by 1 - beta^t with
    the beta of step t; the exact factor is 1 minus the product of all betas so far.  The two differ noticeably only in
    the first steps, while beta^t is not negligible, and a ramp has hardly moved by then.
    """
    first, second = (at(beta, 0, 0, None) for beta in betas)
    tensors = list(parameters)
    if tensors[0].device.type != "cuda":
        return torch.optim.Adam(tensors, lr=lr, betas=(first, second), fused=True)
    rate = torch.tensor(lr, device=tensors[0].device)
    return torch.optim.Adam(tensors, lr=rate, betas=(first, second), fused=True, capturable=True)


def set_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the learning rate of the next updates."""
    group = optimizer.param_groups[0]
    if isinstance(group["lr"], Tensor):
        group["lr"].fill_(lr)
    else:
        group["lr"] = lr


def at(value: Scheduled, images: int, start: int, end: int | None) -> float:
    """A field's value after `images` images; for a ramp `first` until `start`, `last` from `end`, a cosine in between.

    first + (last - first) (1 - cos(pi s)) / 2, s the share of the budget done (as in R3GAN: Huang et al. 2024,
    2501.05441).  The curve is flat at both ends, so it is close to `last` while the learning rate is still high enough
    for the networks to adapt.  While the end is unknown, s is 0.
    """
    if not isinstance(value, Ramp):
        return value
    share = 0.0 if end is None else min(1.0, max(0.0, (images - start) / (end - start)))
    weight = (1 - math.cos(math.pi * share)) / 2
    return value.first * (1 - weight) + value.last * weight


def learning_rate(base: float, images: int, start: int, end: int | None, anneal: float) -> float:
    """Constant since `start`, then linear to 0 over the last `anneal` share up to `end`.

    While the end is unknown, the rate is constant.
    """
    if end is None or anneal == 0:
        return base
    return base * min(1.0, max(0.0, (end - images) / (end - start) / anneal))


def ema_decay(images: int, batch: int, half_life: float) -> float:
    """beta = .5^(batch / h), h = max(min(half_life, .05 images), 1e-8): shorter at first (as in ADA's code)."""
    return float(0.5 ** (batch / max(min(half_life, 0.05 * images), 1e-8)))


@torch.no_grad()
def update_ema(average: nn.Module, live: nn.Module, decay: float) -> None:
    """average <- decay average + (1 - decay) live, over parameters; buffers are left to `recalibrate_batch_norm`."""
    torch._foreach_lerp_(list(average.parameters()), list(live.parameters()), 1 - decay)

"""Adam for each player, the learning rate and the moving average as functions of images seen."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn


def adam(parameters: Iterable[nn.Parameter], lr: float, betas: tuple[float, float]) -> torch.optim.Optimizer:
    """Fused Adam (Kingma and Ba 2015): one kernel for all tensors, and it heeds `found_inf` on the device.

    On CUDA the rate is a number on the device, which a recorded step reads anew.
    """
    tensors = list(parameters)
    if tensors[0].device.type != "cuda":
        return torch.optim.Adam(tensors, lr=lr, betas=betas, fused=True)
    rate = torch.tensor(lr, device=tensors[0].device)
    return torch.optim.Adam(tensors, lr=rate, betas=betas, fused=True, capturable=True)


def set_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Let the next updates be made at this learning rate."""
    group = optimizer.param_groups[0]
    if isinstance(group["lr"], Tensor):
        group["lr"].fill_(lr)
    else:
        group["lr"] = lr


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

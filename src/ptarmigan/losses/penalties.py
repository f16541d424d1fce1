"""Gradient penalties on D: per-sample functions [N] of logits and the images they came from.

Each takes the gradient of the sum of the logits.  It equals each sample's own gradient only if D treats samples
independently, so config/checks.py rejects batch norm in D together with a penalty.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ptarmigan.core.conv import no_weight_gradients


def squared_gradient_norm(logits: Tensor, images: Tensor) -> Tensor:
    """|grad_x D(x)|^2 [N], differentiable, summed in at least fp32; `images` [N, ...] must require grad.

    R1 is gamma/2 times its mean on real images (Mescheder et al. 2018, eq. 9), R2 the same on fakes.
    """
    with no_weight_gradients():
        (gradient,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
    squares = gradient.to(torch.promote_types(gradient.dtype, torch.float32)).square()
    return squares.sum(dim=tuple(range(1, squares.dim())))


def one_centred(logits: Tensor, images: Tensor) -> Tensor:
    """(|grad_x D(x)| - 1)^2 [N]: WGAN-GP at images between real and fake (Gulrajani et al. 2017, eq. 3)."""
    norm = squared_gradient_norm(logits, images).clamp_min(1e-30).sqrt()  # so that the derivative is finite at 0
    return (norm - 1).square()


def between(real: Tensor, fake: Tensor, u: Tensor) -> Tensor:
    """u x + (1 - u) G(z) with one u [N] in [0, 1] per pair, requiring grad (Gulrajani et al. 2017, alg. 1)."""
    u = u.view(-1, 1, 1, 1)
    return (u * real + (1 - u) * fake).detach().requires_grad_()

"""Halve, double and blur maps with a fixed kernel.

`blur` is its own transpose, and `halve` is a quarter of the transpose of `double`.  All are deterministic on every
device, unlike the backward pass of F.interpolate's bilinear mode on CUDA.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ptarmigan.networks.layers import pad_to_even


class _Blur(torch.autograd.Function):
    """Its backward pass is itself; under R1, PyTorch's would also differentiate the kernel."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        k = (2 - (torch.arange(3, dtype=x.dtype, device=x.device) - 1).abs()) / 4  # [1, 2, 1] / 4
        return F.conv2d(x, torch.outer(k, k).expand(x.shape[1], 1, 3, 3), padding=1, groups=x.shape[1])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return blur(gradient)


def blur(x: Tensor) -> Tensor:
    """[N, C, H, W], low-passed by [1, 2, 1] / 4 along both axes; beyond the edges are zeros."""
    out: Tensor = _Blur.apply(x)  # type: ignore[no-untyped-call]
    return out


def halve(x: Tensor) -> Tensor:
    """[N, C, H, W] -> [N, C, ceil(H/2), ceil(W/2)], low-passed by [1, 3, 3, 1] / 8 along both axes."""
    return F.avg_pool2d(blur(pad_to_even(x)), 2)


def double(x: Tensor) -> Tensor:
    """[N, C, H, W] -> [N, C, 2H, 2W], bilinear: 4 times the transpose of `halve`."""
    return blur(F.interpolate(x, scale_factor=2, mode="nearest"))

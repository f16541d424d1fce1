"""Convolutions that compute their weight's gradient by one matrix product where maps are small.

oneDNN takes 2 to 5 times as long for it, in bf16 on a CPU with AMX (docs/benchmarks.md).  Everything that AMX needs is
in this module.

<g, conv(x, w)> is linear in x, in w and in g.  Its gradient in each of them is a function of the other two: conv(x, w)
in g, the transposed convolution in x, a correlation in w.  So the gradients of any of the three functions are the other
two, and they can be differentiated again, as R1 needs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.grad import conv2d_input

PLACES, OUTPUTS = 64, 128  # the product is faster for a map g of at most 8x8 places and at least 128 channels


class Shape(NamedTuple):
    height: int  # of x
    width: int
    kernel: int
    stride: int
    padding: int


def convolution(g: None, w: Tensor, x: Tensor, of: Shape) -> Tensor:
    return F.conv2d(x, w, None, of.stride, of.padding)


def correlation(g: Tensor, w: None, x: Tensor, of: Shape) -> Tensor:
    outputs, inputs = g.shape[1], x.shape[1]
    padded = F.pad(x, (of.padding,) * 4).permute(0, 2, 3, 1)
    windows = padded.unfold(1, of.kernel, of.stride).unfold(2, of.kernel, of.stride)  # [N, h, w, C, K, K]
    seen = windows.permute(0, 1, 2, 4, 5, 3).reshape(-1, of.kernel**2 * inputs)  # C last, as in memory
    flat = g.permute(0, 2, 3, 1).reshape(-1, outputs).T @ seen
    return flat.view(outputs, of.kernel, of.kernel, inputs).permute(0, 3, 1, 2)


def transposed(g: Tensor, w: Tensor, x: None, of: Shape) -> Tensor:
    shape = len(g), w.shape[1], of.height, of.width
    out: Tensor = conv2d_input(shape, w, g, of.stride, of.padding)  # type: ignore[no-untyped-call]
    return out


SLOPES: dict[str, Any] = {"g": convolution, "w": correlation, "x": transposed}


class _Slope(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, name: str, of: Shape, *tensors: Tensor | None) -> Tensor:
        ctx.name, ctx.of = name, of
        ctx.save_for_backward(*tensors)
        out: Tensor = SLOPES[name](*tensors, of)
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        known = dict(zip(SLOPES, ctx.saved_tensors, strict=True)) | {ctx.name: gradient}
        needed = dict(zip(SLOPES, ctx.needs_input_grad[2:], strict=True))
        if _weights_skipped.get():
            needed["w"] = False
        return None, None, *(slope(name, ctx.of, **known) if needed[name] else None for name in SLOPES)


def slope(name: str, of: Shape, g: Tensor | None = None, w: Tensor | None = None, x: Tensor | None = None) -> Tensor:
    """The gradient of <g, conv(x, w)> in g [N, O, h, w], w [O, C, K, K] or x [N, C, H, W], by the other two."""
    others = {"g": g, "w": w, "x": x} | {name: None}
    out: Tensor = _Slope.apply(name, of, *others.values())  # type: ignore[no-untyped-call]
    return out


_weights_skipped = ContextVar("weights_skipped", default=False)


@contextmanager
def no_weight_gradients() -> Iterator[None]:
    """Skip the gradients of weights in a backward pass that only needs those of images or maps.

    An autograd Function cannot tell that nobody asks for them.  It holds for the calling thread, which on a CPU also
    runs the backward pass.
    """
    before = _weights_skipped.set(True)
    try:
        yield
    finally:
        _weights_skipped.reset(before)


@cache
def has_amx() -> bool:
    return bool(torch.cpu.get_capabilities().get("amx_bf16", False))


def pays(x: Tensor, outputs: int, height: int, width: int) -> bool:
    """Whether the matrix product is faster for a map g [N, outputs, height, width] of x's dtype and device."""
    small = outputs >= OUTPUTS and height * width <= PLACES
    return small and x.dtype == torch.bfloat16 and x.device.type == "cpu" and has_amx()


class Conv2d(nn.Conv2d):
    """torch's Conv2d for square kernels, strides and paddings without dilation."""

    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        kernel, stride, padding = self.kernel_size[0], self.stride[0], int(self.padding[0])
        height, width = ((side + 2 * padding - kernel) // stride + 1 for side in x.shape[2:])
        if self.groups > 1 or not pays(x, self.out_channels, height, width):
            out: Tensor = super()._conv_forward(x, weight, bias)
            return out
        out = slope("g", Shape(x.shape[2], x.shape[3], kernel, stride, padding), w=weight.to(x.dtype), x=x)
        return out if bias is None else out + bias.to(x.dtype).view(-1, 1, 1)


class ConvTranspose2d(nn.ConvTranspose2d):
    """torch's ConvTranspose2d with the same limits, and without groups or output padding."""

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        kernel, stride, padding = self.kernel_size[0], self.stride[0], int(self.padding[0])
        if not pays(x, self.in_channels, *x.shape[2:]):
            return super().forward(x, output_size)
        height, width = (stride * (side - 1) + kernel - 2 * padding for side in x.shape[2:])
        out = slope("x", Shape(height, width, kernel, stride, padding), g=x, w=self.weight.to(x.dtype))
        return out if self.bias is None else out + self.bias.to(x.dtype).view(-1, 1, 1)

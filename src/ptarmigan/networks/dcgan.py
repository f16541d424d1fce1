"""DCGAN's two networks (Radford et al. 2016), for any height and width from 16 to 512.

They follow the guidelines of the paper's section 3: strided convolutions and no pooling; batch norm in G except at its
output, and in D (with --d-norm batch) except at its input; no hidden fully connected layer; ReLU in G and tanh at its
output; LeakyReLU .2 in D.  Half of an odd side is rounded up, 7 -> 4: D pads a row of zeros, and G crops a row after
doubling, so 28x28 becomes 28-14-7-4.  With 4x4 kernels at stride 2 each output pixel is a sum of equally many terms.
Three options are not in the paper and off by default: residual blocks in G on its smaller maps, where they cost little
(`g_blocks`), feeding z and the class to each norm of G instead of its first layer only (`g_modulation`; Chen et al.
2019, 1810.01365), and low-pass filters where maps change their size (`resampling smooth`).  A transposed convolution
has weights of its own for each of the four pixels of a 2x2 block, whose differences show as a chessboard; smooth, G
doubles a map bilinearly before a 3x3 convolution (Odena et al. 2016, "Deconvolution and checkerboard artifacts").  A
strided convolution lets fine detail alias into the halved map, and its gradient has the pattern of the stride; smooth,
D blurs a map before it (Zhang 2019, 1904.11486).
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ptarmigan.config import Model
from ptarmigan.core.conv import Conv2d, ConvTranspose2d
from ptarmigan.core.types import ImageSpec
from ptarmigan.networks.layers import LEAK, BatchNorm, ConditionalBatchNorm, pad_to_even, sides, widths
from ptarmigan.networks.resampling import blur, double


def crop(x: Tensor, height: int, width: int) -> Tensor:
    """The first rows and columns of a map [N, C, H, W]; unlike a slice, a negative pad keeps it channels_last."""
    down, right = height - x.shape[2], width - x.shape[3]
    return F.pad(x, (0, right, 0, down)) if down or right else x


def channels_last(gradient: Tensor | None) -> Tensor | None:
    """A gradient in the maps' memory format; kernels are slow on the format in which `flatten` passes it back."""
    return gradient if gradient is None else gradient.contiguous(memory_format=torch.channels_last)


class Residual(nn.Module):
    """x + conv(leaky_relu(norm(x))) [N, C, H, W], 3x3; the identity at first, since the convolution starts at 0."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = BatchNorm(channels)
        self.conv = Conv2d(channels, channels, 3, padding=1, bias=False)  # the next norm would subtract a bias
        nn.init.zeros_(self.conv.weight)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.conv(F.leaky_relu(self.norm(x), LEAK))
        return out


class Generator(nn.Module):
    """z [N, Z] and labels [N] -> images [N, C, H, W] in (-1, 1), at least fp32."""

    def __init__(self, spec: ImageSpec, model: Model) -> None:
        super().__init__()
        self.sides = sides(spec, model)[::-1]
        channels = [*widths(model, len(self.sides) - 1)[::-1], spec.channels]
        self.embedding = nn.Embedding(spec.classes, model.class_dim) if model.conditional else None
        self.first = channels[0], *self.sides[0]
        self.project = nn.Linear(model.g_inputs, channels[0] * self.sides[0][0] * self.sides[0][1], bias=False)
        self.blocks = nn.ModuleList(nn.Sequential(*[Residual(c) for _ in range(model.g_blocks)]) for c in channels[:-2])
        self.blocks.append(nn.Identity())
        self.modulation = model.g_modulation
        self.norms = nn.ModuleList(
            ConditionalBatchNorm(c, model.g_inputs) if model.g_modulation else BatchNorm(c) for c in channels[:-1]
        )
        self.smooth = model.resampling == "smooth"
        self.stages = nn.ModuleList(
            Conv2d(a, b, 3, padding=1, bias=stage == len(channels) - 2) if self.smooth
            else ConvTranspose2d(a, b, 4, stride=2, padding=1, bias=stage == len(channels) - 2)
            for stage, (a, b) in enumerate(pairwise(channels))
        )  # fmt: skip

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        if self.embedding is not None:
            z = torch.cat([z, self.embedding(labels)], 1)
        x = self.project(z).view(-1, *self.first).contiguous(memory_format=torch.channels_last)
        parts = zip(self.blocks, self.norms, self.stages, self.sides[1:], strict=True)
        for block, norm, stage, (height, width) in parts:
            x = block(x)
            x = norm(x, z) if self.modulation else norm(x)
            x = double(F.relu(x)) if self.smooth else F.relu(x)
            x = crop(stage(x), height, width)
        return torch.tanh(x.to(torch.promote_types(x.dtype, torch.float32)))


class Body(nn.Module):
    """D without its head: images [N, C, H, W] -> features [N, F], the flattened last map."""

    def __init__(self, spec: ImageSpec, model: Model) -> None:
        super().__init__()
        places = sides(spec, model)
        channels = [min(spec.channels, 3), *widths(model, len(places) - 1)]
        batch_norm = model.d_norm == "batch"
        normed = [batch_norm and stage > 0 for stage in range(len(channels) - 1)]
        self.smooth = model.resampling == "smooth"
        self.stages = nn.ModuleList(
            Conv2d(a, b, 4, stride=2, padding=1, bias=not norm)
            for (a, b), norm in zip(pairwise(channels), normed, strict=True)
        )
        self.ground = None  # of the colour that RGBA lies on, apart from the first stage, which may be frozen
        if spec.channels == 4:
            self.ground = Conv2d(3, channels[1], 4, stride=2, padding=1, bias=False)
            nn.init.normal_(self.ground.weight, 0.0, 1e-3)  # not 0, by which spectral norm would divide
        self.norms = nn.ModuleList(
            BatchNorm(c, running=False) if norm else nn.Identity() for c, norm in zip(channels[1:], normed, strict=True)
        )
        self.mask_shapes = [(c, *side) for c, side in zip(channels[1:], places[1:], strict=True)]
        self.features = math.prod(self.mask_shapes[-1])

    def forward(self, images: Tensor, masks: list[Tensor] | None = None) -> Tensor:
        """`masks`: one dropout mask [N, *mask_shapes[i]] per stage, or None."""
        x = images if self.ground is None else images[:, :3]
        for place, (stage, norm) in enumerate(zip(self.stages, self.norms, strict=True)):
            x = blur(x) if self.smooth and place else x
            x = stage(pad_to_even(x))
            if self.ground is not None and place == 0:
                x = x + self.ground(pad_to_even(images[:, 3:]))
            x = F.leaky_relu(norm(x), LEAK)
            if masks is not None:
                x = x * masks[place]
        if x.requires_grad:
            x.register_hook(channels_last)  # type: ignore[no-untyped-call]
        return x.flatten(1)

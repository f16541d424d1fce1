"""Residual networks after SNGAN (Miyato et al. 2018, 1802.05957) and BigGAN (Brock et al. 2019, 1809.11096).

G has pre-activation blocks of two 3x3 convolutions that double a map by repeating its pixels; the scale and shift of
their batch norms are linear in z and the class embedding.  D has pre-activation blocks that halve a map by averaging,
one more block at the last size, and a sum over positions.  There are blocks at the image's own size, so this is the
slowest family.  Odd sides are handled as in dcgan.py.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ptarmigan.config import Model
from ptarmigan.core.types import ImageSpec
from ptarmigan.networks.layers import BatchNorm, ConditionalBatchNorm, seen_channels, sides, widths


def repeat(x: Tensor, height: int, width: int) -> Tensor:
    """[N, C, H, W] -> [N, C, height, width], each pixel repeated 4 times, cropped to 2H - 1 or 2W - 1 for odd sides.

    It is a copy, whose backward pass sums in a fixed order on every device.
    """
    n, c, h, w = x.shape
    last = x.permute(0, 2, 3, 1)[:, :, None, :, None].expand(n, h, 2, w, 2, c).reshape(n, 2 * h, 2 * w, c)
    return last.permute(0, 3, 1, 2)[:, :, :height, :width]


def mean_pool(x: Tensor) -> Tensor:
    """[N, C, H, W] -> [N, C, ceil(H/2), ceil(W/2)]: means of 2x2 pixels, or of fewer at an odd edge."""
    return F.avg_pool2d(x, 2, ceil_mode=True)


class UpBlock(nn.Module):
    """norm, ReLU, repeat, 3x3, norm, ReLU, 3x3, plus a shortcut of 1x1 and repeat."""

    def __init__(self, inputs: int, outputs: int, given: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(ConditionalBatchNorm(c, given) for c in (inputs, outputs))
        self.convolutions = nn.ModuleList(nn.Conv2d(c, outputs, 3, padding=1, bias=False) for c in (inputs, outputs))
        self.shortcut = nn.Conv2d(inputs, outputs, 1, bias=False)

    def forward(self, x: Tensor, given: Tensor, height: int, width: int) -> Tensor:
        inside = self.convolutions[0](repeat(F.relu(self.norms[0](x, given)), height, width))
        inside = self.convolutions[1](F.relu(self.norms[1](inside, given)))
        out: Tensor = inside + repeat(self.shortcut(x), height, width)
        return out


class Generator(nn.Module):
    """z [N, Z] and labels [N] -> images [N, C, H, W] in [-1, 1], at least fp32."""

    def __init__(self, spec: ImageSpec, model: Model) -> None:
        super().__init__()
        self.sides = sides(spec, model)[::-1]
        channels = [*widths(model, len(self.sides) - 1)[::-1], model.width]
        self.embedding = nn.Embedding(spec.classes, model.class_dim) if model.conditional else None
        self.first = channels[0], *self.sides[0]
        self.project = nn.Linear(model.g_inputs, math.prod(self.first), bias=False)
        self.blocks = nn.ModuleList(UpBlock(a, b, model.g_inputs) for a, b in pairwise(channels))
        self.norm = BatchNorm(channels[-1])
        self.last = nn.Conv2d(channels[-1], spec.channels, 3, padding=1)

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        if self.embedding is not None:
            z = torch.cat([z, self.embedding(labels)], 1)
        x = self.project(z).view(-1, *self.first)
        for block, side in zip(self.blocks, self.sides[1:], strict=True):
            x = block(x, z, *side)
        x = self.last(F.relu(self.norm(x)))
        return torch.tanh(x.to(torch.promote_types(x.dtype, torch.float32)))


class DownBlock(nn.Module):
    """ReLU, 3x3, ReLU, 3x3, average, plus a shortcut of average and 1x1; the first block has no ReLU before it."""

    def __init__(self, inputs: int, outputs: int, *, first: bool = False, down: bool = True) -> None:
        super().__init__()
        self.first, self.down = first, down
        hidden = outputs if first else inputs
        self.convolutions = nn.ModuleList(
            nn.Conv2d(a, b, 3, padding=1) for a, b in ((inputs, hidden), (hidden, outputs))
        )
        self.shortcut = nn.Conv2d(inputs, outputs, 1) if down else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        inside = self.convolutions[0](x if self.first else F.relu(x))
        inside = self.convolutions[1](F.relu(inside))
        if self.down:
            inside, x = mean_pool(inside), mean_pool(x)
        out: Tensor = inside + self.shortcut(x)
        return out


class Body(nn.Module):
    """D without its head: images [N, C, H, W] -> features [N, F], the sums of the last map over its positions."""

    def __init__(self, spec: ImageSpec, model: Model) -> None:
        super().__init__()
        places = sides(spec, model)
        channels = [seen_channels(spec), *widths(model, len(places) - 1)]
        self.features = channels[-1]
        self.blocks = nn.ModuleList(
            DownBlock(a, b, first=place == 0) for place, (a, b) in enumerate(pairwise(channels))
        )
        self.blocks.append(DownBlock(self.features, self.features, down=False))
        self.mask_shapes = [(c, *side) for c, side in zip(channels[1:], places[1:], strict=True)]
        self.mask_shapes.append(self.mask_shapes[-1])

    def forward(self, images: Tensor, masks: list[Tensor] | None = None) -> Tensor:
        """`masks`: one dropout mask [N, *mask_shapes[i]] per block, or None."""
        x = images
        for place, block in enumerate(self.blocks):
            x = block(x)
            if masks is not None:
                x = x * masks[place]
        return F.relu(x).to(torch.promote_types(x.dtype, torch.float32)).sum((2, 3))

"""A network family without norms, after R3GAN (Huang et al. 2024, 2501.05441, section 4), for any sides from 16 to 512.

Each stage is a fixed resampling, a 1x1 convolution where channels change, and a residual block: an inverted
bottleneck of 1x1, grouped 3x3 and 1x1 convolutions.  Initial weights are scaled by fan-in for LeakyReLU; the last of
each block starts at 0 and the others are scaled by L^-1/4 for L blocks (Zhang et al. 2019, Fixup), so that activations
start bounded.  There is no norm and no tanh, so images may leave [-1, 1].

It differs from the paper to be fast on a CPU: there is one block per stage and none at the image's own size, where D
begins with a 4x4 convolution at stride 2 and G ends with a doubling and a 3x3 convolution (a transposed convolution
caused checkerboard artefacts); a linear layer maps z to the first map; D's features are its whole last map.  Odd sides
are handled as in dcgan.py.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ptarmigan.config import Model
from ptarmigan.core.types import ImageSpec
from ptarmigan.networks.layers import LEAK, pad_to_even, seen_channels, sides, widths
from ptarmigan.networks.resampling import double, halve

EXPANSION = 2  # channels inside a block, as a multiple of its input's
GROUP = 16  # channels per group of the 3x3 convolution
GAIN = math.sqrt(2 / (1 + LEAK**2))  # keeps the second moment through LeakyReLU (He et al. 2015, eq. 14)


def scaled(layer: nn.Conv2d | nn.Linear, gain: float = 1.0) -> nn.Module:
    """Weights N(0, gain^2 / fan-in) and biases 0."""
    nn.init.normal_(layer.weight, 0.0, gain / math.sqrt(layer.weight[0].numel()))
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


class Block(nn.Module):
    """x + c3(lrelu(c2(lrelu(c1(x))))) [N, C, H, W], one of `depth` blocks; c3 starts at 0."""

    def __init__(self, channels: int, depth: int) -> None:
        super().__init__()
        groups = -(-EXPANSION * channels // GROUP)  # rounded up to whole groups
        inner, gain = groups * GROUP, GAIN * depth**-0.25
        self.expand = scaled(nn.Conv2d(channels, inner, 1), gain)
        self.mix = scaled(nn.Conv2d(inner, inner, 3, padding=1, groups=groups), gain)
        self.project = scaled(nn.Conv2d(inner, channels, 1, bias=False), 0.0)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.project(F.leaky_relu(self.mix(F.leaky_relu(self.expand(x), LEAK)), LEAK))
        return out


def match_channels(inputs: int, outputs: int) -> nn.Module:
    """The 1x1 convolution between two stages; the identity where their channels are equal."""
    return nn.Identity() if inputs == outputs else scaled(nn.Conv2d(inputs, outputs, 1, bias=False))


class Generator(nn.Module):
    """z [N, Z] and labels [N] -> images [N, C, H, W], in fp32 or more, not limited to [-1, 1]."""

    def __init__(self, spec: ImageSpec, model: Model) -> None:
        super().__init__()
        self.sides = sides(spec, model)[::-1]
        channels = widths(model, len(self.sides) - 1)[::-1]
        self.embedding = nn.Embedding(spec.classes, model.class_dim) if model.conditional else None
        self.first = channels[0], *self.sides[0]
        self.project = scaled(nn.Linear(model.g_inputs, math.prod(self.first)))
        self.blocks = nn.ModuleList(Block(c, len(channels)) for c in channels)
        self.changes = nn.ModuleList(match_channels(a, b) for a, b in pairwise(channels))
        self.last = scaled(nn.Conv2d(channels[-1], spec.channels, 3, padding=1), GAIN)

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        if self.embedding is not None:
            z = torch.cat([z, self.embedding(labels)], 1)
        x: Tensor = self.blocks[0](self.project(z).view(-1, *self.first))
        for narrow, block, (height, width) in zip(self.changes, self.blocks[1:], self.sides[1:-1], strict=True):
            x = block(double(narrow(x))[:, :, :height, :width])
        x = double(x)[:, :, : self.sides[-1][0], : self.sides[-1][1]]
        x = self.last(F.leaky_relu(x, LEAK))
        return x.to(torch.promote_types(x.dtype, torch.float32))


class Body(nn.Module):
    """D without its head: images [N, C, H, W] -> features [N, F], the flattened last map."""

    def __init__(self, spec: ImageSpec, model: Model) -> None:
        super().__init__()
        places = sides(spec, model)
        channels = widths(model, len(places) - 1)
        self.first = scaled(nn.Conv2d(seen_channels(spec), channels[0], 4, stride=2, padding=1))
        self.changes = nn.ModuleList(match_channels(a, b) for a, b in pairwise(channels))
        self.blocks = nn.ModuleList(Block(c, len(channels)) for c in channels)
        self.mask_shapes = [(c, *side) for c, side in zip(channels, places[1:], strict=True)]
        self.features = math.prod(self.mask_shapes[-1])

    def forward(self, images: Tensor, masks: list[Tensor] | None = None) -> Tensor:
        """`masks`: one dropout mask [N, *mask_shapes[i]] per stage, or None."""
        x: Tensor = self.first(pad_to_even(images))
        for place, block in enumerate(self.blocks):
            x = block(x if place == 0 else self.changes[place - 1](halve(x)))
            if masks is not None:
                x = x * masks[place]
        return x.flatten(1)

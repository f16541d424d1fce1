"""A generator as a list of simple steps, which assets/page/network.js carries out in a browser.

Every layer with weights becomes a convolution whose output pixels see pixels at most one place away: `convolve`, or
`project` for the linear layer that makes the first map.  At stride 2 it has four phases, for the four output pixels
that lie on one pixel of its map.  The scale and shift of batch norm are multiplied into the layer before it where there
is one, and into the layer that computes them where z sets them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ptarmigan.networks import dcgan, r3gan, resnet
from ptarmigan.networks.layers import LEAK, BatchNorm, ConditionalBatchNorm

INT16 = 2**15 - 1

Step = dict[str, Any]
Tap = tuple[int, int]  # of a pixel that a convolution sees: how far it is down and to the right
Phase = tuple[list[Tap], Tensor]  # taps, and weights [O, I / groups, taps]
Side = tuple[int, int]  # height and width of a map


class Program:
    """The steps of a generator, in order, and the bytes of their weights.

    A step works on the current map [C, N, H, W].  `keep` copies it, `swap` exchanges it with the copy, and `add` adds
    the copy to it.  The first map is what the generator is given, [Z + E, N, 1, 1]: latents and class embeddings.
    """

    def __init__(self, network: Any) -> None:
        self.steps: list[Step] = []
        self.weights = bytearray()
        self.embedding = None if network.embedding is None else self._matrix(network.embedding.weight)
        FAMILIES[type(network)](self, network)
        self.steps = [self._with_weights(step) for step in self.steps]

    def then(self, do: str, **settings: Any) -> None:
        self.steps.append({"do": do, **settings})

    def convolve(self, phases: list[Phase], bias: Tensor | None, side: Side, groups: int = 1) -> None:
        """A convolution to a map of `side`: one phase at stride 1, and at stride 2 one for each pixel of a square of 4.

        What falls outside of `side` is left out, which is how an odd side is cropped.
        """
        outputs, inputs, _ = phases[0][1].shape
        self.then(
            "convolve", phases=phases, bias=torch.zeros(outputs) if bias is None else bias, side=side, groups=groups,
            stride=math.isqrt(len(phases)), inputs=groups * inputs, channels=outputs,
        )  # fmt: skip

    def linear(self, layer: nn.Linear, shape: tuple[int, int, int]) -> None:
        """A linear layer whose output is a map of `shape` (C, H, W)."""
        self.convolve([([(0, 0)], layer.weight[:, :, None])], layer.bias, (1, 1))
        self.steps[-1] |= {"do": "project", "shape": shape}

    def convolution(self, layer: nn.Conv2d, side: Side) -> None:
        """A convolution at stride 1."""
        places = [place - int(layer.padding[0]) for place in range(layer.kernel_size[0])]
        self.convolve([phase(layer.weight, places, places)], layer.bias, side, layer.groups)

    def repeated(self, layer: nn.Conv2d, side: Side, doubled: Side) -> None:
        """Repeat each pixel four times, then a convolution at stride 1.

        The two are one step, with 4 places of the kernel in place of 9; except at an odd side, which is cropped before
        the convolution, and for a kernel of 1x1, which has as many places either way.
        """
        if layer.kernel_size == (1, 1):
            self.convolution(layer, side)
            self.then("double", channels=layer.out_channels, side=doubled, near=1)
        elif doubled != (2 * side[0], 2 * side[1]):
            self.then("double", channels=layer.in_channels, side=doubled, near=1)
            self.convolution(layer, doubled)
        else:
            pad = int(layer.padding[0])
            places = [[(first + place - pad) // 2 for place in range(layer.kernel_size[0])] for first in (0, 1)]
            self.convolve([phase(layer.weight, y, x) for y in places for x in places], layer.bias, doubled)

    def transposed(self, layer: nn.ConvTranspose2d, side: Side) -> None:
        """A transposed convolution at stride 2, whose output pixels see every other place of the kernel."""
        pad = int(layer.padding[0])
        ways = [[first + pad - place for place in range(layer.kernel_size[0])] for first in (0, 1)]
        places = [[None if twice % 2 else twice // 2 for twice in way] for way in ways]
        weight = layer.weight.transpose(0, 1)
        self.convolve([phase(weight, y, x) for y in places for x in places], layer.bias, side)

    def norm(self, norm: nn.Module) -> None:
        """Batch norm with its running statistics, conditional or not."""
        if isinstance(norm, ConditionalBatchNorm):
            # (a x + b) (1 + S g) + T g  =  (a + a S g) x + (b + (b S + T) g)
            a, b = scale_and_shift(norm.norm)
            s, t = norm.modulate.weight.chunk(2)
            weight, bias = torch.cat([a * s, b * s + t]), torch.cat([a, b]).flatten()
            self.convolve([([(0, 0)], weight[:, :, None])], bias, (1, 1))
            self.then("modulate", by=self.steps.pop())
            return
        assert isinstance(norm, BatchNorm)
        a, b = scale_and_shift(norm)
        last = self.steps[-1]
        if "phases" in last:
            a, b = (each.repeat_interleave(last["channels"] // len(a), 0) for each in (a, b))
            last["phases"] = [(taps, a[:, None] * weight) for taps, weight in last["phases"]]
            last["bias"] = a[:, 0] * last["bias"] + b[:, 0]
        else:
            self.then("scale", scale=a, shift=b)

    def leaky(self, slope: float) -> None:
        """LeakyReLU, which is ReLU with slope 0."""
        self.then("leaky", slope=slope)

    def _store(self, *parts: NDArray[Any]) -> int:
        """Append arrays to the weights; returns where they begin."""
        at = len(self.weights)
        content = b"".join(part.tobytes() for part in parts)
        self.weights += content + bytes(-len(content) % 4)
        return at

    def _matrix(self, matrix: Tensor) -> dict[str, int]:
        """Where a matrix is in the weights: a factor for each row, and then integers of 16 bits.

        They are about ten times as exact as half precision, which keeps 11 bits of each weight.
        """
        factors = matrix.abs().amax(1).clamp_min(1e-30) / INT16
        integers = (matrix / factors[:, None]).round()
        at = self._store(factors.numpy().astype("<f4"), integers.numpy().astype("<i2"))
        return {"at": at, "rows": len(matrix), "columns": matrix.shape[1]}

    def _vector(self, vector: Tensor) -> dict[str, int]:
        return {"at": self._store(vector.numpy().astype("<f4")), "count": vector.numel()}

    def _with_weights(self, step: Step) -> Step:
        """The step with places in the weights for its tensors."""
        match step["do"]:
            case "modulate":
                return {**step, "by": self._with_weights(step["by"])}
            case "scale":
                return {**step, **{name: self._vector(step[name]) for name in ("scale", "shift")}}
            case "convolve" | "project":
                phases = [{"taps": taps, "weight": self._matrix(weight.flatten(1))} for taps, weight in step["phases"]]
                return {**step, "phases": phases, "bias": self._vector(step["bias"])}
        return step


def phase(weight: Tensor, down: Sequence[int | None], right: Sequence[int | None]) -> Phase:
    """The taps of a kernel [O, I, KH, KW] whose places see these offsets from a pixel, or None for those that see none.

    Weights of places that see the same pixel are added.
    """
    sums: dict[Tap, Tensor] = {}
    for y, dy in enumerate(down):
        for x, dx in enumerate(right):
            if dy is not None and dx is not None:
                sums[dy, dx] = sums.get((dy, dx), 0) + weight[:, :, y, x]
    return [*sums], torch.stack([*sums.values()], 2)


def scale_and_shift(norm: BatchNorm) -> tuple[Tensor, Tensor]:
    """Batch norm in evaluation as a x + b: a and b [C, 1]."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight * (norm.running_var.double() + norm.eps).rsqrt()
    return scale.float()[:, None], (norm.bias - norm.running_mean * scale).float()[:, None]


def of_dcgan(program: Program, network: Any) -> None:
    program.linear(network.project, network.first)
    for block, norm, stage, (side, doubled) in zip(
        network.blocks, network.norms, network.stages, pairwise(network.sides), strict=True
    ):
        for residual in block.children():
            program.then("keep")
            program.norm(residual.norm)
            program.leaky(LEAK)
            program.convolution(residual.conv, side)
            program.then("add")
        program.norm(norm)
        program.leaky(0)
        if network.smooth:
            program.then("double", channels=stage.in_channels, side=(2 * side[0], 2 * side[1]), near=0.75)
            program.convolution(stage, doubled)
        else:
            program.transposed(stage, doubled)
    program.then("tanh")


def of_r3gan(program: Program, network: Any) -> None:
    program.linear(network.project, network.first)
    for narrow, block, (side, doubled) in zip(
        [*network.changes, nn.Identity()], network.blocks, pairwise(network.sides), strict=True
    ):
        program.then("keep")
        for layer in (block.expand, block.mix):
            program.convolution(layer, side)
            program.leaky(LEAK)
        program.convolution(block.project, side)
        program.then("add")
        if isinstance(narrow, nn.Conv2d):
            program.convolution(narrow, side)
        program.then("double", channels=block.project.out_channels, side=doubled, near=0.75)
    program.leaky(LEAK)
    program.convolution(network.last, network.sides[-1])


def of_resnet(program: Program, network: Any) -> None:
    program.linear(network.project, network.first)
    for block, (side, doubled) in zip(network.blocks, pairwise(network.sides), strict=True):
        program.then("keep")
        program.norm(block.norms[0])
        program.leaky(0)
        program.repeated(block.convolutions[0], side, doubled)
        program.norm(block.norms[1])
        program.leaky(0)
        program.convolution(block.convolutions[1], doubled)
        program.then("swap")
        program.repeated(block.shortcut, side, doubled)
        program.then("add")
    program.norm(network.norm)
    program.leaky(0)
    program.convolution(network.last, network.sides[-1])
    program.then("tanh")


FAMILIES: dict[type[nn.Module], Callable[[Program, Any], None]] = {
    dcgan.Generator: of_dcgan, r3gan.Generator: of_r3gan, resnet.Generator: of_resnet,
}  # fmt: skip

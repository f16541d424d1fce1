"""A generator as a list of simple steps, which assets/page/network.js carries out in a browser.

Every layer with weights becomes one kind of step, `spread`: a transposed convolution.  A convolution at stride 1 is
that with its kernel turned around, and a linear layer is that on maps of 1x1.  The scale and shift of batch norm are
multiplied into the layer before it where there is one, and into the layer that computes them where z sets them.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from ptarmigan.networks import dcgan, r3gan, resnet
from ptarmigan.networks.layers import LEAK, BatchNorm, ConditionalBatchNorm

BLOCK = 4  # rows of a weight matrix that network.js multiplies at once

Step = dict[str, Any]
Side = tuple[int, int]  # height and width of a map


class Program:
    """The steps of a generator, in order, and the bytes of their weights.

    A step works on the current map [C, N, H, W].  `keep` copies it, `swap` exchanges it with the copy, and `add` adds
    the copy to it.  The first map is what the generator is given, [Z + E, N, 1, 1]: latents and class embeddings.
    """

    def __init__(self, network: Any) -> None:
        self.steps: list[Step] = []
        self.weights = bytearray()
        self.embedding = None if network.embedding is None else self._stored(network.embedding.weight, "<f2")
        FAMILIES[type(network)](self, network)
        self.steps = [self._with_weights(step) for step in self.steps]

    def then(self, do: str, **settings: Any) -> None:
        self.steps.append({"do": do, **settings})

    def spread(
        self, weight: Tensor, bias: Tensor | None, side: Side, *, stride: int = 1, pad: int = 0, groups: int = 1
    ) -> None:
        """A transposed convolution to a map of `side`: weight [O, KH, KW, I / groups], bias [O] or [O, H * W].

        What falls outside of `side` is left out, which is how an odd side is cropped.
        """
        bias = (torch.zeros(len(weight)) if bias is None else bias).view(len(weight), -1)
        self.then("spread", weight=weight, bias=bias, side=side, stride=stride, pad=pad, groups=groups)

    def linear(self, layer: nn.Linear, shape: tuple[int, int, int]) -> None:
        """A linear layer whose output is a map of `shape` (C, H, W)."""
        bias = None if layer.bias is None else layer.bias.view(shape[0], -1)
        self.spread(layer.weight.view(*shape, -1), bias, shape[1:])

    def convolution(self, layer: nn.Conv2d, side: Side) -> None:
        """A convolution at stride 1."""
        weight = layer.weight.flip(2, 3).permute(0, 2, 3, 1)
        pad = layer.kernel_size[0] - 1 - int(layer.padding[0])
        self.spread(weight, layer.bias, side, pad=pad, groups=layer.groups)

    def repeated(self, layer: nn.Conv2d, side: Side, doubled: Side) -> None:
        """Repeat each pixel four times, then a convolution at stride 1: one step, with fewer products for 3x3 kernels.

        An odd side is cropped before the convolution, so there it takes two steps.
        """
        if doubled != (2 * side[0], 2 * side[1]):
            self.then("repeat", side=doubled)
            self.convolution(layer, doubled)
            return
        pad = nn.functional.pad
        kernel = layer.weight.flip(2, 3)
        kernel = pad(kernel, (0, 0, 0, 1)) + pad(kernel, (0, 0, 1, 0))
        kernel = pad(kernel, (0, 1, 0, 0)) + pad(kernel, (1, 0, 0, 0))
        margin = layer.kernel_size[0] - 1 - int(layer.padding[0])
        self.spread(kernel.permute(0, 2, 3, 1), layer.bias, doubled, stride=2, pad=margin)

    def transposed(self, layer: nn.ConvTranspose2d, side: Side) -> None:
        """A transposed convolution without groups."""
        weight = layer.weight.permute(1, 2, 3, 0)
        self.spread(weight, layer.bias, side, stride=layer.stride[0], pad=int(layer.padding[0]))

    def norm(self, norm: nn.Module) -> None:
        """Batch norm with its running statistics, conditional or not."""
        if isinstance(norm, ConditionalBatchNorm):
            # (a x + b) (1 + S g) + T g  =  (a + a S g) x + (b + (b S + T) g)
            a, b = scale_and_shift(norm.norm)
            s, t = norm.modulate.weight.chunk(2)
            self.spread(torch.cat([a * s, b * s + t])[:, None, None], torch.cat([a, b]), (1, 1))
            self.then("modulate", by=self.steps.pop())
            return
        assert isinstance(norm, BatchNorm)
        a, b = scale_and_shift(norm)
        last = self.steps[-1]
        if last["do"] == "spread":
            last["weight"] = a[:, None, None] * last["weight"]
            last["bias"] = a * last["bias"] + b
        else:
            self.then("scale", scale=a, shift=b)

    def leaky(self, slope: float) -> None:
        """LeakyReLU, which is ReLU with slope 0."""
        self.then("leaky", slope=slope)

    def _stored(self, tensor: Tensor, kind: str) -> dict[str, Any]:
        """Where a tensor is in the weights, how many values it has, and by what they are multiplied.

        A tensor in half precision is divided by its largest value, so that small weights keep their digits.
        """
        scale = float(tensor.abs().max()) or 1.0 if kind == "<f2" else 1.0
        content = (tensor / scale).numpy().astype(kind).tobytes()
        at = len(self.weights)
        self.weights += content + bytes(-len(content) % 4)
        return {"at": at, "count": tensor.numel(), "scale": scale}

    def _with_weights(self, step: Step) -> Step:
        """The step with its weights stored: matrices in half precision and in blocks of rows, vectors in full."""
        match step["do"]:
            case "modulate":
                return {**step, "by": self._with_weights(step["by"])}
            case "scale":
                return {**step, **{name: self._stored(step[name], "<f4") for name in ("scale", "shift")}}
            case "spread":
                outputs, height, width, inner = step["weight"].shape
                groups = step["groups"]
                rows = step["weight"].reshape(groups, -1, inner)
                rows = nn.functional.pad(rows, (0, 0, 0, -rows.shape[1] % BLOCK))
                packed = rows.view(groups, -1, BLOCK, inner).transpose(2, 3)  # [groups, blocks, inner, BLOCK]
                stored = {"weight": self._stored(packed, "<f2"), "bias": self._stored(step["bias"], "<f4")}
                return {**step, **stored, "kernel": (height, width), "inputs": groups * inner, "outputs": outputs}
        return step


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
            program.then("double", side=(2 * side[0], 2 * side[1]))
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
        program.then("double", side=doubled)
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

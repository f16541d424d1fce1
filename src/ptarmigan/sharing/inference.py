"""A generator as other runtimes get it, and the check that they draw the same images."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ptarmigan.core.types import UserError
from ptarmigan.generator.generator import TrainedGenerator

SIZES = (1, 4, 7)  # batches that the check draws
TOLERANCE = 1e-3  # of pixels in [-1, 1]; two levels of a uint8 pixel are 8e-3 apart
IN_WORDS = "float32 [N, C, H, W] in [-1, 1]; round((x + 1) * 127.5) is a pixel in 0..255"

Draw = Callable[[Tensor, Tensor], Tensor]  # z float32 [N, Z], labels int64 [N] -> images float32 [N, C, H, W]


class Inference(nn.Module):
    """z float32 [N, Z] and labels int64 [N] -> images float32 [N, C, H, W], clamped to [-1, 1]."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        images: Tensor = self.network(z, labels)
        return images.clamp(-1, 1)


def traced(generator: TrainedGenerator) -> Any:
    """The generator as a program of torch.export for batches of any size.

    Examples are left out, which torch would store as a pickle, and so are the paths of this machine.
    """
    given = generator.latents(2), torch.zeros(2, dtype=torch.int64)
    batch = torch.export.Dim("batch")
    program = torch.export.export(Inference(generator.network), given, dynamic_shapes=({0: batch}, {0: batch}))
    program.example_inputs = None
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)
    return program


def check_parity(generator: TrainedGenerator, draw: Draw, what: str) -> None:
    """Raise UserError (export-differs) unless `draw` draws the generator's images, in batches of 1, 4 and 7."""
    network = Inference(generator.network)
    for size in SIZES:
        z, labels = generator.latents(size), torch.arange(size) % generator.spec.classes
        with torch.no_grad():
            difference = float((draw(z, labels) - network(z, labels)).abs().max())
        if not difference <= TOLERANCE:  # also where it is NaN
            text = f"{what} draws other images than PyTorch: in a batch of {size}, pixels in [-1, 1] differ by up to"
            remedy = "nothing was written: use another version of torch, or --to html"
            raise UserError(f"{text} {difference:.2g}; {remedy}", "export-differs")


@contextmanager
def quiet() -> Iterator[None]:
    """Hide what torch's exporters warn of, which no user can act on."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)

"""The matrix product of core/conv.py against oneDNN's gradient of a convolution's weight: interleaved, medians.

    OMP_NUM_THREADS=1 python studies/convolution.py [--rounds 15]

First the gradient alone, in bf16 and channels_last, for five shapes that take the product and three that do not.  Then
whole steps of recipes in bf16, with the product where ptarmigan uses it and without it.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.grad import conv2d_weight

from ptarmigan.config import resolve
from ptarmigan.core import conv as convolution
from ptarmigan.core.types import ImageSpec
from ptarmigan.data.batches import Batches
from ptarmigan.game.batch import train_batch
from ptarmigan.game.state import TrainState

# images, channels of x and of g, height and width of x, kernel, stride
MAPS = [
    (128, 64, 128, 8, 8, 4, 2),
    (64, 128, 128, 4, 4, 3, 1),
    (32, 128, 256, 6, 8, 4, 2),
    (64, 256, 512, 8, 8, 4, 2),
    (64, 128, 256, 16, 16, 4, 2),
    (64, 32, 64, 14, 14, 4, 2),
    (64, 64, 128, 32, 32, 4, 2),
    (64, 128, 256, 32, 32, 4, 2),
]
STEPS = [("auto", 28, 28, 1, 64), ("auto", 28, 28, 1, 32), ("auto", 48, 64, 3, 32), ("dcgan", 64, 64, 3, 64)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}, AMX: {convolution.has_amx()}")
    for images, inputs, outputs, height, width, kernel, stride in MAPS:
        x = noise(images, inputs, height, width)
        w = noise(outputs, inputs, kernel, kernel)
        g = torch.randn_like(F.conv2d(x, w, None, stride, 1))
        of = convolution.Shape(height, width, kernel, stride, 1)
        ways: dict[str, Callable[[], object]] = {
            "oneDNN": lambda x=x, w=w, g=g, stride=stride: conv2d_weight(x, w.shape, g, stride, 1),
            "product": lambda x=x, g=g, of=of: convolution.correlation(g, None, x, of),
        }
        taken = in_turns(ways, rounds)
        print(
            f"  {inputs:>3} -> {outputs:>3}, {height}x{width} -> {g.shape[2]}x{g.shape[3]}, kernel {kernel}, "
            f"{images:>3} images: {taken['oneDNN'] * 1e3:6.2f} ms, product {taken['product'] * 1e3:6.2f} ms, "
            f"ratio {taken['oneDNN'] / taken['product']:.2f}"
        )
    for recipe, height, width, channels, batch in STEPS:
        step = shipped(recipe, height, width, channels, batch)
        ways = {"oneDNN": lambda step=step: without(step), "product": step}
        taken = in_turns(ways, rounds)
        print(
            f"  {recipe}'s step, {height}x{width}x{channels}, batch {batch}: "
            + ", ".join(f"{name} {4 * batch / seconds:.0f} images/s" for name, seconds in taken.items())
            + f", ratio {taken['oneDNN'] / taken['product']:.2f}"
        )


def noise(*shape: int) -> Tensor:
    return torch.randn(shape).bfloat16().to(memory_format=torch.channels_last)


def shipped(recipe: str, height: int, width: int, channels: int, batch: int) -> Callable[[], None]:
    """Four training steps in bf16; one of them computes the penalties of the recipe, if it has any."""
    config = resolve({"recipe": recipe, "batch": batch, "images": "1000M"})
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (2_000, height, width, channels), np.uint8)
    batches = Batches(images, rng.integers(0, 10, 2_000), np.arange(2_000), batch=batch, seed=0)
    spec = ImageSpec(height, width, channels, tuple(map(str, range(10))))
    state = TrainState.create(config, spec, torch.device("cpu"), bf16=True)

    def steps() -> None:
        for _ in range(4):
            train_batch(state, batches)

    return steps


def without(step: Callable[[], None]) -> None:
    kept = convolution.PLACES
    convolution.PLACES = 0
    step()
    convolution.PLACES = kept


def in_turns(ways: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds of each; two rounds to warm up."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds + 2):
        for name, way in ways.items():
            begun = time.perf_counter()
            way()
            seconds[name].append(time.perf_counter() - begun)
    return {name: statistics.median(taken[2:]) for name, taken in seconds.items()}


if __name__ == "__main__":
    main()

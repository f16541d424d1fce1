"""Images/s of a training step of the `dcgan` recipe and of the textbook step: 64x64 RGB, 64 channels, batch 64.

    python benchmarks/step.py [--rounds 15] [--cpu]

Four steps run interleaved, both programs in fp32 and in bf16; rates are medians.  Ours is the shipped step with
everything that a run does between ticks: batches from a pack in memory, addressed latents, the moving average of G.
The textbook step (benchmarks/textbook.py) has sigmoid and BCELoss, separate backward passes and `.item()` every step;
it gets its batch ready-made, and in bf16 its networks run under autocast.  The mixed ratio, ours in bf16 over the
textbook's in fp32, is what a user gains where the probe picks bf16; the other two leave out the gain of the number
format.  The second table compares the rate of loading alone with the rate of a step, at
this shape and at 28x28 grey, where the step of `auto` needs the most images/s.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch

from ptarmigan.config import resolve
from ptarmigan.core.types import ImageSpec
from ptarmigan.data.batches import Batches
from ptarmigan.game.batch import train_batch
from ptarmigan.game.state import TrainState
from ptarmigan.training.probe import probe
from textbook import TextbookStep

CPU = torch.device("cpu")
BATCH = 64
IMAGES = 20_000  # in the pack


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15, help="at least 2")
    parser.add_argument("--cpu", action="store_true", help="count CPU time: for one thread of a machine that is shared")
    arguments = parser.parse_args()
    rounds = arguments.rounds
    timed = partial(seconds_of, time.process_time if arguments.cpu else time.perf_counter)

    _, batches, kind = shipped("dcgan", 64, 3)
    state = {bf16: shipped("dcgan", 64, 3, bf16)[0] for bf16 in (False, True)}
    books = {bf16: TextbookStep(bf16=bf16) for bf16 in (False, True)}
    images = batches.load(0).images.contiguous()
    steps: dict[str, Callable[[], object]] = {}
    for bf16, name in ((False, "fp32"), (True, "bf16")):
        steps |= {f"textbook {name}": partial(books[bf16].step, images), f"ptarmigan {name}": state[bf16]}
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(rounds + 2):  # two to warm up
        for name in steps if turn % 2 else reversed(steps):
            seconds[name].append(timed(steps[name]))
    taken = {name: each[2:] for name, each in seconds.items()}
    print_rates(taken, kind)
    print("images/s of loading alone and of the step")
    for recipe, size, channels in (("dcgan", 64, 3), ("auto", 28, 1)):
        step, batches, kind = shipped(recipe, size, channels)
        trained = BATCH / statistics.median(timed(step) for _ in range(rounds))
        loaded = BATCH / statistics.median(timed(partial(batches.load, i * BATCH)) for i in range(50))
        print(
            f"  {recipe:<6} {size}x{size}x{channels}  loading {loaded:9,.0f}  step {trained:8,.1f} ({kind})  "
            f"ratio {loaded / trained:6.0f}"
        )


def print_rates(taken: dict[str, list[float]], kind: str) -> None:
    """The images/s of each step, and the ratios of ours to the textbook's."""
    print(f"DCGAN step, 64x64 RGB, 64 channels, batch {BATCH}; the probe picks {kind}")
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}")
    for name, each in taken.items():
        print(f"  {name:<16} {BATCH / statistics.median(each):8.1f} images/s")
    for ours_in, book_in in (("fp32", "fp32"), ("bf16", "bf16"), ("bf16", "fp32")):
        book, mine = taken[f"textbook {book_in}"], taken[f"ptarmigan {ours_in}"]
        medians = statistics.median(book) / statistics.median(mine)
        ratios = statistics.quantiles([a / b for a, b in zip(book, mine, strict=True)], n=4)
        print(
            f"  ratio {ours_in}/{book_in}  {medians:5.2f} of medians; by round, quartiles "
            f"{' '.join(f'{q:.2f}' for q in ratios)}"
        )


def shipped(
    recipe: str, size: int, channels: int, bf16: bool | None = None
) -> tuple[Callable[[], object], Batches, str]:
    """The shipped step on random images of a shape, its batches, and the precision: `bf16`, or the probe's choice."""
    config = resolve({"recipe": recipe, "batch": BATCH, "images": "1000M"})
    spec = ImageSpec(size, size, channels, tuple(map(str, range(10))))
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (IMAGES, size, size, channels), np.uint8)
    labels = rng.integers(0, 10, len(images))
    batches = Batches(images, labels, np.arange(len(images)), batch=BATCH, seed=0)
    if bf16 is None:
        bf16, _, _ = probe(config, spec, CPU, lambda state: partial(train_batch, state, batches))
    state = TrainState.create(config, spec, CPU, bf16)
    return (lambda: train_batch(state, batches)), batches, "bf16" if bf16 else "fp32"


def seconds_of(clock: Callable[[], float], step: Callable[[], object]) -> float:
    begun = clock()
    step()
    return clock() - begun


if __name__ == "__main__":
    main()

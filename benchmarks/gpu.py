"""A training step on a CUDA device as plain calls and as recorded graphs: images/s, memory, share of idle time.

    python benchmarks/gpu.py [--seconds 3] [--compile] [--colour]

The step includes everything that a run does between ticks: addressed latents, images from device memory, the moving
average of G.  Both ways run interleaved; rates are medians.  Idle is the share of wall time of 50 steps in which the
profiler saw no kernel and no copy.  The profiler slows the host, so it overestimates the idle time of plain calls.
MiB is the memory of all tensors at most; the last column is that of a step in fp32 by arithmetic, without the images.
"""

from __future__ import annotations

import argparse
import statistics
import time
from functools import partial

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile

from ptarmigan.config import Config, resolve
from ptarmigan.core.types import ImageSpec
from ptarmigan.data.batches import Batches
from ptarmigan.game.batch import Step, eager_step, train_batch
from ptarmigan.game.cuda_graph import GraphStep
from ptarmigan.game.memory import step_bytes
from ptarmigan.game.state import TrainState

CUDA = torch.device("cuda")
MOST_VALUES = 3 * 10**8  # values of the images of a case
CASES = [  # recipe, height and width, channels, batch
    ("auto", 28, 1, 32), ("auto", 28, 1, 256), ("auto", 64, 3, 64), ("auto", 64, 3, 256), ("dcgan", 64, 3, 128),
]  # fmt: skip
COLOUR = [("auto", 64, 4, 32), ("auto", 64, 3, 32), ("auto", 128, 3, 32), ("auto", 256, 3, 32), ("auto", 512, 3, 16)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3.0, help="of measuring, for each way of each case")
    parser.add_argument("--compile", action="store_true", help="also measure with torch.compile on G")
    parser.add_argument("--colour", action="store_true", help="measure pictures in colour, from 64x64 to 512x512")
    asked = parser.parse_args()
    if not torch.cuda.is_available():
        parser.error("needs a CUDA device")
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}")
    print(
        "recipe  images       batch           images/s: calls   graphs  ratio  idle: calls  graphs  MiB: calls graphs"
        "  by arithmetic"
    )
    for case in COLOUR if asked.colour else CASES:
        for bf16 in (False, True):
            show(case, bf16, asked.seconds)
        if asked.compile:
            show(case, False, asked.seconds, compiled=True)


def show(case: tuple[str, int, int, int], bf16: bool, seconds: float, compiled: bool = False) -> None:
    recipe, size, channels, batch = case
    steps, peaks = [], []
    expected = step_bytes(*game(case), batch) / 2**20
    for by in (eager_step, GraphStep()):
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step = stepper(case, bf16, by, compiled)
        for _ in range(16):
            step()
        torch.cuda.synchronize()
        peaks.append((torch.cuda.max_memory_allocated() - before) / 2**20)
        steps.append(step)
    rates: list[list[float]] = [[], []]
    until = time.perf_counter() + 2 * seconds
    while time.perf_counter() < until:
        for step, found in zip(steps, rates, strict=True):
            begun = time.perf_counter()
            for _ in range(20):
                step()
            torch.cuda.synchronize()
            found.append(20 * batch / (time.perf_counter() - begun))
    calls, graphs = (statistics.median(found) for found in rates)
    idles = [idle(step) for step in steps]
    kind = ("bf16" if bf16 else "fp32") + (" compiled G" if compiled else "")
    print(
        f"{recipe:<6}  {size}x{size}x{channels:<6} {batch:4} {kind:<16} {calls:12,.0f} {graphs:8,.0f} "
        f"{graphs / calls:6.2f} {idles[0]:12.2f} {idles[1]:7.2f} {peaks[0]:12,.0f} {peaks[1]:6,.0f} {expected:13,.0f}",
        flush=True,
    )


def game(case: tuple[str, int, int, int]) -> tuple[Config, ImageSpec]:
    recipe, size, channels, batch = case
    resampling = "smooth" if recipe == "auto" and size > 32 else "strided"
    config = resolve({"recipe": recipe, "batch": batch, "images": "1000M", "resampling": resampling})
    return config, ImageSpec(size, size, channels, tuple(map(str, range(10))))


def stepper(case: tuple[str, int, int, int], bf16: bool, by: Step, compiled: bool) -> partial[dict[str, torch.Tensor]]:
    """The step of a case on random images."""
    _, size, channels, batch = case
    config, spec = game(case)
    rng, count = np.random.default_rng(0), min(20_000, MOST_VALUES // (size * size * channels))
    images = rng.integers(0, 256, (count, size, size, channels), np.uint8)
    batches = Batches(images, rng.integers(0, 10, count), np.arange(count), batch=batch, seed=0, device=CUDA)
    state = TrainState.create(config, spec, CUDA, bf16)
    if compiled:
        state.G.compile()
    return partial(train_batch, state, batches, by)


def idle(step: partial[dict[str, torch.Tensor]]) -> float:
    """The share of wall time in which the device does nothing."""
    for _ in range(3):
        step()
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        begun = time.perf_counter()
        for _ in range(50):
            step()
        torch.cuda.synchronize()
        wall = time.perf_counter() - begun
    busy, end = 0.0, 0.0
    for event in sorted(seen.events(), key=lambda event: event.time_range.start):
        if event.device_type == torch.autograd.DeviceType.CUDA:
            busy += max(0.0, event.time_range.end - max(end, event.time_range.start))
            end = max(end, event.time_range.end)
    return 1 - busy / 1e6 / wall


if __name__ == "__main__":
    main()

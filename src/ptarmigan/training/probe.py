"""Measure, before a run starts, the speed of a step and of a snapshot, and how many images fit in memory."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from ptarmigan.config import Config
from ptarmigan.core import dist
from ptarmigan.core.devices import computes_bf16, free_memory, out_of_memory
from ptarmigan.core.types import ImageSpec, UserError
from ptarmigan.game.batch import rank_batch
from ptarmigan.game.memory import KERNELS_ON_CPU, step_bytes
from ptarmigan.game.state import TrainState
from ptarmigan.generator.generator import MAX_ROWS, generate_images
from ptarmigan.losses.custom import LossFile
from ptarmigan.training import checkpoint
from ptarmigan.training.outputs import GRID_COLUMNS
from ptarmigan.training.snapshot import STATISTICS_IMAGES, LiveScore

PROBE_SECONDS = 1.0  # the environment's PTARMIGAN_PROBE_SECONDS overrides it; 0: one step in each precision
LONG_SECONDS = 4.0  # if the first steps on a CPU take longer, they are the measurement
MUCH_SLOWER = 3.0  # a bf16 convolution that takes so many times as long as in fp32 ends the trial of bf16
MAPS = 100  # maps of an image's size and of --width channels, more than a step of any network keeps for an image
SAMPLE = 8  # images generated and scored to estimate what a snapshot takes
DISK_SPEED = 150e6  # bytes per second at which a checkpoint is taken to be written
FILE_SECONDS = 0.3  # that a snapshot's other files are taken to need


StepOf = Callable[[TrainState], Callable[[], object]]  # a state -> what makes its next step


class Probed(NamedTuple):
    bf16: bool  # bf16 was faster, or was asked for
    micro_batch: int  # images at once that fit in memory; 0: the whole batch
    seconds: float  # of one step


def probe(
    config: Config,
    spec: ImageSpec,
    device: torch.device,
    step_of: StepOf,
    loss_file: LossFile | None = None,
) -> Probed:
    """Time steps of throwaway states, alternating fp32 and bf16; `step_of(state)` returns a function that does a step.

    The probe does not affect the run, whose random draws do not depend on earlier draws.  Raises OutOfMemory if not
    even one image at a time fits.
    """
    kinds = {"fp32": [False], "bf16": [True], "auto": [False, True]}[config.train.precision]
    if config.train.precision == "auto" and not dist.broadcast(bf16_may_be_faster(config, spec, device)):
        kinds = [False]
    states = {bf16: TrainState.create(config, spec, device, bf16, loss_file) for bf16 in kinds}
    taken: dict[bool, list[float]] = {bf16: [] for bf16 in kinds}
    micro_batch, first = config.train.micro_batch, dict[bool, float]()
    for bf16, state in states.items():  # the first step includes set-up, and shows whether memory is enough
        micro_batch, first[bf16] = fitting_micro_batch(micro_batch, state, step_of)
    for state in states.values():
        state.micro_batch = micro_batch
    steps = {bf16: step_of(state) for bf16, state in states.items()}
    if dist.broadcast(device.type == "cpu" and sum(first.values()) > LONG_SECONDS):
        taken = {bf16: [seconds] for bf16, seconds in first.items()}
        until = 0.0
    else:
        until = time.perf_counter() + float(os.environ.get("PTARMIGAN_PROBE_SECONDS", PROBE_SECONDS))
    while dist.broadcast(time.perf_counter() < until or not taken[kinds[-1]]):
        for bf16, state in states.items():
            taken[bf16].append(time_step(state, steps[bf16]))
    medians = {bf16: statistics.median(seconds) for bf16, seconds in taken.items()}
    best = min(medians, key=medians.__getitem__)
    return Probed(*dist.broadcast([best, micro_batch, medians[best]]))


def bf16_may_be_faster(config: Config, spec: ImageSpec, device: torch.device) -> bool:
    """Whether steps in bf16 are worth a trial: a CPU that only emulates bf16 may need minutes for one step.

    Such a CPU is recognised by its instructions, or else by one small convolution.
    """
    if not computes_bf16(device):
        return False
    if device.type != "cpu":
        return True
    width, shape = config.model.width, (spec.height // 2, spec.width // 2)

    def seconds(dtype: torch.dtype) -> float:
        image = torch.ones(1, width, *shape, dtype=dtype, requires_grad=True)
        weight = torch.ones(2 * width, width, 4, 4, dtype=dtype, requires_grad=True)
        begun = time.perf_counter()
        torch.autograd.grad(F.conv2d(image, weight, stride=2, padding=1).sum(), (image, weight))
        return time.perf_counter() - begun

    fp32, bf16 = (min(seconds(dtype) for _ in range(3)) for dtype in (torch.float32, torch.bfloat16))
    return bf16 < MUCH_SLOWER * fp32


def fitting_micro_batch(micro_batch: int, state: TrainState, step_of: StepOf) -> tuple[int, float]:
    """The first of `micro_batch`, half of it, a quarter ... whose step fits, and the seconds of that step.

    A size that the user set is not halved.
    """
    state.micro_batch = micro_batch
    try:
        with report_out_of_memory(state):
            check_memory(state)
            return micro_batch, time_step(state, step_of(state))
    except OutOfMemory:
        if state.config.train.micro_batch or dist.world() > 1 or smaller_micro_batch(state) == 0:
            raise
    return fitting_micro_batch(smaller_micro_batch(state), state, step_of)


def check_memory(state: TrainState) -> None:
    """Raise MemoryError if a step does not fit in a CPU's free memory: the system would end the process for that.

    Several ranks are not checked, since how many share the memory is not known.
    """
    free = free_memory() if state.device.type == "cpu" and dist.world() == 1 else None
    if free is None:
        return
    config, spec, images = state.config, state.spec, images_at_once(state)
    weights = sum(weight.nbytes for network in (state.G, state.D, state.ema) for weight in network.parameters())
    pixels = 4 * spec.height * spec.width  # bytes of one channel
    if 4 * weights + MAPS * config.model.width * pixels * config.train.batch <= free:
        return
    waiting = 3 * spec.channels * pixels * (config.train.batch - images)  # real, fake and gradients of other parts
    if KERNELS_ON_CPU * step_bytes(config, spec, images) + waiting > free + weights:
        raise MemoryError


def snapshot_cost(state: TrainState, live: LiveScore | None) -> tuple[float, float]:
    """Estimates of the seconds of a snapshot without and with the live score, from a few images."""
    labels, numbers = np.zeros(SAMPLE, np.int64), np.arange(SAMPLE)

    def seconds(action: Callable[[], object]) -> float:
        """Of one image, at the second call, which includes no set-up."""
        action()
        begun = time.perf_counter()
        action()
        return (time.perf_counter() - begun) / SAMPLE

    images = generate_images(state.ema, state.config.model, labels, numbers, seed=0)
    generating = seconds(lambda: generate_images(state.ema, state.config.model, labels, numbers, seed=0))
    shown = GRID_COLUMNS * min(state.spec.classes, MAX_ROWS)
    picture = generating * (STATISTICS_IMAGES + shown) + FILE_SECONDS + checkpoint.size(state) / DISK_SPEED
    if live is None:
        return picture, picture
    return picture, picture + len(live.labels) * (generating + seconds(lambda: live.extractor(images)))


class OutOfMemory(UserError):
    """The device has no memory left for the images that are computed at once."""

    code = "out-of-memory"
    status = 1
    of_one_rank = True


@contextmanager
def report_out_of_memory(state: TrainState) -> Iterator[None]:
    """Turn the device's own error into OutOfMemory, which names the micro-batch to try."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        less, batch = smaller_micro_batch(state), "--batch, " if needs_whole_batch(state) else ""
        raise OutOfMemory(
            f"out of memory on {state.device}, computing {images_at_once(state)} images at once: "
            + (f"try --micro-batch {less}" if less else f"try a smaller {batch}--width or --size")
        ) from None


@contextmanager
def report_memory(device: torch.device) -> Iterator[None]:
    """Turn an error that memory is out into OutOfMemory, outside of steps."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        text = f"out of memory on {device}, outside of a training step: try a smaller --width, --size or --batch"
        raise OutOfMemory(text) from None


def needs_whole_batch(state: TrainState) -> bool:
    """The batch cannot come in parts: batch norm in D, its class term or a custom loss compares all its images."""
    model = state.config.model
    custom = state.loss_file is not None and state.loss_file.whole
    return model.d_norm == "batch" or model.conditioning == "reacgan" or custom


def images_at_once(state: TrainState) -> int:
    batch = rank_batch(state.config.train.batch)
    return min(state.micro_batch or batch, batch)


def smaller_micro_batch(state: TrainState) -> int:
    """Half of the images at once; 0 where that is one image already, or where the batch cannot be split."""
    return 0 if needs_whole_batch(state) else images_at_once(state) // 2


def time_step(state: TrainState, step: Callable[[], object]) -> float:
    begun = time.perf_counter()
    step()
    float(state.found_inf)  # waits for the device
    return time.perf_counter() - begun

"""Measure, before a run starts, which precision is faster, how long a step takes, and how many images fit in memory."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch

from ptarmigan.config import Config
from ptarmigan.core import dist
from ptarmigan.core.devices import out_of_memory
from ptarmigan.core.types import ImageSpec, UserError
from ptarmigan.game.batch import rank_batch
from ptarmigan.game.state import TrainState
from ptarmigan.losses.custom import LossFile

PROBE_SECONDS = 1.0  # the environment's PTARMIGAN_PROBE_SECONDS overrides it; 0: one step in each precision


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
    if device.type == "mps" and config.train.precision == "auto":
        kinds = [False]
    states = {bf16: TrainState.create(config, spec, device, bf16, loss_file) for bf16 in kinds}
    taken: dict[bool, list[float]] = {bf16: [] for bf16 in kinds}
    micro_batch = config.train.micro_batch
    for state in states.values():  # the first step includes set-up, and shows whether memory is enough
        micro_batch = fitting_micro_batch(micro_batch, state, step_of)
    for state in states.values():
        state.micro_batch = micro_batch
    steps = {bf16: step_of(state) for bf16, state in states.items()}
    until = time.perf_counter() + float(os.environ.get("PTARMIGAN_PROBE_SECONDS", PROBE_SECONDS))
    while dist.broadcast(time.perf_counter() < until or not taken[kinds[-1]]):
        for bf16, state in states.items():
            taken[bf16].append(time_step(state, steps[bf16]))
    medians = {bf16: statistics.median(seconds) for bf16, seconds in taken.items()}
    best = min(medians, key=medians.__getitem__)
    return Probed(*dist.broadcast([best, micro_batch, medians[best]]))


def fitting_micro_batch(micro_batch: int, state: TrainState, step_of: StepOf) -> int:
    """The first of `micro_batch`, half of it, a quarter ... whose step fits; a size that the user set is not halved."""
    state.micro_batch = micro_batch
    try:
        with report_out_of_memory(state):
            time_step(state, step_of(state))
    except OutOfMemory:
        if state.config.train.micro_batch or dist.world() > 1 or smaller_micro_batch(state) == 0:
            raise
        return fitting_micro_batch(smaller_micro_batch(state), state, step_of)
    return micro_batch


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

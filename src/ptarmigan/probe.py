"""How fast a step is, and in which precision: a second of steps that the run never sees."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch

from ptarmigan.config import Config
from ptarmigan.contracts import ImageSpec
from ptarmigan.state import TrainState

PROBE_SECONDS = 1.0
TICK_SECONDS = 2.0


def probe(
    config: Config, spec: ImageSpec, device: torch.device, step: Callable[[TrainState], object]
) -> tuple[bool, float]:
    """Steps of throwaway states, fp32 and bf16 by turns -> (is bf16 faster, or asked for?, seconds a step).

    Nothing of it reaches the run: every draw there is addressed.
    """
    kinds = {"fp32": [False], "bf16": [True], "auto": [False, True]}[config.train.precision]
    if device.type == "mps" and config.train.precision == "auto":
        kinds = [False]
    states = {bf16: TrainState.create(config, spec, device, bf16) for bf16 in kinds}
    taken: dict[bool, list[float]] = {bf16: [] for bf16 in kinds}
    for state in states.values():
        timed(state, step)  # first calls pay for set-up
    until = time.perf_counter() + PROBE_SECONDS
    while time.perf_counter() < until or not taken[kinds[-1]]:
        for bf16, state in states.items():
            taken[bf16].append(timed(state, step))
    medians = {bf16: statistics.median(seconds) for bf16, seconds in taken.items()}
    best = min(medians, key=medians.__getitem__)
    return best, medians[best]


def timed(state: TrainState, step: Callable[[TrainState], object]) -> float:
    begun = time.perf_counter()
    step(state)
    float(state.bad)  # waits for the device
    return time.perf_counter() - begun

"""Record a step once as a CUDA graph of its kernels, and then launch it by one call.

The kernels of a small network take less time than Python takes to launch them.  A graph reads its inputs from fixed
memory and works on the tensors that it was recorded with: the weights, the moments, the gradients.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from ptarmigan.config.sections import has_ramp
from ptarmigan.core import dist
from ptarmigan.core.types import Batch
from ptarmigan.game.batch import Step, eager_step
from ptarmigan.game.draws import Draws
from ptarmigan.game.micro_batch import Terms, slices
from ptarmigan.game.state import TrainState

WARM = 3  # eager steps before recording, in which libraries choose and set up their kernels


def make_step(state: TrainState) -> Step:
    """The step of a run: recorded graphs where a step is the same sequence of kernels each time, else `eager_step`."""
    config, loss, train = state.config, state.config.loss, state.config.train
    moving = has_ramp((loss.r1, loss.r2, train.d_betas, train.g_betas))
    drawn_inside = config.model.dropout > 0 or config.data.augment != "none" or state.loss_file is not None
    in_parts = len(slices(train.batch, state.micro_batch)) > 1
    recordable = state.device.type == "cuda" and not (moving or drawn_inside or in_parts or dist.world() > 1)
    return GraphStep() if recordable else eager_step


class Recorded(NamedTuple):
    graph: torch.cuda.CUDAGraph
    inputs: list[Tensor]
    terms: Terms  # where each replay leaves them


class GraphStep:
    """`eager_step` as graphs: one with R1 and R2 and one without.  The returned terms are valid until the next step."""

    def __init__(self) -> None:
        self.warm: dict[bool, int] = {}
        self.recorded: dict[bool, Recorded] = {}

    def __call__(self, state: TrainState, real: Batch, draws: Draws) -> Terms:
        kind = state.penalised
        if self.warm.get(kind, 0) < WARM:
            self.warm[kind] = self.warm.get(kind, 0) + 1
            return eager_step(state, real, draws)
        if kind not in self.recorded:
            self.recorded[kind] = record(state, real, draws)
        graph, inputs, terms = self.recorded[kind]
        torch._foreach_copy_(inputs, tensors_of(real, draws))
        graph.replay()
        return terms


def tensors_of(real: Batch, draws: Draws) -> list[Tensor]:
    """All that a recordable step reads."""
    given = (real.images, real.labels, draws.z, draws.mix, draws.grounds)
    return [tensor for tensor in given if tensor is not None]


def record(state: TrainState, real: Batch, draws: Draws) -> Recorded:
    """Record a step on copies of its inputs, without executing it."""
    images, labels, z, *more = inputs = [tensor.clone() for tensor in tensors_of(real, draws)]
    rest = iter(more)
    mix, grounds = (None if tensor is None else next(rest) for tensor in (draws.mix, draws.grounds))
    draws = replace(draws, z=z, mix=mix, grounds=grounds)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):  # another thread sends the next batch meanwhile
        terms = eager_step(state, Batch(images, labels), draws)
    return Recorded(graph, inputs, terms)

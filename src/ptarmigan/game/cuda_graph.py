"""On CUDA a step is recorded once, as a graph of its kernels, and then started by one call.

A small network's kernels take less time than Python takes to name them.  A graph reads its input from fixed places
and works on the tensors that it was recorded with: the weights, the moments, the gradients' memory.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ptarmigan.config import Ramp
from ptarmigan.core import dist
from ptarmigan.core.types import Batch
from ptarmigan.game.batch import Step, Terms, eager_step
from ptarmigan.game.micro_batch import parts_of
from ptarmigan.game.state import TrainState

WARM = 3  # steps before one is recorded: libraries choose and set up their kernels in the first


def make_step(state: TrainState) -> Step:
    """What plays a run's steps: graphs, where a step is the same sequence of kernels each time; else `play`."""
    config, loss, train = state.config, state.config.loss, state.config.train
    moving = any(isinstance(value, Ramp) for value in (loss.r1, loss.r2, *train.d_betas, *train.g_betas))
    drawn_inside = config.model.dropout > 0 or config.data.augment != "none" or state.loss_file is not None
    in_parts = len(parts_of(train.batch, state.micro_batch)) > 1
    recordable = state.device.type == "cuda" and not (moving or drawn_inside or in_parts or dist.world() > 1)
    return Graphs() if recordable else eager_step


class Recorded(NamedTuple):
    graph: torch.cuda.CUDAGraph
    inputs: list[Tensor]
    terms: Terms  # where each replay leaves them


class Graphs:
    """`play` by graphs: one with the penalties and one without.  Terms are good until the next step."""

    def __init__(self) -> None:
        self.warm: dict[bool, int] = {}
        self.recorded: dict[bool, Recorded] = {}

    def __call__(self, state: TrainState, real: Batch, z: Tensor, u: Tensor | None) -> Terms:
        kind, given = state.penalised, [real.images, real.labels, z, *([] if u is None else [u])]
        if self.warm.get(kind, 0) < WARM:
            self.warm[kind] = self.warm.get(kind, 0) + 1
            return eager_step(state, real, z, u)
        if kind not in self.recorded:
            self.recorded[kind] = record(state, given)
        graph, inputs, terms = self.recorded[kind]
        torch._foreach_copy_(inputs, given)
        graph.replay()
        return terms


def record(state: TrainState, given: list[Tensor]) -> Recorded:
    """Record a step without making it; its input is to be put into copies of `given`."""
    images, labels, z, *u = inputs = [tensor.clone() for tensor in given]
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):  # another thread sends the next batch meanwhile
        terms = eager_step(state, Batch(images, labels), z, u[0] if u else None)
    return Recorded(graph, inputs, terms)

"""How much memory a training step takes, by a step on the meta device, whose tensors have shapes but no values."""

from __future__ import annotations

import copy
import weakref
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ptarmigan.config import Config
from ptarmigan.core.types import Batch, ImageSpec
from ptarmigan.game.batch import eager_step
from ptarmigan.game.draws import Draws
from ptarmigan.game.state import TrainState
from ptarmigan.losses.adversarial import objective
from ptarmigan.networks import build, without_weights

KERNELS_ON_CPU = 1.4  # times the memory of a step's tensors is what a process on a CPU grows by: docs/scaling.md


def step_bytes(config: Config, spec: ImageSpec, images: int) -> int:
    """The most bytes that tensors take in a training step in fp32, with so many images in the batch, all at once.

    These are the weights, their moving average, gradients and moments, and the maps that the gradients need, those of
    R1 and R2 too.  What kernels use inside is not counted, nor what the terms of a loss file need.
    """
    if config.loss.loss.endswith(".py"):
        config = replace(config, loss=replace(config.loss, loss="non_saturating"))
    with Peak() as peak:
        with without_weights():
            state = state_without_values(config, spec)
            real = torch.zeros(images, spec.channels, spec.height, spec.width).to(memory_format=torch.channels_last)
            labels = torch.zeros(images, dtype=torch.int64)
        eager_step(state, Batch(real, labels), Draws.of_d(state, np.arange(images)))
    weights = sum(weight.nbytes for network in (state.G, state.D) for weight in network.parameters())
    return int(peak.most + 2 * weights)  # Adam's two moments, which `Still` does not make


def state_without_values(config: Config, spec: ImageSpec) -> TrainState:
    """The state of a run on the meta device, to be made within `without_weights`."""
    G, D = build(spec, config.model, config.train.seed)
    for network in (G, D):
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    players = Still(G.parameters()), Still(D.parameters())
    return TrainState(config, spec, G, D, copy.deepcopy(G), *players, objective(config.loss), torch.zeros(()))


class Still(torch.optim.SGD):
    """An optimizer that leaves the weights as they are, since Adam's fused kernel needs values."""

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        pass


class Peak(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up the bytes of the tensors on the meta device that are made while it is open: `now`, and at `most`."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now, self.most = 0, 0
        self.living: dict[int, weakref.ref[Any]] = {}  # to each storage in use, by its address

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor) and tensor.device.type == "meta":
                self.add(tensor.untyped_storage())
        return out

    def add(self, storage: torch.UntypedStorage) -> None:
        address, size = storage._cdata, storage.nbytes()
        if address in self.living:
            return

        def gone(_: object) -> None:
            self.now -= size
            del self.living[address]

        self.living[address] = weakref.ref(storage, gone)
        self.now += size
        self.most = max(self.most, self.now)

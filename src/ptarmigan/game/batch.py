"""One training step on a global batch: its images and draws, the updates of D and G, the moving average of G."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ptarmigan.core import dist
from ptarmigan.core.types import Batch, UserError
from ptarmigan.data.batches import Batches
from ptarmigan.game.augment import INTERVAL, adapt
from ptarmigan.game.draws import Draws
from ptarmigan.game.micro_batch import Terms, slices
from ptarmigan.game.optim import ema_decay, learning_rate, set_rate, update_ema
from ptarmigan.game.state import TrainState
from ptarmigan.game.step import d_step, g_step, generate

Step = Callable[[TrainState, Batch, Draws], Terms]


def eager_step(state: TrainState, real: Batch, draws: Draws) -> Terms:
    """One update of D, then one of G on the same latents; returns the named terms of both."""
    fake = generate_fakes(state, real.labels, draws.z)
    d = d_step(state, real, fake, draws)
    g = g_step(state, real, fake, draws.for_g())
    ada = steer_ada(state, d.pop("signs")) if "signs" in d else {}
    return {f"d_{name}": term for name, term in d.items()} | {f"g_{name}": term for name, term in g.items()} | ada


def train_batch(state: TrainState, batches: Batches, step: Step = eager_step) -> Terms:
    """`d_steps` updates of D and one of G; every random draw depends on the images seen, not on earlier draws.

    `step` does the last update of D and the update of G: `eager_step`, or the recorded graph of cuda_graph.py.
    """
    train, seen, indices = state.config.train, state.images_seen, sample_indices(state)
    first = int(indices[0])
    set_schedules(state)
    for number in range(1, train.d_steps):
        real, draws = real_batch(batches, first, f"order {number}"), Draws.of_d(state, indices, number)
        with torch.no_grad():
            fake = generate_fakes(state, real.labels, draws.z)
        d_step(state, real, fake, draws)
    terms = step(state, real_batch(batches, first, "order"), Draws.of_d(state, indices))
    update_ema(state.ema, state.G, ema_decay(seen, train.batch, state.now(train.ema_half_life)))
    state.images_seen += train.batch
    return terms


def set_schedules(state: TrainState) -> None:
    """Set the learning rates and betas of both players for the next step."""
    train, scale = state.config.train, state.progress.lr_scale
    for optimizer, lr, (first_beta, second_beta) in (
        (state.opt_d, train.d_lr, train.d_betas),
        (state.opt_g, train.g_lr, train.g_betas),
    ):
        set_rate(optimizer, learning_rate(scale * lr, state.images_seen, state.start, state.end, train.anneal))
        optimizer.param_groups[0]["betas"] = state.now(first_beta), state.now(second_beta)


def rank_batch(batch: int) -> int:
    """Images of a global batch that each rank takes; raises UserError where it does not divide."""
    ranks = dist.world()
    if batch % ranks:
        near = [size for size in (batch // ranks * ranks, -(-batch // ranks) * ranks) if size]
        raise UserError(
            f"batch: {batch} is not divisible by {ranks} ranks; try --batch {' or '.join(map(str, near))}",
            "options-conflict",
        )
    return batch // ranks


def real_batch(batches: Batches, first: int, purpose: str) -> Batch:
    """This rank's real images: those at the global positions from `first` on."""
    loaded = batches.get(first, purpose, step=batches.batch * dist.world())
    return Batch(loaded.images, loaded.labels)


def sample_indices(state: TrainState) -> NDArray[np.int64]:
    """Global sample indices [N] of this rank's share of the batch that comes next."""
    count = rank_batch(state.config.train.batch)
    return np.arange(count) + state.images_seen + dist.rank() * count


def generate_fakes(state: TrainState, labels: Tensor, z: Tensor) -> Batch:
    """G's images for the real batch's labels, so that pairs share a class and the class priors are equal.

    One forward pass of G serves both updates.  With micro-batches the images have no autograd graph, and G's update
    generates each part again.
    """
    parts = slices(len(labels), state.micro_batch)
    if len(parts) == 1:
        return Batch(generate(state, z, labels), labels)
    with torch.no_grad():
        return Batch(torch.cat([generate(state, z[part], labels[part]) for part in parts]), labels)


def steer_ada(state: TrainState, r: Tensor) -> Terms:
    """ADA's r, the mean sign of D on this batch's real images, and the p with which it was measured.

    Every INTERVAL batches p is updated, on the device.
    """
    batch, scalars = state.config.train.batch, state.device_scalars
    out = {"augment_r": r}
    if "augment_p" in scalars:
        out["augment_p"] = scalars["augment_p"].clone()
        scalars["augment_signs"] = scalars["augment_signs"] + (r * batch).round().to(torch.float32)  # a whole number
        if (state.images_seen // batch + 1) % INTERVAL == 0:
            mean = scalars["augment_signs"] / (INTERVAL * batch)
            scalars["augment_p"] = adapt(scalars["augment_p"], mean, batch)
            scalars["augment_signs"] = torch.zeros_like(mean)
    return out

"""One global batch of the game: its images, its addressed draws, the updates of both players, the average of G."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ptarmigan import seeding
from ptarmigan.contracts import Batch
from ptarmigan.data import Batches
from ptarmigan.optim import ema_decay, learning_rate, update_ema
from ptarmigan.state import TrainState
from ptarmigan.step import Masks, d_step, g_step


def advance(state: TrainState, batches: Batches) -> dict[str, Tensor]:
    """`d_steps` updates of D and one of G; every draw is addressed by the images seen."""
    train, seen = state.config.train, state.images_seen
    scale = state.controllers.get("lr_scale", 1.0)
    for optimizer, lr in ((state.opt_d, train.d_lr), (state.opt_g, train.g_lr)):
        optimizer.param_groups[0]["lr"] = learning_rate(scale * lr, seen, state.start, state.end, train.anneal)
    for extra in range(1, train.d_steps):
        real = real_batch(batches, seen, f"order {extra}")
        with torch.no_grad():
            fake = fakes(state, real.labels, f"z {extra}")
        d_step(state, real, fake, masks(state, f"d {extra}"), between(state, f"u {extra}"))
    real = real_batch(batches, seen, "order")
    fake = fakes(state, real.labels, "z")
    d = d_step(state, real, fake, masks(state, "d"), between(state, "u"))
    g = g_step(state, real, fake, masks(state, "g"))
    update_ema(state.ema, state.G, ema_decay(seen, train.batch, train.ema_half_life))
    state.images_seen += train.batch
    return {f"d_{name}": term for name, term in d.items()} | {f"g_{name}": term for name, term in g.items()}


def real_batch(batches: Batches, seen: int, purpose: str) -> Batch:
    """The real images at the global positions from `seen` on."""
    loaded = batches.get(seen, purpose)
    return Batch(loaded.images, loaded.labels)


def indices(state: TrainState) -> NDArray[np.int64]:
    """Global sample indices of the batch that comes next."""
    return np.arange(state.images_seen, state.images_seen + state.config.train.batch)


def fakes(state: TrainState, labels: Tensor, purpose: str) -> Batch:
    """G's images of the real batch's labels, so that pairs share a class and the priors are equal."""
    model = state.config.model
    z = seeding.latents(state.config.train.seed, purpose, indices(state), model.latent_dim, model.latent)
    with state.autocast():
        return Batch(state.G(z.to(state.device), labels), labels)


def masks(state: TrainState, purpose: str) -> tuple[Masks, Masks]:
    """D's dropout masks for the real and the fake half, each sample's by its own address."""
    drop = state.config.model.dropout
    if not drop:
        return None, None
    shapes: list[tuple[int, ...]] = state.D.body.mask_shapes  # type: ignore[assignment]
    sizes = [math.prod(shape) for shape in shapes]

    def draw(half: str) -> list[Tensor]:
        flat = seeding.masks(state.config.train.seed, f"dropout {purpose} {half}", indices(state), sum(sizes), drop)
        parts = torch.split(flat.to(state.device), sizes, 1)
        return [part.view(-1, *shape) for part, shape in zip(parts, shapes, strict=True)]

    return draw("real"), draw("fake")


def between(state: TrainState, purpose: str) -> Tensor | None:
    """WGAN-GP's places between real and fake, [N] in (0, 1)."""
    if not state.config.loss.gradient_penalty:
        return None
    return seeding.uniforms(state.config.train.seed, purpose, indices(state), 1)[:, 0].float().to(state.device)

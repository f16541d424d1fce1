"""One global batch of the game: its images, its addressed draws, the updates of both players, the average of G."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ptarmigan.core import dist, seeding
from ptarmigan.core.devices import sent
from ptarmigan.core.types import Batch, UserError
from ptarmigan.data import Batches
from ptarmigan.game.augment import DRAWS, HALF, INTERVAL, adapt, augment
from ptarmigan.game.micro_batch import forward, parts_of
from ptarmigan.game.optim import ema_decay, learning_rate, set_rate, update_ema
from ptarmigan.game.state import TrainState
from ptarmigan.game.step import Augment, Draw, Drop, Masks, d_step, g_step, no_augmentation, no_dropout

Terms = dict[str, Tensor]
Step = Callable[[TrainState, Batch, Tensor, Tensor | None], Terms]


def eager_step(state: TrainState, real: Batch, z: Tensor, u: Tensor | None) -> Terms:
    """One update of each player, of real images, latents z [N, Z] and WGAN-GP's places u [N]: their named terms."""
    fake, again = fakes(state, real.labels, z)
    d = d_step(state, real, fake, drop(state, "d"), u, augmentation(state, "d"), draws(state, "d"))
    g = g_step(state, real, fake, drop(state, "g"), again, augmentation(state, "g"), draws(state, "g"))
    steered = steer(state, d.pop("signs")) if "signs" in d else {}
    return {f"d_{name}": term for name, term in d.items()} | {f"g_{name}": term for name, term in g.items()} | steered


def train_batch(state: TrainState, batches: Batches, play: Step = eager_step) -> Terms:
    """`d_steps` updates of D and one of G; every draw is addressed by the images seen.

    `play` makes the last update of D and the one of G; graphs.py has another way to do the same.
    """
    train, seen, first = state.config.train, state.images_seen, int(indices(state)[0])
    scale = state.progress.lr_scale
    for optimizer, lr, (first_beta, second_beta) in (
        (state.opt_d, train.d_lr, train.d_betas),
        (state.opt_g, train.g_lr, train.g_betas),
    ):
        set_rate(optimizer, learning_rate(scale * lr, seen, state.start, state.end, train.anneal))
        optimizer.param_groups[0]["betas"] = state.now(first_beta), state.now(second_beta)
    for extra in range(1, train.d_steps):
        real = real_batch(batches, first, f"order {extra}")
        with torch.no_grad():
            fake, _ = fakes(state, real.labels, latents(state, f"z {extra}"))
        d_step(
            state, real, fake, drop(state, f"d {extra}"), between(state, f"u {extra}"),
            augmentation(state, f"d {extra}"), draws(state, f"d {extra}"),
        )  # fmt: skip
    terms = play(state, real_batch(batches, first, "order"), latents(state, "z"), between(state, "u"))
    update_ema(state.ema, state.G, ema_decay(seen, train.batch, state.now(train.ema_half_life)))
    state.images_seen += train.batch
    return terms


def share(batch: int) -> int:
    """Images of a global batch that each rank takes; raises UserError where it does not divide."""
    ranks = dist.world()
    if batch % ranks:
        near = [size for size in (batch // ranks * ranks, -(-batch // ranks) * ranks) if size]
        raise UserError(f"batch {batch} does not divide over {ranks} ranks; try --batch {' or '.join(map(str, near))}")
    return batch // ranks


def real_batch(batches: Batches, first: int, purpose: str) -> Batch:
    """This rank's real images: those at the global positions from `first` on."""
    loaded = batches.get(first, purpose, step=batches.batch * dist.world())
    return Batch(loaded.images, loaded.labels)


def indices(state: TrainState) -> NDArray[np.int64]:
    """Global sample indices of this rank's share of the batch that comes next."""
    count = share(state.config.train.batch)
    return np.arange(count) + state.images_seen + dist.rank() * count


def latents(state: TrainState, purpose: str) -> Tensor:
    """z [N, Z] of this rank's share of the batch that comes next."""
    model = state.config.model
    z = seeding.latents(state.config.train.seed, purpose, indices(state), model.latent_dim, model.latent)
    return sent(z, state.device)


def fakes(state: TrainState, labels: Tensor, z: Tensor) -> tuple[Batch, Callable[[slice], Tensor] | None]:
    """G's images of the real batch's labels, so that pairs share a class and the priors are equal.

    One forward of G serves both players, unless the batch comes in parts: then there is no graph, and a function that
    makes the images of a part again.
    """

    def make(part: slice) -> Tensor:
        with state.autocast():
            images: Tensor = state.G(z[part], labels[part])
        return images

    parts = parts_of(len(labels), state.micro_batch)
    if len(parts) == 1:
        return Batch(make(parts[0]), labels), None
    return Batch(forward(make, parts, state.G), labels), make


def drop(state: TrainState, purpose: str) -> Drop:
    """D's dropout masks for the real and the fake half, each sample's by its own address."""
    if not state.config.model.dropout:
        return no_dropout
    shapes: list[tuple[int, ...]] = state.D.body.mask_shapes  # type: ignore[assignment]
    sizes, where = [math.prod(shape) for shape in shapes], indices(state)

    def masks(part: slice) -> tuple[Masks, Masks]:
        return draw("real", part), draw("fake", part)

    def draw(half: str, part: slice) -> list[Tensor]:
        seed, share = state.config.train.seed, state.config.model.dropout
        flat = seeding.masks(seed, f"dropout {purpose} {half}", where[part], sum(sizes), share)
        split = torch.split(sent(flat, state.device), sizes, 1)
        return [mask.view(-1, *shape) for mask, shape in zip(split, shapes, strict=True)]

    return masks


def between(state: TrainState, purpose: str) -> Tensor | None:
    """WGAN-GP's places between real and fake, [N] in (0, 1)."""
    if not state.config.loss.gradient_penalty:
        return None
    return sent(seeding.uniforms(state.config.train.seed, purpose, indices(state), 1)[:, 0].float(), state.device)


def augmentation(state: TrainState, purpose: str) -> Augment:
    """What D sees of the real and of the fake half, each image changed by its own address."""
    policy, where = state.config.data.augment, indices(state)
    if policy == "none":
        return no_augmentation
    p = HALF if policy == "gentle" else state.device_scalars.get("augment_p", state.now(state.config.data.augment_p))

    def change(images: Tensor, half: str, part: slice) -> Tensor:
        u = seeding.uniforms(state.config.train.seed, f"augment {purpose} {half}", where[part], DRAWS)
        return augment(images, policy, u, p)

    return change


def draws(state: TrainState, update: str) -> Draw:
    """Uniform draws for a user's own loss, each sample's by its own address."""
    seed, where = state.config.train.seed, indices(state)

    def draw(purpose: str, count: int, part: slice) -> Tensor:
        u = seeding.uniforms(seed, f"own {update} {purpose}", where[part], count)
        return sent(u.float().clamp(max=1 - 2**-24), state.device)  # rounding would reach 1

    return draw


def steer(state: TrainState, signs: Tensor) -> dict[str, Tensor]:
    """ADA's r of this batch and the p it was taken with; every INTERVAL batches p is moved, on the device.

    `signs` [] is the sum over D's last real batch.
    """
    batch, scalars = state.config.train.batch, state.device_scalars
    out = {"augment_r": signs / share(batch)}
    if "augment_p" in scalars:
        out["augment_p"] = scalars["augment_p"].clone()
        scalars["augment_signs"] = scalars["augment_signs"] + signs.to(torch.float32)
        if (state.images_seen // batch + 1) % INTERVAL == 0:
            r = scalars["augment_signs"] / (INTERVAL * share(batch))
            scalars["augment_p"] = adapt(scalars["augment_p"], r, batch)
            scalars["augment_signs"] = torch.zeros_like(r)
    return out

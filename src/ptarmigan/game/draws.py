"""The random draws of one update: each is a function of (seed, purpose, global sample index)."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ptarmigan.core import seeding
from ptarmigan.core.devices import to_device
from ptarmigan.data.batches import on_colours, with_ground
from ptarmigan.game.augment import DRAWS, HALF, augment
from ptarmigan.game.state import TrainState

HALVES = ("real", "fake")
ON_WHITE = 0.5  # the share of transparent images that D sees on white, as most people do


@dataclass(frozen=True)
class Draws:
    """The draws of N samples in an update of D or of G; slicing gives the draws of some of these samples.

    A sample's draws depend only on the seed, the purpose and its index, so they are the same in a micro-batch, on
    another rank and after resuming.
    """

    state: TrainState
    update: str  # "d" or "g"; "d 1", "d 2" ... for the updates of D before the last one of a step
    indices: NDArray[np.int64]  # [N], global
    z: Tensor  # [N, Z]
    mix: Tensor | None = None  # [N] in (0, 1): WGAN-GP's share of the real image; None without that penalty
    # [N, 2, 3] in [-1, 1]: the colours behind transparent real and generated images; None where none are transparent
    grounds: Tensor | None = None

    @classmethod
    def of_d(cls, state: TrainState, indices: NDArray[np.int64], number: int = 0) -> Draws:
        """The draws of D's update; `number` counts from 1 in the updates before the last one of a step."""
        train, model, suffix = state.config.train, state.config.model, f" {number}" if number else ""
        z = seeding.latents(train.seed, f"z{suffix}", indices, model.latent_dim, model.latent)
        mix = None
        if state.config.loss.gradient_penalty:
            mix = to_device(seeding.uniforms(train.seed, f"u{suffix}", indices, 1)[:, 0].float(), state.device)
        grounds = None
        if state.spec.channels == 4:
            u = seeding.uniforms(train.seed, f"ground{suffix}", indices, 8).view(-1, 2, 4)
            grounds = torch.where(u[:, :, 3:] < ON_WHITE, 1, 2 * u[:, :, :3] - 1)
            grounds = to_device(grounds.float(), state.device)
        return cls(state, f"d{suffix}", indices, to_device(z, state.device), mix, grounds)

    def for_g(self) -> Draws:
        """The draws of G's update on the same latents."""
        return replace(self, update="g")

    def __getitem__(self, part: slice) -> Draws:
        mix = None if self.mix is None else self.mix[part]
        grounds = None if self.grounds is None else self.grounds[part]
        return replace(self, indices=self.indices[part], z=self.z[part], mix=mix, grounds=grounds)

    def masks(self, half: str) -> list[Tensor] | None:
        """D's dropout masks for `half`, "real" or "fake": [N, C, H, W] for each stage; None without dropout."""
        dropout = self.state.config.model.dropout
        if not dropout:
            return None
        shapes: list[tuple[int, ...]] = self.state.D.body.mask_shapes  # type: ignore[assignment]
        sizes = [math.prod(shape) for shape in shapes]
        flat = seeding.masks(self._seed, f"dropout {self.update} {half}", self.indices, sum(sizes), dropout)
        stages = torch.split(to_device(flat, self.state.device), sizes, 1)
        return [stage.view(-1, *shape) for stage, shape in zip(stages, shapes, strict=True)]

    def seen(self, images: Tensor, half: str) -> Tensor:
        """The images of `half` [N, C, H, W] as D sees them: augmented, of RGBA [N, 6, H, W] on their grounds.

        On random colours, generated images look real only if both their colours and their alpha are right.
        """
        if self.grounds is None:
            return self._augmented(images, half)
        ground = self.grounds[:, HALVES.index(half)].to(images.dtype)
        return with_ground(self._augmented(on_colours(images, ground), half), ground)

    def _augmented(self, images: Tensor, half: str) -> Tensor:
        data = self.state.config.data
        if data.augment == "none":
            return images
        p = HALF if data.augment == "gentle" else self.state.device_scalars.get("augment_p")
        u = seeding.uniforms(self._seed, f"augment {self.update} {half}", self.indices, DRAWS)
        return augment(images, data.augment, u, self.state.now(data.augment_p) if p is None else p)

    def uniforms(self, purpose: str, count: int) -> Tensor:
        """Uniforms in (0, 1) for a custom loss -> [N, count]."""
        u = seeding.uniforms(self._seed, f"own {self.update} {purpose}", self.indices, count)
        return to_device(u.float().clamp(max=1 - 2**-24), self.state.device)  # in float32 the largest would round to 1

    @property
    def _seed(self) -> int:
        return self.state.config.train.seed

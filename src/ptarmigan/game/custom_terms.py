"""The part of a user's own loss in the game: its terms, and the averages that it keeps."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import MappingProxyType

from torch import Tensor

from ptarmigan.core.devices import out_of_memory
from ptarmigan.core.types import DiscriminatorOutput
from ptarmigan.game.micro_batch import Part, Terms
from ptarmigan.game.state import TrainState
from ptarmigan.losses.custom import Context, LossFileFailed

OBSERVED = "observed "  # before the names of what a custom loss observes; no term's name has a space


def custom_terms(
    state: TrainState,
    player: str,
    part: Part,
    real: Tensor,
    fake: Tensor,
    real_aug: Tensor | None,
    fake_aug: Tensor,
    r: DiscriminatorOutput | None,
    f: DiscriminatorOutput,
) -> Terms:
    """The terms of a user's own loss, and what it observes, which has no gradient."""
    file = state.loss_file
    if file is None:
        return {}

    def discriminate(images: Tensor, labels: Tensor) -> DiscriminatorOutput:
        with state.autocast():
            output: DiscriminatorOutput = state.D(images, labels)
        return output

    ctx = Context(
        player, state.images_seen, part.real.labels, part.fake.labels, real, fake, real_aug, fake_aug, r, f,
        discriminate, part.draws.uniforms,
        MappingProxyType({name: state.device_scalars[name].clone() for name in file.averages}),
    )  # fmt: skip
    observed = {f"{OBSERVED}{name}": value.expand(len(fake)) for name, value in file.observe(ctx).items()}
    return file.terms(ctx) | observed


@contextmanager
def custom_gradients(state: TrainState) -> Iterator[None]:
    """Name the loss file where autograd fails in a user's own loss, which happens outside the file's functions."""
    try:
        yield
    except RuntimeError as error:
        if state.loss_file is None or out_of_memory(error):
            raise
        what = " ".join(str(error).split())
        raise LossFileFailed(f"loss: {state.loss_file.path}: its losses have no gradient: {what}") from error


def move_averages(state: TrainState, means: Terms) -> Terms:
    """Move the averages of a user's own loss towards what it observed; returns the other means."""
    for name, decay in (state.loss_file.averages if state.loss_file else {}).items():
        before = state.device_scalars[name]
        state.device_scalars[name] = before.lerp(means.pop(f"{OBSERVED}{name}").to(before.dtype), 1 - decay)
    return means

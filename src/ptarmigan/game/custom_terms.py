"""The part of a user's own loss in the game: its terms, and the averages that it keeps."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any

from torch import Tensor

from ptarmigan.core.devices import out_of_memory
from ptarmigan.core.types import DiscriminatorOutput
from ptarmigan.data.batches import on_white_for_d
from ptarmigan.game.micro_batch import Part, Terms
from ptarmigan.game.state import TrainState
from ptarmigan.losses.custom import Context, LossFileFailed

OBSERVED = "observed "  # before the names of what a custom loss observes; no term's name has a space


def custom_terms(state: TrainState, player: str, part: Part, **seen: Any) -> Terms:
    """The terms of a user's own loss, and what it observes, which has no gradient.

    `seen` are the images before and after augmentation and D's outputs, by the names of `Context`.
    """
    file = state.loss_file
    if file is None:
        return {}

    def discriminate(images: Tensor, labels: Tensor) -> DiscriminatorOutput:
        with state.autocast():
            output: DiscriminatorOutput = state.D(on_white_for_d(images), labels)
        return output

    ctx = Context(
        player=player,
        images_seen=state.images_seen,
        real_labels=part.real.labels,
        fake_labels=part.fake.labels,
        D=discriminate,
        uniforms=part.draws.uniforms,
        averages=MappingProxyType({name: state.device_scalars[name].clone() for name in file.averages}),
        **seen,
    )
    count = len(ctx.fake_labels)
    observed = {f"{OBSERVED}{name}": value.expand(count) for name, value in file.observe(ctx).items()}
    return file.terms(ctx) | observed


@contextmanager
def custom_gradients(state: TrainState) -> Iterator[None]:
    """Name the loss file in errors of the backward pass, which are raised outside the file's functions."""
    try:
        yield
    except RuntimeError as error:
        if state.loss_file is None or out_of_memory(error):
            raise
        what = " ".join(str(error).split())
        raise LossFileFailed(f"loss: {state.loss_file.path}: its losses cannot be differentiated: {what}") from error


def move_averages(state: TrainState, means: Terms) -> Terms:
    """Move the averages of a user's own loss towards what it observed; returns the other means."""
    for name, decay in (state.loss_file.averages if state.loss_file else {}).items():
        before = state.device_scalars[name]
        state.device_scalars[name] = before.lerp(means.pop(f"{OBSERVED}{name}").to(before.dtype), 1 - decay)
    return means

"""The game: one update of D, one of G.  Both return their named terms, which are the names in the log."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any, cast

import torch
from torch import Tensor, nn

from ptarmigan.core import dist
from ptarmigan.core.conv import no_weight_gradients
from ptarmigan.core.devices import out_of_memory
from ptarmigan.core.types import Batch, DiscriminatorOutput
from ptarmigan.game.micro_batch import backward, parts_of
from ptarmigan.game.state import TrainState
from ptarmigan.losses.custom import Context, InFile
from ptarmigan.losses.penalties import between, one_centred, squared_gradient_norm
from ptarmigan.networks.layers import power_iteration

Masks = list[Tensor] | None  # dropout masks of D, one [N, C, H, W] a stage
Drop = Callable[[slice], tuple[Masks, Masks]]  # part of the batch -> masks for its real and its fake half

Draw = Callable[[str, int, slice], Tensor]  # purpose, count, part -> [N, count] in (0, 1), for the user's own loss
Augment = Callable[[Tensor, str, slice], Tensor]  # images of a part, "real" or "fake" -> what D sees of them


OBSERVED = "observed "  # before the names of what a user's own loss observes: no term's name has a space


def no_dropout(part: slice) -> tuple[Masks, Masks]:
    return None, None


def no_augmentation(images: Tensor, half: str, part: slice) -> Tensor:
    return images


def d_step(
    state: TrainState,
    real: Batch,
    fake: Batch,
    drop: Drop = no_dropout,
    u: Tensor | None = None,
    augment: Augment = no_augmentation,
    draw: Draw | None = None,
) -> dict[str, Tensor]:
    """One update of D on real images and on G's, which are detached; `u` [N] places WGAN-GP's images.

    R1 and R2 count at every `penalty_every`-th step alone, and there so many times (Karras et al. 2020, 1912.04958,
    appendix B, whose change of Adam's rates they need not, since they share the step with the loss).  They are of the
    slope at the image before augmentation; WGAN-GP's, which is to be 1 and not 0, is at D's own input, between
    augmented images: the Lipschitz bound is D's, and what a cut hides from it has no slope to give.
    """
    loss, D, n, due = state.config.loss, state.D, len(real.labels), state.penalised
    gammas = {name: state.now(of) for name, of in (("r1", loss.r1), ("r2", loss.r2)) if of}  # a ramp at 0 is a term too

    def terms(part: slice) -> dict[str, Tensor]:
        y, asked, masks = real.labels[part], fake.labels[part], drop(part)
        images = torch.cat([real.images[part], fake.images[part].detach()])
        x, g = images.requires_grad_(due and bool(gammas)).chunk(2)
        seen, made = augment(x, "real", part), augment(g, "fake", part)
        with state.autocast():
            r, f = on_both(state, seen, made, y, asked, masks)
        out = {"adv": state.objective.d(real=r.logits, fake=f.logits).sum() / n}
        of_class = D.head.d_term(r, f, real_labels=y, fake_labels=asked, loss=loss)
        if of_class is not None:
            out["class"] = loss.class_weight * of_class.sum() / n
        if gammas:
            slopes = torch.zeros(2 * len(y), device=images.device)
            if due:
                slopes = loss.penalty_every * squared_gradient_norm(torch.cat([r.logits, f.logits]), images)
            halves = dict(zip(("r1", "r2"), slopes.chunk(2), strict=True))
            out |= {name: gamma / 2 * halves[name].sum() / n for name, gamma in gammas.items()}
        if loss.gradient_penalty:
            assert u is not None, "WGAN-GP needs u"
            between_both = between(seen, made, u[part])
            with state.autocast():
                logits = D(between_both, y, masks[0]).logits
            out["gp"] = loss.gradient_penalty * one_centred(logits, between_both).sum() / n
        if state.config.data.augment != "none":
            out["signs"] = state.objective.signs(real=r.logits, fake=f.logits).sum()  # whole numbers add up exactly
        return out | own_terms(
            state, n, part, draw, player="d", labels=y, asked=asked, real=x, fake=g,
            real_seen=seen, fake_seen=made, r=r, f=f,
        )  # fmt: skip

    power_iteration(D)
    state.opt_d.zero_grad()
    with own_gradients(state):
        values = backward(terms, parts_of(n, state.micro_batch), D, list(D.parameters()))
    return remember(state, update(D, state.opt_d, values, state.found_inf))


def g_step(
    state: TrainState,
    real: Batch,
    fake: Batch,
    drop: Drop = no_dropout,
    again: Callable[[slice], Tensor] | None = None,
    augment: Augment = no_augmentation,
    draw: Draw | None = None,
) -> dict[str, Tensor]:
    """One update of G through `fake.images`, G's own output; real images matter to a relativistic loss alone.

    Where the batch comes in parts, `fake.images` have no graph and `again` makes those of a part once more.
    """
    loss, objective, n = state.config.loss, state.objective, len(fake.labels)
    images = fake.images.detach().requires_grad_()

    def terms(part: slice) -> dict[str, Tensor]:
        x, g, y, asked = real.images[part], images[part], real.labels[part], fake.labels[part]
        masks, made, seen, r = drop(part), augment(g, "fake", part), None, None
        with state.autocast():
            f = state.D(made, asked, masks[1])
            if objective.relativistic:
                with torch.no_grad():
                    seen = augment(x, "real", part)
                    r = state.D(seen, y, masks[0])
        adv = objective.g(fake=f.logits) if r is None else objective.g(real=r.logits, fake=f.logits)
        out = {"adv": adv.sum() / n}
        of_class = state.D.head.g_term(f, fake_labels=asked, loss=loss)
        if of_class is not None:
            out["class"] = loss.class_weight * of_class.sum() / n
        return out | own_terms(
            state, n, part, draw, player="g", labels=y, asked=asked, real=x, fake=g,
            real_seen=seen, fake_seen=made, r=r, f=f,
        )  # fmt: skip

    def through(part: slice) -> dict[str, Tensor]:
        assert images.grad is not None
        made = fake.images if again is None else again(part)
        return {"": (images.grad[part] * made).sum()}

    state.opt_g.zero_grad()
    parts = parts_of(n, state.micro_batch)
    with own_gradients(state), no_weight_gradients():
        values = backward(terms, parts, state.D, [images])
    backward(through, parts, state.G, list(state.G.parameters()))
    return update(state.G, state.opt_g, values, state.found_inf)


def own_terms(state: TrainState, n: int, part: slice, draw: Draw | None, **known: Any) -> dict[str, Tensor]:
    """The terms of a user's own loss, and what it observes: a part's share in the batch of `n`.

    `known` are the fields of Context that the step knows.  What is observed is no loss and has no gradient, but goes
    the way of the terms: added up over parts, averaged over ranks.
    """
    file = state.loss_file
    if file is None:
        return {}

    def discriminate(images: Tensor, labels: Tensor) -> DiscriminatorOutput:
        with state.autocast():
            output: DiscriminatorOutput = state.D(images, labels)
        return output

    def uniforms(purpose: str, count: int) -> Tensor:
        assert draw is not None, "ctx.uniforms needs draw"
        return draw(purpose, count, part)

    averages = MappingProxyType({name: state.device_scalars[name].clone() for name in file.averages})
    ctx = Context(images_seen=state.images_seen, D=discriminate, uniforms=uniforms, averages=averages, **known)
    out = {name: value.sum() / n for name, value in file.terms(ctx).items()}
    share = len(ctx.asked) / n
    return out | {f"{OBSERVED}{name}": share * value for name, value in file.observe(ctx).items()}


@contextmanager
def own_gradients(state: TrainState) -> Iterator[None]:
    """Say in a line what autograd finds wrong with a user's own loss, which is outside the file's functions."""
    try:
        yield
    except RuntimeError as error:
        if state.loss_file is None or out_of_memory(error):
            raise
        what = " ".join(str(error).split())
        raise InFile(f"loss: {state.loss_file.path}: no gradient of its losses: {what}") from error


def remember(state: TrainState, values: dict[str, Tensor]) -> dict[str, Tensor]:
    """Move the averages of a user's own loss towards what it observed; returns the other values."""
    for name, decay in (state.loss_file.averages if state.loss_file else {}).items():
        before = state.device_scalars[name]
        state.device_scalars[name] = before.lerp(values.pop(f"{OBSERVED}{name}").to(before.dtype), 1 - decay)
    return values


def on_both(
    state: TrainState,
    real: Tensor,
    fake: Tensor,
    real_labels: Tensor,
    fake_labels: Tensor,
    masks: tuple[Masks, Masks],
) -> tuple[DiscriminatorOutput, DiscriminatorOutput]:
    """D on real and on fake images: in one pass, but apart where batch norm joins a batch, as in DCGAN."""
    if state.config.model.d_norm == "batch":
        return state.D(real, real_labels, masks[0]), state.D(fake, fake_labels, masks[1])
    both = None
    if masks[0] is not None and masks[1] is not None:
        both = [torch.cat(pair) for pair in zip(masks[0], masks[1], strict=True)]
    output = state.D(torch.cat([real, fake]), torch.cat([real_labels, fake_labels]), both)
    halves = [value.chunk(2) if value is not None else (None, None) for value in output]
    real_output, fake_output = (DiscriminatorOutput(*half) for half in zip(*halves, strict=True))
    return real_output, fake_output


def update(
    module: nn.Module, optimizer: torch.optim.Optimizer, values: dict[str, Tensor], found_inf: Tensor
) -> dict[str, Tensor]:
    """Step `module` alone by its gradients; returns the values of the terms, and the gradient's norm.

    Both are means over the ranks.  A term or a gradient that is not finite sets `found_inf`, on the device, and from
    then on no update is made.
    """
    gradients = cast("list[Tensor]", [parameter.grad for parameter in module.parameters()])
    terms = torch.stack(list(values.values()))
    dist.average_([*gradients, terms])
    norm = nn.utils.get_total_norm(gradients)
    found_inf.logical_or_(~torch.isfinite(terms.sum() + norm))
    optimizer.found_inf = found_inf  # type: ignore[attr-defined]
    optimizer.step()
    return dict(zip(values, terms.unbind(), strict=True)) | {"grad": norm}

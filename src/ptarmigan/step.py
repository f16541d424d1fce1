"""The game: one update of D, one of G.  Both return their named terms, which are the names in the log."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn

from ptarmigan import dist
from ptarmigan.conditioning import classification_d, classification_g
from ptarmigan.contracts import Batch
from ptarmigan.networks.layers import turn
from ptarmigan.penalties import between, one_centred, squared_gradient_norm
from ptarmigan.pieces import backward, parts_of
from ptarmigan.state import TrainState

Masks = list[Tensor] | None  # dropout masks of D, one [N, C, H, W] a stage
Drop = Callable[[slice], tuple[Masks, Masks]]  # part of the batch -> masks for its real and its fake half


def no_dropout(part: slice) -> tuple[Masks, Masks]:
    return None, None


def d_step(
    state: TrainState, real: Batch, fake: Batch, drop: Drop = no_dropout, u: Tensor | None = None
) -> dict[str, Tensor]:
    """One update of D on real images and on G's, which are detached; `u` [N] places WGAN-GP's images."""
    loss, D, n = state.config.loss, state.D, len(real.labels)

    def terms(part: slice) -> dict[str, Tensor]:
        y, asked, masks = real.labels[part], fake.labels[part], drop(part)
        x = real.images[part].requires_grad_(loss.r1 > 0)
        g = fake.images[part].detach().requires_grad_(loss.r2 > 0)
        with state.autocast():
            r, f = D(x, y, masks[0]), D(g, asked, masks[1])
        out = {"adv": state.objective.d(real=r.logits, fake=f.logits).sum() / n}
        if r.class_logits is not None and f.class_logits is not None:
            ce = classification_d(
                r.class_logits, f.class_logits, real_labels=y, fake_labels=asked, fakes=loss.class_fake
            )
            out["class"] = loss.class_weight * ce.sum() / n
        if loss.r1:
            out["r1"] = loss.r1 / 2 * squared_gradient_norm(r.logits, x).sum() / n
        if loss.r2:
            out["r2"] = loss.r2 / 2 * squared_gradient_norm(f.logits, g).sum() / n
        if loss.gradient_penalty:
            assert u is not None, "WGAN-GP needs u"
            between_both = between(x, g, u[part])
            with state.autocast():
                logits = D(between_both, y, masks[0]).logits
            out["gp"] = loss.gradient_penalty * one_centred(logits, between_both).sum() / n
        return out

    turn(D)
    state.opt_d.zero_grad()
    values = backward(terms, parts_of(n, state.micro_batch), D, list(D.parameters()))
    return update(D, state.opt_d, values, state.bad)


def g_step(
    state: TrainState,
    real: Batch,
    fake: Batch,
    drop: Drop = no_dropout,
    again: Callable[[slice], Tensor] | None = None,
) -> dict[str, Tensor]:
    """One update of G through `fake.images`, G's own output; real images matter to a relativistic loss alone.

    Where the batch comes in parts, `fake.images` have no graph and `again` makes those of a part once more.
    """
    loss, objective, n = state.config.loss, state.objective, len(fake.labels)
    images = fake.images.detach().requires_grad_()

    def terms(part: slice) -> dict[str, Tensor]:
        asked, masks = fake.labels[part], drop(part)
        with state.autocast():
            f = state.D(images[part], asked, masks[1])
            if objective.relativistic:
                with torch.no_grad():
                    r = state.D(real.images[part], real.labels[part], masks[0])
        adv = objective.g(real=r.logits, fake=f.logits) if objective.relativistic else objective.g(fake=f.logits)
        out = {"adv": adv.sum() / n}
        if f.class_logits is not None:
            out["class"] = loss.class_weight * classification_g(f.class_logits, fake_labels=asked).sum() / n
        return out

    def through(part: slice) -> dict[str, Tensor]:
        assert images.grad is not None
        made = fake.images if again is None else again(part)
        return {"": (images.grad[part] * made).sum()}

    state.opt_g.zero_grad()
    parts = parts_of(n, state.micro_batch)
    values = backward(terms, parts, state.D, [images])
    backward(through, parts, state.G, list(state.G.parameters()))
    return update(state.G, state.opt_g, values, state.bad)


def update(
    module: nn.Module, optimizer: torch.optim.Optimizer, values: dict[str, Tensor], bad: Tensor
) -> dict[str, Tensor]:
    """Step `module` alone by its gradients; returns the values of the terms, and the gradient's norm.

    Both are means over the ranks.  A term or a gradient that is not finite sets `bad`, on the device, and from then
    on no update is made.
    """
    gradients = cast("list[Tensor]", [parameter.grad for parameter in module.parameters()])
    terms = torch.stack(list(values.values()))
    dist.average_([*gradients, terms])
    norm = nn.utils.get_total_norm(gradients)
    bad.logical_or_(~torch.isfinite(terms.sum() + norm))
    optimizer.found_inf = bad  # type: ignore[attr-defined]
    optimizer.step()
    return dict(zip(values, terms.unbind(), strict=True)) | {"grad": norm}

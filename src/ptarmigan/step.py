"""The game: one update of D, one of G.  Both return their named terms, which are the names in the log."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from ptarmigan.conditioning import classification_d, classification_g
from ptarmigan.contracts import Batch
from ptarmigan.penalties import between, one_centred, squared_gradient_norm
from ptarmigan.state import TrainState

Masks = list[Tensor] | None  # dropout masks of D, one [N, C, H, W] a stage


def d_step(
    state: TrainState,
    real: Batch,
    fake: Batch,
    masks: tuple[Masks, Masks] = (None, None),
    u: Tensor | None = None,
) -> dict[str, Tensor]:
    """One update of D on real images and on G's, which are detached; `u` [N] places WGAN-GP's images."""
    loss, D = state.config.loss, state.D
    x = real.images.detach().requires_grad_(loss.r1 > 0)
    g = fake.images.detach().requires_grad_(loss.r2 > 0)
    with state.autocast():
        r, f = D(x, real.labels, masks[0]), D(g, fake.labels, masks[1])
    terms = {"adv": state.objective.d(real=r.logits, fake=f.logits).mean()}
    if r.class_logits is not None and f.class_logits is not None:
        ce = classification_d(
            r.class_logits,
            f.class_logits,
            real_labels=real.labels,
            fake_labels=fake.labels,
            fakes=loss.class_fake,
        )
        terms["class"] = loss.class_weight * ce.mean()
    if loss.r1:
        terms["r1"] = loss.r1 / 2 * squared_gradient_norm(r.logits, x).mean()
    if loss.r2:
        terms["r2"] = loss.r2 / 2 * squared_gradient_norm(f.logits, g).mean()
    if loss.gradient_penalty:
        assert u is not None, "WGAN-GP needs u"
        between_both = between(x, g, u)
        with state.autocast():
            logits = D(between_both, real.labels, masks[0]).logits
        terms["gp"] = loss.gradient_penalty * one_centred(logits, between_both).mean()
    return descend(terms, D, state.opt_d, state.bad)


def g_step(state: TrainState, real: Batch, fake: Batch, masks: tuple[Masks, Masks] = (None, None)) -> dict[str, Tensor]:
    """One update of G through `fake.images`, G's own output; real images matter to a relativistic loss alone."""
    loss, objective = state.config.loss, state.objective
    with state.autocast():
        f = state.D(fake.images, fake.labels, masks[1])
        if objective.relativistic:
            with torch.no_grad():
                r = state.D(real.images, real.labels, masks[0])
    adv = objective.g(real=r.logits, fake=f.logits) if objective.relativistic else objective.g(fake=f.logits)
    terms = {"adv": adv.mean()}
    if f.class_logits is not None:
        terms["class"] = loss.class_weight * classification_g(f.class_logits, fake_labels=fake.labels).mean()
    return descend(terms, state.G, state.opt_g, state.bad)


def descend(
    terms: dict[str, Tensor], module: nn.Module, optimizer: torch.optim.Optimizer, bad: Tensor
) -> dict[str, Tensor]:
    """Update `module` alone by the gradient of the sum of the terms; returns them with the gradient's norm.

    A term or a gradient that is not finite sets `bad`, on the device, and from then on no update is made.
    """
    parameters = list(module.parameters())
    optimizer.zero_grad()
    total = torch.stack(list(terms.values())).sum()
    # backward, not autograd.grad: it gives each gradient its parameter's memory format, which fused Adam takes on trust
    total.backward(inputs=parameters)  # type: ignore[no-untyped-call]
    norm = nn.utils.get_total_norm(cast("list[Tensor]", [parameter.grad for parameter in parameters]))
    bad.logical_or_(~torch.isfinite(total + norm))
    optimizer.found_inf = bad  # type: ignore[attr-defined]
    optimizer.step()
    return {name: term.detach() for name, term in terms.items()} | {"grad": norm}

"""One update of D, one of G.  Both return the mean of each term over the global batch, named as in the log.

The terms are per-sample functions of a `Part` of the batch, reduced once in `accumulate`.
"""

from __future__ import annotations

from functools import partial
from typing import cast

import torch
from torch import Tensor, nn

from ptarmigan.core import dist
from ptarmigan.core.conv import no_weight_gradients
from ptarmigan.core.types import Batch, DiscriminatorOutput
from ptarmigan.data.batches import on_white
from ptarmigan.game.custom_terms import custom_gradients, custom_terms, move_averages
from ptarmigan.game.draws import Draws
from ptarmigan.game.micro_batch import Part, Terms, accumulate, slices, split
from ptarmigan.game.state import TrainState
from ptarmigan.losses.penalties import between, one_centred, squared_gradient_norm
from ptarmigan.networks.layers import learning, power_iteration


def d_terms(state: TrainState, part: Part) -> Terms:
    """D's losses per sample.  R1 and R2 take the gradient at images before augmentation, WGAN-GP at D's own input."""
    (real, y), (fake, fake_y), draws = part
    images = torch.cat([real, fake.detach()]).requires_grad_(state.penalised)
    real, fake = images.chunk(2)
    real_aug, fake_aug = draws.seen(real, "real"), draws.seen(fake, "fake")
    with state.autocast():
        r, f = discriminate(state, real_aug, fake_aug, part)
    return (
        {"adv": state.objective.d(real=r.logits, fake=f.logits)}
        | class_term(state, state.D.head.d_term(r, f, real_labels=y, fake_labels=fake_y, loss=state.config.loss))
        | r1_r2(state, torch.cat([r.logits, f.logits]), images)
        | wgan_gp(state, real_aug, fake_aug, part)
        | augment_signs(state, r.logits, f.logits)
        | custom_terms(state, "d", part, real=real, fake=fake, real_aug=real_aug, fake_aug=fake_aug, r=r, f=f)
    )


def g_terms(state: TrainState, part: Part) -> Terms:
    """G's losses per sample, through the fake images of `part`; only a relativistic loss runs D on the real ones."""
    (real, y), (fake, fake_y), draws = part
    fake_aug, real_aug, r = draws.seen(fake, "fake"), None, None
    with state.autocast():
        f = state.D(fake_aug, fake_y, draws.masks("fake"))
        if state.objective.relativistic:
            with torch.no_grad():
                real_aug = draws.seen(real, "real")
                r = state.D(real_aug, y, draws.masks("real"))
    logits = {"fake": f.logits} if r is None else {"real": r.logits, "fake": f.logits}
    return (
        {"adv": state.objective.g(**logits)}
        | class_term(state, state.D.head.g_term(f, fake_labels=fake_y, loss=state.config.loss))
        | custom_terms(state, "g", part, real=real, fake=fake, real_aug=real_aug, fake_aug=fake_aug, r=r, f=f)
    )


def d_step(state: TrainState, real: Batch, fake: Batch, draws: Draws) -> Terms:
    """Update D on real and on generated images, which are detached."""
    power_iteration(state.D)
    state.opt_d.zero_grad()
    with custom_gradients(state):
        parts = split(real, fake, draws, state.micro_batch)
        means = accumulate(partial(d_terms, state), parts, list(learning(state.D).values()))
    return move_averages(state, update(state.D, state.opt_d, means, state.found_inf))


def g_step(state: TrainState, real: Batch, fake: Batch, draws: Draws) -> Terms:
    """Update G through `fake.images`, its own output for `draws.z`."""
    images = fake.images.detach().requires_grad_()
    state.opt_g.zero_grad()
    with custom_gradients(state), no_weight_gradients():  # only the images need a gradient here, not D
        parts = split(real, Batch(images, fake.labels), draws, state.micro_batch)
        means = accumulate(partial(g_terms, state), parts, [images])
    backprop(state, fake, cast(Tensor, images.grad), draws)
    return update(state.G, state.opt_g, means, state.found_inf)


def backprop(state: TrainState, fake: Batch, gradient: Tensor, draws: Draws) -> None:
    """Backpropagate the images' gradient to G's weights; with micro-batches each part is generated again for that."""
    for part in slices(len(gradient), state.micro_batch):
        images = fake.images if fake.images.requires_grad else generate(state, draws.z[part], fake.labels[part])
        images.backward(gradient[part], inputs=list(state.G.parameters()))  # type: ignore[no-untyped-call]


def generate(state: TrainState, z: Tensor, labels: Tensor) -> Tensor:
    """Images of G [N, C, H, W] for latents [N, Z]; those of RGBA are put on white, as real ones are."""
    with state.autocast():
        images: Tensor = state.G(z, labels)
    return on_white(images)


def discriminate(
    state: TrainState, real: Tensor, fake: Tensor, part: Part
) -> tuple[DiscriminatorOutput, DiscriminatorOutput]:
    """D on real and fake images [N, C, H, W]: in one pass, or in two if D has batch norm, as in DCGAN."""
    masks = part.draws.masks("real"), part.draws.masks("fake")
    if state.config.model.d_norm == "batch":
        return state.D(real, part.real.labels, masks[0]), state.D(fake, part.fake.labels, masks[1])
    both = None
    if masks[0] is not None and masks[1] is not None:
        both = [torch.cat(pair) for pair in zip(masks[0], masks[1], strict=True)]
    output = state.D(torch.cat([real, fake]), torch.cat([part.real.labels, part.fake.labels]), both)
    halves = [value.chunk(2) if value is not None else (None, None) for value in output]
    real_output, fake_output = (DiscriminatorOutput(*half) for half in zip(*halves, strict=True))
    return real_output, fake_output


def class_term(state: TrainState, term: Tensor | None) -> Terms:
    """lambda times the conditioning's class term [N], where it has one."""
    return {} if term is None else {"class": state.config.loss.class_weight * term}


def r1_r2(state: TrainState, logits: Tensor, images: Tensor) -> Terms:
    """gamma/2 times the squared norm of D's gradient at each image: R1 for the first half, which is real, R2 for fakes.

    Both are applied at every `penalty_every`-th step only, scaled by `penalty_every` (lazy regularisation, Karras et
    al. 2020, 1912.04958, appendix B; Adam's rates need no correction, since loss and penalty share a step).
    """
    loss = state.config.loss
    gammas = {name: state.now(gamma) for name, gamma in (("r1", loss.r1), ("r2", loss.r2)) if gamma}
    norms = torch.zeros(len(images), device=images.device)
    if state.penalised:
        norms = loss.penalty_every * squared_gradient_norm(logits, images)
    halves = dict(zip(("r1", "r2"), norms.chunk(2), strict=True))
    return {name: gamma / 2 * halves[name] for name, gamma in gammas.items()}


def wgan_gp(state: TrainState, real: Tensor, fake: Tensor, part: Part) -> Terms:
    """WGAN-GP's penalty, taken between augmented images because it bounds the gradient of D itself.

    The gradient at an image before augmentation would be 0 in a cut-out.
    """
    weight = state.config.loss.gradient_penalty
    if not weight:
        return {}
    assert part.draws.mix is not None
    mixed = between(real, fake, part.draws.mix)
    with state.autocast():
        logits = state.D(mixed, part.real.labels, part.draws.masks("real")).logits
    return {"gp": weight * one_centred(logits, mixed)}


def augment_signs(state: TrainState, real_logits: Tensor, fake_logits: Tensor) -> Terms:
    """The signs of D that ADA adapts p to, without gradient."""
    if state.config.data.augment == "none":
        return {}
    return {"signs": state.objective.signs(real=real_logits, fake=fake_logits)}


def update(network: nn.Module, optimizer: torch.optim.Optimizer, means: Terms, found_inf: Tensor) -> Terms:
    """Step `network` by its gradients; returns the terms' means and the gradient's norm, averaged over ranks.

    A term or a gradient that is not finite sets `found_inf`, on the device, and no update is made from then on.
    """
    gradients = cast("list[Tensor]", [parameter.grad for parameter in learning(network).values()])
    terms = torch.stack(list(means.values()))
    dist.average_([*gradients, terms])
    norm = nn.utils.get_total_norm(gradients)
    found_inf.logical_or_(~torch.isfinite(terms.sum() + norm))
    optimizer.found_inf = found_inf  # type: ignore[attr-defined]
    optimizer.step()
    return dict(zip(means, terms.unbind(), strict=True)) | {"grad": norm}

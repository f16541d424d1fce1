"""Losses as people write them, right and wrong ones, each with the answer of `ptarmigan losses identify`.

right(NAME, PLAYER): nothing is wrong.  wrong(NAME, FAULT, PLAYER): this alone is wrong, and its sentence has the
`facts`.  Scale 1, mean and logits unless said otherwise.
"""
# ruff: noqa: E731

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

CROSS_ENTROPY, LINE = "minimax, non_saturating", "hinge, wasserstein"
ACGAN = " + auxiliary_classifier"
LOGITS, PROBABILITIES = "logits", "probabilities"


@dataclass
class Variant:
    function: Any
    label: str  # the name that it goes by, where its own says too little
    name: str  # of the loss
    fault: str  # the code of what is wrong, "" where nothing is
    player: str
    scale: float
    reduction: str
    on: str
    smoothing: float | None
    class_weight: float | None
    kind: str | None
    told_on: str | None  # what --on says
    offset: float
    facts: tuple[str, ...]  # in the sentence of the fault


VARIANTS: list[Variant] = []


def _collect(fault: str, name: str, player: str, label: str = "", **more: Any) -> Callable[[Any], Any]:
    fields = dict(
        scale=1.0, reduction="mean", on=LOGITS, smoothing=None, class_weight=None, kind=None, told_on=None, offset=0.0,
        facts=(),
    ) | more  # fmt: skip

    def keep(function: Any) -> Any:
        given = function() if isinstance(function, type) else function
        known = label or getattr(function, "__name__", "")
        VARIANTS.append(Variant(given, known, name, fault, player, **fields))
        return function

    return keep


def right(name: str, player: str, label: str = "", **more: Any) -> Callable[[Any], Any]:
    return _collect("", name, player, label, **more)


def wrong(name: str, fault: str, player: str, label: str = "", **more: Any) -> Callable[[Any], Any]:
    return _collect(fault, name, player, label, **more)


# --- D, plain functions of logits ---


@right(CROSS_ENTROPY, "D")
def d_loss(real, fake):
    return F.softplus(-real).mean() + F.softplus(fake).mean()


@right(CROSS_ENTROPY, "D", scale=0.5)
def discriminator_loss_of_both_halves(real_logits, fake_logits):
    logits = torch.cat([real_logits, fake_logits])
    return F.binary_cross_entropy_with_logits(
        logits, torch.cat([torch.ones_like(real_logits), torch.zeros_like(fake_logits)])
    )


@right(CROSS_ENTROPY, "D", reduction="none")
def loss_D_per_image(D_real, D_fake):  # noqa: N802
    return -F.logsigmoid(D_real) - F.logsigmoid(-D_fake)


@right(CROSS_ENTROPY, "D", scale=2.0)
def disc_loss_keywords(*, fake, real):
    return 2 * (F.softplus(-real) + F.softplus(fake)).mean()


@right(CROSS_ENTROPY, "D")
def d_columns(real, fake):
    """On logits [N, 1] alone."""
    assert real.ndim == 2
    return F.softplus(-real.squeeze(1)).mean() + F.softplus(fake.squeeze(1)).mean()


@right(CROSS_ENTROPY, "D")
def d_with_a_batch_size_of_its_own(real, fake):
    ones, zeros = torch.ones(64), torch.zeros(64)
    return F.binary_cross_entropy_with_logits(real, ones) + F.binary_cross_entropy_with_logits(fake, zeros)


@right("smoothing", "D", smoothing=0.9)
def d_loss_smoothed(real, fake):
    bce = nn.BCEWithLogitsLoss()
    return bce(real, torch.full_like(real, 0.9)) + bce(fake, torch.zeros_like(fake))


@right("hinge", "D")
def d_hinge(fake, real):
    return torch.mean(torch.relu(1.0 - real)) + torch.mean(torch.relu(1.0 + fake))


@right("hinge", "D", scale=0.5)
def hinge_d_loss_biggan(dis_real, dis_fake):
    return 0.5 * (
        -torch.min(dis_real - 1, torch.zeros_like(dis_real)).mean()
        - torch.min(-dis_fake - 1, torch.zeros_like(dis_fake)).mean()
    )


@right("wasserstein", "D")
def critic_loss(real_validity, fake_validity):
    return -torch.mean(real_validity) + torch.mean(fake_validity)


@right("least_squares", "D")
def d_lsgan(real, fake):
    return 0.5 * torch.mean((real - 1) ** 2) + 0.5 * torch.mean(fake**2)


@right("least_squares", "D", scale=2.0)
def d_mse(d_x, d_gz):
    return F.mse_loss(d_x, torch.ones_like(d_x)) + F.mse_loss(d_gz, torch.zeros_like(d_gz))


@right("least_squares_pearson", "D")
def d_pearson(real, fake):
    return ((real - 1).square() + (fake + 1).square()).mean() / 2


@right("wasserstein", "D")
def critic_loss_against_drift(real, fake):
    """Karras et al. 2018: the Wasserstein loss and 0.001 E r^2."""
    return fake.mean() - real.mean() + 0.001 * (real**2).mean()


@right("relativistic", "D")
def d_rpgan(real, fake):
    return F.softplus(-(real - fake)).mean()


@right("relativistic", "D")
def d_relativistic_bce(real, fake):
    return F.binary_cross_entropy_with_logits(real - fake, torch.ones_like(real))


@right("relativistic_average", "D", scale=0.5)
def d_ragan(real, fake):
    bce = F.binary_cross_entropy_with_logits
    return (bce(real - fake.mean(), torch.ones_like(real)) + bce(fake - real.mean(), torch.zeros_like(fake))) / 2


@right(CROSS_ENTROPY, "D")
def real_loss(D_out):
    return nn.BCEWithLogitsLoss()(D_out.squeeze(), torch.ones(D_out.size(0)))


@right(CROSS_ENTROPY, "D")
def fake_loss(D_out):
    return nn.BCEWithLogitsLoss()(D_out.squeeze(), torch.zeros(D_out.size(0)))


@right(CROSS_ENTROPY, "D")
def adversarial(a, b):  # nothing in its names: D's, a for real
    return F.softplus(-a).mean() + F.softplus(b).mean()


@right("smoothing", "D", smoothing=0.9 + 0.1 * 0.5)
def d_loss_with_random_targets(real, fake):
    targets = 0.9 + 0.1 * torch.rand(len(real))
    bce = F.binary_cross_entropy_with_logits
    return bce(real, targets) + bce(fake, torch.zeros_like(fake))


# --- D on probabilities, and in numpy ---


@right(CROSS_ENTROPY, "D", on=PROBABILITIES)
def d_bceloss(real, fake):
    criterion = nn.BCELoss()
    return criterion(real, torch.ones_like(real)) + criterion(fake, torch.zeros_like(fake))


@right("smoothing", "D", on=PROBABILITIES, smoothing=0.9)
def d_bceloss_smoothed(real, fake):
    criterion = nn.BCELoss()
    n = real.size(0)
    return criterion(real, torch.full((n,), 0.9)) + criterion(fake, torch.full((n,), 0.0))


@right(CROSS_ENTROPY, "D", on=PROBABILITIES)
def d_log(real, fake):
    return -torch.mean(torch.log(real + 1e-8) + torch.log(1 - fake + 1e-8))


@right(CROSS_ENTROPY, "D", on=PROBABILITIES)
def d_numpy(D_real, D_fake):
    return -np.mean(np.log(D_real)) - np.mean(np.log(1.0 - D_fake))


@right(CROSS_ENTROPY, "D")
def discriminator_loss_tensorflow_style(real_output, fake_output):
    """tf.nn.sigmoid_cross_entropy_with_logits: max(x, 0) - x z + log(1 + exp(-|x|))."""
    bce = lambda x, z: np.mean(np.maximum(x, 0) - x * z + np.log1p(np.exp(-np.abs(x))))
    return bce(real_output, np.ones_like(real_output)) + bce(fake_output, np.zeros_like(fake_output))


@right(CROSS_ENTROPY, "D", on=PROBABILITIES)
def d_keras_clipped(real, fake):
    eps = 1e-7
    real, fake = np.clip(real, eps, 1 - eps), np.clip(fake, eps, 1 - eps)
    return np.mean(-np.log(real)) + np.mean(-np.log(1 - fake))


# --- an output and a target ---


@right(CROSS_ENTROPY, "D", on=PROBABILITIES)
def keras_bce(y_true, y_pred):
    y_pred = np.clip(y_pred, 1e-7, 1 - 1e-7)
    return -np.mean(y_true * np.log(y_pred) + (1 - y_true) * np.log(1 - y_pred))


@right("wasserstein", "D")
def wasserstein_loss(y_true, y_pred):
    return np.mean(y_true * y_pred)


@right("hinge", "D")
def hinge_with_targets(output, target):
    return F.relu(1 - output * target).mean()


@right("least_squares", "D", scale=2.0)
def mse_loss(prediction, target):
    return ((prediction - target) ** 2).mean()


right(CROSS_ENTROPY, "D", label="criterion")(nn.BCEWithLogitsLoss())
right(CROSS_ENTROPY, "D", label="bce", on=PROBABILITIES)(nn.BCELoss())
right(CROSS_ENTROPY, "D", label="bce_none", reduction="none")(nn.BCEWithLogitsLoss(reduction="none"))
right("least_squares", "D", label="mse", scale=2.0)(nn.MSELoss())


@right("least_squares", "D", scale=2.0)
class GANLoss(nn.Module):
    """The criterion of many image translation repositories."""

    def __init__(self, mode: str = "lsgan") -> None:
        super().__init__()
        self.mode = mode
        self.register_buffer("real_label", torch.tensor(1.0))
        self.register_buffer("fake_label", torch.tensor(0.0))

    def forward(self, prediction, target_is_real):
        if self.mode == "wgangp":
            return -prediction.mean() if target_is_real else prediction.mean()
        target = (self.real_label if target_is_real else self.fake_label).expand_as(prediction)
        loss = F.mse_loss if self.mode == "lsgan" else F.binary_cross_entropy_with_logits
        return loss(prediction, target)


right("wasserstein", "D", label="GANLoss_wgangp")(GANLoss("wgangp"))
right(CROSS_ENTROPY, "D", label="GANLoss_vanilla")(GANLoss("vanilla"))


@right(CROSS_ENTROPY, "D")
def d_ones_and_zeros(real, fake, ones, zeros):
    bce = F.binary_cross_entropy_with_logits
    return bce(real, ones) + bce(fake, zeros)


@right(CROSS_ENTROPY, "D", scale=0.5)
def d_four_arguments(real_logits, real_labels, fake_logits, fake_labels):
    bce = F.binary_cross_entropy_with_logits
    return (bce(real_logits, real_labels) + bce(fake_logits, fake_labels)) / 2


# --- G ---


@right("non_saturating", "G")
def g_loss(fake):
    return F.softplus(-fake).mean()


@right("non_saturating", "G")
def generator_loss(fake_output):
    return F.binary_cross_entropy_with_logits(fake_output, torch.ones_like(fake_output))


@right("non_saturating", "G", on=PROBABILITIES)
def g_log_trick(fake):
    return -torch.log(fake + 1e-8).mean()


@right("minimax", "G", on=PROBABILITIES)
def g_minimax(fake):
    return torch.log(1 - fake).mean()


@right("minimax", "G")
def g_saturating(fake):
    return -F.softplus(fake).mean()


@right("minimax", "G")
def g_negative_of_d(real, fake):
    return -d_loss(real, fake)


@right("minimax, non_saturating", "D")
def loss_f(fake):  # D's half; no name says that it is G's
    return F.softplus(fake).mean()


@right(LINE, "G")
def g_hinge(fake):
    return -fake.mean()


right(LINE, "G", label="g_wgan")(lambda fake: -torch.mean(fake))


@right("least_squares", "G", scale=2.0)
def g_lsgan(d_out):
    return F.mse_loss(d_out, torch.ones_like(d_out))


@right("least_squares_pearson", "G")
def g_pearson(fake):
    return 0.5 * fake.square().mean()


@right("relativistic", "G")
def g_rpgan(fake, real):
    return F.softplus(real - fake).mean()


@right("relativistic", "G")
def g_rpgan_real_detached(real, fake):
    return F.softplus(-(fake - real.detach())).mean()


@right("relativistic_average", "G")
def g_ragan(real, fake):
    return F.softplus(-(fake - real.mean())).mean() + F.softplus(real - fake.mean()).mean()


@right("non_saturating", "G", reduction="none")
def g_numpy(fake):
    return np.logaddexp(0, -fake)


def weighted(weight, fake):
    return weight * F.softplus(-fake).mean()


right("non_saturating", "G", label="g_partial", scale=0.1)(functools.partial(weighted, 0.1))


@right("non_saturating", "G", on=PROBABILITIES)
def adv_loss_keyword(*, prob_fake):
    return F.binary_cross_entropy(prob_fake, torch.ones_like(prob_fake))


# --- class terms, and ACGAN whole ---


@right("auxiliary_classifier", "")
def class_loss(class_logits, labels):
    return F.cross_entropy(class_logits, labels)


@right("auxiliary_classifier", "")
def aux_loss(labels, class_logits):
    return nn.CrossEntropyLoss()(class_logits, labels)


@right("auxiliary_classifier", "")
def cls_nll(cls_logits, y):
    return F.nll_loss(F.log_softmax(cls_logits, dim=1), y)


@right("auxiliary_classifier", "", reduction="none")
def cls_onehot(cls_logits, y_onehot):
    return -(y_onehot * cls_logits.log_softmax(1)).sum(1)


@right("auxiliary_classifier", "", on=PROBABILITIES)
def categorical_crossentropy(y_true, y_pred):
    return np.mean(-np.sum(y_true * np.log(np.clip(y_pred, 1e-7, 1)), axis=-1))


@right("auxiliary_classifier", "")
def class_nll_of_log_probs(class_log_probs, labels):
    return F.nll_loss(class_log_probs, labels)


@right("auxiliary_classifier", "", label="class_smoothed")
def smoothed(class_logits, labels):
    return F.cross_entropy(class_logits, labels, label_smoothing=0.1)


@right("non_saturating" + ACGAN, "G", class_weight=1.0)
def g_acgan(fake, class_logits, labels):
    return F.softplus(-fake).mean() + F.cross_entropy(class_logits, labels)


@right("non_saturating" + ACGAN, "G", scale=0.5, class_weight=1.0)
def g_acgan_halved(validity, pred_label, gen_labels):
    """The shape of the most copied script, with its class head put right."""
    adversarial = nn.BCEWithLogitsLoss()
    return 0.5 * (adversarial(validity, torch.ones_like(validity)) + nn.CrossEntropyLoss()(pred_label, gen_labels))


@right(CROSS_ENTROPY + ACGAN, "D", class_weight=0.3)
def d_acgan(real, fake, c_real, c_fake, y, y_fake):
    lam = 0.3
    source = F.softplus(-real).mean() + F.softplus(fake).mean()
    return source + lam * F.cross_entropy(c_real, y) + lam * F.cross_entropy(c_fake, y_fake)


@right("hinge" + ACGAN, "D", class_weight=1.0)
def d_acgan_hinge_on_real_classes(real, fake, c_real, y):
    return F.relu(1 - real).mean() + F.relu(1 + fake).mean() + F.cross_entropy(c_real, y)


# --- what is given D, G, images and latents ---


@right(CROSS_ENTROPY, "D")
def d_step_loss(D, G, x, z):
    return F.softplus(-D(x)).mean() + F.softplus(D(G(z).detach())).mean()


@right("non_saturating", "G")
def g_step_loss(D, G, z):
    return F.softplus(-D(G(z))).mean()


@right(CROSS_ENTROPY, "D")
def d_step_with_r1(D, G, real_images, z):
    real_images = real_images.detach().requires_grad_()
    real = D(real_images)
    (slope,) = torch.autograd.grad(real.sum(), real_images, create_graph=True)
    penalty = 5 * slope.square().flatten(1).sum(1).mean()  # the D that is handed over has slope 1
    return F.softplus(-real).mean() + F.softplus(D(G(z).detach())).mean() + penalty


@right("relativistic", "G")
def g_step_rpgan(discriminator, generator, real_images, latents):
    return F.softplus(discriminator(real_images) - discriminator(generator(latents))).mean()


@right("non_saturating" + ACGAN, "G", class_weight=1.0)
def g_step_acgan(D, G, z, y):
    source, c = D(G(z, y))
    return F.softplus(-source).mean() + F.cross_entropy(c, y)


@right(CROSS_ENTROPY, "D", on=PROBABILITIES)
def d_step_bceloss(netD, netG, real_images, noise):
    with torch.no_grad():
        fake_images = netG(noise)
    real, fake = netD(real_images).view(-1), netD(fake_images).view(-1)
    return F.binary_cross_entropy(real, torch.ones_like(real)) + F.binary_cross_entropy(fake, torch.zeros_like(fake))


@right("non_saturating", "G")
def get_gen_loss(gen, disc, criterion, num_images, z_dim, device):
    noise = torch.randn(num_images, z_dim, device=device)
    pred = disc(gen(noise))
    return criterion(pred, torch.ones_like(pred))


@right("wasserstein", "D")
def critic_with_penalty(critic, real_images, fake_images):
    u = torch.rand(len(real_images), 1, 1, 1)
    m = (u * real_images + (1 - u) * fake_images).detach().requires_grad_()
    (slope,) = torch.autograd.grad(critic(m).sum(), m, create_graph=True)
    penalty = 10 * (slope.flatten(1).norm(dim=1) - 1).square().mean()
    return critic(fake_images).mean() - critic(real_images).mean() + penalty


# --- wrong ---


@wrong(CROSS_ENTROPY, "other-player", "G")
def g_loss_of_d(fake):
    return F.softplus(fake).mean()


@wrong(CROSS_ENTROPY, "other-player", "G")
def generator_loss_whole_of_d(real, fake):
    return d_loss(real, fake)


@wrong("non_saturating", "sign", "G")
def g_loss_negated(fake):
    return -F.softplus(-fake).mean()


@wrong("minimax", "name", "G", facts=("non_saturating", "minimax"))
def non_saturating_g_loss(fake):
    return -F.softplus(fake).mean()


@right("non_saturating", "G", smoothing=0.9)
def g_smoothed(fake):
    return F.binary_cross_entropy_with_logits(fake, torch.full_like(fake, 0.9))


@wrong(LINE, "sign", "G")
def g_wgan_maximised(fake):
    return fake.mean()


@right("hinge", "G")
def g_hinge_with_a_hinge(fake):
    return F.relu(1 - fake).mean()


@wrong("hinge", "hinge-of-d", "G")
def g_hinge_of_d(fake):
    return F.relu(1 + fake).mean()


@wrong("relativistic", "other-player", "G")
def g_rpgan_of_d(real, fake):
    return F.softplus(fake - real).mean()


@right("non_saturating", "G", reduction="sum")
def g_sum(fake):
    return F.softplus(-fake).sum()


@wrong("non_saturating", "mean-first", "G")
def g_mean_first(fake):
    return F.softplus(-fake.mean())


@wrong("non_saturating", "no-gradient-in-g", "G")
def g_detached(fake):
    return F.softplus(-fake.detach()).mean()


@wrong("non_saturating", "not-differentiable", "G")
def g_item(fake):
    return F.softplus(-fake).mean().item()


@wrong("unknown", "sigmoid-first", "G")
def g_double_sigmoid(fake):
    return F.binary_cross_entropy_with_logits(torch.sigmoid(fake), torch.ones_like(fake))


@wrong("unknown", "sigmoid-first", "G", on=PROBABILITIES)
def g_logits_loss_of_probs(probs_fake):
    return F.binary_cross_entropy_with_logits(probs_fake, torch.ones_like(probs_fake))


@wrong(CROSS_ENTROPY, "targets-swapped", "D")
def d_loss_swapped(real, fake):
    return F.softplus(real).mean() + F.softplus(-fake).mean()


@wrong(CROSS_ENTROPY, "sign", "D")
def d_loss_negated(real, fake):
    return F.logsigmoid(real).mean() + F.logsigmoid(-fake).mean()


@wrong("wasserstein", "sign", "D")
def critic_loss_maximised(real, fake):
    return real.mean() - fake.mean()


@wrong("unknown", "mixed-halves", "D")
def critic_loss_maximised_against_drift(real, fake):
    return real.mean() - fake.mean() + 0.001 * (real**2).mean()


@wrong("hinge", "targets-swapped", "D")
def d_hinge_swapped(real, fake):
    return F.relu(1 + real).mean() + F.relu(1 - fake).mean()


@wrong("hinge", "direction", "D", facts=("real images down",))
def d_hinge_of_fakes_twice(real, fake):
    return F.relu(1 + real).mean() + F.relu(1 + fake).mean()


@wrong(CROSS_ENTROPY, "direction", "D", facts=("fakes up",))
def d_ones_for_both(real, fake):
    bce = F.binary_cross_entropy_with_logits
    return bce(real, torch.ones_like(real)) + bce(fake, torch.ones_like(fake))


@wrong("hinge", "sign", "D")
def d_hinge_minus_forgotten(real, fake):
    return torch.clamp(real - 1, max=0).mean() + torch.clamp(-fake - 1, max=0).mean()


@wrong("least_squares", "targets-swapped", "D")
def d_lsgan_swapped(real, fake):
    return 0.5 * real.square().mean() + 0.5 * (fake - 1).square().mean()


@wrong("unknown", "sigmoid-before-score", "D")
def d_lsgan_of_sigmoid(real, fake):
    return 0.5 * (real.sigmoid() - 1).square().mean() + 0.5 * fake.sigmoid().square().mean()


@right("smoothing", "D", smoothing=0.9)
def d_smoothed_on_both_sides(real, fake):
    bce = F.binary_cross_entropy_with_logits
    return bce(real, torch.full_like(real, 0.9)) + bce(fake, torch.full_like(fake, 0.1))


@right("smoothing", "D", smoothing=0.95, on=PROBABILITIES)
def bce_label_smoothing_of_keras(y_true, y_pred):
    y = y_true * 0.9 + 0.05
    return -np.mean(y * np.log(y_pred) + (1 - y) * np.log(1 - y_pred))


@right(CROSS_ENTROPY, "D")
def d_fakes_smoothed(real, fake):
    bce = F.binary_cross_entropy_with_logits
    return bce(real, torch.ones_like(real)) + bce(fake, torch.full_like(fake, 0.1))


@wrong("smoothing", "targets-close", "D", smoothing=0.6, facts=("0.6", "0.4"))
def d_targets_close(real, fake):
    bce = F.binary_cross_entropy_with_logits
    return bce(real, torch.full_like(real, 0.6)) + bce(fake, torch.full_like(fake, 0.4))


@wrong(CROSS_ENTROPY, "target-range", "D", facts=("1.1",))
def d_target_above_one(real, fake):
    bce = F.binary_cross_entropy_with_logits
    return bce(real, torch.full_like(real, 1.1)) + bce(fake, torch.zeros_like(fake))


@wrong(CROSS_ENTROPY, "fake-half-missing", "D", on=PROBABILITIES)
def d_y_true_on_both_halves(real, fake):
    y_true = torch.ones_like(real)
    return -(y_true * torch.log(real) + (1 - y_true) * torch.log(1 - fake)).mean()


@wrong(CROSS_ENTROPY, "fake-half-missing", "D", on=PROBABILITIES)
def d_y_true_given(y_true, real, fake):
    return -(y_true * torch.log(real) + (1 - y_true) * torch.log(1 - fake)).mean()


@wrong(CROSS_ENTROPY, "one-target-for-both", "D", on=PROBABILITIES, scale=0.9, facts=("0.9", "0.1"))
def d_y_true_softened(real, fake):
    y_true = 0.9
    return -(y_true * torch.log(real) + (1 - y_true) * torch.log(1 - fake)).mean()


@wrong(CROSS_ENTROPY, "half-of-bce-missing", "D", on=PROBABILITIES)
def bce_half(y_true, y_pred):
    return -np.mean(y_true * np.log(y_pred))


@wrong(CROSS_ENTROPY, "exchanged", "D")
def bce_exchanged(y_true, y_pred):
    return nn.BCELoss()(y_true, y_pred)


@wrong(CROSS_ENTROPY, "exchanged", "D")
def bce_of_logits_exchanged(y_true, y_pred):
    return nn.BCEWithLogitsLoss()(y_true, y_pred)


@wrong(CROSS_ENTROPY, "targets-swapped", "D", on=PROBABILITIES)
def bce_swapped(output, target):
    return F.binary_cross_entropy(output, 1 - target)


@wrong("minimax, non_saturating", "exchanged", "D")
def discriminator_loss_as_tensorflow_has_it_in_pytorch(real_output, fake_output):
    cross_entropy = nn.BCEWithLogitsLoss()
    real_loss = cross_entropy(torch.ones_like(real_output), real_output)
    return real_loss + cross_entropy(torch.zeros_like(fake_output), fake_output)


@wrong(CROSS_ENTROPY, "sum-in-part", "D", reduction="mean and sum")
def d_sum_and_mean(real, fake):
    return F.softplus(-real).mean() + F.softplus(fake).sum()


@right(CROSS_ENTROPY, "D", scale=0.5)
def d_half_of_one_half(real, fake):
    return 0.5 * F.softplus(-real).mean() + F.softplus(fake).mean()


@wrong(CROSS_ENTROPY, "no-gradient-in-d", "D", facts=("fake",))
def d_answers_detached(real, fake):
    return F.softplus(-real).mean() + F.softplus(fake.detach()).mean()


@wrong("unknown", "mixed-halves", "D")
def d_of_two_losses(real, fake):
    return F.softplus(-real).mean() + F.relu(1 + fake).mean()


@right(CROSS_ENTROPY, "D")
def d_step_not_detached(D, G, x, z):
    return F.softplus(-D(x)).mean() + F.softplus(D(G(z))).mean()


@wrong("non_saturating", "no-gradient-in-g", "G")
def g_step_detached(D, G, z):
    return F.softplus(-D(G(z).detach())).mean()


@wrong("auxiliary_classifier", "class-input", "", facts=("softmax", "1.461", "10"))
def class_softmax_first(class_logits, labels):
    return F.cross_entropy(F.softmax(class_logits, dim=1), labels)


@wrong("auxiliary_classifier", "class-input", "", kind="class", on=PROBABILITIES, facts=("probabilities", "1.461"))
def class_loss_of_probs(class_probs, labels):
    return F.cross_entropy(class_probs, labels)


@wrong("auxiliary_classifier", "nll-of-softmax", "")
def class_nll_of_softmax(class_logits, labels):
    return F.nll_loss(class_logits.softmax(1), labels)


@wrong("auxiliary_classifier", "nll-of-logits", "")
def class_nll_of_logits(class_logits, labels):
    return F.nll_loss(class_logits, labels)


@wrong("non_saturating" + ACGAN, "class-sign", "G", class_weight=-1.0)
def g_acgan_class_as_a_contest(fake, class_logits, labels):
    return F.softplus(-fake).mean() - F.cross_entropy(class_logits, labels)


@wrong("non_saturating" + ACGAN, "class-input", "G", scale=0.5, class_weight=1.0, facts=("softmax", "1.461"))
def g_acgan_most_copied(validity, pred_label, gen_labels):
    pred_label = nn.Softmax(dim=1)(pred_label)
    adversarial = nn.BCEWithLogitsLoss()
    return 0.5 * (adversarial(validity, torch.ones_like(validity)) + nn.CrossEntropyLoss()(pred_label, gen_labels))


@wrong(CROSS_ENTROPY + ACGAN, "other-player", "G", class_weight=1.0)
def g_acgan_as_often_printed(real, fake, c_fake, y_fake):
    return d_loss(real, fake) + F.cross_entropy(c_fake, y_fake)


@wrong("non_saturating" + ACGAN, "class-labels", "G", class_weight=1.0)
def g_acgan_of_the_real_labels(fake, c_fake, y_real, y_fake):
    return F.softplus(-fake).mean() + F.cross_entropy(c_fake, y_real)


@wrong("non_saturating" + ACGAN, "sum-in-part", "G", class_weight=1.0, reduction="mean and sum")
def g_acgan_class_summed(fake, c_fake, y_fake):
    return F.softplus(-fake).mean() + F.cross_entropy(c_fake, y_fake, reduction="sum")


# --- declared by flags, where names say nothing or the wrong thing ---


@right("non_saturating", "G", kind="g")
def loss(t):
    return F.softplus(-t).mean()


@wrong(CROSS_ENTROPY, "other-player", "G", kind="g", label="loss_for_g")
def loss_for_whom(t):
    return F.softplus(t).mean()


@right(CROSS_ENTROPY, "D", kind="d", label="half")
def half_of_d(t):  # for D it can only be the half of real images
    return F.softplus(-t).mean()


@right(CROSS_ENTROPY, "D", kind="bce")
def of_two(a, b):
    return F.binary_cross_entropy_with_logits(b, a)


@right("auxiliary_classifier", "", kind="class")
def of_two_more(a, b):
    return F.cross_entropy(b, a)


@wrong("unknown", "sigmoid-first", "G", kind="g", told_on=PROBABILITIES, on=PROBABILITIES)
def logits_loss_on_probabilities(t):
    return F.binary_cross_entropy_with_logits(t, torch.ones_like(t))


@wrong("auxiliary_classifier", "class-input", "", label="class_told",
       told_on=PROBABILITIES, on=PROBABILITIES, facts=("probabilities", "1.461"))  # fmt: skip
def class_loss_on_probabilities(class_output, labels):
    return F.cross_entropy(class_output, labels)


# --- not known, and said so ---


@right("unknown", "G")
def g_arctangent(fake):
    return -torch.atan(fake).mean()


@right("unknown", "G")
def g_feature_matching(real_features, fake_features):
    return (real_features.mean(0) - fake_features.mean(0)).abs().mean()


@right("relativistic_average", "D")
def d_relativistic_average_squares(real, fake):
    return ((real - fake.mean() - 1) ** 2).mean() + ((fake - real.mean() + 1) ** 2).mean()


@right("unknown", "D")
def d_hinge_regularised(real, fake):
    """Tseng et al. 2021: the hinge loss, and squares around moving averages."""
    regular = F.relu(real - 0.2).square().mean() + F.relu(0.3 - fake).square().mean()
    return F.relu(1 - real).mean() + F.relu(1 + fake).mean() + 0.1 * regular


@right("unknown", "D")
def d_exponential(real, fake):
    return torch.exp(-real).mean() + torch.exp(fake).mean()


@right("relativistic", "D")
def d_relativistic_squares(real, fake):
    return (real - fake - 1).square().mean()


@right("unknown", "")
def class_squares(class_logits, labels):
    return (class_logits.softmax(1) - F.one_hot(labels, 10)).square().sum(1).mean()


@wrong("unknown", "direction", "G", facts=("fakes down",))
def g_exponential_of_d(fake):
    return torch.exp(fake / 2).mean()

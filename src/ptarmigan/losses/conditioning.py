"""Class conditioning of D: heads on D's features [N, F], and the class terms in the losses of D and G."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ptarmigan.config import Loss
from ptarmigan.core import dist
from ptarmigan.core.devices import autocast
from ptarmigan.core.types import DiscriminatorOutput

EMBEDDING = 512  # length of ReACGAN's embeddings, as its authors use for CIFAR-10


class Head(nn.Module):
    """The source logit, linear in the features, without the class and a class term; subclasses add theirs.

    A class term is [N] or None.  It depends only on what `forward` returned, and the step multiplies it by lambda.
    `real_labels` are y; `fake_labels` are y', the classes that G was asked for.
    """

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        self.source = nn.Linear(features, 1)

    def forward(self, features: Tensor, labels: Tensor) -> DiscriminatorOutput:
        return DiscriminatorOutput(features, self.source(features).squeeze(1))

    @staticmethod
    def d_term(
        real: DiscriminatorOutput, fake: DiscriminatorOutput, *, real_labels: Tensor, fake_labels: Tensor, loss: Loss
    ) -> Tensor | None:
        return None

    @staticmethod
    def g_term(fake: DiscriminatorOutput, *, fake_labels: Tensor, loss: Loss) -> Tensor | None:
        return None


class AuxiliaryClassifier(Head):
    """ACGAN's two heads, source and class, both linear in the features (Odena et al. 2017).

    The labels are not read: D has to recognise the class from the image.
    """

    def __init__(self, features: int, classes: int) -> None:
        super().__init__(features, classes)
        self.classifier = nn.Linear(features, classes)

    def forward(self, features: Tensor, labels: Tensor) -> DiscriminatorOutput:
        return super().forward(features, labels)._replace(class_logits=self.classifier(features))

    @staticmethod
    def d_term(
        real: DiscriminatorOutput, fake: DiscriminatorOutput, *, real_labels: Tensor, fake_labels: Tensor, loss: Loss
    ) -> Tensor:
        return classification_d(
            known(real.class_logits), known(fake.class_logits),
            real_labels=real_labels, fake_labels=fake_labels, fakes=loss.class_fake,
        )  # fmt: skip

    @staticmethod
    def g_term(fake: DiscriminatorOutput, *, fake_labels: Tensor, loss: Loss) -> Tensor:
        return classification_g(known(fake.class_logits), fake_labels=fake_labels)


class Projection(Head):
    """psi(phi) + <e_y, phi> (Miyato and Koyama 2018, eq. 3).

    The inner product is not divided by sqrt(F): Adam moves each weight by about the learning rate, whatever the size
    of the gradient, so with the division D would learn the class sqrt(F) times more slowly.
    """

    def __init__(self, features: int, classes: int) -> None:
        super().__init__(features, classes)
        self.embedding = nn.Embedding(classes, features)

    def forward(self, features: Tensor, labels: Tensor) -> DiscriminatorOutput:
        inner = (self.embedding(labels) * features).sum(1)
        return DiscriminatorOutput(features, self.source(features).squeeze(1) + inner)


class TwinClassifier(AuxiliaryClassifier):
    """TAC: a classifier C of real images and its twin T of fakes (Gong et al. 2019).

    C learns p(y|x) and T learns q(y|x), so G's term is KL(q(y|x) || p(y|x)) without the entropy of ACGAN's term.
    """

    def __init__(self, features: int, classes: int) -> None:
        super().__init__(features, classes)
        self.twin = nn.Linear(features, classes)

    def forward(self, features: Tensor, labels: Tensor) -> DiscriminatorOutput:
        return super().forward(features, labels)._replace(twin_logits=self.twin(features))

    @staticmethod
    def d_term(
        real: DiscriminatorOutput, fake: DiscriminatorOutput, *, real_labels: Tensor, fake_labels: Tensor, loss: Loss
    ) -> Tensor:
        return classification_d(
            known(real.class_logits), known(fake.twin_logits), real_labels=real_labels, fake_labels=fake_labels
        )

    @staticmethod
    def g_term(fake: DiscriminatorOutput, *, fake_labels: Tensor, loss: Loss) -> Tensor:
        return twin_g(known(fake.class_logits), known(fake.twin_logits), fake_labels=fake_labels)


class DiscriminativeClassifier(AuxiliaryClassifier):
    """ADC: one classifier with 2K classes, y+ = y for real images and y- = K + y for fakes (Hou et al. 2022)."""

    def __init__(self, features: int, classes: int) -> None:
        super().__init__(features, 2 * classes)

    @staticmethod
    def d_term(
        real: DiscriminatorOutput, fake: DiscriminatorOutput, *, real_labels: Tensor, fake_labels: Tensor, loss: Loss
    ) -> Tensor:
        return discriminative_d(
            known(real.class_logits), known(fake.class_logits), real_labels=real_labels, fake_labels=fake_labels
        )

    @staticmethod
    def g_term(fake: DiscriminatorOutput, *, fake_labels: Tensor, loss: Loss) -> Tensor:
        return discriminative_g(known(fake.class_logits), fake_labels=fake_labels)


class ReACGAN(Head):
    """An embedding of the image and a proxy of each class, both of length 1 (Kang et al. 2021)."""

    def __init__(self, features: int, classes: int) -> None:
        super().__init__(features, classes)
        self.embed = nn.Linear(features, EMBEDDING)
        self.proxies = nn.Embedding(classes, EMBEDDING)

    def forward(self, features: Tensor, labels: Tensor) -> DiscriminatorOutput:
        embedding, proxy = F.normalize(self.embed(features), dim=1), F.normalize(self.proxies(labels), dim=1)
        return super().forward(features, labels)._replace(embedding=embedding, proxy=proxy)

    @staticmethod
    def d_term(
        real: DiscriminatorOutput, fake: DiscriminatorOutput, *, real_labels: Tensor, fake_labels: Tensor, loss: Loss
    ) -> Tensor:
        return d2d_ce(
            known(real.embedding), known(real.proxy), real_labels,
            margin=loss.class_margin, temperature=loss.class_temperature,
        )  # fmt: skip

    @staticmethod
    def g_term(fake: DiscriminatorOutput, *, fake_labels: Tensor, loss: Loss) -> Tensor:
        return d2d_ce(
            known(fake.embedding), known(fake.proxy), fake_labels,
            margin=loss.class_margin, temperature=loss.class_temperature,
        )  # fmt: skip


HEADS: dict[str, type[Head]] = {
    "none": Head,
    "auxiliary_classifier": AuxiliaryClassifier,
    "projection": Projection,
    "twin_classifier": TwinClassifier,
    "discriminative_classifier": DiscriminativeClassifier,
    "reacgan": ReACGAN,
}


class ConditionalDiscriminator(nn.Module):
    """A body, images [N, C, H, W] -> features [N, F], followed by the head of the conditioning."""

    def __init__(self, body: nn.Module, features: int, classes: int, conditioning: str) -> None:
        super().__init__()
        self.body = body
        self.head = HEADS[conditioning](features, classes)

    def forward(self, images: Tensor, labels: Tensor, masks: list[Tensor] | None = None) -> DiscriminatorOutput:
        features = self.body(images, masks)
        with autocast(features.device, False):  # heads and losses in at least fp32
            features = features.to(torch.promote_types(features.dtype, torch.float32))
            output: DiscriminatorOutput = self.head(features, labels)
        return output


def classification_d(
    real: Tensor, fake: Tensor, *, real_labels: Tensor, fake_labels: Tensor, fakes: bool = True
) -> Tensor:
    """CE(c(x), y) + CE(c(G(z, y')), y') [N] from class logits [N, K]; y' is the class that G was asked for.

    Odena et al. 2017, eq. 3; without `fakes`, the first term alone.
    """
    loss = F.cross_entropy(real, real_labels, reduction="none")
    return loss + F.cross_entropy(fake, fake_labels, reduction="none") if fakes else loss


def classification_g(fake: Tensor, *, fake_labels: Tensor) -> Tensor:
    """CE(c(G(z, y')), y') [N], with the same sign as in D's loss (Odena et al. 2017, eq. 3)."""
    return F.cross_entropy(fake, fake_labels, reduction="none")


def twin_g(fake: Tensor, twin: Tensor, *, fake_labels: Tensor) -> Tensor:
    """CE(C(G), y') - CE(T(G), y') [N] from the class logits [N, K] of C and of its twin (Gong et al. 2019)."""
    return classification_g(fake, fake_labels=fake_labels) - classification_g(twin, fake_labels=fake_labels)


def discriminative_d(real: Tensor, fake: Tensor, *, real_labels: Tensor, fake_labels: Tensor) -> Tensor:
    """-log C(y+|x) - log C(y'-|G(z, y')) [N] from class logits [N, 2K]; y+ = y, y- = K + y (Hou et al. 2022)."""
    generated = fake.shape[1] // 2 + fake_labels
    return classification_d(real, fake, real_labels=real_labels, fake_labels=generated)


def discriminative_g(fake: Tensor, *, fake_labels: Tensor) -> Tensor:
    """-[log C(y'+|G) - log C(y'-|G)] [N], in which the softmax's denominator cancels (Hou et al. 2022)."""
    as_real, as_generated = fake.chunk(2, 1)
    return (as_generated - as_real).gather(1, fake_labels.unsqueeze(1)).squeeze(1)


def d2d_ce(embedding: Tensor, proxy: Tensor, labels: Tensor, *, margin: float, temperature: float) -> Tensor:
    """D2D-CE [N] of unit embeddings h [N, E] and the unit proxies v [N, E] of their classes (Kang et al. 2021).

    -a_i + log(e^a_i + sum_j e^b_ij) over all j of other classes, on all ranks, where
    a_i = min(h_i v_i - margin, 0) / temperature and b_ij = max(h_i h_j - (1 - margin), 0) / temperature.
    """
    others, theirs = dist.gather(embedding), dist.gather(labels)
    attraction = ((embedding * proxy).sum(1, keepdim=True) - margin).clamp(max=0) / temperature
    repulsion = (embedding @ others.T - (1 - margin)).clamp(min=0) / temperature
    repulsion = repulsion.masked_fill(labels.unsqueeze(1) == theirs, -torch.inf)
    return (torch.cat([attraction, repulsion], 1).logsumexp(1, keepdim=True) - attraction).squeeze(1)


def known(output: Tensor | None) -> Tensor:
    """An output that the head of this conditioning always has."""
    assert output is not None
    return output

"""What tells D the class: heads on D's features [N, F], and the class terms of both players' losses."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ptarmigan.contracts import DiscriminatorOutput


class Unconditional(nn.Module):
    """One logit, linear in the features; the class plays no part."""

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        self.source = nn.Linear(features, 1)

    def forward(self, features: Tensor, labels: Tensor) -> DiscriminatorOutput:
        return DiscriminatorOutput(features, self.source(features).squeeze(1))


class AuxiliaryClassifier(nn.Module):
    """ACGAN's two heads, source and class, both linear in the features (Odena et al. 2017).

    The labels are not read: D has to tell the class from the image.
    """

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        self.source = nn.Linear(features, 1)
        self.classifier = nn.Linear(features, classes)

    def forward(self, features: Tensor, labels: Tensor) -> DiscriminatorOutput:
        return DiscriminatorOutput(features, self.source(features).squeeze(1), self.classifier(features))


class Projection(nn.Module):
    """psi(phi) + <e_y, phi> / sqrt(F) (Miyato and Koyama 2018, eq. 3); the scale keeps both parts alike at first."""

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        self.source = nn.Linear(features, 1)
        self.embedding = nn.Embedding(classes, features)

    def forward(self, features: Tensor, labels: Tensor) -> DiscriminatorOutput:
        inner = (self.embedding(labels) * features).sum(1) / features.shape[1] ** 0.5
        return DiscriminatorOutput(features, self.source(features).squeeze(1) + inner)


HEADS: dict[str, type[Unconditional | AuxiliaryClassifier | Projection]] = {
    "none": Unconditional,
    "auxiliary_classifier": AuxiliaryClassifier,
    "projection": Projection,
}


class ConditionalDiscriminator(nn.Module):
    """A body, images [N, C, H, W] -> features [N, F], under the head that its conditioning asks for."""

    def __init__(self, body: nn.Module, features: int, classes: int, conditioning: str) -> None:
        super().__init__()
        self.body = body
        self.head = HEADS[conditioning](features, classes)

    def forward(self, images: Tensor, labels: Tensor, masks: list[Tensor] | None = None) -> DiscriminatorOutput:
        features = self.body(images, masks)
        with torch.autocast(features.device.type, enabled=False):  # heads and losses in at least fp32
            features = features.to(torch.promote_types(features.dtype, torch.float32))
            output: DiscriminatorOutput = self.head(features, labels)
        return output


def classification_d(
    real: Tensor, fake: Tensor, *, real_labels: Tensor, fake_labels: Tensor, fakes: bool = True
) -> Tensor:
    """CE(c(x), y) + CE(c(G(z, y')), y') [N] from class logits [N, K]; y' is the class that was asked for.

    Odena et al. 2017, eq. 3; with `fakes` off, on real images alone.
    """
    loss = F.cross_entropy(real, real_labels, reduction="none")
    return loss + F.cross_entropy(fake, fake_labels, reduction="none") if fakes else loss


def classification_g(fake: Tensor, *, fake_labels: Tensor) -> Tensor:
    """CE(c(G(z, y')), y') [N]: the same sign as D's; only the source term is a contest (Odena et al. 2017, eq. 3)."""
    return F.cross_entropy(fake, fake_labels, reduction="none")

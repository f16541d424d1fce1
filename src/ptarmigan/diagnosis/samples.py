"""Statistics of generated images beside real ones, and of D's outputs; the log keeps them, and findings read them."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ptarmigan.data.batches import to_float
from ptarmigan.data.stream import StreamedImages
from ptarmigan.evaluation.features.classifier import chance_corrected
from ptarmigan.evaluation.verdict import LinearClassifier

SIDE = 16  # pixels to which images are averaged before copies are looked for
MAX_TRAIN, MAX_BYTES = 10_000, 1 << 28  # images of the train part up to which copies of them are looked for
SURE = 3.0  # standard errors by which D must tell train images from generated ones before its gap means anything


@dataclass
class Reference:
    """Real images that were not trained on, and what is computed from them once.

    The images are uint8 [N, H, W, C].  Labels are all 0 where the generator takes no class.
    """

    images: NDArray[np.uint8]
    features: Tensor  # [N, F]
    labels: NDArray[np.int64]  # [N]
    classes: int
    train: Tensor  # [M, P] small images of the whole train part; M = 0 where it is too large to compare with
    before: Tensor | None = field(default=None, repr=False)  # [M, F] features of the last snapshot's images

    @cached_property
    def classifier(self) -> LinearClassifier:
        return LinearClassifier(self.features.cpu(), self.labels, self.classes)

    @cached_property
    def distance(self) -> float | None:
        return class_distance(self.features, self.labels)

    @cached_property
    def colours(self) -> tuple[Tensor, Tensor]:
        return colours(self.images)

    @cached_property
    def nyquist(self) -> float:
        return nyquist_share(self.images)

    @cached_property
    def copying(self) -> float:
        """How much closer a real image is to the train part than to the other real images."""
        small = shrink(self.images)
        others = torch.cdist(small, small).fill_diagonal_(torch.inf)
        return float(torch.cdist(small, self.train).amin(1).median() / others.amin(1).median())

    def statistics(self, images: NDArray[np.uint8], features: Tensor, labels: NDArray[np.int64]) -> dict[str, float]:
        """Statistics of generated images, uint8 [M, H, W, C], with their features [M, F] and labels [M].

        variety: mean feature distance of two images of a class, as a share of the same among real images.  movement:
        mean feature distance to the images of the same latents one snapshot before, in the same unit.  class_accuracy
        and real_accuracy: how well a classifier of the real images recognises the class, 0 for chance and 1 for no
        errors; each real image is judged by a classifier of the others.  colour_gap:
        largest difference of a channel's mean or deviation, on [-1, 1].  nyquist: share of power at the highest
        frequency, fake over real.  copying: distance to the nearest train image over that to the nearest other real
        image, fake over real; below 1 generated images are closer to the train part than new real images are.
        """
        out: dict[str, float] = {}
        if (real := self.distance) and (fake := class_distance(features, labels)) is not None:
            out["variety"] = fake / real
            if self.before is not None:
                out["movement"] = float((features - self.before).norm(dim=1).mean()) / real
        self.before = features
        if self.classes > 1:
            for name, scores, of in (
                ("class_accuracy", self.classifier(features.cpu()), labels),
                ("real_accuracy", self.classifier.left_out, self.labels),
            ):
                right = float((scores.argmax(1).numpy() == of).mean())
                out[name] = chance_corrected(right, self.classes)
        gaps = [(fake - real).abs().max() for fake, real in zip(colours(images), self.colours, strict=True)]
        out["colour_gap"] = float(max(gaps))
        if self.nyquist > 0:
            out["nyquist"] = nyquist_share(images) / self.nyquist
        if len(self.train):
            small = shrink(images)
            near, other = (torch.cdist(small, of).amin(1).median() for of in (self.train, shrink(self.images)))
            if other > 0 and self.copying > 0:
                out["copying"] = float(near / other) / self.copying
        return out


def d_gap(train: Tensor, unseen: Tensor, fake: Tensor) -> float | None:
    """(E D(train) - E D(unseen)) / (E D(train) - E D(fake)), from logits [N] each.

    0 where D treats real images that it has not seen as those it was trained on, 1 where it treats them as fakes.  None
    where D does not tell train images from generated ones.
    """
    span = train.mean() - fake.mean()
    error = (train.var() / len(train) + fake.var() / len(fake)).sqrt()
    return float((train.mean() - unseen.mean()) / span) if span > SURE * error else None


def class_distance(features: Tensor, labels: NDArray[np.int64]) -> float | None:
    """Mean distance of two images of the same class, over all such pairs; None where there is none."""
    of = torch.from_numpy(labels).to(features.device)
    same = of[:, None] == of
    same.fill_diagonal_(False)
    return float(torch.cdist(features, features)[same].mean()) if same.any() else None


def colours(images: NDArray[np.uint8]) -> tuple[Tensor, Tensor]:
    """The mean and the deviation of each channel [C], on [-1, 1]."""
    pixels = to_float(torch.from_numpy(images))
    return pixels.mean((0, 2, 3)), pixels.std((0, 2, 3))


def nyquist_share(images: NDArray[np.uint8]) -> float:
    """The share of the images' power, without their mean, where a wave changes its sign at every pixel."""
    pixels = to_float(torch.from_numpy(images)).mean(1)
    pixels = pixels[:, : pixels.shape[1] // 2 * 2, : pixels.shape[2] // 2 * 2]
    power = torch.fft.fft2(pixels - pixels.mean((1, 2), keepdim=True)).abs().square().sum(0)  # [H, W]
    row, column = power.shape[0] // 2, power.shape[1] // 2
    highest = power[row].sum() + power[:, column].sum() - power[row, column]
    return float(highest / power.sum()) if power.sum() > 0 else 0.0


def shrink(images: NDArray[np.uint8]) -> Tensor:
    """[N, P]: the images at SIDE x SIDE."""
    parts = torch.split(torch.from_numpy(images), 256)
    return torch.cat([F.adaptive_avg_pool2d(to_float(part), SIDE).flatten(1) for part in parts])


def small_images(images: NDArray[np.uint8] | StreamedImages, indices: NDArray[np.int64]) -> Tensor:
    """[M, P]: the images of a train part as `shrink` makes them; M = 0 where there are too many to compare with."""
    few = len(indices) <= MAX_TRAIN and len(indices) * images[0].nbytes <= MAX_BYTES
    return shrink(images[indices]) if few else torch.empty(0, 0)

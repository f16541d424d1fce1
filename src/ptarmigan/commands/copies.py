"""`ptarmigan sample --reject-copies`: images that are copies of training images are drawn again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ptarmigan.commands.score_plan import shuffled
from ptarmigan.commands.score_sources import open_training_data
from ptarmigan.core.console import Display
from ptarmigan.core.types import UserError
from ptarmigan.data import HELD_OUT, TRAIN, Dataset
from ptarmigan.evaluation import metrics
from ptarmigan.evaluation.evaluate import neighbours
from ptarmigan.evaluation.features import Extractor, load_extractor
from ptarmigan.evaluation.features.cache import adding_up, cached_features
from ptarmigan.evaluation.verdict import MIN_FOR_COPIES
from ptarmigan.generator.generator import MAX_IMAGES, Chunk, Latents, TrainedGenerator

RECORDED = "recorded"  # names the images that a run recorded
MOST_DRAWS = 20  # of one image, after which the generator counts as one that copies


@dataclass
class CopyGuard:
    """Knows the features of the training images, and replaces images that are copies of them."""

    extractor: Extractor
    train: Tensor  # [N, F]
    spacing: Tensor  # [N], from each training image to the nearest other one
    closest: float  # the smallest relative distance of a held-out image; a copy's is below it
    redrawn: int = field(default=0, init=False)  # draws that were replaced so far

    @classmethod
    def of(cls, model: Path, generator: TrainedGenerator, data: str | Path, device: str, display: Display) -> CopyGuard:
        """Compare the held-out images with the training images; raises UserError (too-few-images) if there are few."""
        notes: list[str] = []
        given = None if data == RECORDED else data
        dataset = open_training_data(model, generator, given, notes, display.preparing)
        for note in notes:
            display.say(f"note: {note}")
        train, held_out = (shuffled(dataset.indices(part)) for part in (TRAIN, HELD_OUT))
        held_out = held_out[~np.isin(dataset.hashes[held_out], dataset.hashes[train])]
        if len(held_out) < MIN_FOR_COPIES:
            text = f"reject-copies: {len(held_out)} held-out images are too few to tell copies from chance"
            raise UserError(f"{text}: it takes {MIN_FOR_COPIES}; train with another --split", "too-few-images")
        extractor = load_extractor(device=device)
        of_train, of_held_out = (features_of(extractor, dataset, part, display) for part in (train, held_out))
        of_train = of_train[np.unique(dataset.hashes[train], return_index=True)[1]]  # two copies have no spacing
        with display.doing("comparing the held-out images with the training images"):
            spacing = metrics.spacing_of(of_train)
            closest = neighbours(of_held_out, of_train, spacing).relative.min()
        return cls(extractor, of_train, spacing, float(closest))

    def copies(self, images: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """[N] whether an image [N, H, W, C] is nearer to a training image than every held-out image is."""
        near = neighbours(self.extractor(images), self.train, self.spacing).relative < self.closest
        copied: NDArray[np.bool_] = near.numpy()
        return copied

    def without_copies(self, chunks: Iterator[Chunk], generator: TrainedGenerator, latents: Latents) -> Iterator[Chunk]:
        """The same chunks; each copy is replaced by the images at its index plus MAX_IMAGES, twice that and so on.

        Raises UserError (only-copies) if MOST_DRAWS of an image in a row are copies.
        """
        for chunk in chunks:
            images, labels, indices = chunk.images.copy(), chunk.labels, chunk.indices.copy()
            at = np.flatnonzero(self.copies(images))
            for draws in range(1, MOST_DRAWS + 1):
                if not at.size:
                    break
                if draws == MOST_DRAWS:
                    name = generator.spec.class_names[labels[at[0]]]
                    text = f"reject-copies: {MOST_DRAWS} draws of {name!r} in a row are copies of training images"
                    raise UserError(f"{text}: train on more images, or with --augment", "only-copies")
                self.redrawn += len(at)
                indices[at] += MAX_IMAGES
                images[at] = generator.draw(labels[at], latents(indices[at]))
                at = at[self.copies(images[at])]
            yield Chunk(images, labels, indices)


def features_of(extractor: Extractor, dataset: Dataset, indices: NDArray[np.int64], display: Display) -> Tensor:
    """Features [N, F] of images of a data set, as `score` keeps them; their number is shown as it grows."""
    advance = adding_up(display.preparing, "features of the real images", len(indices))
    return cached_features(extractor, dataset, indices, advance)

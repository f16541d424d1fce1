"""Statistics of the samples of any generator, beside the images that it was trained on, for `ptarmigan diagnose`."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ptarmigan.commands.score_sources import ExistingImages, open_existing_images
from ptarmigan.config import Data
from ptarmigan.core import seeding
from ptarmigan.core.console import Display, Terminal
from ptarmigan.core.types import UserError
from ptarmigan.data import Dataset
from ptarmigan.diagnosis.samples import Reference, small_images
from ptarmigan.evaluation.features import Extractor, load_extractor
from ptarmigan.evaluation.features.cache import adding_up, cached_features, extract_in_blocks

LEAST, MOST = 50, 1000  # samples, and real images beside them
REFERENCE = 5  # one of so many real images is one that samples are compared with; the others are the train part


def sample_statistics(samples: Path, data: str | Path) -> tuple[int, dict[str, float]]:
    """How many samples are judged, at most MOST, and their statistics, as `Reference.statistics` returns them.

    A generator may have been trained on every real image.  If it copies them, most of its samples are still far closer
    to the four fifths that stand for its train part than to the fifth that they are compared with.

    Raises UserError: too-few-images, and what opening images raises.
    """
    with Display(Terminal(stderr=True)) as display, display.doing("comparing samples with real images"):
        existing, real = open_existing_images(samples, data, Data(split="none"), "none", display.preparing)
        for images, name, least in ((existing, samples, LEAST), (real, data, LEAST * REFERENCE)):
            if len(images.labels) < least:
                text = f"{name} has too few images to judge, {len(images.labels):,}: give {least:,} or more"
                raise UserError(text, "too-few-images")
        source = ExistingImages(existing, real.spec.class_names, 1)
        count = min(len(existing.labels), MOST)
        source.plan(count, real.labels, real.spec.classes)
        labels, indices = source.labels(0), np.arange(count)
        extractor = load_extractor()
        reference = reference_of(real, labels is not None, extractor, display)
        advance = adding_up(display.preparing, "computing features of the samples", count)
        features = extract_in_blocks(extractor, count, lambda part: source.images(0, indices[part]), advance)
        asked = np.zeros(count, np.int64) if labels is None else labels
        return count, reference.statistics(source.images(0, indices), features, asked)


def reference_of(real: Dataset, has_classes: bool, extractor: Extractor, display: Display) -> Reference:
    """A random fifth of the real images, at most MOST, with the rest as the train part."""
    order = seeding.permute(0, "diagnose", 0, np.arange(len(real.labels)), len(real.labels))
    fifth = len(order) // REFERENCE
    used = order[:fifth][:MOST]
    advance = adding_up(display.preparing, "computing features of the real images", len(used))
    return Reference(
        real.images[used], cached_features(extractor, real, used, advance),
        real.labels[used] if has_classes else np.zeros(len(used), np.int64),
        real.spec.classes if has_classes else 1, small_images(real.images, order[fifth:]),
    )  # fmt: skip

"""What `train` says of a check before it starts: little, because its notices say the rest."""

from __future__ import annotations

import re

import numpy as np

from ptarmigan.core.types import counted
from ptarmigan.data import Dataset
from ptarmigan.data.check.images import flat_images

WRONG = re.compile("cannot be decoded|in more than one class|are copies of")
LOOKED_AT = 20_000  # images, so that training does not wait for it


def summary(dataset: Dataset) -> list[str]:
    """At most two sentences, none where nothing is wrong."""
    looked_at = dataset.images[:LOOKED_AT] if isinstance(dataset.images, np.ndarray) else dataset.images[:0]
    flat = np.flatnonzero(flat_images(looked_at))
    lines = []
    if len(flat):
        lines.append(f"nearly one colour: {counted(len(flat), 'image')}, for example {dataset.origin(int(flat[0]))}")
    if lines or any(WRONG.search(notice) for notice in dataset.notices):
        lines.append("`ptarmigan check` of the same images names all that is wrong, and what mends it")
    return lines

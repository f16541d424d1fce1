"""Features of a data set's own images, kept in the cache: the same images through the same weights are seen once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import suppress

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ptarmigan.core import files
from ptarmigan.core.types import UserError
from ptarmigan.data import Dataset
from ptarmigan.data.pack import cache_folder
from ptarmigan.evaluation.features import Extractor

BLOCK = 256  # images between two signs of life

Took = Callable[[int], object]  # told how many images have gone through


def look(seer: Extractor, count: int, images: Callable[[slice], NDArray[np.uint8]], took: Took) -> Tensor:
    """Features [count, F] of images(slice), block by block."""
    parts = []
    for start in range(0, count, BLOCK):
        parts.append(seer(images(slice(start, start + BLOCK))))
        took(len(parts[-1]))
    return torch.cat(parts)


def features_of(seer: Extractor, dataset: Dataset, places: NDArray[np.int64], took: Took = lambda _: None) -> Tensor:
    """Features [N, F] of the images at places [N] of a data set."""
    key = hashlib.blake2b(f"{dataset.fingerprint} {seer.sha256} {seer.size}".encode(), digest_size=16)
    key.update(places.tobytes())
    path = cache_folder() / "features" / f"{key.hexdigest()}.safetensors"
    try:
        features = files.load_tensors(path)[0]["features"]
        took(len(places))
    except (files.Damaged, files.OtherFormat):  # or not there
        features = look(seer, len(places), lambda part: dataset.images[places[part]], took)
        with suppress(UserError):  # a cache that cannot be written costs time alone
            files.make_folder(path.parent)
            files.save_tensors(path, {"features": features}, {})
    return features

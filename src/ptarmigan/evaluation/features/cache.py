"""Features of a data set's images, cached on disk, so that they are extracted only once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import suppress

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ptarmigan.core import files
from ptarmigan.core.tensor_files import load_tensors, save_tensors
from ptarmigan.core.types import OnProgress, UserError
from ptarmigan.data import Dataset
from ptarmigan.data.cache import cache_folder
from ptarmigan.evaluation.features import Extractor

BLOCK = 256  # images between two reports of progress
CACHED = 512  # images whose features are in one file, so that those who need more images extract only the rest

OnImages = Callable[[int], object]  # is called with the number of images just done


def adding_up(on_progress: OnProgress, what: str, total: int) -> OnImages:
    """Reports `what` with the number of images done so far, from 0 on."""
    done = 0

    def advance(images: int) -> None:
        nonlocal done
        done += images
        on_progress(what, done, total)

    advance(0)
    return advance


def extract_in_blocks(
    extractor: Extractor, count: int, images: Callable[[slice], NDArray[np.uint8]], on_images: OnImages
) -> Tensor:
    """Features [count, F] of images(slice), block by block."""
    parts = []
    for start in range(0, count, BLOCK):
        parts.append(extractor(images(slice(start, start + BLOCK))))
        on_images(len(parts[-1]))
    return torch.cat(parts)


def cached_features(
    extractor: Extractor, dataset: Dataset, indices: NDArray[np.int64], on_images: OnImages = lambda _: None
) -> Tensor:
    """Features [N, F] of the images at indices [N] of a data set."""
    parts = [
        _cached_block(extractor, dataset, indices[start : start + CACHED], on_images)
        for start in range(0, len(indices), CACHED)
    ]
    return torch.cat([torch.empty(0, extractor.dim), *parts])


def _cached_block(extractor: Extractor, dataset: Dataset, indices: NDArray[np.int64], on_images: OnImages) -> Tensor:
    key = hashlib.blake2b(f"{dataset.fingerprint} {extractor.sha256} {extractor.size}".encode(), digest_size=16)
    key.update(indices.tobytes())
    path = cache_folder() / "features" / f"{key.hexdigest()}.safetensors"
    try:
        features = load_tensors(path)[0]["features"]
        if features.shape != (len(indices), extractor.dim):
            raise KeyError
        on_images(len(indices))
    except (files.Damaged, files.OtherFormat, KeyError):  # or missing
        features = extract_in_blocks(extractor, len(indices), lambda part: dataset.images[indices[part]], on_images)
        with suppress(UserError):  # without a cache, the next run only takes longer
            files.make_folder(path.parent)
            save_tensors(path, {"features": features}, {})
    return features

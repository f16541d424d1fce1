"""What `ptarmigan check` finds of planted copies and wrong labels, and how often it accuses images without a fault.

    python benchmarks/planted.py copies [DATA] [--images 5000] [--planted 300]
    python benchmarks/planted.py labels [DATA] [--images 2000] [--share 0.03] [--seeds 4]
    python benchmarks/planted.py alarms [DATA]

DATA is what `train` takes; without it, the embedded images of Fashion-MNIST are used.  The rows are in docs/check.md.
"""

from __future__ import annotations

import argparse
import io
from collections import Counter
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance

from ptarmigan.commands.check import check
from ptarmigan.config import Data
from ptarmigan.core.seeding import permute
from ptarmigan.data import Dataset, open_dataset
from ptarmigan.data.check.labels import doubtful_labels
from ptarmigan.data.check.near import near_pairs, on_white
from ptarmigan.evaluation.features import load_extractor
from ptarmigan.evaluation.features.cache import cached_features


def jpeg(image: Image.Image) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=80)
    return Image.open(file)


def resized(image: Image.Image) -> Image.Image:
    small = image.resize((image.width * 3 // 4, image.height * 3 // 4), Image.Resampling.LANCZOS)
    return small.resize(image.size, Image.Resampling.LANCZOS)


def crop(left: float, top: float) -> Callable[[Image.Image], Image.Image]:
    """Cut 5 % of the sides off, this share of it at the left and at the top."""

    def cropped(image: Image.Image) -> Image.Image:
        x, y = 0.05 * image.width, 0.05 * image.height
        box = (left * x, top * y, image.width - (1 - left) * x, image.height - (1 - top) * y)
        return image.resize(image.size, Image.Resampling.LANCZOS, box)

    return cropped


COPIES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "JPEG, quality 80": jpeg,
    "resized to 75 % and back": resized,
    "cropped by 5 %, in the middle": crop(0.5, 0.5),
    "cropped by 5 %, in a corner": crop(0, 1),
    "cropped by 5 %, off-centre": crop(0.25, 0.5),
    "20 % brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.2),
    "20 % darker": lambda image: ImageEnhance.Brightness(image).enhance(0.8),
}


def pictures(dataset: Dataset, count: int) -> NDArray[np.uint8]:
    """[N, H, W, 1 or 3] distinct images of a data set, on white."""
    indices = np.unique(dataset.hashes, return_index=True)[1]
    chosen = np.sort(indices[permute(0, "planted", 0, np.arange(min(count, len(indices))), len(indices))])
    return np.rint(on_white(dataset.images[chosen])).astype(np.uint8)


def copies(dataset: Dataset, count: int, planted: int) -> None:
    """Recall of each kind of copy, and the pairs found among the distinct images."""
    images = pictures(dataset, count)
    print(f"{len(images):,} distinct images: {len(near_pairs(images)):,} pairs found among them")
    for name, change in COPIES.items():
        of = images[:planted]
        changed = [np.asarray(change(Image.fromarray(image[..., 0] if image.shape[2] == 1 else image))) for image in of]
        both = np.concatenate([of, np.stack(changed).reshape(of.shape)])
        found = {tuple(pair) for pair in near_pairs(both).tolist()}
        equal = (both[: len(of)] == both[len(of) :]).all((1, 2, 3))  # exact duplicates, which are found by their bytes
        hits = sum((at, at + len(of)) in found or equal[at] for at in range(len(of)))
        print(f"{name:<30} {hits / len(of):.3f}  of {len(of)}", flush=True)


def labels(dataset: Dataset, count: int, share: float, seeds: int) -> None:
    """Precision and recall of the doubted labels where a share of them was changed to another class at random."""
    chosen = permute(0, "planted", 0, np.arange(min(count, len(dataset.images))), len(dataset.images))
    features = cached_features(load_extractor(), dataset, chosen)
    truth, classes = dataset.labels[chosen], dataset.spec.classes
    total: Counter[str] = Counter()
    for seed in range(seeds + 1):  # the last without planted errors
        rng, given = np.random.default_rng(seed), truth.copy()
        bad = rng.choice(len(truth), round(share * len(truth)), replace=False) if seed < seeds else np.empty(0, int)
        given[bad] = (given[bad] + rng.integers(1, classes, len(bad))) % classes
        found = doubtful_labels(features, given, dataset.hashes[chosen])
        hits = np.isin(found.indices, bad)
        if seed == seeds:
            print(f"without planted errors: {len(found.indices)} of {len(truth):,} labels doubted")
            continue
        right = (found.better == truth[found.indices])[hits].sum()
        total.update(found=len(hits), hits=int(hits.sum()), planted=len(bad), right=int(right))
    print(f"{share:.0%} of {len(truth):,} labels changed, {seeds} seeds: {dict(total)}")
    print(f"precision {total['hits'] / max(total['found'], 1):.2f}, recall {total['hits'] / total['planted']:.2f}, ")
    print(f"the true class named for {total['right'] / max(total['hits'], 1):.2f} of those found")


def alarms(dataset: Dataset) -> None:
    """The findings of a data set without planted faults."""
    for finding in check(dataset).findings:
        print(f"{finding.severity:<8} {finding.code:<30} {finding.count:>6}  {finding.text}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("copies", "labels", "alarms"))
    parser.add_argument("data", nargs="?")
    parser.add_argument("--images", type=int)
    parser.add_argument("--planted", type=int, default=300)
    parser.add_argument("--share", type=float, default=0.03)
    parser.add_argument("--seeds", type=int, default=4)
    asked = parser.parse_args()
    dataset = open_dataset(asked.data, Data())
    if asked.what == "copies":
        copies(dataset, asked.images or 5_000, asked.planted)
    elif asked.what == "labels":
        labels(dataset, asked.images or 2_000, asked.share, asked.seeds)
    else:
        alarms(dataset)


if __name__ == "__main__":
    main()

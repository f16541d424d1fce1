"""The size to which EfficientNet-Lite0 should resize: how well KID sees a fault, and at what cost.

    python studies/sensitivity.py [/usr/share/datasets/fashion-mnist]

For each side: images a CPU-second on one thread, the measure that other work on the machine disturbs least.  For each
planted fault: the mean KID (unbiased, cubic kernel) between 1,000 faulted images and each of 8 disjoint sets of 1,000
real training images, in units of the standard deviation of KID over the 28 pairs of those sets.  The faulted images are
in none of the sets.  The standard deviation of KID between equal distributions falls as 1/N, so the last column is the
sensitivity for a given time: the geometric mean over the faults, times images a second.
"""

from __future__ import annotations

import argparse
import gzip
import io
import time
from itertools import combinations
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from torch import Tensor

from ptarmigan.evaluation.features.efficientnet import EfficientNetLite0, load_network

SUBSETS, N = 8, 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=Path("/usr/share/datasets/fashion-mnist"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with gzip.open(arguments.folder / "train-images-idx3-ubyte.gz") as file:
        content = file.read(16 + (SUBSETS + 1) * N * 784)
    images = np.frombuffer(content, np.uint8, offset=16).reshape(-1, 28, 28).copy()
    real, rest = images[: SUBSETS * N], images[SUBSETS * N :]
    rng = np.random.default_rng(0)
    faults = {
        "blur .5": np.stack([blurred(image) for image in rest]),
        "noise 10": np.clip(np.rint(rest + rng.normal(0, 10, rest.shape)), 0, 255).astype(np.uint8),
        "JPEG 50": np.stack([jpeg(image) for image in rest]),
    }
    network, _ = load_network()
    print(f"{'side':>4} {'images':>8} {'SD':>9} " + " ".join(f"{name:>9}" for name in faults) + f" {'a second':>9}")
    for side in (96, 128, 160, 224):
        start = time.process_time()
        subsets = extract(network, real, side).split(N)
        rate = len(real) / (time.process_time() - start)
        deviation = float(np.std([kid(a, b) for a, b in combinations(subsets, 2)], ddof=1))
        seen = [
            float(np.mean([kid(subset, features) for subset in subsets])) / deviation
            for features in (extract(network, fault, side) for fault in faults.values())
        ]
        print(
            f"{side:4} {rate:8.0f} {deviation:9.2e} "
            + " ".join(f"{value:9.1f}" for value in seen)
            + f" {float(np.exp(np.mean(np.log(np.maximum(seen, 1e-9))))) * rate:9.0f}",
            flush=True,
        )


def blurred(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(0.5)))


def jpeg(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "jpeg", quality=50)
    return np.asarray(Image.open(file))


@torch.inference_mode()
def extract(network: EfficientNetLite0, images: NDArray[np.uint8], side: int) -> Tensor:
    return torch.cat([
        network.features(network.prepare(torch.from_numpy(images[i : i + 16, None]).float(), side))
        for i in range(0, len(images), 16)
    ])  # fmt: skip


def kid(a: Tensor, b: Tensor) -> float:
    """Unbiased squared MMD with the kernel (a . b / d + 1)^3 (Binkowski et al. 2018)."""
    a, b = a.double(), b.double()
    within = sum(
        float((k.sum() - k.trace()) / (len(x) * (len(x) - 1)))
        for x in (a, b)
        for k in [(x @ x.T / x.shape[1] + 1) ** 3]
    )
    return within - 2 * float(((a @ b.T / a.shape[1] + 1) ** 3).mean())


if __name__ == "__main__":
    main()

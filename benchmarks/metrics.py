"""Time and memory of Fréchet, KID, precision, recall, density and coverage of 10,000 against 10,000 samples.

    pip install -e '.[bench]'
    python benchmarks/metrics.py [--samples 10000] [--features 1280] [--rounds 1]

Ours (src/ptarmigan/evaluation/metrics.py) against the same figures computed plainly with scipy.linalg.sqrtm and
scikit-learn's polynomial_kernel, NearestNeighbors and pairwise_distances.  Each runs in a process of its own, one after
the other, on the same float32 features.  Memory is the peak of the process (ru_maxrss, kB on Linux) above the features.
Fails where the two disagree.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np
import scipy.linalg
import torch
from sklearn.metrics import pairwise_distances
from sklearn.metrics.pairwise import polynomial_kernel
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

from ptarmigan.evaluation.metrics import frechet, gaussian, kid_and_fidelity, pair_statistics

TOLERANCE = {"frechet": 1e-6, "kid": 1e-4, "precision": 1e-3, "recall": 1e-3, "density": 1e-3, "coverage": 1e-3}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--features", type=int, default=1_280)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--alone", choices=WAYS, help=argparse.SUPPRESS)  # for the child processes
    asked = parser.parse_args()
    if asked.alone:
        print(json.dumps(measured(WAYS[asked.alone], asked.samples, asked.features)))
        return

    print(f"2 x {asked.samples:,} samples of {asked.features:,} float32 features, {torch.get_num_threads()} threads")
    print(
        f"{'':<10} {'seconds':>9} {'CPU seconds':>12} {'GiB above features':>19}  "
        + " ".join(f"{name:>12}" for name in TOLERANCE)
    )
    for _ in range(asked.rounds):
        scores = []
        for way in WAYS:
            command = [sys.executable, __file__, "--samples", str(asked.samples), "--features", str(asked.features)]
            found = json.loads(subprocess.run([*command, "--alone", way], check=True, stdout=subprocess.PIPE).stdout)
            scores.append(found["scores"])
            print(f"{way:<10} {found['seconds']:9.1f} {found['cpu']:12.1f} {found['gib']:19.2f}  "
                  + " ".join(f"{found['scores'][name]:12.8f}" for name in TOLERANCE), flush=True)  # fmt: skip
        for name, tolerance in TOLERANCE.items():
            ours, plain = (each[name] for each in scores)
            assert abs(ours - plain) <= tolerance * abs(plain), f"{name}: ptarmigan has {ours}, plain has {plain}"


def measured(score: Callable[[Tensor, Tensor], dict[str, float]], n: int, d: int) -> dict[str, object]:
    """Score features of falling variance far from the origin; the fakes are slightly wider and shifted."""
    generator = torch.Generator().manual_seed(0)
    scale = (1 + torch.arange(d) / 8).rsqrt()
    real, fake = (torch.randn(n, d, generator=generator).mul_(scale * wide).add_(1) for wide in (1, 1.05))
    fake[:, : d // 8].add_(0.1 * scale[: d // 8])
    before, begun, cpu = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter(), time.process_time()
    scores = score(real, fake)
    return {
        "seconds": time.perf_counter() - begun,
        "cpu": time.process_time() - cpu,
        "gib": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**20,
        "scores": scores,
    }


def ours(real: Tensor, fake: Tensor) -> dict[str, float]:
    both = kid_and_fidelity(pair_statistics(real), pair_statistics(fake))
    return {"frechet": frechet(gaussian(real), gaussian(fake)), "kid": both.kid, **both.fidelity._asdict()}


def plain(real: Tensor, fake: Tensor) -> dict[str, float]:
    x, y = real.numpy(), fake.numpy()
    n, m = len(x), len(y)

    (m1, s1), (m2, s2) = ((of.mean(0, dtype=np.float64), np.cov(of, rowvar=False)) for of in (x, y))
    root = scipy.linalg.sqrtm(s1 @ s2).real
    distance = np.sum((m1 - m2) ** 2) + np.trace(s1) + np.trace(s2) - 2 * np.trace(root)

    xx, yy, xy = polynomial_kernel(x), polynomial_kernel(y), polynomial_kernel(x, y)  # degree 3, 1 / F, + 1
    within = [(k.sum(dtype=np.float64) - k.trace(dtype=np.float64)) / (len(k) * (len(k) - 1)) for k in (xx, yy)]
    discrepancy = sum(within) - 2 * xy.mean(dtype=np.float64)
    del xx, yy, xy

    real_reach, fake_reach = (NearestNeighbors(n_neighbors=5).fit(of).kneighbors()[0] for of in (x, y))
    apart = pairwise_distances(x, y)
    held = apart <= real_reach[:, 4:]
    return {
        "frechet": float(distance),
        "kid": float(discrepancy),
        "precision": float((apart <= real_reach[:, 2:3]).any(0).mean()),
        "recall": float((apart <= fake_reach[:, 2]).any(1).mean()),
        "density": float(held.sum() / (5 * m)),
        "coverage": float(held.any(1).sum() / n),
    }


WAYS = {"ptarmigan": ours, "plain": plain}

if __name__ == "__main__":
    main()

"""Throughput of the extractor, from uint8 arrays to features, against plain inference on tensors that are ready.

    python studies/extract.py [--rounds 15] [--images 256] [--threads 2]

Both run the same network at the same batch size, in turns.  The plain loop gets float tensors that are already resized,
scaled and in the memory format of the network; the extractor starts from arrays as sampling gives them.
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np
import torch

from ptarmigan.evaluation.features import CHUNK, load_extractor


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15, help="at least 2")
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    made = load_extractor()
    print(f"{made.name} at {made.size}, batch {CHUNK}, {arguments.threads} threads, torch {torch.__version__}")
    for height, width, channels in ((28, 28, 1), (32, 32, 3), (64, 64, 3), (64, 64, 4)):
        images = np.random.default_rng(0).integers(0, 256, (arguments.images, height, width, channels), np.uint8)
        ready = torch.randn(CHUNK, 3, made.size, made.size).to(memory_format=torch.channels_last)

        @torch.inference_mode()
        def plain(ready: torch.Tensor = ready) -> None:
            for _ in range(arguments.images // CHUNK):
                made.network.features(ready)

        def ours(images: np.ndarray = images) -> None:
            made(images)

        seconds: dict[str, list[float]] = {"plain": [], "ours": []}
        for turn in range(arguments.rounds + 1):  # one to warm up
            pair = [("plain", plain), ("ours", ours)]
            for name, step in pair if turn % 2 else pair[::-1]:
                start = time.perf_counter()
                step()
                seconds[name].append(time.perf_counter() - start)
        ratios = [a / b for a, b in zip(seconds["plain"][1:], seconds["ours"][1:], strict=True)]
        rates = {name: arguments.images / statistics.median(taken[1:]) for name, taken in seconds.items()}
        print(
            f"  {height}x{width}x{channels}  plain {rates['plain']:6.1f}  extractor {rates['ours']:6.1f} images/s  "
            f"ratio {rates['ours'] / rates['plain']:.3f} of medians; by round, quartiles "
            f"{' '.join(f'{q:.3f}' for q in statistics.quantiles(ratios, n=4))}"
        )


if __name__ == "__main__":
    main()

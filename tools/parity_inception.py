"""Our Inception features and FID against those of torch-fidelity, on the same images with the same weights.

    python tools/parity_inception.py [--weights FILE] [--images 2200]

Half of the images are the embedded ones of Fashion-MNIST; the other half are the same with noise.  FID needs more
images than features.  Needs the package torch-fidelity in an environment of its own.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch

from ptarmigan.core.types import UserError
from ptarmigan.evaluation.features import inception, load_extractor
from ptarmigan.evaluation.metrics import frechet, gaussian

ASSETS = Path(__file__).resolve().parents[1] / "src" / "ptarmigan" / "assets"


def main() -> str | None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", help="the published file; by default from the cache, or downloaded")
    parser.add_argument("--images", type=int, default=2 * (inception.DIM + 52))
    arguments = parser.parse_args()
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
        from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
    except ImportError as error:
        return f"needs the package torch-fidelity, in an environment of its own ({error})"
    try:
        ours = load_extractor("inception", arguments.weights)
    except UserError as error:
        return str(error)
    path = arguments.weights or inception.downloaded()
    theirs = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], feature_extractor_weights_path=str(path))

    real = np.load(ASSETS / "fashion-mnist-10k.npz")["arr_0"][: arguments.images // 2, :, :, None].repeat(3, 3)
    noisy = np.clip(real + np.random.default_rng(0).normal(0, 10, real.shape), 0, 255).astype(np.uint8)
    pairs = []
    for images in (real, noisy):
        pixels = torch.from_numpy(images).permute(0, 3, 1, 2)
        with torch.inference_mode():
            pairs.append((ours(images), torch.cat([theirs(part)[0] for part in pixels.split(16)])))
    difference = max(float((a - b).abs().max()) for a, b in pairs)
    print(f"features: largest difference {difference:.1e} of values up to {max(float(b.max()) for _, b in pairs):.2f}")
    mine, yours = zip(*pairs, strict=True)
    fid = frechet(*map(gaussian, mine))
    statistics = map(fid_features_to_statistics, yours)
    theirs_fid = fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"]
    print(f"FID of real against noisy, {len(real)} each: ours {fid:.6f}, theirs {theirs_fid:.6f}")
    return None


if __name__ == "__main__":
    sys.exit(main())

"""Record the curves of three training runs in runs.json, for the losses page.

    ptarmigan train --images 40k --precision fp32 --snapshots 10 --out RUNS/NAME OPTIONS
    cd tools && python -m losses_page.record_runs RUNS

NAME and OPTIONS are those of RUNS_OF below; the images are the embedded ones.  The recall is of 60 samples of each
class against the first 60 images of it, by the features of the default extractor.
"""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import numpy as np
import torch

import ptarmigan
from ptarmigan.core.log import read_log
from ptarmigan.evaluation import metrics
from ptarmigan.evaluation.features import load_extractor
from ptarmigan.handbook.entries import asset

RUNS_OF = {
    "healthy": "",
    "dwins": "--loss minimax --r1 0 --r2 0 --g-lr 2e-4",
    "collapse": "--r1 0 --r2 0 --g-lr 1e-2 --d-lr 1e-3 --g-betas 0.9 0.99",
}


def curves(run: Path) -> dict[str, list[float]]:
    """The losses of every tick, the KID of every snapshot, each with the images seen in thousands, and the recall."""
    lines = list(read_log(run / "metrics.jsonl"))
    ticks, snapshots = ([line for line in lines if key in line] for key in ("d_adv", "select_kid"))
    return {
        "images": [line["images_seen"] / 1000 for line in ticks],
        **{key: [float(f"{line[key]:.3g}") for line in ticks] for key in ("d_adv", "g_adv")},
        "kid_images": [line["images_seen"] / 1000 for line in snapshots],
        "kid": [float(f"{line['select_kid']:.3g}") for line in snapshots],
        "recall": [round(recall(run), 4)],
    }


def recall(run: Path) -> float:
    embedded = np.load(io.BytesIO(asset("fashion-mnist-10k.npz")))
    images, labels = embedded["arr_0"][..., None], embedded["arr_1"]
    chosen = np.concatenate([np.flatnonzero(labels == label)[:60] for label in np.unique(labels)])
    extract = load_extractor()
    samples, _ = ptarmigan.load(run).sample(n=60, seed=1)
    real, fake = (torch.as_tensor(extract(each)).double() for each in (images[chosen], samples))
    statistics = (metrics.pair_statistics(of) for of in (real, fake))
    return float(metrics.kid_and_fidelity(*statistics).fidelity.recall)


if __name__ == "__main__":
    found = {name: curves(Path(sys.argv[1]) / name) for name in RUNS_OF}
    Path(__file__).with_name("runs.json").write_text(json.dumps(found, separators=(",", ":")) + "\n")

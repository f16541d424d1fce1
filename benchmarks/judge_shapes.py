"""Judge samples of the data set of shapes.py by a classifier that has not seen the generator's training images.

    ptarmigan sample RUN -n 400 --seed 1 --out samples.npz
    python benchmarks/judge_shapes.py samples.npz ...

Prints a line for each file: the Fréchet distance from 4,000 real images in the classifier's 64 penultimate features,
and how often it predicts the requested class, shape and texture.  The first call trains the classifier on 16,000 images
of another seed, tests it on 4,000 more, and keeps it in benchmarks/runs; this takes some eight minutes.  Classifiers of
two machines differ in rounding, so figures are comparable within one machine.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from judge import frechet, gaussian
from shapes import NAMES, draw

MADE = Path(__file__).parent / "runs" / "judge-shapes.safetensors"
REAL = "real"  # name of the held-out images' features in the file
SEED, A_CLASS, HELD = 77, 2_000, 4_000
EPOCHS, BATCH, RATE = 8, 100, 4e-3
TEXTURES = 2  # NAMES are ordered by shape; each is plain, then striped


def stage(inputs: int, outputs: int) -> nn.Module:
    """[N, inputs, H, W] -> [N, outputs, H/2, W/2]."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(), nn.MaxPool2d(2)
    )


def networks() -> tuple[nn.Module, nn.Module]:
    """Images [N, 3, 48, 64] in [-1, 1] -> features [N, 64], and those -> logits [N, 10]."""
    body = nn.Sequential(
        stage(3, 32), stage(32, 64), stage(64, 128), stage(128, 128), nn.Flatten(), nn.Linear(128 * 12, 64), nn.ReLU()
    )
    return body, nn.Linear(64, len(NAMES))


def scaled(images: NDArray[np.uint8]) -> Tensor:
    """uint8 [N, 48, 64, 3] -> float32 [N, 3, 48, 64] in [-1, 1]."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1


@torch.no_grad()
def features(body: nn.Module, images: NDArray[np.uint8]) -> Tensor:
    body.eval()
    return torch.cat([body(scaled(part)) for part in np.array_split(images, -(-len(images) // 500))])


def train_classifier() -> None:
    """Draw the images, train the classifier, print its held-out accuracy, and save it with the held-out features."""
    print("training the judge: some eight minutes")
    images = np.array([draw(label, i, SEED) for label in range(len(NAMES)) for i in range(A_CLASS)])
    labels = torch.arange(len(NAMES)).repeat_interleave(A_CLASS)
    rng = np.random.default_rng(0)
    learnt, held = np.split(rng.permutation(len(images)), [-HELD])
    torch.manual_seed(0)
    body, head = networks()
    both = nn.Sequential(body, head)
    optimizer = torch.optim.AdamW(both.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, EPOCHS * (len(learnt) // BATCH))
    for _ in range(EPOCHS):
        for part in rng.permutation(learnt).reshape(-1, BATCH):
            optimizer.zero_grad()
            F.cross_entropy(both(scaled(images[part])), labels[part]).backward()
            optimizer.step()
            schedule.step()
    found = features(body, images[held])
    right = (head(found).argmax(1) == labels[held]).float().mean()
    halves = frechet(*gaussian(found[::2]), *gaussian(found[1::2]))
    print(f"accuracy {right:.4f} on {HELD} held-out images; Fréchet distance of their halves {halves:.2f}")
    MADE.parent.mkdir(exist_ok=True)
    save_file({**both.state_dict(), REAL: found}, MADE)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("samples", nargs="+", type=Path, help=".npz files with arr_0 and arr_1")
    paths = parser.parse_args().samples
    if not MADE.exists():
        train_classifier()
    kept = load_file(MADE)
    real = kept.pop(REAL)
    body, head = networks()
    nn.Sequential(body, head).load_state_dict(kept)
    for path in paths:
        with np.load(path) as file:
            images, asked = file["arr_0"], torch.from_numpy(file["arr_1"])
        found = features(body, images)
        seen = head(found).argmax(1)
        agree = {
            "class": seen == asked, "shape": seen // TEXTURES == asked // TEXTURES,
            "texture": seen % TEXTURES == asked % TEXTURES,
        }  # fmt: skip
        distance = frechet(*gaussian(found), *gaussian(real))
        print(f"{path}: Fréchet {distance:.0f}", *(f"{name} {same.float().mean():.3f}" for name, same in agree.items()))


if __name__ == "__main__":
    main()

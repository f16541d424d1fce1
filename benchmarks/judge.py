"""The public judge: one small classifier of Fashion-MNIST, and figures from its features.

    python benchmarks/judge.py score SAMPLES.npz    one JSON line; arr_0 uint8 [N,28,28(,1)], arr_1 labels [N]
    python benchmarks/judge.py sanity               the figures of images that were damaged on purpose
    python benchmarks/judge.py train                train new weights, as the committed ones were

Every figure compares 10,000 quantised samples, 1,000 a class, with the 10,000 test images, in the 128 penultimate
features of the classifier.  The weights are committed and their hash is pinned below, so figures of different people
come from the same judge.  It imports nothing from ptarmigan: a judge shares no code with what it judges.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
import json
import os
import sys
import time
import zipfile
import zlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load as parse_safetensors
from safetensors.torch import save as to_safetensors
from torch import Tensor, nn
from torch.nn import functional as F

SHA256 = "243060d5868c0ad3cc5f0ffa54fb7c9018c8f305f16ffa59fc51435d6bfef317"
WEIGHTS = Path(__file__).parent / "judge" / "fashion-mnist.safetensors"
DATA = Path("/usr/share/datasets/fashion-mnist")  # of Debian's package dataset-fashion-mnist
CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
PER_CLASS = 1000
SAMPLES = PER_CLASS * len(CLASSES)
FEATURES = 128
EMBEDDED = 10_000  # the first training images, which ptarmigan contains; the real samples are later ones

Images = NDArray[np.uint8]  # [N, 28, 28] or [N, 28, 28, 1]
Labels = NDArray[np.integer[Any]]  # [N] in 0..9
Labelled = tuple[Images, Labels]


class JudgeError(ValueError):
    """A fault of the input: what is wrong, and what is expected.  `code` names the kind of fault."""

    def __init__(self, text: str, code: str) -> None:
        super().__init__(text)
        self.code = code


# --- the classifier ---------------------------------------------------------------------------------------


class Classifier(nn.Module):
    """Three convolutions 28 -> 14 -> 7 -> 3, then 128 rectified features, then ten logits."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(1, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32)
        self.conv2, self.norm2 = nn.Conv2d(32, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64)
        self.conv3, self.norm3 = nn.Conv2d(64, 128, 3, padding=1, bias=False), nn.BatchNorm2d(128)
        self.hidden = nn.Linear(128 * 3 * 3, FEATURES)
        self.logits = nn.Linear(FEATURES, len(CLASSES))

    def features(self, images: Tensor) -> Tensor:
        """uint8 [N, 28, 28] -> float32 [N, 128], not negative."""
        x = (images[:, None].float() / 255 - 0.286) / 0.353  # mean and deviation of the training images
        x = F.relu(self.norm1(F.max_pool2d(self.conv1(x), 2)))
        x = F.relu(self.norm2(F.max_pool2d(self.conv2(x), 2)))
        x = F.relu(self.norm3(F.max_pool2d(self.conv3(x), 2)))
        return F.relu(self.hidden(x.flatten(1)))

    def forward(self, images: Tensor) -> Tensor:
        return self.logits(F.dropout(self.features(images), 0.3, self.training))


def train(data: Path = DATA, out: Path = WEIGHTS, epochs: int = 8, seed: int = 0) -> str:
    """Train on the training images, write `out`, and return its SHA-256.

    The seed fixes the initial weights, the order and dropout.  Another machine or number of threads rounds
    differently, so the weights are committed and not only this recipe.
    """
    images, labels = (torch.from_numpy(a) for a in read_idx(data, "train"))
    batch, lr, start = 128, 2e-3, time.perf_counter()
    torch.manual_seed(seed)
    net = Classifier()
    optimizer = torch.optim.AdamW(net.parameters(), lr, weight_decay=0.02)
    steps = epochs * (len(images) // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps, pct_start=0.2)
    for epoch in range(epochs):
        net.train()
        for rows in torch.randperm(len(images)).split(batch)[: len(images) // batch]:
            loss = F.cross_entropy(net(images[rows]), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        print(f"epoch {epoch + 1}/{epochs}: last loss {loss:.3f}, {time.perf_counter() - start:.0f} s")
    blob = to_safetensors({name: value.contiguous() for name, value in net.state_dict().items()})
    out.parent.mkdir(parents=True, exist_ok=True)
    beside = out.with_suffix(".partial")
    beside.write_bytes(blob)
    os.replace(beside, out)
    return hashlib.sha256(blob).hexdigest()


# --- the figures ------------------------------------------------------------------------------------------


def gaussian(features: Tensor) -> tuple[Tensor, Tensor]:
    """[N, F] -> mean [F] and unbiased covariance [F, F], in float64."""
    features = features.double()
    return features.mean(0), torch.cov(features.T)


def frechet(mean1: Tensor, cov1: Tensor, mean2: Tensor, cov2: Tensor) -> float:
    """|m1 - m2|^2 + Tr(S1 + S2 - 2 (S1^1/2 S2 S1^1/2)^1/2)   (Dowson and Landau 1982).

    The product under the root is symmetric and positive semi-definite, so the trace of its root is a sum over real
    eigenvalues.  Rounding can make those of a rank-deficient covariance slightly negative, hence the clamps.
    """
    values, vectors = torch.linalg.eigh(cov1.double())
    root = (vectors * values.clamp_min(0).sqrt()) @ vectors.T
    cross = torch.linalg.eigvalsh(root @ cov2.double() @ root).clamp_min(0).sqrt().sum()
    gap = (mean1.double() - mean2.double()).square().sum()
    return float(gap + cov1.double().trace() + cov2.double().trace() - 2 * cross)


def spread(features: Tensor, labels: Tensor) -> Tensor:
    """Mean Euclidean distance over all pairs of a class -> [classes] float64."""
    return torch.stack([torch.pdist(features[labels == c].double()).mean() for c in range(len(CLASSES))])


@dataclass(frozen=True)
class View:
    """The features of labelled images, and which labels the judge predicts."""

    features: Tensor  # [N, 128]
    labels: Tensor  # [N]
    correct: Tensor  # [N] bool: the judge predicts the label

    @cached_property
    def gaussian(self) -> tuple[Tensor, Tensor]:
        return gaussian(self.features)

    @cached_property
    def spread(self) -> Tensor:
        return spread(self.features, self.labels)

    @cached_property
    def accuracies(self) -> Tensor:
        """[classes] float64."""
        return torch.stack([self.correct[self.labels == c].double().mean() for c in range(len(CLASSES))])


def compare(samples: View, reference: View) -> dict[str, Any]:
    """The three figures over all classes, and accuracy and diversity per class."""
    ratios = samples.spread / reference.spread
    return {
        "frechet": round(frechet(*samples.gaussian, *reference.gaussian), 5) + 0.0,  # no -0.0
        "accuracy": round(float(samples.correct.double().mean()), 4),
        "accuracy_reference": round(float(reference.correct.double().mean()), 4),
        "diversity": round(float(samples.spread.mean() / reference.spread.mean()), 4),
        "per_class": {
            name: {
                "accuracy": round(float(samples.accuracies[c]), 4),
                "accuracy_reference": round(float(reference.accuracies[c]), 4),
                "diversity": round(float(ratios[c]), 4),
            }
            for c, name in enumerate(CLASSES)
        },
    }


class Judge:
    """The network and the data: `Judge.load().score(images, labels)`.  The data are read when a figure needs them."""

    def __init__(self, net: Classifier, sha256: str, data: Path = DATA) -> None:
        self.net, self.sha256, self.data = net.eval(), sha256, data

    @classmethod
    def load(cls, weights: Path = WEIGHTS, sha256: str = SHA256, data: Path = DATA) -> Judge:
        """Raises JudgeError where the file is missing or its SHA-256 is not the expected one."""
        if not weights.is_file():
            raise JudgeError(f"no weights at {weights}; restore them: git checkout -- {weights}", "file-unreadable")
        blob = weights.read_bytes()
        found = hashlib.sha256(blob).hexdigest()
        if found != sha256:
            raise JudgeError(
                f"{weights} is not the pinned judge: its SHA-256 is {found}, expected {sha256}; restore it "
                f"(git checkout -- {weights}), or pin the hash of a new judge in judge.py",
                "file-damaged",
            )
        net = Classifier()
        net.load_state_dict(parse_safetensors(blob))
        return cls(net, found, data)

    def score(self, images: Images, labels: Labels, reference: Labelled | None = None) -> dict[str, Any]:
        """Figures of 10,000 samples against the test images.

        images uint8 [10000, 28, 28] or [10000, 28, 28, 1], labels [10000] with 1,000 of each of 0..9.
        `reference` (for instance a split of the training images, for tuning) replaces the test images, which are
        then not read.  It may have any size with 2 images of every class and more images than features.
        Against the test images the answer also holds `real`: the same figures of 10,000 training images.  Their
        distance of .53 is the effect of sampling alone (two stratified halves of the test images, 5,000 each, are
        .83 to 1.31 apart, and the bias falls as 1/N).  Their accuracy of .989 is no goal, because the judge was
        trained on them; it is .928 on the test images.
        Raises JudgeError for any other shape, type or count.
        """
        check_samples(images, labels)
        if reference is not None:
            check_images(*reference)
            check_reference(reference[1])
        against = self.test if reference is None else self.view(*reference)
        return {
            "judge": self.sha256[:16],
            "protocol": f"{len(labels)} samples, {PER_CLASS} a class, against {len(against.labels)} "
            + ("test images" if reference is None else "images of the caller's"),
            **compare(self.view(images, labels), against),
            **({"real": compare(self.real, self.test)} if reference is None else {}),
        }

    @torch.inference_mode()
    def view(self, images: Images, labels: Labels) -> View:
        pixels = torch.from_numpy(np.ascontiguousarray(images)).view(-1, 28, 28)
        features = torch.cat([self.net.features(part) for part in pixels.split(250)])
        named = torch.from_numpy(np.asarray(labels, np.int64))
        return View(features, named, self.net.logits(features).argmax(1) == named)

    @cached_property
    def test(self) -> View:
        return self.view(*read_idx(self.data, "t10k"))

    @cached_property
    def real(self) -> View:
        return self.view(*real_samples(self.data))


# --- input ------------------------------------------------------------------------------------------------


def read_idx(data: Path, part: str) -> Labelled:
    """`part` is train or t10k -> uint8 [N, 28, 28], int64 [N]."""
    paths = [data / f"{part}-images-idx3-ubyte.gz", data / f"{part}-labels-idx1-ubyte.gz"]
    for path in paths:
        if not path.is_file():
            raise JudgeError(
                f"no {path}; install Debian's dataset-fashion-mnist or pass a folder as --data", "no-images"
            )
    images, labels = (gzip.decompress(path.read_bytes()) for path in paths)
    pixels = np.frombuffer(bytearray(images), np.uint8, offset=16).reshape(-1, 28, 28)
    return pixels, np.frombuffer(labels, np.uint8, offset=8).astype(np.int64)


def real_samples(data: Path = DATA) -> Labelled:
    """The first 1,000 of each class among the training images from 10,000 on."""
    images, labels = read_idx(data, "train")
    rows = [EMBEDDED + np.flatnonzero(labels[EMBEDDED:] == c)[:PER_CLASS] for c in range(len(CLASSES))]
    chosen = np.concatenate(rows)
    return images[chosen], labels[chosen]


def check_images(images: Images, labels: Labels) -> None:
    if images.dtype != np.uint8:
        raise JudgeError(f"images are {images.dtype}; expected uint8, 0..255", "wrong-type")
    if images.shape[1:] not in ((28, 28), (28, 28, 1)):
        raise JudgeError(f"images are {list(images.shape)}; expected [N, 28, 28] or [N, 28, 28, 1]", "wrong-shape")
    if labels.shape != images.shape[:1] or not np.issubdtype(labels.dtype, np.integer):
        raise JudgeError(
            f"labels are {labels.dtype} {list(labels.shape)}; expected integers [{len(images)}]", "wrong-type"
        )
    if len(labels) and not (labels.min() >= 0 and labels.max() < len(CLASSES)):
        raise JudgeError(f"labels range from {labels.min()} to {labels.max()}; expected 0..9", "value-out-of-range")


def check_samples(images: Images, labels: Labels) -> None:
    check_images(images, labels)
    counts = np.bincount(labels, minlength=len(CLASSES))
    if len(labels) != SAMPLES or (counts != PER_CLASS).any():
        raise JudgeError(
            f"{len(labels)} samples, {counts.tolist()} by class; expected {SAMPLES}, {PER_CLASS} of each of the "
            f"{len(CLASSES)} classes, because figures at other counts are not comparable",
            "wrong-count",
        )


def check_reference(labels: Labels) -> None:
    counts = np.bincount(labels, minlength=len(CLASSES))
    if len(labels) <= FEATURES or counts.min() < 2:
        raise JudgeError(
            f"reference of {len(labels)} images, {counts.tolist()} by class; expected more than {FEATURES} and at "
            "least 2 of every class",
            "wrong-count",
        )


def read_npz(path: Path) -> Labelled:
    """ADM layout: arr_0 images, arr_1 labels.  Pickles are refused."""
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as arrays:
            return arrays["arr_0"], arrays["arr_1"]
    except KeyError:
        raise JudgeError(f"{path} lacks arr_0 (images) or arr_1 (labels)", "file-unreadable") from None
    except (OSError, EOFError, ValueError, TypeError, AttributeError, zipfile.BadZipFile, zlib.error) as error:
        raise JudgeError(f"cannot read {path} as .npz: {error}", "file-unreadable") from None


# --- the command ------------------------------------------------------------------------------------------


def sanity(judge: Judge) -> dict[str, dict[str, Any]]:
    """Figures of images damaged in known ways; each damage has to move the figure that is meant to detect it."""
    images, labels = read_idx(judge.data, "t10k")
    rng = np.random.default_rng(0)
    noisy = np.clip(np.rint(images + rng.normal(0, 20, images.shape)), 0, 255).astype(np.uint8)
    means = np.stack([np.rint(images[labels == c].mean(0)).astype(np.uint8) for c in range(len(CLASSES))])
    damaged = {
        "test images themselves": (images, labels),
        "real training images": real_samples(judge.data),
        "test images, noise of deviation 20": (noisy, labels),
        "test images, labels permuted": (images, rng.permutation(labels)),
        "class means, repeated": (means[labels], labels),
        "100 test images a class, ten times each": repeated(images, labels, 100),
    }
    return {name: judge.score(*samples) for name, samples in damaged.items()}


def repeated(images: Images, labels: Labels, distinct: int) -> Labelled:
    """Only the first `distinct` images of each class, repeated to PER_CLASS."""
    rows = [np.resize(np.flatnonzero(labels == c)[:distinct], PER_CLASS) for c in range(len(CLASSES))]
    chosen = np.concatenate(rows)
    return images[chosen], labels[chosen]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA, help="folder of Fashion-MNIST's four IDX .gz files")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("train").add_argument("--out", type=Path, default=WEIGHTS)
    commands.add_parser("sanity")
    scoring = commands.add_parser("score")
    scoring.add_argument("samples", type=Path, metavar="SAMPLES.npz")
    scoring.add_argument("--reference", type=Path, metavar="OTHER.npz", help="instead of the test images")
    asked = parser.parse_args(arguments)
    try:
        if asked.command == "train":
            sha256 = train(asked.data, asked.out)
            judge = Judge.load(asked.out, sha256, asked.data)
            print(f"test accuracy {judge.test.correct.double().mean():.4f}")
            print(f"SHA-256 {sha256} ({'as pinned' if sha256 == SHA256 else 'pin it in judge.py'})")
        elif asked.command == "sanity":
            for name, row in sanity(Judge.load(data=asked.data)).items():
                print(f"{name:42} {row['frechet']:9.4f} {row['accuracy']:6.3f} {row['diversity']:6.3f}")
        else:
            reference = read_npz(asked.reference) if asked.reference else None
            judge = Judge.load(data=asked.data)
            print(json.dumps(judge.score(*read_npz(asked.samples), reference=reference)))
    except JudgeError as error:
        print(f"judge: {error} [{error.code}]", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

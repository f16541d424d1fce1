"""The verdict of a report: which classes are recognisable, which lack variety, and whether there are copies.

docs/reading-scores.md states the rules and what their limits were measured on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ptarmigan.core.types import shorten
from ptarmigan.evaluation import intervals, metrics

MIN_OF_CLASS = 20  # images of a class, real and in each generated set, below which nothing is said of the class
MOST_OF_CLASS = 200  # training images of a class that are used
EACH_OF_CLASS = 30  # generated images of a class that are used in each set
REAL_RECOGNISED = 0.5  # real images of a class that must be recognised, or nothing is said of it
RECOGNISED = 0.7  # of the share of real images that are recognised: below it a class is weak
UNLIKE = 1.0  # distance from real images, in units of that between classes, above which a class is weak
VARIED = 0.7  # variety, as a share of the real one, below which there is little of it
COLLAPSED = 0.5  # of the recall or density of real images: below it, it is little
MIN_FOR_COPIES = 20  # held-out images; with fewer, copies cannot be told from chance
MOST_NAMES = 12  # classes that a sentence names
TINY = 1e-12  # replaces a distance of 0 in a denominator
Labels = NDArray[np.int64]


def recognise(real: Tensor, labels: Labels, generated: Sequence[tuple[Tensor, Labels]], classes: int) -> list[Any]:
    """Three figures of each class, of features [N, F] of real images and of R sets of generated ones, with labels [N].

    recognised: the share of all its images that a classifier of the real ones assigns to it, and the same of each real
    image by a classifier of the others, with Wilson's intervals.  distance: the KID to its real images, in units of the
    KID between these and those of the other classes.  variety: the mean distance from an image to the nearest other
    one, as a share of the same among real images.  {} for a class with fewer than MIN_OF_CLASS images on a side; no
    distance where the KID to the other classes is not above 0.
    """
    classifier = LinearClassifier(real, labels, classes)
    right_real = classifier.left_out.argmax(1).numpy() == labels
    right = [classifier(features).argmax(1).numpy() == asked for features, asked in generated]
    out: list[Any] = []
    for label in range(classes):
        here, rest = (torch.from_numpy(np.flatnonzero(side)) for side in (labels == label, labels != label))
        fakes = [features[torch.from_numpy(np.flatnonzero(asked == label))] for features, asked in generated]
        if min(len(here), *map(len, fakes)) < MIN_OF_CLASS:
            out.append({})
            continue
        between = metrics.kid(real[here], real[rest[:: -(-len(rest) // 1000)]])
        distances, varieties = [], []
        for turn, fake in enumerate(fakes):
            count = min(len(fake), len(here))
            drawn = here.roll(-turn * count)[:count]
            distances.append(metrics.kid(real[here], fake) / between if between > 0 else 0.0)
            spread, spread_real = (metrics.spacing_of(of).mean() for of in (fake[:count], real[drawn]))
            varieties.append(float(spread / spread_real.clamp_min(TINY)))
        hits = np.concatenate([of[asked == label] for of, (_, asked) in zip(right, generated, strict=True)])
        out.append({
            "recognised": {
                "generated": intervals.wilson(float(hits.mean()), len(hits))._asdict(),
                "real": intervals.wilson(float(right_real[labels == label].mean()), len(here))._asdict(),
            },
            "variety": intervals.interval(varieties)._asdict(),
        } | ({"distance": intervals.interval(distances)._asdict()} if between > 0 else {}))  # fmt: skip
    return out


class LinearClassifier:
    """Features [N, F] -> scores [N, K]: ridge regression to the classes, each of which has the same weight.

    The intercept is not penalised.  So the mean that is subtracted, of which each sample is a part, does not tell the
    regression on the others which class the sample has.

    `left_out` [N, K] are the scores of its own samples, each by the regression on all others, from the diagonal h of
    the hat matrix: (score - h target) / (1 - h).
    """

    def __init__(self, features: Tensor, labels: Labels, classes: int) -> None:
        counts = np.bincount(labels, minlength=classes)
        weights = torch.from_numpy(1 / counts[labels] / np.count_nonzero(counts))[:, None]  # [N, 1], of sum 1
        self.mean = (weights * features).sum(0)
        deviation = (weights * (features - self.mean).square()).sum(0).sqrt()
        self.scale = 1 / deviation.clamp_min(1e-3 * float(deviation.mean()) + TINY)
        inputs, target = self._inputs(features), F.one_hot(torch.from_numpy(labels), classes).double()
        penalty = torch.eye(inputs.shape[1], dtype=torch.float64)
        penalty[-1, -1] = 0.0
        factor = torch.linalg.cholesky(inputs.T @ (weights * inputs) + penalty)
        self.slopes = torch.cholesky_solve(inputs.T @ (weights * target), factor)
        hat = weights * (torch.cholesky_solve(inputs.T, factor).T * inputs).sum(1, keepdim=True)
        self.left_out = (inputs @ self.slopes - hat * target) / (1 - hat)

    def __call__(self, features: Tensor) -> Tensor:
        return self._inputs(features) @ self.slopes

    def _inputs(self, features: Tensor) -> Tensor:
        scaled = ((features - self.mean) * self.scale).clamp(-10, 10)
        return torch.cat([scaled, torch.ones(len(scaled), 1)], 1).double()


def judge(report: dict[str, Any], held_out: int) -> None:
    """Add `call` and `reason` to each class of a report, and to the report its `verdict` in words.

    `held_out` is the number of held-out images.
    """
    classes = report.get("classes", {})
    for entry in classes.values():
        entry["call"], entry["reason"] = _call(entry)
    report["verdict"] = " ".join(_sentences(report, held_out))


def _call(entry: dict[str, Any]) -> tuple[str, str]:
    """recognisable, weak or unknown, and the reason in words ('' for recognisable)."""
    if entry["train_images"] < MIN_OF_CLASS:
        return "unknown", f"{entry['train_images']} training images"
    if "recognised" not in entry:
        return "unknown", "too few of it generated"
    generated, real = entry["recognised"]["generated"], entry["recognised"]["real"]
    if real["mean"] < REAL_RECOGNISED or "distance" not in entry:
        return "unknown", "real ones are not recognised either"
    distance = entry["distance"]
    if distance["mean"] > UNLIKE and distance["low"] > 0:
        return "weak", "unlike real ones"
    if generated["high"] < RECOGNISED * real["low"]:
        return "weak", f"{generated['mean']:.0%} recognised"
    if distance["mean"] > UNLIKE or generated["mean"] < RECOGNISED * real["mean"]:
        return "unknown", "too few images to be sure"
    return "recognisable", ""


def _sentences(report: dict[str, Any], held_out: int) -> list[str]:
    classes, figures, copies = report.get("classes", {}), report["figures"], report["copies"]
    out = []
    for call in ("recognisable", "weak", "unknown"):
        named = {name: entry["reason"] for name, entry in classes.items() if entry["call"] == call}
        if named:
            reasons = set(named.values())
            alike = len(reasons) == 1 and len(named) > 1  # one reason for all: said once
            names = [f"{name} ({why})" if why and not alike else name for name, why in named.items()]
            common = f" ({reasons.pop()})" if alike and call != "recognisable" else ""
            out.append(f"{call.capitalize()}: {shorten(names, MOST_NAMES)}{common}.")
    dense, recalled = (
        figures[name]["held_out"]["mean"] >= COLLAPSED * figures[name]["floor"]["mean"]
        for name in ("density", "recall")
    )
    if not dense:
        out.append("Details are unlike those of real images.")
    flat = [name for name, entry in classes.items() if entry.get("variety", {}).get("mean", 1) < VARIED]
    if flat:
        out.append(f"Little variety in {shorten(flat, MOST_NAMES)}.")
    elif report["variety"]["mean"] < VARIED or (dense and not recalled):  # recall is low for unlike images too
        out.append("Little of the variety of real images.")
    if all(entry["call"] == "unknown" for entry in classes.values()) and len(out) == bool(classes):
        out.append("Like real images.")  # nothing else was said
    if copies["found"]:
        share = copies["closer_than_held_out"]["mean"]
        out.append(f"Copies: {share:.0%} of the images." if share >= 0.01 else "Copies found.")
    elif held_out < MIN_FOR_COPIES:
        out.append(f"Copies: unknown ({held_out} held-out images).")
    else:
        out.append("No copies found.")
    return out

"""Features of real and of generated images -> a report: scores with intervals, floors, classes, copies.

Each figure is measured for R independent sets of generated images and given as the mean over them with its interval
(`metrics.interval`), which speaks of the expectation over generation seeds at this N.  Beside it stands its floor: the
same figure with real training images in place of the generated ones, as many, R draws of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ptarmigan.core import seeding
from ptarmigan.core.types import UserError
from ptarmigan.evaluation import metrics
from ptarmigan.evaluation.features.classifier import Classifier, accuracies, fit, skill

FEWEST = 10  # held-out images of a class below which they are no measure of it
POOR = 0.5  # skill on held-out images below which a classifier is no judge
SPARSE = 0.5  # share of the real images' recall below which samples have collapsed
EASY = 0.9  # share of the real diversity below which an accuracy above the real one means samples that are too easy
COPIED = -3.0, 0.8  # C_T, and distance to the training set over that of held-out images, below which images are copies
TINY = 1e-12  # in place of a distance of 0
SUSPECTS = 12  # generated images that are named beside the training image they are suspiciously near to

Say = Callable[[str], None]
Report = dict[str, Any]


@dataclass(frozen=True)
class Sample:
    """A set of images as an extractor sees them."""

    features: Tensor  # [N, F] float32
    labels: NDArray[np.int64] | None  # [N], or None where nobody knows the classes

    def __len__(self) -> int:
        return len(self.features)

    def take(self, places: NDArray[np.int64]) -> Sample:
        return Sample(self.features[torch.from_numpy(places)], None if self.labels is None else self.labels[places])

    def of(self, label: int) -> Sample:
        assert self.labels is not None
        return self.take(np.flatnonzero(self.labels == label))

    def draw(self, turn: int, count: int) -> Sample:
        """`count` of them, or all, by an addressed draw: turns are disjoint until all are used."""
        count = min(count, len(self))
        positions = np.arange(turn * count, (turn + 1) * count) % len(self)
        return self.take(seeding.permute(0, "draw", 0, positions, len(self)))


@dataclass(frozen=True)
class Sets:
    """What is compared."""

    train: Sample
    held_out: Sample
    generated: Sequence[Sample]  # R of N each, their classes in the shares that the held-out images have
    of_classes: Sequence[Sample]  # R of them, with enough images of every class
    class_names: tuple[str, ...]

    def seen_by(self, classifier: Classifier) -> Sets:
        """The same in the classifier's own features."""

        def through(sample: Sample) -> Sample:
            return replace(sample, features=classifier.features(sample.features))

        return Sets(
            through(self.train), through(self.held_out), [through(s) for s in self.generated],
            [through(s) for s in self.of_classes], self.class_names,
        )  # fmt: skip


def evaluate(sets: Sets, say: Say, cas: bool = False) -> Report:
    """Everything there is to say, as JSON: `figures` over all classes, `classes`, `accuracy`, `copies`, `notes`.

    `cas` adds two more classifiers a set: trained on generated and on as many real images (Ravuri and Vinyals 2019).
    """
    notes: list[str] = []
    out: Report = {"figures": figures(sets, notes, say)}
    if len(sets.class_names) > 1 and sets.of_classes[0].labels is not None:
        out["classes"] = classes(sets, notes, say)
        out["accuracy"] = accuracy(sets, out["classes"], notes, say, cas)
    out["copies"] = copies(sets, notes, say)
    return {**out, "notes": notes}


def figures(sets: Sets, notes: list[str], say: Say) -> Report:
    """Fréchet distance, KID, precision, recall, density and coverage against held-out images, against as many training
    images, and of the floor; `excess` is generated less floor, taken set by set.
    """
    held, dim = sets.held_out.features, sets.held_out.features.shape[1]
    count = min(len(held), len(sets.generated[0]), len(sets.train))
    gaussian = count > dim
    if not gaussian:
        notes.append(
            f"no Fréchet distance: in {dim:,} dimensions it needs {dim + 1:,} images on each side, and here are "
            f"{len(sets.generated[0]):,} generated, {len(held):,} held-out and {len(sets.train):,} training images; "
            "KID, which has no bias at any number, stands for it"
        )
    if len(sets.train) < (wanted := len(sets.generated) * len(sets.generated[0])):
        notes.append(
            f"the floor's draws share images, {len(sets.train):,} for {wanted:,}: its intervals are too narrow"
        )
    real, seen = (Side.of(features, gaussian) for features in (held, sets.train.draw(-1, len(held)).features))
    rows: dict[str, dict[str, list[float]]] = {}
    for turn, generated in enumerate(sets.generated):
        say(f"comparing set {turn + 1} of {len(sets.generated)}")
        fake = Side.of(generated.features, gaussian)
        floor = Side.of(sets.train.draw(turn, len(generated)).features, gaussian)
        for column, a, b in (("held_out", real, fake), ("train", seen, fake), ("floor", real, floor)):
            compared = metrics.compare(a.pairs, b.pairs)
            values = {"kid": compared.kid, **compared.fidelity._asdict()}
            if a.gaussian is not None and b.gaussian is not None:
                values = {"frechet": metrics.frechet(a.gaussian, b.gaussian), **values}
            for name, value in values.items():
                rows.setdefault(name, {}).setdefault(column, []).append(value)
    recall = {column: np.mean(rows["recall"][column]) for column in ("held_out", "floor")}
    if recall["held_out"] < SPARSE * recall["floor"]:
        notes.append(
            f"recall {recall['held_out']:.2f}, of real images {recall['floor']:.2f}: much of their variety is missing "
            "(collapse); relativistic loss with R1 and R2, or longer training"
        )
    return {name: columns(row) for name, row in rows.items()}


@dataclass(frozen=True)
class Side:
    """What a set of features is to its comparisons, found once."""

    pairs: metrics.Within
    gaussian: metrics.Gaussian | None  # None: too few samples for one

    @classmethod
    def of(cls, features: Tensor, gaussian: bool) -> Side:
        return cls(metrics.within(features), metrics.gaussian(features) if gaussian else None)


def classes(sets: Sets, notes: list[str], say: Say) -> Report:
    """For each class by name: its images, KID as in `figures`, and its diversity as a share of that of real images."""
    out: Report = {}
    spread = float(sets.train.features.std(0).norm())
    for label, name in enumerate(sets.class_names):
        say(f"class {name}")
        held, train = sets.held_out.of(label), sets.train.of(label)
        entry: Report = {"held_out_images": len(held), "train_images": len(train)}
        made = [generated.of(label).features for generated in sets.of_classes]
        if min(len(features) for features in made) >= 2 and len(train) >= 2:
            rows: dict[str, list[float]] = {}
            seen = train.draw(-1, len(held) if len(held) >= FEWEST else len(train)).features
            apiece = max(2, len(train) // len(made))  # so that the floor's draws share no image
            for turn, features in enumerate(made):
                rows.setdefault("train", []).append(metrics.kid(seen, features))
                if len(held) >= FEWEST:
                    floor = train.draw(turn, min(apiece, len(features))).features
                    rows.setdefault("held_out", []).append(metrics.kid(held.features, features))
                    rows.setdefault("floor", []).append(metrics.kid(held.features, floor))
            real = metrics.diversity(train.features)
            entry["kid"] = columns(rows)
            if len(held) >= FEWEST:  # among so many classes one would be told apart by chance
                excess = np.subtract(rows["held_out"], rows["floor"]).tolist()
                entry["told_apart"] = metrics.interval(excess, 1 - 0.05 / len(sets.class_names)).low > 0
            if real > 1e-3 * spread:
                entry["diversity"] = summary([metrics.diversity(features) / real for features in made])
            else:
                notes.append(f"all training images of {name} are alike: there is no diversity to compare with")
        out[name] = entry
    few = [f"{name} ({e['held_out_images']})" for name, e in out.items() if e["held_out_images"] < FEWEST]
    if few:
        notes.append(f"fewer than {FEWEST} held-out images, so measured against training images alone: {shorten(few)}")
    equal = [name for name, entry in out.items() if entry.get("told_apart") is False]
    if equal:
        notes.append(f"KID cannot tell these classes from real images of theirs at this N: {shorten(equal)}")
    apart = {name: e["kid"]["excess"]["mean"] for name, e in out.items() if e.get("told_apart")}
    if apart:
        worst = max(apart, key=lambda name: apart[name])
        notes.append(f"worst class by KID over its floor: {worst} ({apart[worst]:.2g})")
    return out


def accuracy(sets: Sets, by_class: Report, notes: list[str], say: Say, cas: bool) -> Report:
    """The share of images that a classifier of training images names rightly, as a mean over classes: `generated`,
    beside `held_out`; each class's own goes into `by_class`.
    """
    say("training a classifier")
    train, held, names = sets.train, sets.held_out, sets.class_names
    assert train.labels is not None
    assert held.labels is not None
    judge = fit(train.features, train.labels, len(names))
    real = accuracies(judge, held.features, held.labels)
    known = ~np.isnan(real)  # a class without a held-out image says nothing
    out: Report = {"held_out": float(real[known].mean()) if known.any() else None}
    if not known.any() or skill(out["held_out"], len(names)) < POOR:
        right = (
            f"names {out['held_out']:.0%} of held-out images rightly" if known.any() else "has no image to be tried on"
        )
        notes.append(f"no class accuracy: the classifier of the training images {right}, and is no judge of others")
        return out
    made = np.stack([accuracies(judge, s.features, labels_of(s)) for s in sets.of_classes])  # [R, K]
    lacking = np.isnan(made).any(0)
    if lacking.any():
        notes.append(f"not in every generated set: {shorten([names[label] for label in np.flatnonzero(lacking)])}")
    known &= ~lacking
    if not known.any():
        return out
    out["held_out"] = float(real[known].mean())
    out["generated"] = summary(made[:, known].mean(1))
    for label in np.flatnonzero(known):
        by_class[names[label]]["accuracy"] = {"generated": summary(made[:, label]), "held_out": float(real[label])}
    diversities = [entry["diversity"]["mean"] for entry in by_class.values() if "diversity" in entry]
    spread = float(np.mean(diversities or [1.0]))
    if out["generated"]["low"] > out["held_out"] and spread < EASY:
        notes.append(
            f"samples too easy: named rightly more often than real ones, at {spread:.0%} of their diversity; "
            "projection or discriminative_classifier in place of an auxiliary_classifier"
        )
    lost = [name for label, name in enumerate(names) if known[label] and made[:, label].mean() < real[label] / 2]
    if lost:
        notes.append(f"named rightly less than half as often as real images of the class: {shorten(lost)}")
    if cas:
        out["cas"] = cas_of(sets, say)
    return out


def cas_of(sets: Sets, say: Say) -> Report:
    """CAS: accuracy on held-out images when a classifier learns from generated ones, and from as many real ones."""
    held, count = sets.held_out, len(sets.class_names)
    rows: dict[str, list[float]] = {"generated": [], "train": []}
    for turn, generated in enumerate(sets.generated):
        say(f"CAS, set {turn + 1} of {len(sets.generated)}")
        for name, sample in (("generated", generated), ("train", sets.train.draw(turn, len(generated)))):
            judge: Classifier = fit(sample.features, labels_of(sample), count)
            rows[name].append(float(np.nanmean(accuracies(judge, held.features, labels_of(held)))))
    return {name: summary(values) for name, values in rows.items()}


def copies(sets: Sets, notes: list[str], say: Say) -> Report:
    """Is the generator nearer to its training images than held-out images are?  C_T, authenticity beside that of the
    held-out images, the ratio of mean distances to the nearest training image, the share that is nearer to one than any
    held-out image is (as a ratio to what is usual there), and the most suspicious images.
    """
    say("looking for copies of training images")
    train, held = sets.train.features, sets.held_out.features
    own = metrics.radii(train, 1).sqrt()  # from each training image to the nearest other one
    centres = metrics.k_means(train, max(1, min(10, len(held) // (3 * metrics.LEAST))), seed=0)
    held_far, held_at = metrics.nearest(held, train)
    held_cell = metrics.cell_of(held, centres)
    closest = float((held_far / own[held_at].clamp_min(TINY)).min())
    rows: dict[str, list[float]] = {"authenticity": [], "distance_ratio": [], "closer_than_held_out": [], "c_t": []}
    suspects = []
    for turn, generated in enumerate(sets.generated):
        far, at = metrics.nearest(generated.features, train)
        rows["authenticity"].append(float((far > own[at]).float().mean()))
        rows["distance_ratio"].append(float(far.mean() / held_far.mean().clamp_min(TINY)))
        if "c_t" in rows:
            try:
                cell = metrics.cell_of(generated.features, centres)
                rows["c_t"].append(metrics.copying(held_far, held_cell, far, cell).z)
            except UserError as error:  # too few in every cell
                del rows["c_t"]
                notes.append(f"no C_T: {error}")
        ratio = far / own[at].clamp_min(TINY)
        rows["closer_than_held_out"].append(float((ratio < closest).float().mean()))
        for place in ratio.argsort()[:SUSPECTS].tolist():
            suspects.append({"set": turn, "image": place, "train": int(at[place]), "ratio": float(ratio[place])})
    out: Report = {name: summary(values) for name, values in rows.items()}
    out["authenticity_held_out"] = float((held_far > own[held_at]).float().mean())
    out["suspects"] = sorted(suspects, key=lambda suspect: suspect["ratio"])[:SUSPECTS]
    copied = out["closer_than_held_out"]
    nearer = "c_t" in out and out["c_t"]["mean"] < COPIED[0] and out["distance_ratio"]["mean"] < COPIED[1]
    if nearer or copied["low"] > max(0.01, 5 / len(held)):
        notes.append(
            f"it copies: {copied['mean']:.0%} of its images are nearer to a training image, for what is usual there, "
            "than any held-out image is; augment, stop earlier, or more data"
        )
    return out


def columns(rows: dict[str, list[float]]) -> Report:
    """A summary of each column, and of the excess of generated images over the floor."""
    out = {name: summary(values) for name, values in rows.items()}
    if "floor" in rows:
        out["excess"] = summary(np.subtract(rows["held_out"], rows["floor"]))
    return out


def summary(values: Sequence[float] | NDArray[np.float64]) -> dict[str, float]:
    return metrics.interval([float(value) for value in values])._asdict()


def labels_of(sample: Sample) -> NDArray[np.int64]:
    assert sample.labels is not None
    return sample.labels


def shorten(names: list[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")

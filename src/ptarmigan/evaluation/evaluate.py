"""Compute a report from features of real and generated images: scores with intervals, classes, copies.

Each score is computed for R independent sets of N generated images and reported as their mean with an interval
(`intervals.interval`), which covers the choice of generation seeds at this N.  Its floor is reported with it: the same
score of R sets of N real training images in place of the generated ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ptarmigan.core import seeding
from ptarmigan.core.types import UserError, shorten
from ptarmigan.evaluation import intervals, metrics
from ptarmigan.evaluation.features.classifier import Classifier, chance_corrected, class_accuracies, train_classifier
from ptarmigan.evaluation.verdict import COLLAPSED, TINY, judge, recognise

MIN_HELD_OUT = 10  # held-out images of a class; with fewer it is compared with its training images only
MIN_SKILL = 0.5  # a classifier with a lower chance-corrected accuracy on held-out images is not used
TOO_EASY = 0.9  # diversity below this share of real images', with an accuracy above theirs: samples too easy
COPIED = -3.0, 0.8  # C_T and distance ratio to the training set (see `copying_scores`) below which images are copies
SUSPECTS = 12  # generated images that are listed with the training image they may be copies of
ALIKE = 0.01  # two images count as one where they are nearer than this share of the `spacing` of training images

OnStage = Callable[[str], None]  # is called with the name of what is computed next
Report = dict[str, Any]  # JSON


@dataclass(frozen=True)
class FeatureSet:
    """The features of a set of images."""

    features: Tensor  # [N, F] float32
    labels: NDArray[np.int64] | None  # [N], or None if the classes are not known

    def __len__(self) -> int:
        return len(self.features)

    def take(self, indices: NDArray[np.int64]) -> FeatureSet:
        labels = None if self.labels is None else self.labels[indices]
        return FeatureSet(self.features[torch.from_numpy(indices)], labels)

    def of_class(self, label: int) -> FeatureSet:
        assert self.labels is not None
        return self.take(np.flatnonzero(self.labels == label))

    def subsample(self, draw: int, count: int) -> FeatureSet:
        """`count` of the samples, or all if there are fewer; draws -1, 0, 1, ... are disjoint until all are used."""
        count = min(count, len(self))
        positions = np.arange(draw * count, (draw + 1) * count) % len(self)
        return self.take(seeding.permute(0, "draw", 0, positions, len(self)))


@dataclass(frozen=True)
class ComparedSets:
    train: FeatureSet
    held_out: FeatureSet
    generated: Sequence[FeatureSet]  # R sets of N, with the class shares of the held-out images
    generated_by_class: Sequence[FeatureSet]  # R sets with enough images of every class
    class_names: tuple[str, ...]
    softened: tuple[FeatureSet, Sequence[FeatureSet]] | None = None  # training images and R sets for the verdict

    def through_classifier(self, classifier: Classifier) -> ComparedSets:
        """The same images, with the classifier's features."""

        def through(samples: FeatureSet) -> FeatureSet:
            return replace(samples, features=classifier.features(samples.features))

        return ComparedSets(
            through(self.train), through(self.held_out), [through(s) for s in self.generated],
            [through(s) for s in self.generated_by_class], self.class_names, self.softened,
        )  # fmt: skip


def evaluate(sets: ComparedSets, on_stage: OnStage, cas: bool = False) -> Report:
    """All scores, as JSON: `figures` and `variety` over all classes, `classes`, `accuracy`, `copies`, `verdict`, notes.

    `cas` trains two more classifiers per set, on generated and on as many real images.
    """
    notes: list[str] = []
    out: Report = overall_scores(sets, notes, on_stage)
    if len(sets.class_names) > 1 and sets.generated_by_class[0].labels is not None:
        out["classes"] = class_scores(sets, notes, on_stage)
        on_stage("judging the classes")
        train, generated = sets.softened or (sets.train, sets.generated_by_class)
        found = recognise(
            train.features, labels_of(train), [(s.features, labels_of(s)) for s in generated], len(sets.class_names)
        )
        for entry, more in zip(out["classes"].values(), found, strict=True):
            entry |= more
        out["accuracy"] = accuracy_scores(sets, out["classes"], notes, on_stage, cas)
    if cas and "cas" not in out.get("accuracy", {}):
        notes.append(
            "no CAS (accuracy on real images of a classifier trained on generated ones): it needs at least 2 classes, "
            "known for the generated images, that a classifier can tell apart"
        )
    out["copies"] = copying_scores(sets, notes, on_stage)
    judge(out, len(sets.held_out))
    return {**out, "notes": notes}


def overall_scores(sets: ComparedSets, notes: list[str], on_stage: OnStage) -> Report:
    """`figures`: Fréchet distance, KID, precision, recall, density and coverage over all classes, each in four columns:
    against held-out images, against as many training images, the floor, and `excess` (`held_out` minus floor, per set).
    `variety`: as in `class_scores`, over all classes.
    """
    held_out, dim = sets.held_out.features, sets.held_out.features.shape[1]
    gaussian = min(len(held_out), len(sets.generated[0]), len(sets.train)) > dim
    notes += too_few_notes(sets, gaussian)
    train = sets.train.subsample(-1, len(held_out)).features
    real, seen = (SetStatistics.of(features, gaussian) for features in (held_out, train))
    rows: dict[str, dict[str, list[float]]] = {}
    variety = []
    for index, generated in enumerate(sets.generated):
        on_stage(f"comparing set {index + 1} of {len(sets.generated)}")
        fake = SetStatistics.of(generated.features, gaussian)
        floor = SetStatistics.of(sets.train.subsample(index, len(generated)).features, gaussian)
        apart, really_apart = (statistics.pairs.near[:, 0].sqrt().mean() for statistics in (fake, floor))
        variety.append(float(apart / really_apart.clamp_min(TINY)))
        for column, a, b in (("held_out", real, fake), ("train", seen, fake), ("floor", real, floor)):
            compared = metrics.kid_and_fidelity(a.pairs, b.pairs)
            values = {"kid": compared.kid, **compared.fidelity._asdict()}
            if a.gaussian is not None and b.gaussian is not None:
                values = {"frechet": metrics.frechet(a.gaussian, b.gaussian), **values}
            for name, value in values.items():
                rows.setdefault(name, {}).setdefault(column, []).append(value)
    recall = {column: np.mean(rows["recall"][column]) for column in ("held_out", "floor")}
    if recall["held_out"] < COLLAPSED * recall["floor"]:
        notes.append(
            f"recall is {recall['held_out']:.2f}, and {recall['floor']:.2f} for real images: few of them have a "
            "sample nearby, for lack of variety or of likeness; train longer, or with a larger --r1 and --r2"
        )
    return {"figures": {name: summarise_columns(row) for name, row in rows.items()}, "variety": summarise(variety)}


def too_few_notes(sets: ComparedSets, gaussian: bool) -> list[str]:
    """What cannot be computed or is less certain because there are few images; gaussian: enough for covariances."""
    notes, dim = [], sets.held_out.features.shape[1]
    generated, held_out, train = len(sets.generated[0]), len(sets.held_out), len(sets.train)
    if not gaussian:
        notes.append(
            f"no Fréchet distance: with {dim:,} features it needs at least {dim + 1:,} images on each side, and there "
            f"are {generated:,} generated, {held_out:,} held-out and {train:,} training images; use KID, which is "
            "unbiased at any number"
        )
    if train < (wanted := len(sets.generated) * generated):
        notes.append(
            f"the sets of real images overlap ({wanted:,} images from {train:,} training images), so the intervals of "
            "their scores are too narrow"
        )
    return notes


@dataclass(frozen=True)
class SetStatistics:
    """Statistics of one set, computed once for several comparisons."""

    pairs: metrics.PairStatistics
    gaussian: metrics.Gaussian | None  # None: too few samples

    @classmethod
    def of(cls, features: Tensor, gaussian: bool) -> SetStatistics:
        return cls(metrics.pair_statistics(features), metrics.gaussian(features) if gaussian else None)


def class_scores(sets: ComparedSets, notes: list[str], on_stage: OnStage) -> Report:
    """By class name: its numbers of images, KID as in `overall_scores`, diversity as a share of the real diversity."""
    out: Report = {}
    spread = float(sets.train.features.std(0).norm())
    for label, name in enumerate(sets.class_names):
        on_stage(f"class {name}")
        held_out, train = sets.held_out.of_class(label), sets.train.of_class(label)
        entry: Report = {"held_out_images": len(held_out), "train_images": len(train)}
        enough = len(held_out) >= MIN_HELD_OUT
        fakes = [generated.of_class(label).features for generated in sets.generated_by_class]
        if min(len(fake) for fake in fakes) >= 2 and len(train) >= 2:
            rows: dict[str, list[float]] = {}
            seen = train.subsample(-1, len(held_out) if enough else len(train)).features
            per_draw = max(2, len(train) // len(fakes))  # so that the draws for the floor share no image
            for index, fake in enumerate(fakes):
                rows.setdefault("train", []).append(metrics.kid(seen, fake))
                if enough:
                    floor = train.subsample(index, min(per_draw, len(fake))).features
                    rows.setdefault("held_out", []).append(metrics.kid(held_out.features, fake))
                    rows.setdefault("floor", []).append(metrics.kid(held_out.features, floor))
            real = metrics.diversity(train.features)
            entry["kid"] = summarise_columns(rows)
            if enough:  # 5 % over all classes together: at 5 % each, some of many classes would differ by chance
                excess = np.subtract(rows["held_out"], rows["floor"]).tolist()
                entry["told_apart"] = intervals.interval(excess, 1 - 0.05 / len(sets.class_names)).low > 0
            if real > 1e-3 * spread:
                entry["diversity"] = summarise([metrics.diversity(fake) / real for fake in fakes])
            else:
                notes.append(f"the training images of {name} are all alike: its diversity cannot be compared")
        out[name] = entry
    few = [f"{name} ({e['held_out_images']})" for name, e in out.items() if e["held_out_images"] < MIN_HELD_OUT]
    if few:
        notes.append(
            f"fewer than {MIN_HELD_OUT} held-out images, so only compared with training images: {shorten(few)}"
        )
    if equal := [name for name, entry in out.items() if entry.get("told_apart") is False]:
        notes.append(f"KID does not tell these classes from real images at this N: {shorten(equal)}")
    return out


def accuracy_scores(sets: ComparedSets, by_class: Report, notes: list[str], on_stage: OnStage, cas: bool) -> Report:
    """The accuracy of a classifier trained on the training images, as a mean over classes, on generated and held-out
    images; the accuracy of each class is added to `by_class`.
    """
    on_stage("training a classifier")
    train, held_out, names = sets.train, sets.held_out, sets.class_names
    classifier = train_classifier(train.features, labels_of(train), len(names))
    real = class_accuracies(classifier, held_out.features, labels_of(held_out))
    known = ~np.isnan(real)  # classes with held-out images
    out: Report = {"held_out": float(real[known].mean()) if known.any() else None}
    if not known.any() or chance_corrected(out["held_out"], len(names)) < MIN_SKILL:
        reason = f"recognises only {out['held_out']:.0%} of held-out images" if known.any() else "has no held-out image"
        notes.append(f"no class accuracy: the classifier trained on the training images {reason}")
        return out
    fake = np.stack([class_accuracies(classifier, s.features, labels_of(s)) for s in sets.generated_by_class])  # [R, K]
    lacking = np.isnan(fake).any(0)
    if lacking.any():
        missing = shorten([names[label] for label in np.flatnonzero(lacking)])
        notes.append(f"classes missing in some generated sets: {missing}")
    known &= ~lacking
    if not known.any():
        return out
    out["held_out"] = float(real[known].mean())
    out["generated"] = summarise(fake[:, known].mean(1))
    for label in np.flatnonzero(known):
        by_class[names[label]]["accuracy"] = {
            "generated": summarise(fake[:, label]),
            "held_out": float(real[label]),
        }
    diversities = [entry["diversity"]["mean"] for entry in by_class.values() if "diversity" in entry]
    diversity = float(np.mean(diversities or [1.0]))
    if out["generated"]["low"] > out["held_out"] and diversity < TOO_EASY:
        notes.append(
            f"samples are too easy: recognised more often than real images, with {diversity:.0%} of their diversity; "
            "try conditioning projection or discriminative_classifier instead of auxiliary_classifier"
        )
    if cas:
        out["cas"] = classification_accuracy_score(sets, on_stage)
    return out


def classification_accuracy_score(sets: ComparedSets, on_stage: OnStage) -> Report:
    """Accuracy on held-out images of a classifier trained on generated images, and on as many training images.

    The classifier has only the extractor's features, where Ravuri and Vinyals (2019) train a ResNet-50 on the images.
    """
    held_out, classes = sets.held_out, len(sets.class_names)
    rows: dict[str, list[float]] = {"generated": [], "train": []}
    for index, generated in enumerate(sets.generated):
        on_stage(f"training classifiers on set {index + 1} of {len(sets.generated)}")
        for name, samples in (("generated", generated), ("train", sets.train.subsample(index, len(generated)))):
            classifier = train_classifier(samples.features, labels_of(samples), classes)
            accuracies = class_accuracies(classifier, held_out.features, labels_of(held_out))
            rows[name].append(float(np.nanmean(accuracies)))
    return {name: summarise(values) for name, values in rows.items()}


def copying_scores(sets: ComparedSets, notes: list[str], on_stage: OnStage) -> Report:
    """Measure whether generated images are closer to the training images than held-out images are.

    Returns C_T, with its standard deviation if nothing is copied; authenticity, also of held-out images;
    `distance_ratio`, the mean distance to the nearest training image, divided by that of held-out images;
    `closer_than_held_out`, the share of generated images whose relative distance is below that of every held-out image;
    `found`, whether there are copies; and as suspects the images with the lowest relative distances, all different and
    near different training images.  The relative distance is the distance to the nearest training image, divided by
    that image's distance to its nearest other training image.
    """
    on_stage("looking for copies of training images")
    train, held_out = sets.train.features, sets.held_out.features
    spacing = metrics.spacing_of(train)
    held = neighbours(held_out, train, spacing)
    near = [neighbours(generated.features, train, spacing) for generated in sets.generated]
    usual, closest = held.distance.mean().clamp_min(TINY), held.relative.min()
    out: Report = {
        "authenticity": summarise([metrics.authenticity(of.distance, spacing[of.nearest]) for of in near]),
        "distance_ratio": summarise([float(of.distance.mean() / usual) for of in near]),
        "closer_than_held_out": summarise([float((of.relative < closest).float().mean()) for of in near]),
    }
    try:
        out |= c_t_scores(sets, held, near)
    except UserError as error:  # too few in every cell
        notes.append(f"no C_T: {error}")
    out["authenticity_held_out"] = metrics.authenticity(held.distance, spacing[held.nearest])
    candidates = sorted(
        Suspect(float(of.relative[i]), index, i, int(of.nearest[i]))
        for index, of in enumerate(near)
        for i in range(len(of.nearest))
    )
    out["suspects"] = [suspect._asdict() for suspect in distinct(candidates, sets, float(spacing.median()))]
    out["found"] = copies_found(out, len(held_out))
    if out["found"]:
        notes.append(
            f"copies: {out['closer_than_held_out']['mean']:.0%} of the images are closer to a training image than any "
            "held-out image is, relative to the spacing of training images there; use --augment, stop earlier, or use "
            "more images"
        )
    return out


def c_t_scores(sets: ComparedSets, held: Neighbours, near: Sequence[Neighbours]) -> Report:
    """C_T of each generated set, and its standard deviation if nothing is copied; UserError if images are too few.

    held, near: the nearest training samples of the held-out images, and of each generated set.
    """
    train, held_out = sets.train.features, sets.held_out.features
    centres = metrics.k_means(train, max(1, min(10, len(held_out) // (3 * metrics.MIN_PER_CELL))), seed=0)
    held_cells = metrics.nearest_centre(held_out, centres)
    found = [
        metrics.c_t(held.distance, held_cells, of.distance, metrics.nearest_centre(generated.features, centres))
        for of, generated in zip(near, sets.generated, strict=True)
    ]
    return {"c_t": summarise([c_t.z for c_t in found]), "c_t_null_deviation": found[-1].null_deviation}


def copies_found(scores: Report, held_out: int) -> bool:
    """Whether the scores of `copying_scores` show copies: more than the choice of the held-out images explains."""
    near = "c_t" in scores and scores["c_t"]["mean"] < COPIED[0] and scores["distance_ratio"]["mean"] < COPIED[1]
    return bool(near or scores["closer_than_held_out"]["low"] > max(0.01, 5 / held_out))


class Neighbours(NamedTuple):
    """Of each sample, its nearest training sample."""

    distance: Tensor  # [N]
    nearest: Tensor  # [N] int64, its index
    relative: Tensor  # [N], the distance divided by that sample's distance to its nearest other training sample


def neighbours(samples: Tensor, train: Tensor, spacing: Tensor) -> Neighbours:
    """The nearest training sample of each of `samples` [N, F]; `spacing` [M] is the distance between those."""
    distance, nearest = metrics.nearest(samples, train)
    return Neighbours(distance, nearest, distance / spacing[nearest].clamp_min(TINY))


class Suspect(NamedTuple):
    """A generated image that may be a copy."""

    ratio: float  # the relative distance of `copying_scores`
    set: int
    image: int  # index in the set
    train: int  # index of the nearest training image


def distinct(candidates: Sequence[Suspect], sets: ComparedSets, spacing: float) -> list[Suspect]:
    """The first SUSPECTS candidates of which no two are of one generated image, or near one training image."""
    chosen: list[Suspect] = []
    seen = torch.empty(2, 0, sets.train.features.shape[1])  # generated images, and training images
    for suspect in candidates:
        pair = torch.stack([sets.generated[suspect.set].features[suspect.image], sets.train.features[suspect.train]])
        if (seen - pair[:, None]).norm(dim=2).gt(ALIKE * spacing).all():
            chosen.append(suspect)
            seen = torch.cat([seen, pair[:, None]], 1)
            if len(chosen) == SUSPECTS:
                break
    return chosen


def summarise_columns(rows: dict[str, list[float]]) -> Report:
    """Mean and interval of each column, and of the excess over the floor."""
    out = {name: summarise(values) for name, values in rows.items()}
    if "floor" in rows:
        out["excess"] = summarise(np.subtract(rows["held_out"], rows["floor"]))
    return out


def summarise(values: Sequence[float] | NDArray[np.float64]) -> dict[str, float]:
    return intervals.interval([float(value) for value in values])._asdict()


def labels_of(samples: FeatureSet) -> NDArray[np.int64]:
    assert samples.labels is not None
    return samples.labels

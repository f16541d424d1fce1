"""What each figure of a score sees: real images in place of generated ones, one fault planted at a time.

    python studies/faults.py [--data /usr/share/datasets/fashion-mnist] [--cache FOLDER]

Fashion-MNIST, every class equally often: SETS disjoint sets of N training images stand for generated ones, other
training images are the training set, and test images are held out.  Each fault is scored by the `evaluate` that
`ptarmigan score` calls, in the features of EfficientNet-Lite0 and in those of a classifier of the training images.
A figure moved if its distance from the figure without a fault exceeds the two half 95 % intervals together: bold.

Prints Markdown.  Each fault names the figures that should rise or fall and those that must stay the same.  Where one
does not, standard error gets a line and the exit status is 1.  --cache keeps the features between calls.  Results that
many faults share (floors, the figures of real images, the classifier) are computed once: `memoize`.
"""

from __future__ import annotations

import argparse
import hashlib
import math
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from torch import Tensor

from ptarmigan.core.files import make_folder
from ptarmigan.core.tensor_files import load_tensors, save_tensors
from ptarmigan.evaluation import evaluate as evaluating
from ptarmigan.evaluation import metrics
from ptarmigan.evaluation.evaluate import ComparedSets, FeatureSet, Report, evaluate
from ptarmigan.evaluation.features import Extractor, load_extractor
from ptarmigan.evaluation.features.classifier import Classifier, train_classifier
from ptarmigan.evaluation.intervals import Interval
from sensitivity import jpeg

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

from judge import CLASSES, DATA, read_idx

SETS, EACH = 5, 150  # sets, and images of a class in each: N = 1,500, and Fréchet needs 1,281
TRAIN, HELD_OUT = 750, 200  # images of a class
POOL = 600  # images of a class reserved for each set: the baseline is the first EACH, faults use the others too
CHOICE = 300  # of these, from which the surest EACH are taken
TROUSER, BAG = CLASSES.index("Trouser"), CLASSES.index("Bag")

FIGURES = {
    "frechet": "Fréchet",
    "kid": "KID",
    "precision": "precision",
    "recall": "recall",
    "density": "density",
    "coverage": "coverage",
    "accuracy": "class accuracy",
    "diversity": "diversity",
    "worst": "KID excess, worst class",
    "c_t": "C_T",
    "authenticity": "authenticity",
    "distance_ratio": "distance ratio",
}
WHOLE = tuple(FIGURES)[:6]
BRIEF = "frechet", "kid", "recall", "coverage", "diversity", "worst", "c_t", "distance_ratio"  # for the second table

Images = NDArray[np.uint8]  # [N, 28, 28]


class Shown(NamedTuple):
    """Images and the labels that they are given."""

    images: Images
    labels: NDArray[np.int64]  # [N]

    def of(self, label: int) -> Images:
        return self.images[self.labels == label]


class Real(NamedTuple):
    train: Shown
    held_out: Shown
    made: list[Shown]  # in place of generated images: the first EACH of each class of the pool
    pools: list[Shown]


@dataclass(frozen=True)
class Fault:
    name: str
    plant: Callable[[Real], list[Shown]]
    rises: tuple[str, ...] = ()
    falls: tuple[str, ...] = ()
    same: tuple[str, ...] = ()  # figures that have to stay the same to the last digit


class CachedExtractor:
    """An extractor that computes the features of each image once, and keeps them in a file if it has a path."""

    def __init__(self, extractor: Extractor, path: Path | None) -> None:
        self.extractor, self.path, self.place = extractor, path, dict[bytes, int]()
        self.features = torch.empty(0, extractor.dim)
        if path is not None and path.is_file():
            kept, _ = load_tensors(path)
            self.features = kept["features"]
            self.place = {image.numpy().tobytes(): place for place, image in enumerate(kept["images"])}

    def prepare(self, every: Sequence[Images]) -> None:
        new = {image.tobytes(): image for images in every for image in images}
        new = {key: image for key, image in new.items() if key not in self.place}
        if not new:
            return
        self.place |= {key: len(self.place) + i for i, key in enumerate(new)}
        self.features = torch.cat([self.features, self.extractor(np.stack(list(new.values()))[..., None])])
        if self.path is not None:
            make_folder(self.path.parent)
            seen = torch.from_numpy(
                np.frombuffer(bytearray(b"".join(self.place)), np.uint8).reshape(len(self.place), -1)
            )
            save_tensors(self.path, {"features": self.features, "images": seen}, {})

    def __call__(self, shown: Shown) -> FeatureSet:
        return FeatureSet(self.features[[self.place[image.tobytes()] for image in shown.images]], shown.labels)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA, help="folder of Fashion-MNIST's four IDX .gz files")
    parser.add_argument("--cache", type=Path, help="folder for the features")
    asked = parser.parse_args()

    memoize()
    found = load_extractor()
    features = CachedExtractor(found, asked.cache and asked.cache / f"faults-{found.sha256[:16]}.safetensors")
    real = read(asked.data)
    features.prepare([real.train.images, real.held_out.images])
    train = features(real.train)
    # evaluate's own classifier has another seed
    learnt = train_classifier(train.features, real.train.labels, len(CLASSES), seed=1)
    planted = {fault: fault.plant(real) for fault in faults(features, learnt)}
    features.prepare([shown.images for each in planted.values() for shown in each])

    held_out, names = features(real.held_out), CLASSES
    classifier = train_classifier(train.features, real.train.labels, len(names))
    missed: list[str] = []
    tables: list[dict[Fault, dict[str, Interval]]] = []
    for own in (False, True):
        table: dict[Fault, dict[str, Interval]] = {}
        for fault, each in planted.items():
            begun = time.perf_counter()
            made = [features(shown) for shown in each]
            sets = ComparedSets(train, held_out, made, made, names)
            report = evaluate(sets.through_classifier(classifier) if own else sets, quiet)
            table[fault] = figures_of(report)
            print(f"{fault.name}: {time.perf_counter() - begun:.1f} s; {report['notes']}", file=sys.stderr, flush=True)
        tables.append(table)
        if not own:
            missed = failures(table)
            print(first_table(table, report))
    print(second_table(*tables))
    for line in missed:
        print(line, file=sys.stderr)
    return 1 if missed else 0


def quiet(_: str) -> None:
    pass


def memoize() -> None:
    """Memoize the slow pure functions that `evaluate` calls."""

    def memoized(function: Callable[..., Any]) -> Callable[..., Any]:
        answers: dict[bytes, Any] = {}

        def answer(*arguments: Any, **named: Any) -> Any:
            digest = hashlib.blake2b()
            for argument in flat([*arguments, *sorted(named.items())]):
                array = isinstance(argument, Tensor | np.ndarray)
                digest.update((f"{argument.dtype} {argument.shape} " if array else f"{argument!r} ").encode())
                if array:
                    digest.update(np.ascontiguousarray(argument))
            if (key := digest.digest()) not in answers:
                answers[key] = function(*arguments, **named)
            return answers[key]

        return answer

    for module, names in (
        (metrics, ("gaussian", "pair_statistics", "kid_and_fidelity", "kid", "diversity", "k_means", "spacing_of")),
        (evaluating, ("train_classifier",)),
    ):
        for name in names:
            setattr(module, name, memoized(getattr(module, name)))


def flat(arguments: Iterable[Any]) -> Iterator[Any]:
    for argument in arguments:
        if isinstance(argument, tuple):
            yield from flat(argument)
        else:
            yield argument


# --- the images -------------------------------------------------------------------------------------------


def read(data: Path) -> Real:
    rng = np.random.default_rng(0)
    images, labels = read_idx(data, "train")
    tested, answers = read_idx(data, "t10k")
    own = [rng.permutation(np.flatnonzero(labels == label)) for label in range(len(CLASSES))]
    test = np.concatenate([np.flatnonzero(answers == label)[:HELD_OUT] for label in range(len(CLASSES))])

    def cut(start: int, count: int) -> Shown:
        places = np.concatenate([places[start : start + count] for places in own])
        return Shown(images[places], labels[places])

    starts = [TRAIN + turn * POOL for turn in range(SETS)]
    return Real(
        cut(0, TRAIN),
        Shown(tested[test], answers[test]),
        [cut(start, EACH) for start in starts],
        [cut(start, POOL) for start in starts],
    )


def faults(features: CachedExtractor, learnt: Classifier) -> list[Fault]:
    """All faults, after the baseline.  `learnt` tells which images are easy."""
    fidelity = ("precision", "density", "coverage")
    copying = ("c_t", "authenticity", "distance_ratio")
    no_label = (*WHOLE, *copying)  # figures that use no labels
    return [
        Fault("none", lambda real: real.made),
        Fault("blur, sd .5 pixels", lambda real: blurred(real.made, 0.5), rises=("frechet", "kid"), falls=fidelity),
        Fault("noise, sd 10 of 255", lambda real: noised(real.made, 10), rises=("frechet", "kid"), falls=fidelity),
        Fault("JPEG, quality 50", lambda real: each(real.made, jpeg), rises=("frechet", "kid"), falls=fidelity),
        Fault(
            "9 of 10 bags missing, others instead", partial(dropped, left=EACH // 10),
            rises=("frechet", "kid"), falls=("coverage",),
        ),
        Fault("asked for bags, others come", unasked, rises=("frechet", "worst"), falls=("coverage", "accuracy")),
        Fault("five classes 3 times the others", tilted, rises=("frechet", "kid")),
        Fault("trousers called bags and bags trousers", swapped, rises=("worst",), falls=("accuracy",), same=no_label),
        Fault("labels permuted", permuted, rises=("worst", "diversity"), falls=("accuracy",), same=no_label),
        Fault(
            "1 image a class", partial(repeated, distinct=1),
            rises=("frechet", "kid", "worst"), falls=("recall", "coverage", "diversity"),
        ),
        Fault("20 images a class", partial(repeated, distinct=20), rises=("frechet",), falls=("recall", "coverage")),
        Fault("100 images a class", partial(repeated, distinct=100), falls=("recall", "coverage")),
        Fault("copies of training images", copied, falls=copying),
        Fault("copies, blur of sd .3", lambda real: blurred(copied(real), 0.3), falls=copying),
        Fault("1 of 5 a copy", partly_copied, falls=copying),
        Fault("the surer half", partial(surest, features=features, by=learnt), ("accuracy",), falls=("diversity",)),
    ]  # fmt: skip


def each(sets: list[Shown], change: Callable[[Images], Images]) -> list[Shown]:
    return [shown._replace(images=np.stack([change(image) for image in shown.images])) for shown in sets]


def blurred(sets: list[Shown], sd: float) -> list[Shown]:
    return each(sets, lambda image: np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(sd))))


def noised(sets: list[Shown], sd: float) -> list[Shown]:
    rng = np.random.default_rng(0)
    return each(sets, lambda x: np.clip(np.rint(x + rng.normal(0, sd, x.shape)), 0, 255).astype(np.uint8))


def dropped(real: Real, left: int) -> list[Shown]:
    """Only `left` bags in each set, and more of the other classes; all labels are right."""
    return [shares(pool, [left if label == BAG else EACH for label in range(len(CLASSES))]) for pool in real.pools]


def unasked(real: Real) -> list[Shown]:
    """No bags; images of other classes take their place and their label."""
    return [
        one._replace(labels=np.where(np.arange(len(one.labels)) < len(one.labels) - EACH, one.labels, BAG))
        for one in dropped(real, left=0)
    ]


def tilted(real: Real) -> list[Shown]:
    counts = [EACH * 3 // 2 if label % 2 else EACH // 2 for label in range(len(CLASSES))]
    return [shares(pool, counts) for pool in real.pools]


def shares(pool: Shown, counts: list[int]) -> Shown:
    """`counts` images of each class, filled up to the full number with more of the classes that have EACH."""
    spare = max(0, EACH * len(CLASSES) - sum(counts))
    full = [label for label, count in enumerate(counts) if count == EACH]
    labels = np.repeat(np.arange(len(CLASSES)), counts)
    labels = np.concatenate([labels, np.resize(full, spare)]) if spare else labels
    images = np.empty((len(labels), *pool.images.shape[1:]), np.uint8)
    for label in range(len(CLASSES)):
        here = labels == label
        images[here] = pool.of(label)[: here.sum()]
    return Shown(images, labels)


def swapped(real: Real) -> list[Shown]:
    to = np.arange(len(CLASSES))
    to[[TROUSER, BAG]] = BAG, TROUSER
    return [shown._replace(labels=to[shown.labels]) for shown in real.made]


def permuted(real: Real) -> list[Shown]:
    rng = np.random.default_rng(0)
    return [shown._replace(labels=rng.permutation(shown.labels)) for shown in real.made]


def repeated(real: Real, distinct: int) -> list[Shown]:
    """Each class drawn with replacement from `distinct` images, the same in all sets."""
    rng = np.random.default_rng(0)
    few = [real.made[0].of(label)[:distinct] for label in range(len(CLASSES))]
    labels = real.made[0].labels
    return [Shown(np.stack([few[label][rng.integers(len(few[label]))] for label in labels]), labels) for _ in real.made]


def copied(real: Real) -> list[Shown]:
    return [Shown(real.train.images[turn::SETS], real.train.labels[turn::SETS]) for turn in range(SETS)]


def partly_copied(real: Real) -> list[Shown]:
    """Every fifth image is replaced by a training image of its class."""
    out = []
    for shown, copy in zip(real.made, copied(real), strict=True):
        assert (shown.labels == copy.labels).all()
        images = shown.images.copy()
        images[::5] = copy.images[::5]
        out.append(shown._replace(images=images))
    return out


def surest(real: Real, features: CachedExtractor, by: Classifier) -> list[Shown]:
    """The EACH of CHOICE images of each class to whose label the classifier gives the highest probability."""
    out = []
    for pool in real.pools:
        few = shares(pool, [CHOICE] * len(CLASSES))
        features.prepare([few.images])
        chances = by(features(few).features).softmax(1)[torch.arange(len(few.labels)), torch.from_numpy(few.labels)]
        order = np.argsort(-chances.numpy(), kind="stable")
        places = np.concatenate([order[few.labels[order] == label][:EACH] for label in range(len(CLASSES))])
        out.append(Shown(few.images[places], few.labels[places]))
    return out


# --- the figures ------------------------------------------------------------------------------------------


def figures_of(report: Report) -> dict[str, Interval]:
    """The headline figures of a report, each with its interval."""
    out = {name: Interval(**report["figures"][name]["held_out"]) for name in WHOLE}
    entries = report["classes"].values()
    out["accuracy"] = Interval(**report["accuracy"]["generated"])
    out["diversity"] = mean([Interval(**entry["diversity"]) for entry in entries if "diversity" in entry])
    worst = max((entry["kid"]["excess"] for entry in entries if "kid" in entry), key=lambda excess: excess["mean"])
    out["worst"] = Interval(**worst)
    return out | {name: Interval(**report["copies"][name]) for name in ("c_t", "authenticity", "distance_ratio")}


def mean(classes: list[Interval]) -> Interval:
    """Mean over classes, which are independent: half intervals add as the root of the sum of squares."""
    middle = math.fsum(of.mean for of in classes) / len(classes)
    half = math.sqrt(math.fsum((of.high - of.mean) ** 2 for of in classes)) / len(classes)
    return Interval(middle, middle - half, middle + half)


def moved(of: Interval, base: Interval) -> float:
    """Distance from the baseline in units of the two half intervals together; beyond +-1 the figure moved."""
    both = (of.high - of.mean) + (base.high - base.mean)
    return (of.mean - base.mean) / both if both else 0.0


def failures(table: dict[Fault, dict[str, Interval]]) -> list[str]:
    """A line for each figure that did not move, or stay, as its fault says."""
    base = next(iter(table.values()))
    out = []
    for fault, row in table.items():
        for name in (*fault.rises, *fault.falls):
            by = moved(row[name], base[name])
            if not (by > 1 if name in fault.rises else by < -1):
                way = "rise" if name in fault.rises else "fall"
                out.append(
                    f"{fault.name}: {FIGURES[name]} should {way}, but moved by {by:+.2f} times both half intervals"
                )
        out += [
            f"{fault.name}: {FIGURES[name]} uses no labels, but is {row[name].mean} instead of {base[name].mean}"
            for name in fault.same
            if row[name] != base[name]
        ]
    return out


def first_table(table: dict[Fault, dict[str, Interval]], report: Report) -> str:
    """Every figure of every fault, as two tables."""
    base = next(iter(table.values()))
    rest = [name for name in FIGURES if name not in WHOLE]
    beside = {
        "accuracy": f" (held-out {report['accuracy']['held_out']:.3f})",
        "authenticity": f" (held-out {report['copies']['authenticity_held_out']:.3f})",
    }
    parts = []
    for names in (WHOLE, rest):
        lines = [["fault", *(FIGURES[name] + beside.get(name, "") for name in names)]]
        for fault, row in table.items():
            cells = [cell(row[name], base[name], expected=name in fault.rises + fault.falls) for name in names]
            lines.append([fault.name, *cells])
        parts.append(markdown(lines))
    return "\n".join(parts)


def second_table(pixels: dict[Fault, dict[str, Interval]], own: dict[Fault, dict[str, Interval]]) -> str:
    """How far each figure moved, in both kinds of features."""
    lines = [["fault", *(FIGURES[name] for name in BRIEF)]]
    bases = [next(iter(table.values())) for table in (pixels, own)]
    for fault in list(pixels)[1:]:
        pairs = [
            [moved(table[fault][name], base[name]) for table, base in zip((pixels, own), bases, strict=True)]
            for name in BRIEF
        ]
        lines.append([fault.name, *(", ".join(map(times, pair)) for pair in pairs)])
    return markdown(lines)


def times(by: float) -> str:
    text = f"{by:+.1f}" if abs(by) < 10 else f"{by:+.0f}"
    return f"**{text}**" if abs(by) > 1 else text


def cell(of: Interval, base: Interval, expected: bool) -> str:
    """A mean and half its interval, to significant digits; bold where it moved, marked where it should."""
    if math.isnan(of.mean):
        return "none"
    half = of.high - of.mean
    digits = 0 if half else 3
    while digits < 5 and half and half < 2 * 10**-digits:
        digits += 1
    text = re.sub(r"(?<!\d)0\.", ".", f"{of.mean:.{digits}f}±{half:.{digits}f}")
    return (f"**{text}**" if abs(moved(of, base)) > 1 else text) + (" !" if expected else "")


def markdown(lines: list[list[str]]) -> str:
    head, *body = ["| " + " | ".join(line) + " |" for line in lines]
    return "\n".join([head, "|" + "---|" * len(lines[0]), *body, ""])


if __name__ == "__main__":
    sys.exit(main())

"""`score`: a generator's images, or anybody's, against held-out ones: opened, seen by an extractor, reported, kept."""

from __future__ import annotations

import time as clock
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from ptarmigan.commands.score_sources import Drawn, Given, Supply, run_of, trained_on
from ptarmigan.config import Data, parse_time
from ptarmigan.core import files, seeding
from ptarmigan.core.console import Terminal
from ptarmigan.core.types import UserError, unknown
from ptarmigan.data import HELD_OUT, TRAIN, Dataset, open_dataset
from ptarmigan.evaluation.evaluate import Report, Sample, Sets, evaluate, labels_of
from ptarmigan.evaluation.features import EXTRACTORS, Extractor
from ptarmigan.evaluation.features import extractor as open_extractor
from ptarmigan.evaluation.features.cache import features_of, look
from ptarmigan.evaluation.features.classifier import fit
from ptarmigan.generator import generator as sampling
from ptarmigan.generator.export import write_scores

FEWEST, MOST = 1000, 5000  # generated images a set, where nobody says how many
LEAST = 6  # samples a side: the fifth nearest of the others is looked for
HELD_OUT_MOST = 10_000  # held-out images that are looked at
OWN = "classifier"  # the extractor that is made on the spot
SHARE = 0.7  # of the time that extraction may take; the rest is for comparing


def score(
    model: str | Path,
    data: str | Path | None = None,
    *,
    n: int | None = None,
    seeds: int = 5,
    extractor: str = "efficientnet-lite0",
    weights: str | Path | None = None,
    size: str | None = None,
    cas: bool = False,
    time: str = "15m",
    out: str | Path | None = None,
    device: str = "auto",
) -> Report:
    """Report how far generated images are from held-out ones, with intervals, floors, every class, and copies.

    `model` is a run, a generator folder or a model.safetensors; or images of any origin, in class folders or an .npz.
    `data` is what it was trained on; a run knows it.  `n` images are generated from each of `seeds` seeds; images that
    exist are cut into as many parts, in `size`, by default what `train` would choose.  `extractor` is
    efficientnet-lite0, classifier (128 features, learnt from these classes on top of it) or inception (whose distance
    is the FID; its `weights` by path).  `cas` adds classifiers trained on generated images.  `time` bounds the whole:
    rather than more time, fewer training images are looked at, and fewer sets, two at least.

    A generator folder gets the report as scores.json and in its model card, and a run the most suspicious images beside
    their nearest training images as private/copies.png; with `out` both go into that new folder.  Returns the report.
    Raises UserError where there is nothing to compare with, or not the time.
    """
    begun, seconds = clock.perf_counter(), parse_time(time)
    assert seconds is not None
    if seeds < 2:
        raise UserError(f"seeds {seeds}: an interval needs two or more")
    if extractor != OWN and extractor not in EXTRACTORS:
        raise unknown("extractor", extractor, [*EXTRACTORS, OWN])
    if out is not None:
        check_out(Path(out))
    notes: list[str] = []
    with Bar() as bar:
        supply, dataset = opened(Path(model), data, size, seeds, device, notes, bar)
        seer = open_extractor("efficientnet-lite0" if extractor == OWN else extractor, weights, device)
        plan = Plan.of(supply, dataset, n, seer, seconds, notes)
        bar.begin(plan.images)
        train, held = (real(dataset, places, seer, bar) for places in (plan.train, plan.held_out))
        whole, by_class = [], []
        for turn in range(plan.sets):
            made = generated(supply, turn, seer, bar)
            whole.append(made.take(np.flatnonzero(supply.counted(turn))))
            by_class.append(made)
        sets = Sets(train, held, whole, by_class, dataset.spec.class_names)
        if extractor == OWN:
            sets = sets.seen_by(fit(train.features, labels_of(train), dataset.spec.classes))
        report = evaluate(sets, bar.say, cas)
    if cas and "cas" not in report.get("accuracy", {}):
        notes.append(
            "no CAS: it needs two classes or more, known of generated images, that a classifier can tell apart"
        )
    report["notes"] = [*notes, *report["notes"]]
    report["protocol"] = protocol(supply, dataset, plan, seer, extractor) | {
        "seconds": round(clock.perf_counter() - begun, 1)
    }
    try:
        keep(report, supply, dataset, plan, Path(model), None if out is None else Path(out))
    except UserError as error:  # minutes of work are not thrown away for a folder that cannot be written
        report["notes"].append(f"the report could not be kept: {error}")
    return report


def check_out(out: Path) -> None:
    """Raise UserError where a report that shows training images must not go."""
    if out.exists():
        raise UserError(f"out: {out} exists already and is not overwritten: name another --out")
    if any((folder / "model.safetensors").exists() for folder in out.resolve().parents):
        raise UserError(f"out: {out} lies in a generator folder, which no training image enters: name another --out")


def opened(
    model: Path, data: str | Path | None, size: str | None, sets: int, device: str, notes: list[str], bar: Bar
) -> tuple[Supply, Dataset]:
    """The generated images, and the real ones in their shape."""
    if not model.exists():
        raise UserError(f"{model} does not exist: name a run, a generator, a folder of images or an .npz")
    if model.suffix == ".safetensors" or any((model / name).is_file() for name in sampling.PLACES):
        generator = sampling.load(model, device)
        if size is not None:
            raise UserError(
                f"size: a generator has its own, {generator.spec.height}x{generator.spec.width}; leave it out"
            )
        return Drawn(generator, sets), trained_on(model, generator, data, notes, bar.reading)
    if (model / "checkpoints").exists() or (model / ".lock").exists():
        sampling.find(model)  # raises: a run without a generator is no folder of images
    if data is None:
        raise UserError(f"{model} holds images: name the real ones too, as in `ptarmigan score {model} photos/`")
    images = open_dataset(model, Data(size=size, split="none"), bar.reading)
    height, width, channels = images.images.shape[1:]
    dataset = open_dataset(data, Data(size=f"{height}x{width}", channels=channels), bar.reading)
    supply = Given(images, dataset.spec.class_names, sets)
    if supply.to_label is None and dataset.spec.classes > 1:
        notes.append(
            f"{model} does not name its classes as {data} does (folders, or class_names): nothing is said of classes"
        )
    return supply, dataset


class Plan(NamedTuple):
    """What will be looked at."""

    n: int
    sets: int
    train: NDArray[np.int64]  # places in the data set
    held_out: NDArray[np.int64]
    images: int  # to be extracted, all in all

    @classmethod
    def of(
        cls, supply: Supply, dataset: Dataset, n: int | None, seer: Extractor, seconds: float, notes: list[str]
    ) -> Plan:
        """Everything, or what the time allows; raises UserError where that is too little."""
        train, held = (_shuffled(dataset.indices(part)) for part in (TRAIN, HELD_OUT))
        if min(len(held), len(train)) < LEAST:
            raise UserError(
                f"{len(train):,} training and {len(held):,} held-out images: a score needs {LEAST} of each; train on "
                "more, with a --split that holds some out"
            )
        if leaked := np.isin(dataset.hashes[train], dataset.hashes[held]).sum():
            notes.append(
                f"{leaked:,} training images are among the held-out ones too: every figure is that much too kind"
            )
        held = held[:HELD_OUT_MOST]
        there = supply.most()
        if there is not None and there < LEAST:
            raise UserError(
                f"{supply.sets} sets of {there} images each: {LEAST} or more are needed in a set; give fewer "
                "--seeds, or more images"
            )
        most = len(train) if there is None else min(len(train), there)
        if n is not None and not LEAST <= n <= most:
            raise UserError(
                f"-n {n}: {LEAST} to {most:,} images a set can be compared here: "
                + ("there are no more" if most < len(train) else "the floor is drawn from as many training images")
            )
        apart = max(LEAST, len(train) // supply.sets)  # so that the floor's sets of training images share none
        n = n or min(most, apart, max(FEWEST, min(len(held), MOST)))
        supply.plan(n, dataset.labels[held], dataset.spec.classes)
        sets, made, rate = supply.sets, len(supply.counted(0)), speed(dataset, held, seer)
        room = int(SHARE * seconds * rate) - len(held)
        if len(train) > (least := min(len(train), max(n, len(held)))) and sets * made + len(train) > room:
            fewer = max(least, room - sets * made)
            notes.append(f"time {seconds:.0f}s: {fewer:,} of {len(train):,} training images were looked at")
            train = train[:fewer]
        if sets * made + len(train) > room:
            sets = max(2, (room - len(train)) // made)
            if sets * made + len(train) > room:
                needed = (len(held) + len(train) + 2 * made) / rate / SHARE
                raise UserError(
                    f"time {seconds:.0f}s is too short: {rate:.0f} images/s here, so two sets of {n:,} and the real "
                    f"images take some {needed:.0f}s; give a longer --time or a smaller -n"
                )
            notes.append(f"time {seconds:.0f}s: {sets} of {supply.sets} sets were generated")
        return cls(n, sets, train, held, len(held) + len(train) + sets * made)


def _shuffled(places: NDArray[np.int64]) -> NDArray[np.int64]:
    return places[seeding.permute(0, "score", 0, np.arange(len(places)), len(places))]


def speed(dataset: Dataset, places: NDArray[np.int64], seer: Extractor) -> float:
    """Images a second through the extractor: the best of four tries, as other programs only ever slow it down."""
    some = dataset.images[np.resize(places, 64)]
    taken = []
    for _ in range(4):
        begun = clock.perf_counter()
        seer(some)
        taken.append(clock.perf_counter() - begun)
    return len(some) / min(taken)


def real(dataset: Dataset, places: NDArray[np.int64], seer: Extractor, bar: Bar) -> Sample:
    bar.say("looking at real images")
    return Sample(features_of(seer, dataset, places, bar.took), dataset.labels[places])


def generated(supply: Supply, turn: int, seer: Extractor, bar: Bar) -> Sample:
    bar.say(f"looking at generated set {turn + 1}")
    count = len(supply.counted(turn))
    places = np.arange(count)
    return Sample(look(seer, count, lambda part: supply.images(turn, places[part]), bar.took), supply.labels(turn))


def protocol(supply: Supply, dataset: Dataset, plan: Plan, seer: Extractor, name: str) -> dict[str, Any]:
    """What a figure has to say of itself, so that two can be compared or not."""
    own = name == OWN
    out = {
        "frechet_is_called": "FD-classifier" if own else seer.score_name,
        "extractor": f"128 features of a classifier of the training images, on {seer.name}" if own else seer.name,
        "weights_sha256": seer.sha256,
        "input": f"uint8 images of {'x'.join(map(str, dataset.images.shape[1:3]))}, resized to {seer.size}x{seer.size}",
        "images_a_set": plan.n,
        "sets": plan.sets,
        "held_out_images": len(plan.held_out),
        "train_images": len(plan.train),
        "data_fingerprint": dataset.fingerprint,
    }
    if isinstance(supply, Drawn):
        generator = supply.generator
        average = generator.config.train.ema_half_life
        out |= {
            "generator_sha256": generator.sha256,
            "images_seen": generator.images_seen,
            "weights": f"moving average, half-life {average:g} images" if average else "the last, no average",
            "selection": generator.selection,
            "seeds": list(range(plan.sets)),
        }
    return out


def keep(report: Report, supply: Supply, dataset: Dataset, plan: Plan, model: Path, out: Path | None) -> None:
    """The report beside the generator, and its picture of training images where it is private; or both in `out`."""
    private = None
    if out is not None:
        files.make_folder(out)
        files.save_json(out / "scores.json", report)
        private, report["written"] = out / "private", str(out / "scores.json")
    elif isinstance(supply, Drawn):
        path = sampling.find(model)
        if files.load_tensors(path)[1]["sha256"] != supply.generator.sha256:
            raise UserError(f"{path} has been trained on meanwhile; score it when it is at its end, or give --out")
        if path.name == "model.safetensors":
            replaced = (path.parent / "scores.json").exists()
            write_scores(path.parent, supply.generator, report)
            report["written"] = f"{path.parent / 'scores.json'}, and in the model card beside it" + (
                "; it stands in the place of the last one by this extractor" if replaced else ""
            )
        if run := run_of(path):
            private = run / "private"
    if private is not None:
        files.make_folder(private)
        picture = sampling.grid(pairs(report, supply, dataset, plan), columns=8)
        sampling.save_png(picture, private / "copies.png", pairs="generated, then the training image it is nearest to")
        report["picture"] = str(private / "copies.png")


def pairs(report: Report, supply: Supply, dataset: Dataset, plan: Plan) -> NDArray[np.uint8]:
    """The suspects: a generated image, the training image that it is nearest to, and so on."""
    out = []
    for suspect in report["copies"]["suspects"]:
        counted = np.flatnonzero(supply.counted(suspect["set"]))
        out.append(supply.images(suspect["set"], counted[suspect["image"] : suspect["image"] + 1])[0])
        out.append(dataset.images[plan.train[suspect["train"]]])
    return np.stack(out)


class Bar:
    """One line on standard error while a score is made; nothing where that is no terminal."""

    def __init__(self) -> None:
        columns = TextColumn("{task.description}"), BarColumn(bar_width=20), TimeRemainingColumn()
        console = Terminal(stderr=True)
        self.progress = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self.task = self.progress.add_task("opening", total=None)

    def __enter__(self) -> Bar:
        self.progress.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.progress.stop()

    def begin(self, images: int) -> None:
        """So many images are to go through the extractor."""
        self.progress.update(self.task, completed=0, total=images)

    def say(self, text: str) -> None:
        self.progress.update(self.task, description=text)

    def reading(self, done: int, total: int) -> None:
        self.progress.update(self.task, description="reading images", completed=done, total=total)

    def took(self, count: int) -> None:
        """`count` images went through the extractor."""
        self.progress.advance(self.task, count)

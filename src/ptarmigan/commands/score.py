"""`score`: compare generated images, or images of any origin, with held-out images, and write a report."""

from __future__ import annotations

import time as clock
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptarmigan.commands.report import report as write_page
from ptarmigan.commands.score_plan import Plan, first_of_each_class
from ptarmigan.commands.score_sources import (
    ExistingImages,
    GeneratedImages,
    ImageSource,
    file_notes,
    find_run,
    open_existing_images,
    open_training_data,
)
from ptarmigan.config import Data
from ptarmigan.config.values import parse_time
from ptarmigan.core import files
from ptarmigan.core.console import Display, Terminal
from ptarmigan.core.paths import user_path
from ptarmigan.core.types import OnProgress, UserError, check_whole, unknown
from ptarmigan.data import Dataset
from ptarmigan.data.index import may_hold_data
from ptarmigan.data.split import DEFAULT_SPLIT
from ptarmigan.data.stream import take_notes
from ptarmigan.evaluation.evaluate import ComparedSets, FeatureSet, Report, evaluate, labels_of
from ptarmigan.evaluation.features import EXTRACTORS, Extractor, load_extractor, softened
from ptarmigan.evaluation.features.cache import OnImages, adding_up, cached_features, extract_in_blocks
from ptarmigan.evaluation.features.classifier import train_classifier
from ptarmigan.evaluation.report import Score
from ptarmigan.evaluation.verdict import EACH_OF_CLASS
from ptarmigan.generator.export import write_scores
from ptarmigan.generator.generator import image_grid, load, save_png
from ptarmigan.generator.header import GENERATOR_FILES, find_generator
from ptarmigan.generator.hub import download, is_on_hub

FID_IMAGES = 50_000  # of the published FID; with fewer its name has their number
CLASSIFIER = "classifier"  # the extractor that is trained during the score


def score(
    model: str | Path,
    data: str | Path | Dataset | None = None,
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
) -> Score:
    """Report how far generated images are from held-out images, with intervals, for each class, and look for copies.

    `model` is a run, a generator folder or a model.safetensors; or images of any origin, in class folders or an .npz.
    `data` is what it was trained on; a run records it.  `n` images are generated from each of `seeds` seeds; existing
    images are divided into as many sets and converted to `size`, by default the size that `train` would choose.
    `extractor` is efficientnet-lite0; classifier (128 features of a classifier of these classes, trained on top of
    efficientnet-lite0); or inception (for the FID).  `weights` is the file of its weights.  `cas` adds classifiers
    trained on generated images.  `time` limits the total time: if necessary fewer training images are used, then fewer
    sets, but at least 2.

    The report is written to scores.json and the model card in the generator folder; a run also gets
    private/copies.png, the images most likely to be copies, each with its nearest training image, and a new report.html
    with the scores.  With `out` scores and copies are written to that new folder.  Raises UserError if there are too
    few images or too little time.
    """
    start, seconds = clock.perf_counter(), parse_time(time or "")
    assert seconds is not None
    check_choices(n, seeds, extractor)
    out = None if out is None else new_output(user_path(out, "out"))
    model = local_model(user_path(model, "model"), out)
    notes: list[str] = []
    with Display(Terminal(stderr=True)) as display, display.doing("scoring"):
        source, dataset = open_images(model, data, size, seeds, device, notes, display.preparing)
        network = "efficientnet-lite0" if extractor == CLASSIFIER else extractor
        feature_extractor = load_extractor(network, weights, device)
        plan = Plan.make(source, dataset, n, feature_extractor, seconds, notes)
        advance = adding_up(display.preparing, "computing features of images", plan.images)
        sets = extract_sets(source, dataset, plan, feature_extractor, advance)
        if extractor == CLASSIFIER:
            classifier = train_classifier(sets.train.features, labels_of(sets.train), dataset.spec.classes)
            sets = sets.through_classifier(classifier)
        report = evaluate(sets, lambda stage: display.preparing(stage, 0, None), cas)
    report["notes"] = [*notes, *take_notes(dataset.images), *report["notes"]]
    report["protocol"] = describe_protocol(source, dataset, plan, feature_extractor, extractor) | {
        "seconds": round(clock.perf_counter() - start, 1)
    }
    try:
        save_report(report, source, dataset, plan, model, out)
    except UserError as error:  # the scores took minutes: return them although they cannot be written
        report["notes"].append(f"not all of the report was written: {error}")
    return Score(**report)


def check_choices(n: int | None, seeds: int, extractor: str) -> None:
    """Raise UserError for a number that is not whole or too small, or an unknown extractor."""
    check_whole("seeds", seeds)
    if n is not None:
        check_whole("n", n)
    if seeds < 2:
        raise UserError(f"seeds {seeds}: an interval needs at least 2", "value-out-of-range")
    if extractor not in (*EXTRACTORS, CLASSIFIER):
        raise unknown("extractor", extractor, [*EXTRACTORS, CLASSIFIER])


def new_output(out: Path) -> Path:
    """`out`; raises UserError if it exists or is inside a generator folder, since the report shows training images."""
    files.check_absent(out, "out")
    if any((folder / "model.safetensors").exists() for folder in out.resolve().parents):
        text = f"out: {out} is inside a generator folder, which must not contain training images: choose another --out"
        raise UserError(text, "value-invalid")
    return out


def local_model(model: Path, out: Path | None) -> Path:
    """The model, downloaded if it is on the Hub; raises UserError as `download` does, and there without `out`."""
    if not is_on_hub(model):
        return model
    if out is None:
        text = "scores of a model on the Hub are written to a folder: name it with --out"
        raise UserError(text, "options-conflict")
    return download(model)


def open_images(
    model: Path,
    data: str | Path | Dataset | None,
    size: str | None,
    sets: int,
    device: str,
    notes: list[str],
    on_progress: OnProgress,
) -> tuple[ImageSource, Dataset]:
    """The images to score, and the real images in the same shape."""
    if not may_hold_data(model):
        text = f"{model} does not exist: name a run, a generator, a folder of images or an .npz file"
        raise UserError(text, "path-not-found")
    if model.suffix == ".safetensors" or any(user_path(model / name, "model").is_file() for name in GENERATOR_FILES):
        generator = load(model, device)
        if size is not None:
            text = f"size {size}: the generator has its own size, {generator.spec.size}"
            raise UserError(f"{text}; leave --size out", "options-conflict")
        source, dataset = (
            GeneratedImages(generator, sets),
            open_training_data(model, generator, data, notes, on_progress),
        )
        if generator.config.data.balance:
            text = "trained with --balance; the scores are for the held-out images' own share of each class"
            unequal = ", which a generator without classes does not follow" * (not source.conditional)
            notes.append(text + unequal)
        return source, dataset
    if (model / "checkpoints").exists() or (model / ".lock").exists():
        find_generator(model)  # raises: this is a run without a generator, not a folder of images
    if data is None:
        text = f"{model} holds images: also name the real images, as in `ptarmigan score {model} photos/`"
        raise UserError(text, "data-missing")
    existing, dataset = open_existing_images(model, data, Data(size=size, split="none"), DEFAULT_SPLIT, on_progress)
    notes += file_notes(str(model), existing, str(data), dataset)
    images = ExistingImages(existing, dataset.spec.class_names, sets)
    if images.to_label is None and dataset.spec.classes > 1:
        notes.append(
            f"the class names of {model} (folders, or class_names) are not those of {data}: classes are not scored"
        )
    return images, dataset


def extract_sets(
    source: ImageSource, dataset: Dataset, plan: Plan, extractor: Extractor, advance: OnImages
) -> ComparedSets:
    """The features of all images that the plan uses."""
    train, held_out = (real_features(dataset, indices, extractor, advance) for indices in (plan.train, plan.held_out))
    everything = np.arange(len(source.in_overall(0)))
    by_class = [generated_features(source, index, everything, extractor, advance) for index in range(plan.sets)]
    overall = [features.take(np.flatnonzero(source.in_overall(i))) for i, features in enumerate(by_class)]
    out = ComparedSets(train, held_out, overall, by_class, dataset.spec.class_names)
    if not len(plan.softened):
        return out
    soft, generated = softened(extractor), []
    for index in range(plan.sets):
        labels = source.labels(index)
        assert labels is not None
        generated.append(generated_features(source, index, first_of_each_class(labels, EACH_OF_CLASS), soft, advance))
    return replace(out, softened=(real_features(dataset, plan.softened, soft, advance), generated))


def real_features(dataset: Dataset, indices: NDArray[np.int64], extractor: Extractor, advance: OnImages) -> FeatureSet:
    return FeatureSet(cached_features(extractor, dataset, indices, advance), dataset.labels[indices])


def generated_features(
    source: ImageSource, index: int, indices: NDArray[np.int64], extractor: Extractor, advance: OnImages
) -> FeatureSet:
    """The features of some images of a set."""
    features = extract_in_blocks(extractor, len(indices), lambda part: source.images(index, indices[part]), advance)
    labels = source.labels(index)
    return FeatureSet(features, None if labels is None else labels[indices])


def describe_protocol(
    source: ImageSource, dataset: Dataset, plan: Plan, extractor: Extractor, name: str
) -> dict[str, Any]:
    """How the scores were computed, which decides whether two reports can be compared."""
    prefix = "128 features of a classifier of the training images, on " if name == CLASSIFIER else ""
    side = extractor.size
    called = "FD-classifier" if prefix else extractor.score_name
    if called == "FID" and (smaller := min(plan.n, len(plan.held_out))) < FID_IMAGES:
        called = f"FID-{smaller}"
    out = {
        "frechet_is_called": called,
        "extractor": prefix + extractor.name,
        "weights_sha256": extractor.sha256,
        "input": f"uint8 images of {'x'.join(map(str, dataset.images.shape[1:3]))}, resized to {side}x{side}",
        "images_a_set": plan.n,
        "sets": plan.sets,
        "held_out_images": len(plan.held_out),
        "train_images": len(plan.train),
        "data_fingerprint": dataset.fingerprint,
    }
    if isinstance(source, GeneratedImages):
        generator = source.generator
        average = generator.config.train.ema_half_life
        out |= {
            "generator_sha256": generator.sha256,
            "images_seen": generator.images_seen,
            "weights": f"moving average, half-life {average:g} images" if average else "the last, no average",
            "selection": generator.selection,
            "seeds": list(range(plan.sets)),
        }
    return out


def save_report(
    report: Report, source: ImageSource, dataset: Dataset, plan: Plan, model: Path, out: Path | None
) -> None:
    """Write the report to the generator folder and the picture of training images to RUN/private; or both to `out`."""
    private = run = None
    if out is not None:
        files.make_folder(out)
        files.save_json(out / "scores.json", report)
        private, report["written"] = out / "private", str(out / "scores.json")
    elif isinstance(source, GeneratedImages):
        path = find_generator(model)
        if files.load_header(path).meta["sha256"] != source.generator.sha256:
            text = f"{path} changed during the score; score it again when training has ended, or use --out"
            raise UserError(text, "generator-changed")
        if path.name == "model.safetensors":
            replaced = ", in place of the last one by this extractor" if (path.parent / "scores.json").exists() else ""
            write_scores(path.parent, source.generator, report)
            report["written"] = f"{path.parent / 'scores.json'}, to the model card there{replaced}"
        run = find_run(path)
        private = run / "private" if run else None
    if private is not None:
        files.make_folder(private)
        picture = image_grid(suspect_pairs(report, source, dataset, plan), columns=8)
        save_png(picture, private / "copies.png", pairs="generated image, then its nearest training image")
        report["picture"] = str(private / "copies.png")
    if run is not None and "written" in report:
        report["written"] += f", and to {write_page(run)}"


def suspect_pairs(report: Report, source: ImageSource, dataset: Dataset, plan: Plan) -> NDArray[np.uint8]:
    """Each suspect, followed by the training image that is nearest to it."""
    out = []
    for suspect in report["copies"]["suspects"]:
        indices = np.flatnonzero(source.in_overall(suspect["set"]))
        out.append(source.images(suspect["set"], indices[suspect["image"] : suspect["image"] + 1])[0])
        out.append(dataset.images[plan.train[suspect["train"]]])
    return np.stack(out)

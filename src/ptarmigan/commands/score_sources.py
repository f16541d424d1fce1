"""Where the images of a score come from: a generator, one set per seed, or an existing folder or file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from ptarmigan.config import Data, config_of
from ptarmigan.core import seeding
from ptarmigan.core.files import Damaged
from ptarmigan.core.tensor_files import check_arrays, load_tensors
from ptarmigan.core.types import OnProgress, UserError, shorten
from ptarmigan.data import Dataset, open_dataset, recorded_data
from ptarmigan.data.decode import Limits, read_header
from ptarmigan.data.index import ArraySource, FolderSource, may_hold_data
from ptarmigan.generator.generator import TrainedGenerator, generate_images
from ptarmigan.generator.header import load_run_record

MIN_PER_CLASS = 50  # images of each class that are generated for a set
LOOKED_AT = 64  # images of a data set whose files are compared with another one's
LOSSLESS = ("PNG", "BMP", "PPM", "TIFF")


class ImageSource(Protocol):
    """Independent sets of images; call `plan` before any other method but `max_per_set`."""

    sets: int

    def max_per_set(self) -> int | None:
        """The largest number of images in a set; None: any number."""

    def plan(self, n: int, held_out_labels: NDArray[np.int64], classes: int) -> None:
        """Set the size of a set to `n`, if possible with the class shares of the held-out images."""

    def labels(self, index: int) -> NDArray[np.int64] | None:
        """Labels [M] of the M >= n images of a set, or None if they are not known."""

    def in_overall(self, index: int) -> NDArray[np.bool_]:
        """[M] whether an image is one of the n for the scores over all classes; the others serve their class only."""

    def images(self, index: int, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Images uint8 [len(indices), H, W, C] of a set."""


class GeneratedImages:
    """Set i is generated with seed i."""

    def __init__(self, generator: TrainedGenerator, sets: int) -> None:
        self.generator, self.sets = generator, sets
        self.conditional = generator.config.model.conditional

    def max_per_set(self) -> int | None:
        return None

    def plan(self, n: int, held_out_labels: NDArray[np.int64], classes: int) -> None:
        shares = np.array([n])
        counts = shares
        if self.conditional:
            shares = allocate(n, np.bincount(held_out_labels, minlength=classes))
            counts = np.maximum(shares, MIN_PER_CLASS)
        self._labels = np.repeat(np.arange(len(counts)), counts)
        self._latent_indices = np.concatenate([np.arange(count) for count in counts])
        self._in_overall = self._latent_indices < shares[self._labels]

    def labels(self, index: int) -> NDArray[np.int64] | None:
        return self._labels if self.conditional else None

    def in_overall(self, index: int) -> NDArray[np.bool_]:
        return self._in_overall

    def images(self, index: int, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        network, model = self.generator.network, self.generator.config.model
        return generate_images(network, model, self._labels[indices], self._latent_indices[indices], seed=index)


class ExistingImages:
    """Existing images, divided into sets by a fixed shuffle; classes are matched by name."""

    def __init__(self, dataset: Dataset, class_names: tuple[str, ...], sets: int) -> None:
        self.dataset, self.sets = dataset, sets
        names = dataset.spec.class_names
        known = len(names) > 1 and set(names) <= set(class_names)
        self.to_label = np.array([class_names.index(name) for name in names]) if known else None

    def max_per_set(self) -> int | None:
        return len(self.dataset.labels) // self.sets

    def plan(self, n: int, held_out_labels: NDArray[np.int64], classes: int) -> None:
        self.n = n

    def dataset_indices(self, index: int) -> NDArray[np.int64]:
        positions = np.arange(index * self.n, (index + 1) * self.n)
        return seeding.permute(0, "given", 0, positions, len(self.dataset.labels))

    def labels(self, index: int) -> NDArray[np.int64] | None:
        if self.to_label is None:
            return None
        labels: NDArray[np.int64] = self.to_label[self.dataset.labels[self.dataset_indices(index)]]
        return labels

    def in_overall(self, index: int) -> NDArray[np.bool_]:
        return np.ones(self.n, bool)

    def images(self, index: int, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        images: NDArray[np.uint8] = self.dataset.images[self.dataset_indices(index)[indices]]
        return images


def open_existing_images(
    model: Path, data: str | Path | Dataset | None, options: Data, split: str, on_progress: OnProgress
) -> tuple[Dataset, Dataset]:
    """Images of any origin, and the real images in their shape, with that split."""
    existing = open_dataset(model, options, on_progress)
    height, width, channels = existing.images.shape[1:]
    real = open_dataset(data, Data(size=f"{height}x{width}", channels=channels, split=split), on_progress)
    return existing, real


class Originals(NamedTuple):
    """What the images of a data set were before they were converted to the size and channels of the score."""

    formats: tuple[str, ...]
    height: float  # medians
    width: float
    colour: bool

    @classmethod
    def of(cls, dataset: Dataset) -> Originals:
        chosen = np.linspace(0, len(dataset.labels) - 1, min(LOOKED_AT, len(dataset.labels))).astype(int)
        if isinstance(dataset.source, FolderSource):
            headers = []
            for position in sorted(dataset.source_indices[chosen].tolist()):
                with dataset.source.open(position) as file:
                    headers.append(read_header(file, Limits(1 << 32)))
            height, width = (
                float(np.median(sides)) for sides in ([h.height for h in headers], [h.width for h in headers])
            )
            colour = 2 * sum(header.colour for header in headers) > len(headers)
        else:
            assert isinstance(dataset.source, ArraySource)
            height, width, channels = dataset.source.read().shape
            colour = channels > 1
        if colour and dataset.images.shape[3] > 1:  # grey images are often saved with three equal channels
            rgb = dataset.images[chosen][..., :3].astype(np.int16)
            spread = (rgb.max(3) - rgb.min(3)).max((1, 2))
            colour = bool(np.median(spread) > 8)
        return cls(dataset.formats, height, width, colour)


def file_notes(name: str, given: Dataset, real_name: str, real: Dataset) -> list[str]:
    """A sentence for each difference of the files that changes the scores although the pictures may be as good."""
    try:
        one, other = Originals.of(given), Originals.of(real)
    except Exception:  # Pillow raises many kinds; a file that has changed since it was decoded costs no score
        return []
    notes = []
    lossy = [sorted(set(originals.formats) - set(LOSSLESS)) for originals in (one, other)]
    if one.formats and other.formats and lossy[0] != lossy[1]:
        listed = [", ".join(originals.formats) for originals in (one, other)]
        notes.append(
            f"{name} is {listed[0]} and {real_name} is {listed[1]}: the difference in compression alone changes the "
            "scores; save both in the same format with the same settings"
        )
    side = given.images.shape[1:3]
    shrunk = [min(originals.height / side[0], originals.width / side[1]) for originals in (one, other)]
    if min(shrunk) < 0.95 and max(shrunk) / min(shrunk) > 1.25:
        sizes = [f"{originals.height:.0f}x{originals.width:.0f}" for originals in (one, other)]
        notes.append(
            f"to compare both at {side[0]}x{side[1]}, images of {sizes[shrunk.index(min(shrunk))]} from "
            f"{(name, real_name)[shrunk.index(min(shrunk))]} are enlarged and so blurred, but those of the other side, "
            f"{sizes[shrunk.index(max(shrunk))]}, are not: use a smaller --size"
        )
    aspects = [originals.width / originals.height for originals in (one, other)]
    if max(aspects) / min(aspects) > 1.1:
        notes.append(
            f"images of {name} are {aspects[0]:.2g} times as wide as they are high and those of {real_name} "
            f"{aspects[1]:.2g} times: different parts of them are cropped away"
        )
    if one.colour != other.colour:
        grey, coloured = (real_name, name) if one.colour else (name, real_name)
        notes.append(f"{grey} is grey and {coloured} is in colour: the scores measure this difference too")
    return notes


def allocate(n: int, counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """`n` divided in proportion to `counts` [K] into integers, by the largest remainders."""
    exact = n * counts / counts.sum()
    out = np.floor(exact).astype(np.int64)
    out[np.argsort(out - exact, kind="stable")[: n - out.sum()]] += 1
    return out  # type: ignore[no-any-return]


def find_run(model: Path) -> Path | None:
    """The run folder that `model` is or belongs to, as it was written if it was."""
    whole = model.resolve()
    for folder in (model, *list(model.parents)[:2], whole.parent, whole.parent.parent):
        if (folder / "checkpoints").is_dir() and (folder / "config.json").is_file():
            return folder
    return None


def open_training_data(
    model: Path,
    generator: TrainedGenerator,
    data: str | Path | Dataset | None,
    notes: list[str],
    on_progress: OnProgress,
) -> Dataset:
    """The data set that a generator was trained on, in the generator's shape and with the split of its run.

    Raises UserError if the data set is not known or not found, or has other classes than the generator.
    """
    run, spec, options = find_run(model), generator.spec, generator.config.data
    if run is not None and options.labels is not None:  # of which a generator records only the name
        options = replace(options, labels=config_of(load_run_record(run)).data.labels)
    usage = f"name the images, as in `ptarmigan score {model} photos/`"
    if data is None:
        if run is None:
            reason = f"{model} does not record where its training images are"
            if (model / "checkpoints").is_dir():
                reason = f"{model / 'config.json'} is missing, which records where the training images are"
            raise UserError(f"{reason}: {usage}", "data-missing")
        data = recorded_data(run, load_run_record(run)["data"]["source"])
        if data is not None and not may_hold_data(data):
            raise UserError(f"{run} was trained on {data}, which does not exist: {usage}", "data-missing")
    dataset = open_dataset(data, options, on_progress)
    if (dataset.spec.height, dataset.spec.width, dataset.spec.channels) != (spec.height, spec.width, spec.channels):
        shape = replace(options, size=spec.size, channels=spec.channels)  # type: ignore[arg-type]
        dataset = open_dataset(data, shape, on_progress)
    if dataset.spec.class_names != spec.class_names:
        found, expected = (shorten(list(names), 8) for names in (dataset.spec.class_names, spec.class_names))
        text = f"{data or 'the embedded data set'} has the classes {found}, but the generator has {expected}"
        raise UserError(f"{text}: name the images that it was trained on", "data-mismatch")
    if run is not None:
        return replace(dataset, part=stored_split(run, dataset, notes))
    if generator.fingerprint != dataset.fingerprint:
        notes.append("these are not the images that the generator was trained on: it may have seen the held-out images")
    return dataset


def stored_split(run: Path, dataset: Dataset, notes: list[str]) -> NDArray[np.uint8]:
    """The part of each image: as in the split of the run, looked up by hash, or else as in the data set."""
    try:
        split, _ = load_tensors(run / "split.safetensors")
        check_arrays(run / "split.safetensors", split, {"hashes": torch.uint64, "part": torch.uint8})
    except Damaged as error:
        text = f"{error}; run `ptarmigan train` with the run's options again to rewrite it"
        raise UserError(text, "file-damaged") from None
    part_of = dict(zip(split["hashes"].numpy().tolist(), split["part"].numpy().tolist(), strict=True))
    parts = [part_of.get(image) for image in dataset.hashes.tolist()]
    if new := parts.count(None):
        notes.append(f"{new:,} of {len(parts):,} images were not in the data set when the run started")
    own = dataset.part.tolist()
    return np.array([here if part is None else part for part, here in zip(parts, own, strict=True)], np.uint8)

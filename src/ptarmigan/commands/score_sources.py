"""Where the generated images of a score come from: a generator, set by set of seeds, or a folder that exists."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ptarmigan.core import seeding
from ptarmigan.core.files import Damaged, load_json, load_tensors
from ptarmigan.core.types import UserError
from ptarmigan.data import Dataset, open_dataset
from ptarmigan.data.pack import Progress
from ptarmigan.generator import generator as sampling
from ptarmigan.generator.generator import Generator

OF_A_CLASS = 50  # images of each class that a generator makes in a set, at least


class Supply(Protocol):
    """Independent sets of images."""

    sets: int

    def most(self) -> int | None:
        """Images a set at most; None: as many as one likes."""

    def plan(self, n: int, held_out: NDArray[np.int64], classes: int) -> None:
        """Settle on `n` images a set, in the class shares of the labels of the held-out images where that can be."""

    def labels(self, turn: int) -> NDArray[np.int64] | None:
        """[M] of the M >= n images of a set, or None where nobody knows them."""

    def counted(self, turn: int) -> NDArray[np.bool_]:
        """[M] which n of them stand for all classes; the others are there for the figures of their class alone."""

    def images(self, turn: int, places: NDArray[np.int64]) -> NDArray[np.uint8]:
        """uint8 [len(places), H, W, C] at places of a set."""


class Drawn:
    """Set `turn` is what the generator makes of seed `turn`."""

    def __init__(self, generator: Generator, sets: int) -> None:
        self.generator, self.sets = generator, sets
        self.conditional = generator.config.model.conditioning != "none"

    def most(self) -> int | None:
        return None

    def plan(self, n: int, held_out: NDArray[np.int64], classes: int) -> None:
        shares = in_shares(n, np.bincount(held_out, minlength=classes)) if self.conditional else np.array([n])
        made = np.maximum(shares, OF_A_CLASS) if self.conditional else shares
        self._labels = np.repeat(np.arange(len(made)), made)
        self._indices = np.concatenate([np.arange(count) for count in made])
        self._counted = self._indices < shares[self._labels]

    def labels(self, turn: int) -> NDArray[np.int64] | None:
        return self._labels if self.conditional else None

    def counted(self, turn: int) -> NDArray[np.bool_]:
        return self._counted

    def images(self, turn: int, places: NDArray[np.int64]) -> NDArray[np.uint8]:
        network, model = self.generator.network, self.generator.config.model
        return sampling.generate(network, model, self._labels[places], self._indices[places], seed=turn)


class Given:
    """Images that exist, cut into sets in an addressed order; their classes are told by the names of their folders."""

    def __init__(self, dataset: Dataset, class_names: tuple[str, ...], sets: int) -> None:
        self.dataset, self.sets = dataset, sets
        names = dataset.spec.class_names
        known = len(names) > 1 and set(names) <= set(class_names)
        self.to_label = np.array([class_names.index(name) for name in names]) if known else None

    def most(self) -> int | None:
        return len(self.dataset.labels) // self.sets

    def plan(self, n: int, held_out: NDArray[np.int64], classes: int) -> None:
        self.n = n

    def places(self, turn: int) -> NDArray[np.int64]:
        positions = np.arange(turn * self.n, (turn + 1) * self.n)
        return seeding.permute(0, "given", 0, positions, len(self.dataset.labels))

    def labels(self, turn: int) -> NDArray[np.int64] | None:
        if self.to_label is None:
            return None
        labels: NDArray[np.int64] = self.to_label[self.dataset.labels[self.places(turn)]]
        return labels

    def counted(self, turn: int) -> NDArray[np.bool_]:
        return np.ones(self.n, bool)

    def images(self, turn: int, places: NDArray[np.int64]) -> NDArray[np.uint8]:
        images: NDArray[np.uint8] = self.dataset.images[self.places(turn)[places]]
        return images


def in_shares(n: int, counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """`n` shared out like `counts` [K]: whole numbers, each nearest to its share by the largest remainders."""
    exact = n * counts / counts.sum()
    out = np.floor(exact).astype(np.int64)
    out[np.argsort(out - exact, kind="stable")[: n - out.sum()]] += 1
    return out  # type: ignore[no-any-return]


def run_of(model: Path) -> Path | None:
    """The run that a model is or lies in."""
    model = model.resolve()
    for folder in (model, model.parent, model.parent.parent):
        if (folder / "checkpoints").is_dir() and (folder / "config.json").is_file():
            return folder
    return None


def trained_on(
    model: Path, generator: Generator, data: str | Path | None, notes: list[str], progress: Progress
) -> Dataset:
    """The data set of a generator, in the shape that it has, split as its run has it.

    Raises UserError where nobody says what it is, or its classes are others.
    """
    run, spec = run_of(model), generator.spec
    if data is None:
        if run is None:
            raise UserError(f"{model} does not know its images: name them, as in `ptarmigan score {model} photos/`")
        source = load_json(run / "config.json")["data"]["source"]
        data = None if source == "embedded" else source
        if data is not None and not Path(data).exists():
            raise UserError(
                f"{run} was trained on {data}, which is not there from here: name the images, as in "
                f"`ptarmigan score {model} photos/`"
            )
    dataset = open_dataset(data, generator.config.data, progress)
    if (dataset.spec.height, dataset.spec.width, dataset.spec.channels) != (spec.height, spec.width, spec.channels):
        shape = replace(generator.config.data, size=f"{spec.height}x{spec.width}", channels=spec.channels)  # type: ignore[arg-type]
        dataset = open_dataset(data, shape, progress)
    if dataset.spec.class_names != spec.class_names:
        raise UserError(
            f"{data or 'the embedded set'} has the classes {', '.join(dataset.spec.class_names[:8])} and the generator "
            f"{', '.join(spec.class_names[:8])}: name the images that it was trained on"
        )
    if run is not None:
        return replace(dataset, part=stored_split(run, dataset, notes))
    if generator.fingerprint != dataset.fingerprint:
        notes.append("these are not the images it was trained on: it may have seen those that are held out here")
    return dataset


def stored_split(run: Path, dataset: Dataset, notes: list[str]) -> NDArray[np.uint8]:
    """The part of each image, found by its hash, that the run has on disk; of an image that it has not seen its own."""
    try:
        split, _ = load_tensors(run / "split.safetensors")
    except Damaged as error:
        raise UserError(f"{error}; `ptarmigan train` with the run's own flags writes it anew") from None
    part_of = dict(zip(split["hashes"].numpy().tolist(), split["part"].numpy().tolist(), strict=True))
    parts = [part_of.get(image) for image in dataset.hashes.tolist()]
    if new := parts.count(None):
        notes.append(f"{new:,} of {len(parts):,} images were not there when it was trained")
    own = dataset.part.tolist()
    return np.array([here if part is None else part for part, here in zip(parts, own, strict=True)], np.uint8)

"""The training images that are nearest to a generated image, by features."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ptarmigan.commands.sample import Drawing
from ptarmigan.commands.score_plan import shuffled
from ptarmigan.commands.score_sources import open_training_data
from ptarmigan.core.types import UserError, class_name
from ptarmigan.data import TRAIN, Dataset
from ptarmigan.evaluation.features import Extractor, load_extractor
from ptarmigan.evaluation.features.cache import adding_up, cached_features
from ptarmigan.generator.generator import load, png_text
from ptarmigan.web.samples import Wanted, label_of

NEAREST = 8
MOST = 20_000  # training images that are looked at


class Nearest:
    """Answers for one run at a time; its training images are prepared in a thread, which may take minutes."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.prepared: Prepared | None = None

    def of(self, run: Path, name: str | None, seed: int, image: int) -> dict[str, Any]:
        """The image and the training images nearest to it, or `waiting`: how far the preparation is.

        Raises UserError for a class that the generator does not have, and where the training images are not found.
        """
        if self.prepared is None or self.prepared.run != run:
            self.end()
            self.prepared = Prepared(run, self.device)
        prepared = self.prepared
        if prepared.thread.is_alive():
            return {"waiting": prepared.progress}
        if prepared.error is not None:
            self.prepared = None  # so that the next request tries again
            raise prepared.error
        generator = load(run, self.device)  # again, because a run that trains writes another one
        wanted = Wanted(Drawing([label_of(generator, name)], 1, seed, image), alone=True)
        return prepared.nearest_to(wanted.draw(generator))

    def end(self) -> None:
        """End the preparation, if it goes on."""
        if self.prepared is not None:
            self.prepared.ended = True


class Prepared:
    """A run's training images and their features, once `thread` has ended without `error`."""

    dataset: Dataset
    extractor: Extractor
    indices: NDArray[np.int64]  # [N] of the training images that are looked at
    features: Tensor  # [N, F]

    def __init__(self, run: Path, device: str) -> None:
        self.run, self.device = run, device
        self.progress = "loading the generator"
        self.ended = False  # whether the thread is to end
        self.error: Exception | None = None
        self.thread = threading.Thread(target=self._prepare)
        self.thread.start()

    def _prepare(self) -> None:
        try:
            self.dataset = open_training_data(self.run, load(self.run), None, [], self._show)
            self.extractor = load_extractor(device=self.device)
            self.extractor.network.register_forward_pre_hook(lambda *_: self._go_on())
            self.indices = shuffled(self.dataset.indices(TRAIN))[:MOST]
            advance = adding_up(self._show, "features of training images", len(self.indices))
            self.features = cached_features(self.extractor, self.dataset, self.indices, advance)
        except Exception as error:
            self.error = error

    def _go_on(self) -> None:
        if self.ended:
            raise UserError("the server ends, or another run was asked for", "interrupted")

    def _show(self, what: str, done: int, total: int | None) -> None:
        self._go_on()
        self.progress = f"{what}: {done:,}" + (f" of {total:,}" if total else "")

    def nearest_to(self, images: NDArray[np.uint8]) -> dict[str, Any]:
        """Of one image [1, H, W, C]: its PNG, and those of the nearest training images with class and distance."""
        if not len(self.indices):
            raise UserError("the run has no training images", "data-missing")
        distances = (self.features - self.extractor(images)).norm(dim=1)  # of a copy it is 0, which cdist rounds
        order = distances.argsort()[:NEAREST].tolist()
        names = self.dataset.spec.class_names
        return {
            "image": png_text(images[0]),
            "of": len(self.indices),
            "training": len(self.dataset.indices(TRAIN)),
            "nearest": [
                {
                    "png": png_text(self.dataset.images[self.indices[place]]),
                    "class": class_name(names[self.dataset.labels[self.indices[place]]]),
                    "distance": round(float(distances[place]), 3),
                }
                for place in order
            ],
        }

"""Write a snapshot: the generator folder, a grid of samples, the live score, the best generator and the checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ptarmigan.core import dist, seeding
from ptarmigan.core.files import Damaged, load_header, make_folder
from ptarmigan.core.log import Metrics
from ptarmigan.core.types import UserError
from ptarmigan.data import SELECT, Dataset
from ptarmigan.evaluation import features, metrics
from ptarmigan.evaluation.features import Extractor
from ptarmigan.evaluation.features.cache import cached_features
from ptarmigan.game.state import TrainState
from ptarmigan.generator.export import export_generator
from ptarmigan.generator.generator import TrainedGenerator, generate_images, grid_classes, save_grid
from ptarmigan.generator.header import header_of
from ptarmigan.networks.layers import recalibrate_batch_norm
from ptarmigan.training import checkpoint

GRID_COLUMNS = 10
STATISTICS_IMAGES = 2048  # generated images from which batch norm's statistics are computed
MIN_SELECT = 50  # images of the select part; with fewer there is no live score
MAX_SELECT = 1000  # images of the select part that are used
LAST = "the last"  # how a generator of the run was selected
RULE = "least KID to the select part, of all snapshots"


@dataclass(frozen=True)
class LiveScore:
    """A cheap score of each snapshot: the KID between images generated from a fixed seed and the select part."""

    extractor: Extractor
    select: Tensor  # features [N, F] of images of the select part
    labels: NDArray[np.int64]  # of the generated images: the labels of those images, repeated as needed

    @classmethod
    def open(cls, dataset: Dataset, images: int, device: torch.device) -> LiveScore | None:
        """None where `images` is 0, or the select part is too small."""
        members = dataset.indices(SELECT)
        if not images or len(members) < MIN_SELECT:
            return None
        order = seeding.permute(0, "live", 0, np.arange(len(members)), len(members))
        used = members[order][:MAX_SELECT]
        extractor = features.load_extractor(device=device)
        return cls(extractor, cached_features(extractor, dataset, used), dataset.labels[np.resize(used, images)])

    def kid(self, state: TrainState) -> float:
        """KID of the moving average of G, whose batch norm statistics must be up to date."""
        indices = np.arange(len(self.labels))
        images = generate_images(state.ema, state.config.model, self.labels, indices, seed=0)
        return metrics.kid(self.select, self.extractor(images))


def save_snapshot(
    run: Path,
    state: TrainState,
    record: dict[str, Any],
    dataset: Dataset,
    live: LiveScore | None,
    log: Metrics,
    milestone: bool,
) -> dict[str, float]:
    """Write the generator folder, at a milestone also a grid and the live score, and last the checkpoint.

    The generator with the lowest live score so far is also written to RUN/best.  Returns the live score, if there is
    one.  Because the checkpoint comes last, a run killed during a snapshot repeats the steps before it and writes the
    same bytes; snapshots may move to other steps only before a time budget's end is fixed.

    Raises UserError if the ranks do not hold the same weights.
    """
    if dist.world() > 1 and (others := dist.differing(state.digest())):
        raise UserError(
            f"the weights of ranks {others} differ from rank 0's at {state.images_seen:,} images, so nothing is saved: "
            "the machines compute differently, or one has faulty memory",
            "ranks-differ",
        )
    if dist.rank() > 0:
        return {}
    sha256 = write_generator(run, state, dataset)
    scores: dict[str, float] = {}
    if milestone:
        save_samples(run, state, dataset, sha256)
        if live is not None:
            scores["select_kid"] = kid = live.kid(state)
            log.write(state.images_seen, **scores)
            if state.progress.best_kid is None or kid < state.progress.best_kid:
                state.progress.best_kid, state.progress.best_images = kid, state.images_seen
                export_average(run / "best", state, dataset, RULE)
    checkpoint.save(run, state, record, milestone)
    return scores


def save_samples(run: Path, state: TrainState, dataset: Dataset, sha256: str) -> None:
    """A grid of images with fixed latents, a row for each class or for 32 of them, as RUN/samples/IMAGES.png."""
    config = state.config
    generator = TrainedGenerator(
        state.ema, config, state.spec, state.images_seen, dataset.fingerprint, LAST, {}, sha256
    )
    conditional = config.model.conditioning != "none"
    n, seed = GRID_COLUMNS if conditional else GRID_COLUMNS**2, config.train.seed
    classes = np.array(grid_classes(state.spec.classes) if conditional else [0])
    labels = np.repeat(classes, n)
    images = generate_images(state.ema, config.model, labels, np.tile(np.arange(n), len(classes)), seed)
    path = run / "samples" / f"{state.images_seen:09d}.png"
    make_folder(path.parent)
    save_grid(generator, images, labels, path, seed)


def write_generator(run: Path, state: TrainState, dataset: Dataset) -> str:
    """Write the moving average of G, with batch norm statistics of its own, to RUN/generator; returns its SHA-256."""
    train, model = state.config.train, state.config.model
    indices = np.arange(STATISTICS_IMAGES)
    z = seeding.latents(train.seed, "settle", indices, model.latent_dim, model.latent).to(state.device)
    members = dataset.indices()
    order = seeding.permute(train.seed, "settle", 0, indices % len(members), len(members))
    labels = torch.from_numpy(dataset.labels[members[order]]).to(state.device)
    recalibrate_batch_norm(state.ema, zip(torch.split(z, 256), torch.split(labels, 256), strict=True))
    return export_average(run / "generator", state, dataset, LAST)


def export_average(folder: Path, state: TrainState, dataset: Dataset, selection: str) -> str:
    return export_generator(
        folder, state.ema, state.config, state.spec, state.images_seen, dataset.fingerprint, selection,
        state.loss_file.sha256 if state.loss_file else None,
    )  # fmt: skip


def has_generator(run: Path) -> bool:
    try:
        path = run / "generator" / "model.safetensors"
        header_of(path, load_header(path).meta)
    except Damaged:
        return False
    return True

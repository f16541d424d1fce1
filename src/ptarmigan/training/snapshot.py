"""What a run writes at a snapshot: the generator folder, a grid, the live score that picks the best, the checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ptarmigan.core import dist, seeding
from ptarmigan.core.files import Damaged, load_tensors, make_folder
from ptarmigan.core.log import Metrics
from ptarmigan.core.types import UserError
from ptarmigan.data import SELECT, Dataset
from ptarmigan.evaluation import features, metrics
from ptarmigan.evaluation.features import Extractor
from ptarmigan.evaluation.features.cache import cached_features
from ptarmigan.game.state import TrainState
from ptarmigan.generator.export import export_generator
from ptarmigan.generator.generator import TrainedGenerator, generate, save_grid
from ptarmigan.networks.layers import recalibrate_batch_norm
from ptarmigan.training import checkpoint

GRID_COLUMNS = 10
SETTLING = 2048  # generated images from which batch statistics are taken
FEWEST = 50  # images of the select part below which nothing is chosen by it
SELECTED = 1000  # images of it that are looked at
RULE = "least KID to the select part, of all snapshots"


@dataclass(frozen=True)
class Live:
    """A cheap score of each snapshot: KID of images of a fixed seed against the select part."""

    seer: Extractor
    select: Tensor  # [N, F]
    labels: NDArray[np.int64]  # of the generated images: those of some of the select part

    @classmethod
    def open(cls, dataset: Dataset, images: int, device: torch.device) -> Live | None:
        """None where it is not asked for, or the select part is too small."""
        members = dataset.indices(SELECT)
        if not images or len(members) < FEWEST:
            return None
        some = members[seeding.permute(0, "live", 0, np.arange(len(members)), len(members))][:SELECTED]
        seer = features.load_extractor(device=device)
        return cls(seer, cached_features(seer, dataset, some), dataset.labels[np.resize(some, images)])

    def kid(self, state: TrainState) -> float:
        """Of the moving average, whose batch statistics are settled."""
        indices = np.arange(len(self.labels))
        return metrics.kid(
            self.select, self.seer(generate(state.ema, state.config.model, self.labels, indices, seed=0))
        )


def save(
    run: Path,
    state: TrainState,
    record: dict[str, Any],
    dataset: Dataset,
    live: Live | None,
    log: Metrics,
    milestone: bool,
) -> dict[str, float]:
    """The generator folder; at a milestone a grid of fixed seeds with rows = classes, the live score and, where it is
    the least so far, the generator in RUN/best too; and last the checkpoint.  Returns the live score, if there is one.

    In this order a run killed in between does those steps again and writes the same bytes; before a time budget's end
    is fixed, which `runs.plan` does, perhaps at other steps.  Raises UserError where the ranks do not hold the same
    weights.
    """
    if dist.world() > 1 and (others := dist.differing(state.digest())):
        raise UserError(
            f"the weights of ranks {others} are not those of rank 0 at {state.images_seen:,} images: nothing is saved; "
            "the machines compute differently, or one has bad memory"
        )
    scores: dict[str, float] = {}
    if dist.rank() > 0:
        return scores
    sha256 = export(run, state, dataset)
    if milestone:
        sampler = TrainedGenerator(
            state.ema, state.config, state.spec, state.images_seen, dataset.fingerprint, "the last", {}, sha256
        )
        seed = state.config.train.seed
        conditional = state.config.model.conditioning != "none"
        images, labels = sampler.sample(n=GRID_COLUMNS if conditional else GRID_COLUMNS**2, seed=seed)
        path = run / "samples" / f"{state.images_seen:09d}.png"
        make_folder(path.parent)
        save_grid(sampler, images, labels, path, seed)
        if live is not None:
            scores["select_kid"] = kid = live.kid(state)
            log.write(state.images_seen, **scores)
            if kid < state.controllers.get("best", [kid + 1])[0]:
                state.controllers["best"] = [kid, state.images_seen]
                put(run / "best", state, dataset, RULE)
    checkpoint.save(run, state, record, milestone)
    return scores


def export(run: Path, state: TrainState, dataset: Dataset) -> str:
    """The generator folder, of the average with batch statistics of its own; returns its SHA-256."""
    train, model = state.config.train, state.config.model
    z = seeding.latents(train.seed, "settle", np.arange(SETTLING), model.latent_dim, model.latent).to(state.device)
    members = dataset.indices()
    order = seeding.permute(train.seed, "settle", 0, np.arange(SETTLING) % len(members), len(members))
    labels = torch.from_numpy(dataset.labels[members[order]]).to(state.device)
    recalibrate_batch_norm(state.ema, zip(torch.split(z, 256), torch.split(labels, 256), strict=True))
    return put(run / "generator", state, dataset, "the last")


def put(folder: Path, state: TrainState, dataset: Dataset, selection: str) -> str:
    return export_generator(
        folder, state.ema, state.config, state.spec, state.images_seen, dataset.fingerprint, selection,
        state.loss_file.sha256 if state.loss_file else None,
    )  # fmt: skip


def has_generator(run: Path) -> bool:
    try:
        load_tensors(run / "generator" / "model.safetensors")
    except Damaged:
        return False
    return True

"""Save a snapshot: the live score, the findings and the checkpoint, and then what is made from it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ptarmigan.config import Config
from ptarmigan.core import dist, seeding
from ptarmigan.core.log import Metrics, read_rows
from ptarmigan.core.types import UserError
from ptarmigan.data import SELECT, Dataset
from ptarmigan.data.batches import on_white_for_d, to_float
from ptarmigan.data.split import MIN_SELECT
from ptarmigan.diagnosis.columns import Log
from ptarmigan.diagnosis.findings import Finding, findings, verdict
from ptarmigan.diagnosis.samples import Reference, d_gap, small_images
from ptarmigan.evaluation import features, metrics
from ptarmigan.evaluation.features import Extractor
from ptarmigan.evaluation.features.cache import cached_features
from ptarmigan.evaluation.metrics import JackknifedKid
from ptarmigan.game.progress import Progress
from ptarmigan.game.state import TrainState
from ptarmigan.generator.generator import at_once, generate_images
from ptarmigan.networks.layers import forget_batch_norm, recalibrate_batch_norm
from ptarmigan.training import checkpoint
from ptarmigan.training.budget import finished
from ptarmigan.training.outputs import BEST, Failures, describe_failures, noted, write_outputs
from ptarmigan.training.setup import Job

Part = TypeVar("Part")
STATISTICS_IMAGES = 512  # generated images from which batch norm's statistics are computed
MAX_SELECT = 1000  # images of the select part that are used
NOISE = 3.0  # standard errors of the difference: the least of many noisy scores is itself below its expectation

GoOn = Callable[[], None]  # raises Interrupted where a signal asks for the end of the run
Judged = tuple[NDArray[np.uint8], NDArray[np.int64]]  # images [N, H, W, C] and their labels [N], for D


@dataclass(frozen=True)
class LiveScore:
    """A cheap score of each snapshot: the KID between images generated from a fixed seed and the select part.

    Its noise is that of both sets of images.  It says nothing about what another extractor would see.
    """

    extractor: Extractor
    real: Reference  # images of the select part
    labels: NDArray[np.int64]  # of the generated images: the labels of those images, repeated as needed
    train: Judged  # as many images of the train part
    select: Judged  # the images of the select part

    @classmethod
    def open(cls, dataset: Dataset, config: Config, device: torch.device) -> LiveScore | None:
        """None where `live_images` is 0, or the select part is too small."""
        images = config.train.live_images
        members = dataset.indices(SELECT)
        if not images or len(members) < MIN_SELECT:
            return None
        order = seeding.permute(0, "live", 0, np.arange(len(members)), len(members))
        used = members[order][:MAX_SELECT]
        extractor = features.load_extractor(device=device)
        in_train = dataset.indices()
        order = seeding.permute(0, "live train", 0, np.arange(len(in_train)), len(in_train))
        trained = in_train[order][: len(used)]
        conditional = config.model.conditional
        real = Reference(
            dataset.images[used], cached_features(extractor, dataset, used),
            dataset.labels[used] if conditional else np.zeros(len(used), np.int64),
            dataset.spec.classes if conditional else 1, small_images(dataset.images, in_train),
        )  # fmt: skip
        return cls(
            extractor, real, dataset.labels[np.resize(used, images)],
            (dataset.images[trained], dataset.labels[trained]), (real.images, dataset.labels[used]),
        )  # fmt: skip

    def score(self, state: TrainState, go_on: GoOn) -> tuple[JackknifedKid, dict[str, float]]:
        """KID of G's moving average, whose batch norm must be up to date, and the statistics that findings use."""
        model, indices = state.config.model, np.arange(len(self.labels))
        parts = np.array_split(indices, math.ceil(len(indices) / at_once(state.spec.height, state.spec.width)))
        drawn = [
            generate_images(state.ema, model, self.labels[part], part, seed=0) for part in interruptible(parts, go_on)
        ]
        of_images = torch.cat([self.extractor(part) for part in interruptible(drawn, go_on)])
        images = np.concatenate(drawn)
        labels = self.labels if self.real.classes > 1 else np.zeros_like(self.labels)
        statistics = self.real.statistics(images, of_images, labels)
        gap = d_gap(*(d_logits(state, *of) for of in (self.train, self.select, (images, self.labels))))
        if gap is not None:
            statistics["d_gap"] = gap
        return metrics.kid_with_noise(self.real.features, of_images), statistics


@torch.no_grad()
def d_logits(state: TrainState, images: NDArray[np.uint8], labels: NDArray[np.int64]) -> Tensor:
    """D's logits [N] on the CPU for images uint8 [N, H, W, C], on white, without augmentation and dropout."""
    size = at_once(*images.shape[1:3])
    parts = zip(*(torch.split(torch.from_numpy(of), size) for of in (images, labels)), strict=True)
    with state.autocast():
        return torch.cat(
            [
                state.D(on_white_for_d(to_float(x)).to(state.device), y.to(state.device)).logits.float().cpu()
                for x, y in parts
            ]
        )


def save_snapshot(
    job: Job,
    state: TrainState,
    record: dict[str, Any],
    live: LiveScore | None,
    log: Metrics,
    milestone: bool,
    go_on: GoOn,
) -> tuple[dict[str, float], list[Finding]]:
    """Save the checkpoint, at a milestone with the live score in it, and then write what is made from it.

    Returns the live score, if there is one, and at a milestone the findings.  What cannot be written is noted, and the
    next snapshot tries again; only the last checkpoint before training ends or stops must succeed.  A run killed before
    the checkpoint repeats the steps before it; one killed after it writes the outputs when it resumes.

    Raises UserError if the ranks do not hold the same weights, or the last checkpoint cannot be written; Interrupted
    where `go_on` does, before anything is written.
    """
    check_ranks_agree(state)
    if dist.rank() > 0:
        return {}, []
    run, display = job.run, job.display
    with display.doing("computing the statistics of batch norm"):
        settle_batch_norm(state, job.dataset, go_on)
    before = replace(state.progress)
    scores, found = judge(job, state, live, log, go_on) if milestone else ({}, [])
    failed: Failures = {}
    unsaved: UserError | None = None
    try:
        with display.doing("saving the checkpoint"):
            checkpoint.save(run, state, record)
    except UserError as error:
        failed["the checkpoint"] = unsaved = error
    failed |= write_outputs(run, state, job.dataset, display)
    if BEST in failed:
        state.progress.take_best(before)  # so that a later generator may become the best
    if unsaved is not None and (finished(state) or not milestone):
        raise lost(unsaved, run, state)
    if failed:
        last = "" if finished(state) else "; training goes on, and the next snapshot tries again"
        display.say(f"note: {describe_failures(failed)}{last}")
    return scores, found


def save_at_once(job: Job, state: TrainState, record: dict[str, Any]) -> None:
    """Save a checkpoint without the statistics of batch norm, which take long: training does not need them.

    Raises UserError as `save_snapshot` does.
    """
    check_ranks_agree(state)
    if dist.rank() > 0:
        return
    forget_batch_norm(state.ema)
    try:
        with job.display.doing("saving the checkpoint"):
            checkpoint.save(job.run, state, record)
    except UserError as error:
        raise lost(error, job.run, state) from error


def lost(unsaved: UserError, run: Path, state: TrainState) -> UserError:
    text = f"{unsaved}; what was trained since the last checkpoint, up to {state.images_seen:,} images, is lost"
    error = UserError(text, unsaved.code)
    error.run = run
    return error


def check_ranks_agree(state: TrainState) -> None:
    """Raise UserError if a rank's weights differ from rank 0's."""
    if dist.world() > 1 and (others := dist.differing(state.digest())):
        raise UserError(
            f"the weights of ranks {others} differ from rank 0's at {state.images_seen:,} images, so nothing is saved: "
            "the machines compute differently, or one has faulty memory",
            "ranks-differ",
        )


def judge(
    job: Job, state: TrainState, live: LiveScore | None, log: Metrics, go_on: GoOn
) -> tuple[dict[str, float], list[Finding]]:
    """Score the generator and diagnose the run up to here, log both, and print the verdict."""
    row, scores, found = dict[str, Any](), dict[str, float](), list[Finding]()
    progress, display = state.progress, job.display
    progress.shown_at = state.images_seen
    if live is not None:
        with noted("the live score", display), display.doing(f"scoring {len(live.labels):,} images"):
            score, statistics = live.score(state, go_on)
            scores["select_kid"] = score.kid
            row = {"select_kid": score.kid, "select_kid_error": score.error, **statistics}
            choose_best(progress, state.images_seen, score)
    with noted("the diagnosis", display):
        judged = log_so_far(job.run, state, row, len(job.dataset.indices()))
        found = findings(judged)
        row["findings"] = [finding.name for finding in found]
        more = f"; for what to do: ptarmigan diagnose {job.run}" if found else ""
        display.say(f"verdict at {state.images_seen:,} images: {verdict(judged, found)}{more}")
    log.write(state.images_seen, **row)
    return scores, found


def log_so_far(run: Path, state: TrainState, row: dict[str, Any], train_images: int) -> Log:
    """The log of a run whose newest row is not written yet."""
    rows = read_rows(run / "metrics.jsonl")
    rows[state.images_seen] = rows.get(state.images_seen, {}) | row
    return Log.of_run(rows, state.config.flat(), str(run), train_images)


def choose_best(progress: Progress, images_seen: int, score: JackknifedKid) -> None:
    """Record a snapshot's score, and make its generator the best unless the least score so far is better beyond noise.

    So an early snapshot that was lucky does not stay the best, and a run that gets worse keeps its good generator.  A
    run of an older version has recorded the least score without its noise.
    """
    progress.scored_at = images_seen
    if progress.best_kid is not None and not progress.least_left_out:
        progress.least_kid, progress.least_left_out = progress.best_kid, [progress.best_kid] * len(score.left_out)
    least = JackknifedKid(progress.least_kid, progress.least_left_out) if progress.least_left_out else score
    above, error = score.above(least)
    if above <= NOISE * error:
        progress.best_kid, progress.best_error, progress.best_images = score.kid, score.error, images_seen
    if score.kid <= least.kid:
        progress.least_kid, progress.least_left_out = score


def settle_batch_norm(state: TrainState, dataset: Dataset, go_on: GoOn) -> None:
    """Compute the statistics of batch norm in the moving average of G, from images that it generates.

    They are pairs of z and -z of one class, in the classes' shares of the training images.  So they vary less than four
    times as many images drawn independently.
    """
    train, model = state.config.train, state.config.model
    pairs = np.arange(STATISTICS_IMAGES // 2)
    z = seeding.latents(train.seed, "settle", pairs, model.latent_dim, model.latent)
    trained = np.sort(dataset.labels[dataset.indices()])
    drawn = np.unique(trained) if state.config.data.balance else trained
    order = seeding.permute(train.seed, "settle", 0, pairs, len(pairs))
    of_pairs = drawn[(2 * order + 1) * len(drawn) // (2 * len(pairs))]
    z = torch.stack([z, -z], 1).flatten(0, 1).to(state.device)
    labels = torch.from_numpy(of_pairs.repeat(2)).to(state.device)
    size = at_once(state.spec.height, state.spec.width)
    batches = zip(torch.split(z, size), torch.split(labels, size), strict=True)
    recalibrate_batch_norm(state.ema, interruptible(batches, go_on))


def interruptible(parts: Iterable[Part], go_on: GoOn) -> Iterator[Part]:
    """The parts of a long computation; `go_on` is called before each."""
    for part in parts:
        go_on()
        yield part

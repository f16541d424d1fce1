"""How a run starts or resumes: what `auto` chooses, the speed of a step, the record, the state and the schedule."""

from __future__ import annotations

from dataclasses import asdict, replace
from functools import partial
from typing import Any

import torch

from ptarmigan.config import flatten
from ptarmigan.config.values import parse_images, parse_time
from ptarmigan.core import dist
from ptarmigan.core.log import damaged_lines
from ptarmigan.core.types import UserError
from ptarmigan.data.batches import Batches
from ptarmigan.game.batch import train_batch
from ptarmigan.game.cuda_graph import make_step
from ptarmigan.game.progress import Progress
from ptarmigan.game.state import TrainState
from ptarmigan.training import checkpoint
from ptarmigan.training.auto import Choice, Setting, choose, with_fields
from ptarmigan.training.budget import (
    SNAPSHOT_SHARE,
    TICK_SECONDS,
    Schedule,
    SnapshotCost,
    finished,
    owes_snapshot,
    plan_end,
    steps_per_tick,
)
from ptarmigan.training.messages import describe, describe_snapshots
from ptarmigan.training.probe import Probed, probe, snapshot_cost
from ptarmigan.training.run_folder import open_run, record_of, recorded_auto, write_record
from ptarmigan.training.setup import Job, train_batches
from ptarmigan.training.snapshot import LiveScore
from ptarmigan.training.source_model import BASE
from ptarmigan.training.warm_start import describe_warm_start


def apply_auto(job: Job) -> tuple[Job, Choice | None]:
    """Set the fields that recipe `auto` chooses: for a new run now, for a resumed one as recorded when it started."""
    if job.config.recipe != "auto":
        return job, None
    recorded = dist.on_first(lambda: recorded_auto(job.run))
    if recorded is not None:
        fields = {key: value for key, value in recorded.items() if key not in job.given}
        return replace(job, config=with_fields(job.config, fields)), None
    dataset = job.dataset
    labels = torch.from_numpy(dataset.labels[dataset.indices()])
    counts = torch.bincount(labels, minlength=dataset.spec.classes).tolist()
    setting = Setting(dataset.spec, counts, job.device.type, images_in_budget(job), is_base(job))
    given = {*flatten(job.asked)}
    choice = choose(job.config, given, setting, job.given - given)
    return replace(job, config=choice.config), choice


def is_base(job: Job) -> bool:
    """Whether the run starts from the base model."""
    return job.init is not None and job.init["model"] == str(BASE)


def images_in_budget(job: Job) -> float:
    """An estimate of the images that the budget will see; a time budget is converted at the speed of the probe."""
    train = job.config.train
    images = parse_images(train.images)
    if images is not None:
        return images
    activity = "measuring the speed of a step"
    with job.display.doing(activity, at_once=True), train_batches(job.config, job.dataset, job.device) as batches:
        seconds = probe_job(job, batches).seconds
    left = (1 - SNAPSHOT_SHARE) * (parse_time(train.time) or 0.0) - clock_of(job)
    return max(train.batch, left / seconds * train.batch)


def probe_job(job: Job, batches: Batches) -> Probed:
    batches.load(0)  # the first batch of a stream waits for a whole window
    return probe(
        job.config, job.dataset.spec, job.device, lambda state: partial(train_batch, state, batches, make_step(state)),
        job.loss_file,
    )  # fmt: skip


def start_run(job: Job, batches: Batches, choice: Choice | None) -> tuple[TrainState, dict[str, Any], float]:
    """Create or restore the state of a run, write its record, and print how it starts.

    Returns the state, the record, and an estimate of the seconds that one image takes.
    """
    existing, found = open_existing(job)
    record, seconds = run_record(job, batches, existing)
    state = initial_state(job, record, found)
    job.clock.add(state.progress.clock)  # of the run's earlier calls
    plan_end(state, job.config.train)
    started_warm = job.warm_start is not None and found is None
    warm = describe_warm_start(record["init"]) if started_warm and dist.rank() == 0 else []
    reasons = choice.reasons if choice else []
    record["notes"] = existing.get("notes", []) if existing else [*job.notes, *reasons, *warm]
    dist.on_first(lambda: save_start(job, state, record, started_warm))
    for line in warm[:1] if is_base(job) else warm:
        job.display.say(line)
    describe(job.run, state, choice, seconds, found is not None, job.display.say)
    if seconds is not None:
        return state, record, seconds / job.config.train.batch
    clock, seen = state.progress.clock, state.images_seen
    return state, record, clock / seen if clock and seen else TICK_SECONDS / state.progress.tick


def open_existing(job: Job) -> tuple[dict[str, Any] | None, checkpoint.Checkpoint | None]:
    """An existing run's record, on every rank, and its newest good checkpoint, on rank 0; None for a new run."""
    found: checkpoint.Checkpoint | None = None

    def open_on_first() -> dict[str, Any] | None:
        nonlocal found
        record, found, notes = open_run(job.run, job.config, job.dataset, job.init, job.loss_sha256)
        try:
            if count := damaged_lines(job.run / "metrics.jsonl"):
                notes.append(f"{job.run / 'metrics.jsonl'} is damaged: {count} of its lines are skipped")
        except UserError as error:
            notes.append(str(error))
        for sentence in notes:
            job.display.say(f"note: {sentence}")
        return record

    record = dist.on_first(open_on_first)
    return record, found


def run_record(job: Job, batches: Batches, existing: dict[str, Any] | None) -> tuple[dict[str, Any], float | None]:
    """The run's record for this call of `train`, and the seconds of a step if they were measured.

    A resumed run keeps the precision, micro-batch and tick it has.
    """
    seconds: float | None = None
    if existing is None:
        activity = "measuring the speed of the chosen settings"
        with job.display.doing(activity, at_once=True):
            bf16, micro_batch, seconds = probe_job(job, batches)
        tick = job.config.train.batch * steps_per_tick(job.config, seconds)
    else:
        bf16, micro_batch, tick = existing["precision"] == "bf16", existing["micro_batch"], existing["tick"]
    record = record_of(
        job.config, job.asked, job.dataset, job.source, bf16, micro_batch, tick, job.init, job.loss_sha256
    )
    return record, seconds


def initial_state(job: Job, record: dict[str, Any], found: checkpoint.Checkpoint | None) -> TrainState:
    """Rank 0's state on every rank: that of the checkpoint, or the one before the first step.

    Before the first step of a warm start, weights are copied from the model, and the record lists them.
    """
    config = job.config
    state = TrainState.create(config, job.dataset.spec, job.device, record["precision"] == "bf16", job.loss_file)
    state.micro_batch = config.train.micro_batch or record["micro_batch"]
    state.progress.tick = record["tick"]
    if found is not None:
        checkpoint.restore(state, found)
    elif job.warm_start is not None:
        record["init"] = job.warm_start.copy_into(state)
    if dist.world() > 1:
        state.load(dist.broadcast_tensors(state.tensors()))
        state.images_seen, progress = dist.broadcast([state.images_seen, asdict(state.progress)])
        state.progress = Progress(**progress)
    return state


def open_schedule(job: Job, state: TrainState, live: LiveScore | None, image_seconds: float) -> Schedule:
    """Estimate what snapshots cost, plan them, and say how many there will be."""
    with job.display.doing("measuring what a snapshot takes"):
        cost = dist.on_first(lambda: snapshot_cost(state, live))
    state.progress.clock = clock_of(job)
    start_up = float(dist.broadcast(job.clock.start_up))
    schedule = Schedule(state, SnapshotCost(*cost), image_seconds, "snapshots" in job.given, start_up)
    if dist.rank() == 0:
        for line in describe_snapshots(state, schedule):
            job.display.say(line)
    return schedule


def clock_of(job: Job) -> float:
    """Seconds of the user's time that the run has taken, equal on all ranks."""
    return float(dist.broadcast(job.clock.seconds()))


def save_start(job: Job, state: TrainState, record: dict[str, Any], started_warm: bool) -> None:
    """Write the record, and in a warm start a first checkpoint, which is kept, so that the run no longer needs the
    model, not even for a replay."""
    if started_warm:
        state.progress.kept.append(0)
        checkpoint.save(job.run, state, record)
    write_record(job.run, record, job.dataset)


def open_live_score(job: Job, state: TrainState) -> LiveScore | None:
    if dist.rank() > 0 or (finished(state) and not owes_snapshot(state)):
        return None
    images = job.config.train.live_images
    with job.display.doing("preparing the live score"):
        live = LiveScore.open(job.dataset, job.config, job.device)
    if live is None and images and (few := job.dataset.counts()["select"]):
        job.display.say(f"note: no live score and no best generator: the select part has only {few} images")
    return live

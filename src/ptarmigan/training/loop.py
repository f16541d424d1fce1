"""The training loop: start or resume a run, train to the end with ticks and snapshots, roll back on divergence."""

from __future__ import annotations

import math
import signal
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import torch
from torch import Tensor

from ptarmigan.config import Config, flatten, override, parse_images, parse_time, resolve
from ptarmigan.core import dist
from ptarmigan.core.clock import Clock
from ptarmigan.core.console import Display, Terminal
from ptarmigan.core.devices import OtherProcesses, deterministic, keep_freed_memory, pick_device
from ptarmigan.core.log import Metrics, damaged_lines
from ptarmigan.core.paths import user_path
from ptarmigan.core.types import UserError
from ptarmigan.data import Dataset
from ptarmigan.data.batches import Batches
from ptarmigan.data.stream import take_notes
from ptarmigan.diagnosis.findings import Finding, is_wanted
from ptarmigan.game.batch import rank_batch, train_batch
from ptarmigan.game.cuda_graph import make_step
from ptarmigan.game.progress import Progress
from ptarmigan.game.state import TrainState
from ptarmigan.sharing.preview import preview
from ptarmigan.sharing.trackers import TrackedMetrics, Tracker, open_tracker
from ptarmigan.training import checkpoint
from ptarmigan.training.auto import Choice, Setting, choose, with_fields
from ptarmigan.training.budget import (
    SNAPSHOT_SHARE,
    TICK_SECONDS,
    Schedule,
    SnapshotCost,
    finished,
    plan_end,
    share_done,
    steps_per_tick,
)
from ptarmigan.training.given import fields_of, images_given, of_run
from ptarmigan.training.messages import describe, describe_snapshots, finish
from ptarmigan.training.probe import Probed, probe, report_memory, report_out_of_memory, snapshot_cost
from ptarmigan.training.run_folder import lock, open_run, record_of, recorded_auto, write_record
from ptarmigan.training.setup import Job, given_fields, open_job, train_batches
from ptarmigan.training.signals import Stopped, catch_signals, signals_stop
from ptarmigan.training.snapshot import (
    LAST,
    LiveScore,
    describe_failures,
    export_average,
    exported,
    noted,
    samples_path,
    save_snapshot,
    write_outputs,
)
from ptarmigan.training.warm_start import BASE, describe_warm_start

if TYPE_CHECKING:
    from ptarmigan.core.fields import Fields


class Diverged(UserError):
    """A term, a gradient, a weight or a moment was NaN or infinite; the last good checkpoint is intact."""

    code = "diverged"
    status = 1


class Faulty(UserError):
    """A snapshot had the finding of `stop_on`, and the run was saved."""

    code = "stopped-on-finding"
    status = 1

    def __init__(self, images_seen: int, fault: Finding, run: Path) -> None:
        super().__init__(
            f"stopped at {images_seen:,} images, and everything is saved: {fault.name}: {fault.evidence} (limit: "
            f"{fault.threshold}). What to do: {fault.remedy}"
        )
        self.run = run


def train(
    data: str | Path | Dataset | None = None,
    *,
    recipe: str | None = None,
    out: str | Path | None = None,
    config: str | Path | Mapping[str, Any] | Config | None = None,
    init: str | Path | None = None,
    **fields: Unpack[Fields],
) -> Path:
    """Train a generator on a folder of class folders, an IDX folder, an .npz or a Dataset (default: the embedded set).

    `images` is the budget, a number of images as "500k", and `labels` is the path of a table.  They may also be arrays:
    then `train(images=x, labels=y)` does what `train(Dataset.from_arrays(x, y))` does.

    `recipe` names the settings: auto (default), acgan, dcgan.  `out` is the run folder, by default a new
    runs/NAME-NUMBER; an existing run is resumed where it stopped, or extended if the budget is longer.  The result is
    the same bit for bit on a CPU with the same number of threads, and on CUDA with `deterministic`.

    `config` is a YAML file of fields, a dict, a `Config`, of which the fields count that it was made with, or the
    config.json of a run, whose fields, images and start are taken where none are given here.  `init` is a model to
    start from: a run, whose G and D are copied, a generator, whose G is copied, or `base`, the model that comes with
    ptarmigan; classes are matched by name, and the network has the model's shape except where `fields` or `config` say
    otherwise.  `fields` are those of `Config` by name, for example time="10m", batch=32, g_lr=1e-3; they override
    `config`.  `loss` may be a Python file, which is executed (see `ptarmigan.losses.custom`); pass it again to resume.

    Returns the run folder.  Raises UserError for input that is not valid, Diverged for a NaN or infinite value after
    `retries` rollbacks, Stopped after Ctrl-C, SIGTERM or another signal that ends processes,
    Faulty at a snapshot with the finding of `stop_on`.
    """
    given = {key: value for key, value in {"recipe": recipe, **fields}.items() if value is not None}
    data = images_given(data, given)
    out, init = (None if path is None else user_path(path, what) for path, what in ((out, "out"), (init, "from")))
    if config is not None and not isinstance(config, Mapping | Config):
        config = user_path(config, "config", pipe=True)
        data, init = of_run(config, data, init)
    asked = override(fields_of(config), given)
    flat = flatten(asked)
    device = pick_device(resolve({"device": flat.get("device")}).train.device)
    tracker = open_tracker(flat.get("tracker"))
    with (
        Clock() as clock, dist.ranks(device), report_memory(device), signals_stop(),
        Display(Terminal(quiet=dist.rank() > 0)) as display, OtherProcesses(device, display.say),
    ):  # fmt: skip
        job = open_job(data, asked, out, init, device, display, clock)
        locked = lock(job.run, display.say, made=out is None) if dist.rank() == 0 else nullcontext()
        with locked, deterministic(job.config.train.deterministic):
            job, choice = apply_auto(job)
            rank_batch(job.config.train.batch)  # raises where the batch does not divide over the ranks
            if few := job.dataset.fewer_than(job.config.train.batch):
                display.say(f"note: {few}")
            state = train_run(job, choice, tracker)
        finish(job.run, state, display.say)
    return job.run


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
    setting = Setting(dataset.spec, counts, job.device.type, images_in_budget(job))
    given = given_fields(job.asked)
    choice = choose(job.config, given, setting, job.given - given)
    return replace(job, config=choice.config), choice


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


def train_run(job: Job, choice: Choice | None, tracker: Tracker | None) -> TrainState:
    """Start or resume a run and train it to its end, rolling back on a NaN or infinite value."""
    keep_freed_memory()
    with (
        train_batches(job.config, job.dataset, job.device) as batches,
        TrackedMetrics(job.run if dist.rank() == 0 else None, job.display.say, tracker) as metrics,
    ):
        state, record, image_seconds = start_run(job, batches, choice)
        if tracker is not None:
            with job.display.doing("starting the tracker"):
                metrics.start(job.config.flat(), state.images_seen)
        if dist.rank() == 0 and state.images_seen:
            failed = write_outputs(job.run, state, job.dataset, job.display)  # where a kill left some of them out
            if failed:
                job.display.say(f"note: {describe_failures(failed)}")
        live = open_live_score(job, state)
        schedule = None if finished(state) else open_schedule(job, state, live, image_seconds)
        while schedule is not None:
            try:
                with report_out_of_memory(state):
                    train_to_end(job, state, record, batches, live, metrics, schedule)
                break
            except Diverged as error:
                state = roll_back(job, state, record, error, metrics)
                schedule.rolled_back(state)
    if dist.rank() == 0:
        if not exported(job.run / "generator", state.images_seen):
            export_average(job.run / "generator", state, job.dataset, LAST)
        if not (job.run / "config.json").exists():  # someone removed it, or the whole folder
            write_record(job.run, record, job.dataset)
    metrics.close()
    return state


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
    warm = describe_warm_start(record["init"]) if started_warm else []
    reasons = choice.reasons if choice else []
    record["notes"] = existing.get("notes", []) if existing else [*job.notes, *reasons, *warm]
    dist.on_first(lambda: save_start(job, state, record, started_warm))
    for line in warm[:1] if job.init and job.init["model"] == str(BASE) else warm:
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
    if dist.rank() > 0 or finished(state):
        return None
    images = job.config.train.live_images
    with job.display.doing("preparing the live score"):
        live = LiveScore.open(job.dataset, job.config, job.device)
    if live is None and images and (few := job.dataset.counts()["select"]):
        job.display.say(f"note: no live score and no best generator: the select part has only {few} images")
    return live


def train_to_end(
    job: Job,
    state: TrainState,
    record: dict[str, Any],
    batches: Batches,
    live: LiveScore | None,
    metrics: TrackedMetrics,
    schedule: Schedule,
) -> None:
    """Train until the planned end or a signal; log at each tick, and save a snapshot at the ticks where one is due."""
    step, scores, faults = make_step(state), dict[str, float](), list[list[str]]()

    def save(live: LiveScore | None, milestone: bool) -> float:
        """Save a snapshot -> seconds that it took."""
        check_tensors(state, metrics)
        score, found = save_snapshot(job.run, state, record, job.dataset, live, metrics, job.display, milestone)
        scores.update(score)
        if milestone and dist.rank() == 0:
            show_grid(job, state, metrics)
        wanted = job.config.train.stop_on
        faults.extend(dist.broadcast([[*finding] for finding in found if wanted and is_wanted(finding, wanted)]))
        before, state.progress.clock = state.progress.clock, clock_of(job)
        return state.progress.clock - before

    sums = StepSums(job.clock)
    job.display.training()
    with catch_signals() as received:
        while not finished(state):
            sums.add(train_batch(state, batches, step))
            stop = bool(received) and dist.world() == 1  # several ranks agree at ticks
            if not (stop or finished(state) or state.images_seen % state.progress.tick == 0):
                continue
            means, seconds, stop = sums.close(state, bool(received))
            images = sums.steps * state.config.train.batch
            check_terms(state, means, state.images_seen - images, metrics)
            for note in take_notes(job.dataset.images):
                job.display.say(f"note: {note}")
            state.progress.clock = clock_of(job)
            schedule.tick(state, images, seconds)
            log_tick(job, state, images / seconds, means, scores, metrics, schedule)
            moved = schedule.move_end(state)
            if schedule.snapshot_due(state):
                scored = schedule.time_for_score(state)
                if live and not (scored or schedule.early):
                    job.display.say("note: no time is left for the live score of this snapshot")
                schedule.snapshot_made(state, save(live if scored else None, milestone=True), scored)
                if faults and not finished(state):
                    with noted("the log", job.display):
                        metrics.close()
                    raise Faulty(state.images_seen, Finding(*faults[0]), job.run)
            elif moved:
                save(None, milestone=False)
            if stop and not finished(state):
                job.display.say("stopping: saving the run")
                save(None, milestone=False)
                with noted("the log", job.display):
                    metrics.close()
                text = f"stopped at {state.images_seen:,} images; everything is saved"
                raise Stopped(text, received[0] if received else signal.SIGTERM, job.run)
            sums = StepSums(job.clock)


def show_grid(job: Job, state: TrainState, metrics: TrackedMetrics) -> None:
    """Show the grid of a snapshot on the terminal and to the tracker, if it could be written."""
    grid = samples_path(job.run, state.images_seen)
    if not grid.exists():
        return
    metrics.image(state.images_seen, grid)
    if job.config.train.preview:
        with noted("the preview", job.display):
            if picture := preview(grid, state.spec, job.display.terminal):
                job.display.show(picture)


class StepSums:
    """The steps since the last tick, their terms summed on the device, so that the host waits for it at ticks alone."""

    def __init__(self, clock: Clock) -> None:
        self.names: list[str] = []
        self.total = torch.zeros(())
        self.steps = 0
        self.clock, self.begun = clock, clock.seconds()

    def add(self, terms: dict[str, Tensor]) -> None:
        step = torch.stack(list(terms.values()))
        self.names, self.total, self.steps = list(terms), self.total + step if self.steps else step, self.steps + 1

    def close(self, state: TrainState, signalled: bool) -> tuple[dict[str, float], float, bool]:
        """The means of the terms, the seconds that the steps took, and whether a rank has received a signal."""
        means = dict(zip(self.names, (self.total / self.steps).tolist(), strict=True))  # waits for the device
        means = state.means_where_due(means, self.steps)
        agreed = torch.tensor([self.clock.seconds() - self.begun, float(signalled)], device=state.device)
        seconds, stop = dist.average(agreed).tolist()
        return means, seconds, stop > 0


def log_tick(
    job: Job,
    state: TrainState,
    rate: float,
    means: dict[str, float],
    scores: dict[str, float],
    metrics: Metrics,
    schedule: Schedule,
) -> None:
    """Write a line of metrics.jsonl and show the progress; `rate` is in images a second."""
    last = {"finished": True} if finished(state) else {}
    metrics.write(
        state.images_seen, clock=state.progress.clock, images_per_second=rate, end=state.end, **means, **last
    )  # fmt: skip
    job.display.tick(state.images_seen, share_done(state), rate, schedule.seconds_left(state), means | scores)


def check_terms(state: TrainState, means: dict[str, float], since: int, metrics: Metrics) -> None:
    """Raise Diverged if a term or a gradient was NaN or infinite in a step since the last tick."""
    if not state.found_inf:
        return
    term = next((name for name, value in means.items() if not math.isfinite(value)), "a gradient")
    metrics.write(state.images_seen, diverged=term)
    raise Diverged(
        f"{term} was NaN or infinite between {since:,} and {state.images_seen:,} images seen, and no update used it"
    )


def check_tensors(state: TrainState, metrics: Metrics) -> None:
    """Raise Diverged if a weight or a moment is NaN or infinite, so that no checkpoint ever holds one."""
    for name, tensor in state.tensors().items():
        if not torch.isfinite(tensor).all():
            metrics.write(state.images_seen, diverged=name)
            raise Diverged(f"{name} was NaN or infinite at {state.images_seen:,} images seen")


def roll_back(job: Job, state: TrainState, record: dict[str, Any], error: Diverged, metrics: Metrics) -> TrainState:
    """Restore the last good checkpoint, or the start, with both learning rates halved.

    The state is saved at once, so that the number of rollbacks survives a kill.  Raises Diverged after `retries`
    rollbacks.
    """
    train, rollbacks = job.config.train, state.progress.rollbacks
    found = checkpoint.newest(job.run)[0] if dist.rank() == 0 else None
    if rollbacks >= train.retries:
        tried = f"; it happened again after {rollbacks} rollback{'s' * (rollbacks > 1)}" if rollbacks else ""
        raise Diverged(
            f"{error}{tried}; last good checkpoint: {found.path if found else 'none yet'}. Try a lower --g-lr and "
            "--d-lr, or --precision fp32"
        )
    restored = initial_state(job, record, found)
    progress = restored.progress
    progress.rollbacks, progress.lr_scale = rollbacks + 1, 0.5 ** (rollbacks + 1)
    progress.clock = state.progress.clock  # what was spent is spent
    plan_end(restored, train)
    if dist.rank() == 0:
        with noted("saving the checkpoint", job.display):
            checkpoint.save(job.run, restored, record)
    metrics.new_attempt()
    metrics.write(
        restored.images_seen, back_from=state.images_seen, retry=progress.rollbacks, lr_scale=progress.lr_scale
    )
    job.display.say(
        f"note: {error}. Rolling back to {restored.images_seen:,} images seen, learning rates times "
        f"{progress.lr_scale:g} (rollback {progress.rollbacks} of at most {train.retries})"
    )
    return restored

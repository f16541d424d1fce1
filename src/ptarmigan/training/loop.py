"""The training loop: train to the end with ticks and snapshots, roll back on divergence."""

from __future__ import annotations

import math
import signal
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Unpack

import torch
from torch import Tensor

from ptarmigan.config import Config, flatten, override, resolve
from ptarmigan.core import dist
from ptarmigan.core.clock import Clock
from ptarmigan.core.console import Display, Terminal
from ptarmigan.core.devices import OtherProcesses, deterministic, keep_freed_memory, pick_device
from ptarmigan.core.log import Metrics
from ptarmigan.core.paths import user_path
from ptarmigan.core.types import UserError
from ptarmigan.data import Dataset
from ptarmigan.data.batches import Batches
from ptarmigan.data.stream import take_notes
from ptarmigan.diagnosis.findings import Finding, is_wanted
from ptarmigan.game.batch import rank_batch, train_batch
from ptarmigan.game.cuda_graph import make_step
from ptarmigan.game.state import TrainState
from ptarmigan.networks.layers import has_batch_norm_statistics
from ptarmigan.sharing.preview import preview
from ptarmigan.sharing.trackers import TrackedMetrics, Tracker, open_tracker
from ptarmigan.training import checkpoint
from ptarmigan.training.auto import Choice
from ptarmigan.training.budget import (
    Schedule,
    finished,
    owes_snapshot,
    plan_end,
    share_done,
)
from ptarmigan.training.given import fields_of, images_given, of_run
from ptarmigan.training.messages import finish
from ptarmigan.training.outputs import (
    LAST,
    describe_failures,
    export_average,
    exported,
    noted,
    samples_path,
    write_outputs,
)
from ptarmigan.training.probe import report_memory, report_out_of_memory
from ptarmigan.training.run_folder import lock, write_record
from ptarmigan.training.setup import Job, open_job, train_batches
from ptarmigan.training.signals import Interrupted, Stopped, catch_signals, signals_stop
from ptarmigan.training.snapshot import GoOn, LiveScore, save_at_once, save_snapshot
from ptarmigan.training.start import (
    apply_auto,
    clock_of,
    initial_state,
    open_live_score,
    open_schedule,
    start_run,
)

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
            f"stopped at {images_seen:,} images, and everything is saved: {fault.name}: {fault.evidence} "
            f"(reported if {fault.threshold}). What to do: {fault.remedy}"
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
    """Train a generator on the images at a path, at the URL of shards, or of a Dataset (default: the embedded set).

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
        if dist.rank() == 0 and state.images_seen and has_batch_norm_statistics(state.ema):
            failed = write_outputs(job.run, state, job.dataset, job.display)  # where a kill left some of them out
            if failed:
                job.display.say(f"note: {describe_failures(failed)}")
        live = open_live_score(job, state)
        done = finished(state) and not owes_snapshot(state)
        schedule = None if done else open_schedule(job, state, live, image_seconds)
        with catch_signals() as received:
            while schedule is not None:
                try:
                    with report_out_of_memory(state):
                        Attempt(job, state, record, batches, live, metrics, schedule, received).train()
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


@dataclass
class Attempt:
    """A run's steps up to its end, a stop or a divergence; after a divergence, another attempt follows."""

    job: Job
    state: TrainState
    record: dict[str, Any]
    batches: Batches
    live: LiveScore | None
    metrics: TrackedMetrics
    schedule: Schedule
    received: list[int]  # the first signal, perhaps of the attempt before
    scores: dict[str, float] = field(default_factory=dict)  # of the newest snapshot that was scored
    fault: Finding | None = None  # the first finding of `stop_on`
    whole: int = -1  # images seen when a checkpoint was last saved with all that is made from it

    def train(self) -> None:
        """Train until the planned end or a signal; log at each tick, and save a snapshot at the ticks where one is due.

        Raises Diverged, Stopped or Faulty as `train` does.
        """
        self.job.display.training()
        try:
            self.go_on()
            if owes_snapshot(self.state):
                self.save_milestone()
            self.train_steps()
        except Interrupted:
            self.stop()

    def train_steps(self) -> None:
        state, step, sums = self.state, make_step(self.state), StepSums(self.job.clock)
        while not finished(state):
            sums.add(train_batch(state, self.batches, step))
            stop = bool(self.received) and dist.world() == 1  # several ranks agree at ticks
            if not (stop or finished(state) or state.images_seen % state.progress.tick == 0):
                continue
            if self.tick(sums) and not finished(state):
                self.stop()
            sums = StepSums(self.job.clock)

    def stop(self) -> NoReturn:
        """Save the state at once, and then what takes longer, unless another signal comes; raises Stopped."""
        job, state, say = self.job, self.state, self.job.display.say
        text = f"stopped at {state.images_seen:,} images; everything is saved"
        if self.whole != state.images_seen:
            say("stopping and saving; Ctrl-C again loses the steps since the last checkpoint")
            check_tensors(state, self.metrics)
            save_at_once(job, state, self.record)
            try:
                say("saved; the generator is being computed, and Ctrl-C leaves that to the next snapshot")
                self.save(None, milestone=False, go_on=lambda: None)
            except KeyboardInterrupt:
                text = f"stopped at {state.images_seen:,} images, and saved; the next snapshot writes its generator"
        if owes_snapshot(state):
            text += "; the snapshot that was due is made when the run resumes"
        self.close_log()
        raise Stopped(text, self.received[0] if self.received else signal.SIGTERM, job.run)

    def tick(self, sums: StepSums) -> bool:
        """Log the steps since the last tick and save what is due; returns whether any rank has received a signal."""
        job, state = self.job, self.state
        means, seconds, stop = sums.close(state, bool(self.received))
        images = sums.steps * state.config.train.batch
        check_terms(state, means, state.images_seen - images, self.metrics)
        for note in take_notes(job.dataset.images):
            job.display.say(f"note: {note}")
        state.progress.clock = clock_of(job)
        self.schedule.tick(state, images, seconds)
        self.log(means, images / seconds)
        moved = self.schedule.move_end(state)
        if self.schedule.snapshot_due(state):
            self.save_milestone()
        elif moved:
            self.save(None, milestone=False, go_on=self.go_on)
        return stop or (bool(self.received) and dist.world() == 1)

    def go_on(self) -> None:
        """Raise Interrupted if a signal was received.  One of several ranks cannot leave what the others wait for."""
        if self.received and dist.world() == 1:
            raise Interrupted(self.received[0])

    def log(self, means: dict[str, float], rate: float) -> None:
        """Write a line of metrics.jsonl and show the progress; `rate` is in images a second."""
        state, last = self.state, {"finished": True} if finished(self.state) else {}
        self.metrics.write(
            state.images_seen, clock=state.progress.clock, images_per_second=rate, end=state.end, **means, **last
        )  # fmt: skip
        left = self.schedule.seconds_left(state)
        self.job.display.tick(state.images_seen, share_done(state), rate, left, means | self.scores)

    def save_milestone(self) -> None:
        """Save a snapshot with samples, findings and, if there is time for it, a score; raises Faulty.

        Raises Interrupted at a signal, and the run then owes the snapshot.
        """
        state, schedule = self.state, self.schedule
        owed, before = owes_snapshot(state), replace(state.progress, owed=state.images_seen)
        scored = schedule.time_for_score(state)
        if self.live and not (scored or schedule.early):
            self.job.display.say("note: no time is left for the live score of this snapshot")
        state.progress.owed = 0
        try:
            seconds = self.save(self.live if scored else None, milestone=True, go_on=self.go_on)
        except Interrupted:
            state.progress = before
            if finished(state):
                self.metrics.write(state.images_seen, finished=False)
            raise
        schedule.snapshot_made(state, seconds, scored)
        if owed and finished(state):
            self.metrics.write(state.images_seen, finished=True)
        if self.fault is not None and not finished(state):
            self.close_log()
            raise Faulty(state.images_seen, self.fault, self.job.run)

    def save(self, live: LiveScore | None, milestone: bool, go_on: GoOn) -> float:
        """Save a snapshot -> seconds that it took."""
        job, state = self.job, self.state
        check_tensors(state, self.metrics)
        score, found = save_snapshot(job, state, self.record, live, self.metrics, milestone, go_on)
        self.whole = state.images_seen
        self.scores |= score
        if milestone and dist.rank() == 0:
            show_grid(job, state, self.metrics)
        wanted = job.config.train.stop_on
        faults = dist.broadcast([[*finding] for finding in found if wanted and is_wanted(finding, wanted)])
        if faults and self.fault is None:
            self.fault = Finding(*faults[0])
        before, state.progress.clock = state.progress.clock, clock_of(job)
        return state.progress.clock - before

    def close_log(self) -> None:
        with noted("the log", self.job.display):
            self.metrics.close()


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

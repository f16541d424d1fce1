"""The loop: a budget of steps of the game, a tick every so many images, a snapshot every so many ticks."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ptarmigan.config import Config, flatten, parse_images, parse_time, resolve
from ptarmigan.core import dist
from ptarmigan.core.console import Display, Terminal
from ptarmigan.core.devices import deterministic, keep_freed_memory, pick_device
from ptarmigan.core.files import FORMAT
from ptarmigan.core.log import Metrics
from ptarmigan.core.log import damaged as damaged_lines
from ptarmigan.core.types import UserError
from ptarmigan.data import Batches, Dataset, open_dataset
from ptarmigan.game.batch import share, train_batch
from ptarmigan.game.cuda_graph import make_step
from ptarmigan.game.state import TrainState
from ptarmigan.losses.custom import LossFile, open_loss
from ptarmigan.training import checkpoint
from ptarmigan.training.auto import Choice, choose, replaced
from ptarmigan.training.messages import describe, finish
from ptarmigan.training.probe import TICK_SECONDS, Probed, memory, probe
from ptarmigan.training.run_folder import (
    DEFAULT_TIME,
    chosen_before,
    lock,
    new_run,
    open_run,
    plan,
    read_yaml,
    record_of,
    write_record,
)
from ptarmigan.training.snapshot import Live, export, has_generator, save
from ptarmigan.training.warm_start import Origin, report


class Diverged(UserError):
    """A term or a gradient was not finite; the last good checkpoint is in place."""

    status = 1


class Stopped(UserError):
    """A signal ended the run early, and everything was saved.  The exit status is the shell's for that signal."""

    code = "stopped"

    def __init__(self, number: int, images_seen: int, run: Path) -> None:
        super().__init__(f"stopped at {images_seen:,} images; everything is saved")
        self.status = 128 + number
        self.run = run


@dataclass(frozen=True)
class Job:
    """What a run is made of: where it is, what was asked for and from where, and what it reads."""

    run: Path
    config: Config
    asked: dict[str, Any]
    dataset: Dataset
    source: str
    origin: Origin | None
    loss_file: LossFile | None
    device: torch.device
    display: Display


def train(
    data: str | Path | None = None,
    *,
    recipe: str | None = None,
    out: str | Path | None = None,
    config: str | Path | None = None,
    init: str | Path | None = None,
    **fields: Any,
) -> Path:
    """Train a generator on a folder of class folders, an IDX folder or an .npz (default: the embedded set).

    `recipe` names the settings: auto (default), acgan, dcgan.  `out` is the run folder: one that exists goes on
    where it stopped, bit for bit, or is extended by a longer budget; by default it is a new runs/NAME-NUMBER.
    `config` is a YAML file of fields.  `init` is a run, whose G and D this one begins with, or a generator, whose G:
    classes are matched by name, and what is not asked for of the network's shape is as there.  `fields` are those of
    `Config` by their names, as time="10m", batch=32, g_lr=1e-3; they count above the file's.  `loss` may be a Python
    file, which is run (see `ptarmigan.losses.custom`) and has to be given again to go on.

    Returns the run folder.  Raises UserError for input that will not do, Diverged where a term is not finite,
    Stopped after Ctrl-C or SIGTERM.
    """
    asked = read_yaml(Path(config)) if config else {}
    asked |= {key: value for key, value in {"recipe": recipe, **fields}.items() if value is not None}
    chosen = resolve(asked if init is None else {"device": flatten(asked).get("device")})
    device = pick_device(chosen.train.device)
    with dist.ranks(device), Display(Terminal(quiet=dist.rank() > 0)) as display:
        origin = Origin.find(Path(init), Path(out) if out else None, asked) if init else None
        if origin is not None:  # what is asked for may go with its shape alone
            chosen = resolve({**origin.record["shape"], **asked})
        chosen, loss_file = open_loss(chosen)
        with dist.first_of_each_machine():
            dataset = open_dataset(data, chosen.data, display.preparing)
        chosen = fit(chosen, dataset)
        for sentence in dataset.notices:
            display.say(f"note: {sentence}")
        run = Path(dist.on_first(lambda: str(out or new_run(dataset.name))))
        exact = deterministic(chosen.train.deterministic)
        with lock(run, display.say) if dist.rank() == 0 else nullcontext(), exact:
            there = dist.on_first(lambda: chosen_before(run))
            given = {key for key, value in flatten(asked).items() if value is not None}
            given |= set(origin.record["shape"]) if origin is not None else set()
            choice = None
            if chosen.recipe == "auto" and there is not None:
                chosen = replaced(chosen, {key: value for key, value in there.items() if key not in given})
            job = Job(run, chosen, asked, dataset, str(data or "embedded"), origin, loss_file, device, display)
            if chosen.recipe == "auto" and there is None:
                choice = decide(job, given)
                job = replace(job, config=choice.config)
            share(job.config.train.batch)
            if few := dataset.fewer_than(job.config.train.batch):
                display.say(f"note: {few}")
            state = train_run(job, choice)
        finish(run, state, display.say)
    return run


def decide(job: Job, given: set[str]) -> Choice:
    """What `auto` takes: a time budget is counted in images at the speed that a probe of the recipe finds."""
    train, dataset = job.config.train, job.dataset
    images: float | None = parse_images(train.images)
    if images is None:
        share(train.batch)
        with feed(job.config, dataset, job.device) as batches:
            seconds = measure(job, batches).seconds
        images = (parse_time(train.time) or 0.0) / seconds * train.batch
    counts = torch.bincount(torch.from_numpy(dataset.labels[dataset.indices()]), minlength=dataset.spec.classes)
    return choose(job.config, given, dataset.spec, counts.tolist(), job.device.type, images)


def measure(job: Job, batches: Batches) -> Probed:
    return probe(
        job.config, job.dataset.spec, job.device, lambda state: partial(train_batch, state, batches, make_step(state)),
        job.loss_file,
    )  # fmt: skip


def train_run(job: Job, choice: Choice | None) -> TrainState:
    """Begin a run or go on with it, up to its end; back from a value that is not finite `retries` times."""
    run, config, dataset, origin, display = job.run, job.config, job.dataset, job.origin, job.display
    found: checkpoint.Checkpoint | None = None
    init, loss_sha256 = origin.record if origin else None, job.loss_file.sha256 if job.loss_file else None

    def opened() -> list[Any] | None:
        """Precision, micro-batch and tick of a run that exists."""
        nonlocal found
        record, found, damaged = open_run(run, config, dataset, init, loss_sha256)
        for sentence in damaged:
            display.say(f"note: {sentence}")
        if found is not None and found.meta["format"] < FORMAT:
            display.say(
                f"note: {found.path.name} is of an earlier version: it is brought up to this one, and goes on "
                "otherwise than it would have there"
            )
        if count := damaged_lines(run / "metrics.jsonl"):
            display.say(f"note: {run / 'metrics.jsonl'} is damaged: {count} of its lines are left out")
        return [record["precision"] == "bf16", record["micro_batch"], record["tick"]] if record else None

    existing = dist.on_first(opened)
    keep_freed_memory()
    with feed(config, dataset, job.device) as batches:
        if existing is None:
            bf16, fits, seconds = measure(job, batches)
            tick = config.train.batch * tick_steps(config, seconds)
        else:
            bf16, fits, tick = existing
        record = record_of(config, job.asked, dataset, job.source, bf16, fits, tick, init, loss_sha256)
        state = begin(job, record, found)
        state.controllers.setdefault("tick", tick)
        plan(state, config.train)

        def written() -> None:
            if origin is not None and found is None:  # a run never needs the model again, nor any other
                checkpoint.save(run, state, record, milestone=True)
            write_record(run, record, dataset)

        dist.on_first(written)
        describe(run, state, dataset, choice, found is not None, display.say)
        if origin is not None and found is None and dist.rank() == 0:
            for line in report(record["init"]):
                display.say(line)
        live = None
        if dist.rank() == 0 and (state.end is None or state.images_seen < state.end):
            live = Live.open(dataset, config.train.live_images, job.device)
            if live is None and config.train.live_images and (few := dataset.counts()["select"]):
                display.say(f"note: {few} images to select by are too few for a live score and a best generator")
        while True:
            try:
                with memory(state):
                    loop(job, state, record, batches, live)
                break
            except Diverged as error:
                state = back(job, state, record, error)
    if dist.rank() == 0 and not has_generator(run):
        export(run, state, dataset)
    return state


def begin(job: Job, record: dict[str, Any], found: checkpoint.Checkpoint | None) -> TrainState:
    """The state of a checkpoint, or of step 0: rank 0's, on every rank.

    At step 0 it says in the record what it takes from the job's origin.
    """
    config = job.config
    state = TrainState.create(config, job.dataset.spec, job.device, record["precision"] == "bf16", job.loss_file)
    state.micro_batch = config.train.micro_batch or record["micro_batch"]
    if found is not None:
        checkpoint.restore(state, found)
    elif job.origin is not None:
        record["init"] = job.origin.give(state)
    if dist.world() > 1:
        state.load(dist.broadcast_tensors(state.tensors()))
        state.images_seen, state.controllers = dist.broadcast([state.images_seen, state.controllers])
    return state


def back(job: Job, state: TrainState, record: dict[str, Any], error: Diverged) -> TrainState:
    """The last good checkpoint, or step 0, with half the learning rates; raises Diverged after `retries` times.

    It is saved at once, so that a run killed now does not forget how often it has gone back.
    """
    train, tries = job.config.train, state.controllers.get("retries", 0)
    found = checkpoint.newest(job.run)[0] if dist.rank() == 0 else None
    if tries >= train.retries:
        helped = f"; {tries} {'retry' if tries == 1 else 'retries'} with lower rates did not help" if tries else ""
        raise Diverged(
            f"{error}{helped}; last good checkpoint: {found.path if found else 'none yet'}. Try a lower --g-lr and "
            "--d-lr, or --precision fp32"
        )
    restored = begin(job, record, found)
    restored.controllers.setdefault("tick", state.controllers["tick"])
    restored.controllers |= {"retries": tries + 1, "lr_scale": 0.5 ** (tries + 1)}
    plan(restored, train)
    if dist.rank() == 0:
        checkpoint.save(job.run, restored, record, milestone=False)
    logged(job.run).write(
        restored.images_seen, back_from=state.images_seen, retry=tries + 1, lr_scale=restored.controllers["lr_scale"]
    )
    job.display.say(
        f"note: {error}: back to {restored.images_seen:,} images with {restored.controllers['lr_scale']:g} of the "
        f"learning rates (retry {tries + 1} of {train.retries})"
    )
    return restored


def tick_steps(config: Config, seconds: float) -> int:
    """Steps between ticks: about two seconds' worth, and at least twenty ticks in the shorter budgets.

    Where that is more than `penalty_every`, a multiple of it, so that each tick's mean has its share of penalties.
    """
    train, every = config.train, config.loss.penalty_every
    images, time_given = parse_images(train.images), parse_time(train.time)
    steps = TICK_SECONDS / seconds
    if time_given is not None:
        steps = min(steps, time_given / seconds / 40)
    if images is not None:
        steps = min(steps, images / train.batch / 20)
    return max(1, int(steps) if steps < every else int(steps) // every * every)


def feed(config: Config, dataset: Dataset, device: torch.device) -> Batches:
    """The batches of the train part."""
    train = config.train
    return Batches(
        dataset.images, dataset.labels, dataset.indices(), batch=share(train.batch), seed=train.seed,
        flip=config.data.flip, device=device,
    )  # fmt: skip


def loop(job: Job, state: TrainState, record: dict[str, Any], batches: Batches, live: Live | None) -> None:
    """Steps until the planned end, or a signal; the host waits for the device at ticks alone."""
    run, dataset = job.run, job.dataset
    train, controllers = state.config.train, state.controllers
    metrics, by = logged(run), make_step(state)
    names: list[str] = []
    scores: dict[str, float] = {}  # of the last snapshot
    sums, steps, since = torch.zeros(()), 0, time.perf_counter()
    taken = snapshots(state)
    with signals() as received:
        while True:
            seen = state.images_seen
            done = state.end is not None and seen >= state.end
            tick = steps > 0 and (done or seen % controllers["tick"] == 0)
            stop = bool(received) and dist.world() == 1  # several ranks agree at ticks
            if tick or (stop and steps):
                values = dict(zip(names, (sums / steps).tolist(), strict=True))  # the one wait for the device
                agreed = torch.tensor([time.perf_counter() - since, float(bool(received))], device=state.device)
                seconds, stopping = dist.average(agreed).tolist()
                stop = stopping > 0
                first = seen - steps * train.batch
                check_finite(state, values, first, metrics)
                controllers["clock"] += seconds
                plan(state, train)
                done = state.end is not None and seen >= state.end
                rate = steps * train.batch / seconds
                metrics.write(
                    seen,
                    clock=controllers["clock"],
                    images_per_second=rate,
                    end=state.end,
                    **values,
                    **({"finished": True} if done else {}),
                )
                job.display.tick(seen, *progress(state, rate), values | scores)
                if done or snapshots(state) > taken:
                    taken = snapshots(state)
                    check_state(state, metrics)
                    scores |= save(run, state, record, dataset, live, metrics, milestone=True)
                steps, since = 0, time.perf_counter()
            if done:
                return
            if stop:
                check_state(state, metrics)
                save(run, state, record, dataset, live, metrics, milestone=False)
                number = received[0] if received else signal.SIGTERM
                raise Stopped(number, seen, run)
            terms = train_batch(state, batches, by)
            step = torch.stack(list(terms.values()))
            names, sums, steps = list(terms), sums + step if steps else step, steps + 1


def progress(state: TrainState, rate: float) -> tuple[float, float, float]:
    """Share of the budget done, images/s, and seconds left."""
    if state.end is None:
        return spent(state), rate, (parse_time(state.config.train.time) or 0.0) - state.controllers["clock"]
    return state.images_seen / state.end, rate, (state.end - state.images_seen) / rate


def spent(state: TrainState) -> float:
    """Share of a time budget that is spent."""
    return float(state.controllers["clock"] / (parse_time(state.config.train.time) or 1.0))


def snapshots(state: TrainState) -> int:
    """How many snapshots the plan has up to now."""
    planned = state.config.train.snapshots
    if state.end is None:
        return int(spent(state) * planned)
    return (state.images_seen - state.start) * planned // (state.end - state.start)


def check_finite(state: TrainState, values: dict[str, float], first: int, metrics: Metrics) -> None:
    """Raise Diverged where a step since the last tick met a value that is not finite."""
    if not state.found_inf:
        return
    term = next((name for name, value in values.items() if not math.isfinite(value)), "a gradient")
    metrics.write(state.images_seen, diverged=term)
    raise Diverged(
        f"{term} was not finite between {first:,} and {state.images_seen:,} images, and no update was made with it"
    )


def check_state(state: TrainState, metrics: Metrics) -> None:
    """Raise Diverged where a weight or a moment is not finite, so that no checkpoint ever holds one."""
    for name, tensor in state.tensors().items():
        if not torch.isfinite(tensor).all():
            metrics.write(state.images_seen, diverged=name)
            raise Diverged(f"{name} was not finite at {state.images_seen:,} images")


def logged(run: Path) -> Metrics:
    """The run's log; rank 0's alone is written."""
    return Metrics(run / "metrics.jsonl" if dist.rank() == 0 else None)


@contextmanager
def signals() -> Iterator[list[int]]:
    """Ctrl-C and SIGTERM noted in a list, once; a second one acts as it would have without us."""
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return

    def note(number: int, _: object) -> None:
        received.append(number)
        restore()

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    try:
        yield received
    finally:
        restore()


def fit(config: Config, dataset: Dataset) -> Config:
    """The config with what the data decide (one class is none to condition on), and a budget where none is given."""
    model, train = config.model, config.train
    if dataset.spec.classes == 1 and model.conditioning != "none":
        model = replace(model, conditioning="none")
    if train.time is None and train.images is None:
        train = replace(train, time=DEFAULT_TIME)
    return replace(config, model=model, train=train)

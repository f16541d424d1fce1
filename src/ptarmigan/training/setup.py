"""Prepare a run: its config, images, warm start and batches."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ptarmigan.config import Config, flatten, resolve
from ptarmigan.core import dist
from ptarmigan.core.clock import Clock
from ptarmigan.core.console import Display, duration
from ptarmigan.core.devices import little_memory
from ptarmigan.core.paths import url_of
from ptarmigan.core.types import COLOURS, UserError, shorten
from ptarmigan.data import Dataset, open_dataset
from ptarmigan.data.batches import Batches
from ptarmigan.data.check.summary import summary
from ptarmigan.game.batch import rank_batch
from ptarmigan.losses.custom import LossFile, open_loss
from ptarmigan.training.auto import with_fields
from ptarmigan.training.budget import DEFAULT_TIME
from ptarmigan.training.run_folder import new_run
from ptarmigan.training.source_model import BASE, stands_for
from ptarmigan.training.warm_start import SCRATCH, WarmStart, starts_from_base

SHOWN_CLASSES = 10
DECODING = "decoding images"  # what data/ calls the work that its cache spares the next run


@dataclass(frozen=True)
class Job:
    """One call of `train`: the run folder, what was asked for, and what the run reads."""

    run: Path
    config: Config
    asked: dict[str, Any]  # fields as the user gave them
    dataset: Dataset
    source: str  # the data's path, or "embedded"
    warm_start: WarmStart | None
    loss_file: LossFile | None  # the user's own loss
    device: torch.device
    display: Display
    clock: Clock
    notes: tuple[str, ...]  # on the data

    @property
    def given(self) -> set[str]:
        """Fields that the user or the warm start has set, so that recipe `auto` does not choose them."""
        return {*flatten(self.asked)} | set(self.warm_start.record["shape"] if self.warm_start else ())

    @property
    def init(self) -> dict[str, Any] | None:
        return self.warm_start.record if self.warm_start else None

    @property
    def loss_sha256(self) -> str | None:
        return self.loss_file.sha256 if self.loss_file else None


def open_job(
    data: Path | Dataset | None,
    asked: dict[str, Any],
    out: str | Path | None,
    init: Path | None,
    device: torch.device,
    display: Display,
    clock: Clock,
) -> Job:
    """Resolve the config, find the warm start, and read the images; arguments as in `train`."""
    for fault in filter(None, (dist.stray_rank(), little_memory())):
        display.say(f"note: {fault}")
    existing = Path(out) if out else None
    warm_start = WarmStart.find(init, existing, asked) if init and not stands_for(init, SCRATCH) else None
    shape = warm_start.record["shape"] if warm_start else {}
    config, loss_file = open_loss(resolve({**shape, **asked}))
    given_loss = flatten(asked).get("loss", config.loss.loss)
    if given_loss != config.loss.loss and loss_file is None:
        display.say(f"loss {given_loss} is {config.loss.loss} here")
    dataset = read_images(data, config, display, clock)
    notes = (*dataset.notices, *summary(dataset, config.data.balance))
    if existing is None or not (existing / "config.json").exists():  # they were said when the run started
        for notice in notes:
            display.note(notice)
    if note := conditioning_dropped(config, asked, dataset):
        display.say(f"note: {note}")
    given, spec = {*flatten(asked)}, dataset.spec
    if init is None and dist.on_first(lambda: starts_from_base(existing, config, given, spec, device.type)):
        warm_start = WarmStart.find(BASE, existing, asked)
        config = with_fields(config, warm_start.record["shape"])
    if config.model.d_frozen and not (warm_start and warm_start.record["has_discriminator"]):
        raise UserError(
            f"d_frozen: {config.model.d_frozen} keeps weights that D starts with, and without --from a run they are "
            "random; leave it out, or name a run",
            "options-conflict",
        )
    config = fit_to_data(config, dataset)
    source = str(dataset.source.root) if isinstance(data, Dataset) else str(data or "embedded")
    source = url_of(source) or source
    run = Path(dist.on_first(lambda: str(out or new_run(dataset.name))))
    return Job(run, config, asked, dataset, source, warm_start, loss_file, device, display, clock, notes)


def read_images(data: Path | Dataset | None, config: Config, display: Display, clock: Clock) -> Dataset:
    """The images; prints what was found, and how long it took to prepare them where that was long."""
    with dist.first_of_each_machine(), display.doing("reading the data"):
        dataset, seconds = open_timed(data, config, display, clock)
    if seconds >= 1:
        display.say(f"preparing the images took {duration(seconds)}, which the budget of time leaves out")
    for line in describe_data(dataset):
        display.say(line)
    return dataset


def open_timed(data: Path | Dataset | None, config: Config, display: Display, clock: Clock) -> tuple[Dataset, float]:
    """The images, and the seconds that it took to decode them, which the clock leaves out; 0 if they were cached."""
    begun, decoded = clock.seconds(), False

    def on_progress(what: str, done: int, total: int | None) -> None:
        nonlocal decoded
        decoded = decoded or what == DECODING
        display.preparing(what, done, total)

    dataset = open_dataset(data, config.data, on_progress)
    seconds = clock.seconds() - begun if decoded else 0.0
    clock.add(-seconds)
    return dataset, seconds


def describe_data(dataset: Dataset) -> list[str]:
    """What was found, the training images of each class, the size and the parts, a line each."""
    spec = dataset.spec
    parts = ", ".join(f"{count:,} {name}" for name, count in dataset.counts().items() if count)
    images = f"images of {spec.size} {COLOURS[spec.channels]}: {parts}"
    named = [f"{name} ({count:,})" for name, count in dataset.class_counts().items()]
    classes = f"training images by class: {shorten(named, SHOWN_CLASSES)}"
    return [dataset.understood, classes, images]


def conditioning_dropped(config: Config, asked: dict[str, Any], dataset: Dataset) -> str | None:
    """A note if a conditioning was asked for, by name or by a recipe, and the data have one class."""
    conditioning = config.model.conditioning
    if dataset.spec.classes > 1 or not config.model.conditional:
        return None
    given = flatten(asked)
    if "conditioning" not in given and ("recipe" not in given or config.recipe == "auto"):
        return None
    return f"conditioning {conditioning} needs several classes, but the data have one: the run is unconditional"


def fit_to_data(config: Config, dataset: Dataset) -> Config:
    """The config with the split of the data, without conditioning if these have one class, and with a budget."""
    model, train = config.model, config.train
    if dataset.spec.classes == 1 and model.conditional:
        model = replace(model, conditioning="none")
    if train.time is None and train.images is None:
        train = replace(train, time=DEFAULT_TIME)
    return replace(config, data=replace(config.data, split=dataset.split), model=model, train=train)


def train_batches(config: Config, dataset: Dataset, device: torch.device) -> Batches:
    """The batches of the train part, of this rank's size."""
    train = config.train
    return Batches(
        dataset.images, dataset.labels, dataset.indices(), batch=rank_batch(train.batch), seed=train.seed,
        flip=config.data.flip, balance=config.data.balance, device=device,
    )  # fmt: skip

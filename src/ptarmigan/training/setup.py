"""What a run needs before its first step: the config for these data, the images, the warm start, the batches."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ptarmigan.config import Config, flatten, resolve
from ptarmigan.core import dist
from ptarmigan.core.console import Display
from ptarmigan.core.types import UserError
from ptarmigan.data import Batches, Dataset, open_dataset
from ptarmigan.game.batch import share
from ptarmigan.losses.custom import LossFile, open_loss
from ptarmigan.training.budget import DEFAULT_TIME
from ptarmigan.training.run_folder import next_run
from ptarmigan.training.warm_start import WarmStart


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

    @property
    def given(self) -> set[str]:
        """Fields that the user or the warm start has set, so that recipe `auto` does not choose them."""
        given = {key for key, value in flatten(self.asked).items() if value is not None}
        return given | set(self.warm_start.record["shape"]) if self.warm_start else given

    @property
    def init(self) -> dict[str, Any] | None:
        return self.warm_start.record if self.warm_start else None

    @property
    def loss_sha256(self) -> str | None:
        return self.loss_file.sha256 if self.loss_file else None


def open_job(
    data: str | Path | None,
    asked: dict[str, Any],
    out: str | Path | None,
    init: str | Path | None,
    device: torch.device,
    display: Display,
) -> Job:
    """Resolve the config, find the warm start, and read the images; arguments as those of `train`."""
    if data is not None and (Path(data) / "checkpoints").is_dir() and (Path(data) / "config.json").is_file():
        text = f"{data} is a run, not images: name the images, and --out {data} to resume it or --from {data} to start"
        raise UserError(f"{text} from its weights", "no-images")
    warm_start = WarmStart.find(Path(init), Path(out) if out else None, asked) if init else None
    shape = warm_start.record["shape"] if warm_start else {}
    config, loss_file = open_loss(resolve({**shape, **asked}))
    with dist.first_of_each_machine():
        dataset = open_dataset(data, config.data, display.preparing)
    for notice in dataset.notices:
        display.say(f"note: {notice}")
    run = Path(dist.on_first(lambda: str(out or next_run(dataset.name))))
    config = fit_to_data(config, dataset)
    return Job(run, config, asked, dataset, str(data or "embedded"), warm_start, loss_file, device, display)


def fit_to_data(config: Config, dataset: Dataset) -> Config:
    """The config without conditioning where the data have one class, and with a budget where none was given."""
    model, train = config.model, config.train
    if dataset.spec.classes == 1 and model.conditioning != "none":
        model = replace(model, conditioning="none")
    if train.time is None and train.images is None:
        train = replace(train, time=DEFAULT_TIME)
    return replace(config, model=model, train=train)


def train_batches(config: Config, dataset: Dataset, device: torch.device) -> Batches:
    """The batches of the train part, of this rank's size."""
    train = config.train
    return Batches(
        dataset.images, dataset.labels, dataset.indices(), batch=share(train.batch), seed=train.seed,
        flip=config.data.flip, device=device,
    )  # fmt: skip

"""Prepare a run: its config, images, warm start and batches."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import yaml

from ptarmigan.config import Config, config_of, convert_fields, flatten, resolve
from ptarmigan.core import dist
from ptarmigan.core.clock import Clock
from ptarmigan.core.console import Display, duration
from ptarmigan.core.devices import little_memory
from ptarmigan.core.files import load_json
from ptarmigan.core.records import RunRecord, check
from ptarmigan.core.types import UserError, shorten
from ptarmigan.data import Dataset, open_dataset, recorded_data
from ptarmigan.data.batches import Batches
from ptarmigan.game.batch import rank_batch
from ptarmigan.losses.custom import LossFile, open_loss
from ptarmigan.training.budget import DEFAULT_TIME
from ptarmigan.training.run_folder import MARKER, new_run
from ptarmigan.training.warm_start import WarmStart

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


class Loader(yaml.SafeLoader):
    """YAML whose values are text as it is written, but for true, false and null, and which has each key once.

    YAML 1.1 itself reads 10:30 as 630 and 010 as 8, and takes the last of equal keys.
    """

    yaml_implicit_resolvers = {  # noqa: RUF012  # the name is yaml's
        first: [(tag, written) for tag, written in resolvers if tag.rpartition(":")[2] in ("bool", "null", "merge")]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.MarkedYAMLError(problem=f"{key.value} is given twice", problem_mark=key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> dict[str, Any]:
    """Fields from a YAML file, flat or in sections, or all fields of a run from its config.json, as {field: value}.

    Raises UserError, which names the file: file-unreadable where it cannot be read or is not a mapping, and those of
    `convert_fields`.
    """
    if (record := read_run_config(path)) is not None:
        config, own_loss = config_of(record), str(record.get("asked", {}).get("loss"))
        fields = {"recipe": config.recipe, **config.flat()} | ({"loss": own_loss} if own_loss.endswith(".py") else {})
        return {key: value for key, value in fields.items() if value is not None}
    try:
        content = yaml.load(path.read_text(encoding="utf-8-sig"), Loader)
    except OSError as error:
        raise UserError(f"config: cannot read {path}: {error.strerror}", "file-unreadable") from None
    except UnicodeDecodeError:
        raise UserError(f"config: {path} is not text in UTF-8; save it as UTF-8", "file-unreadable") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"config: {path} is not YAML: {yaml_fault(error)}", "file-unreadable") from None
    if not isinstance(content, dict):
        raise UserError(f"config: {path} must map fields to values, for example `batch: 64`", "file-unreadable")
    try:
        for key in ("out", "from", "config"):
            if key in content:
                raise UserError(f"{key} is not a field of a config; give --{key} on the command line", "unknown-name")
        fields = convert_fields(content)
        sections = [section for section in content.values() if isinstance(section, dict)]
        for key, value in content.items():
            if not isinstance(value, dict) and any(key in section for section in sections):
                raise UserError(f"{key} is given twice, alone and in a section", "options-conflict")
    except UserError as error:
        raise UserError(f"config: {path}: {error.text}", error.code) from None
    return fields


def read_run_config(path: Path) -> dict[str, Any] | None:
    """The record in the config.json of a run; None for another file.  Raises Damaged where it was changed."""
    if path.suffix != ".json":
        return None
    with suppress(OSError, ValueError, RecursionError):
        content = json.loads(path.read_bytes())
        if isinstance(content, dict) and {"config", "data", "spec"} <= content.keys():
            record = load_json(path)
            check(path, record, RunRecord)
            return record
    return None


def of_run(config: Path, data: Path | Dataset | None, init: Path | None) -> tuple[Path | Dataset | None, Path | None]:
    """`data` and `init`, or those of the run whose config.json `config` is, where they are None."""
    record = read_run_config(config)
    if record is not None and data is None and (source := recorded_data(config.parent, record["data"]["source"])):
        data = Path(source)
    if record is not None and init is None and record.get("init"):
        init = Path(record["init"]["model"])
    return data, init


def yaml_fault(error: Exception) -> str:
    """The line and what is wrong there, without the excerpt that yaml prints over several lines."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return f"line {error.problem_mark.line + 1}: {error.problem}"
    return " ".join(str(error).split())


def open_job(
    data: Path | Dataset | None,
    asked: dict[str, Any],
    out: str | Path | None,
    init: str | Path | None,
    device: torch.device,
    display: Display,
    clock: Clock,
) -> Job:
    """Resolve the config, find the warm start, and read the images; arguments as in `train`."""
    for fault in filter(None, (dist.stray_rank(), little_memory())):
        display.say(f"note: {fault}")
    if isinstance(data, Path) and looks_like_run(data):
        text = f"{data} is a run, not images: name the images, and --out {data} to resume it or --from {data} to start"
        raise UserError(f"{text} from its weights", "no-images")
    warm_start = WarmStart.find(Path(init), Path(out) if out else None, asked) if init else None
    shape = warm_start.record["shape"] if warm_start else {}
    config, loss_file = open_loss(resolve({**shape, **asked}))
    given_loss = flatten(asked).get("loss", config.loss.loss)
    if given_loss != config.loss.loss and loss_file is None:
        display.say(f"loss {given_loss} is {config.loss.loss} here")
    with dist.first_of_each_machine(), display.doing("reading the data"):
        dataset, seconds = open_timed(data, config, display, clock)
    if seconds >= 1:
        display.say(f"preparing the images took {duration(seconds)}, which the budget of time leaves out")
    for line in describe_data(dataset):
        display.say(line)
    if note := conditioning_dropped(config, asked, dataset):
        display.say(f"note: {note}")
    config = fit_to_data(config, dataset)
    source = str(dataset.source.root) if isinstance(data, Dataset) else str(data or "embedded")
    run = Path(dist.on_first(lambda: str(out or new_run(dataset.name))))
    return Job(run, config, asked, dataset, source, warm_start, loss_file, device, display, clock)


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


def looks_like_run(folder: Path) -> bool:
    try:
        of_old = (folder / "checkpoints").is_dir() and (folder / "config.json").is_file()
        return of_old or (folder / MARKER).is_file()
    except OSError:  # reading the data reports it
        return False


def describe_data(dataset: Dataset) -> list[str]:
    """What was found, the training images of each class, the size and the parts, and the notices, a line each."""
    spec = dataset.spec
    size = f"{spec.height}x{spec.width} {({1: 'grey', 3: 'RGB', 4: 'RGBA'})[spec.channels]}"
    parts = ", ".join(f"{count:,} {name}" for name, count in dataset.counts().items() if count)
    images = f"images of {size}: {parts}"
    named = [f"{name} ({count:,})" for name, count in dataset.class_counts().items()]
    classes = f"training images by class: {shorten(named, SHOWN_CLASSES)}"
    return [dataset.understood, classes, images, *(f"note: {notice}" for notice in dataset.notices)]


def conditioning_dropped(config: Config, asked: dict[str, Any], dataset: Dataset) -> str | None:
    """A note if a conditioning was asked for, by name or by a recipe, and the data have one class."""
    conditioning = config.model.conditioning
    if dataset.spec.classes > 1 or conditioning == "none":
        return None
    given = {key for key, value in flatten(asked).items() if value is not None}
    if "conditioning" not in given and ("recipe" not in given or config.recipe == "auto"):
        return None
    return f"conditioning {conditioning} needs several classes, but the data have one: the run is unconditional"


def fit_to_data(config: Config, dataset: Dataset) -> Config:
    """The config with the split of the data, without conditioning if these have one class, and with a budget."""
    model, train = config.model, config.train
    if dataset.spec.classes == 1 and model.conditioning != "none":
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

"""The run folder: made new, or opened again by the same command; its budget, planned and extended."""

from __future__ import annotations

import json
import math
import platform
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import yaml

from ptarmigan import __version__
from ptarmigan.config import UNTRACKED, Config, Train, parse_images, parse_time, resolve
from ptarmigan.contracts import UserError
from ptarmigan.data import Dataset
from ptarmigan.files import FORMAT, save_tensors, write_atomic
from ptarmigan.state import TrainState

SETTLED = 0.05  # share of a time budget after which its end is fixed as an image count
DEFAULT_TIME = "10m"


def read_yaml(path: Path) -> dict[str, Any]:
    """Fields from a YAML file, flat or in sections; raises UserError where it is missing or is no mapping."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"config: cannot read {path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"config: {path} is no YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise UserError(f"config: {path} has to map fields to values, as `batch: 64`")
    return content


def new_run(name: str) -> Path:
    """The first runs/NAME-NUMBER that is free."""
    numbers = [path.name.removeprefix(f"{name}-") for path in Path("runs").glob(f"{name}-*")]
    return Path("runs") / f"{name}-{max((int(n) for n in numbers if n.isdecimal()), default=0) + 1}"


def open_run(run: Path, config: Config, dataset: Dataset) -> dict[str, Any] | None:
    """The record of a run that exists, None for one that does not.

    Raises UserError with the difference where it was begun with another config or other data.
    """
    if run.is_file() or (run.exists() and not (run / "config.json").exists() and any(run.iterdir())):
        raise UserError(f"{run} exists and is no run of ptarmigan: name another folder with --out")
    if not (run / "config.json").exists():
        return None
    try:
        record: dict[str, Any] = json.loads((run / "config.json").read_text(encoding="utf-8"))
        then, fingerprint = resolve(record["config"]), record["data"]["fingerprint"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{run / 'config.json'} is damaged ({error}): begin anew with another --out") from None
    old, new = {"recipe": then.recipe, **then.flat()}, {"recipe": config.recipe, **config.flat()}
    differences = [
        f"{key} {old[key]} there, {new[key]} here" for key in new if key not in UNTRACKED and old[key] != new[key]
    ]
    if fingerprint != dataset.fingerprint:
        differences.append(f"other images ({record['data']['source']} there)")
    if differences:
        raise UserError(
            f"{run} was begun otherwise: {'; '.join(differences)}. Name another --out, or give what it was begun with"
        )
    return record


def write_record(
    run: Path, config: Config, asked: dict[str, Any], dataset: Dataset, source: str, precision: str
) -> None:
    """RUN/config.json, and the split image by image in RUN/split.safetensors."""
    record = {
        "format": FORMAT,
        "asked": asked,
        "config": asdict(config),
        "spec": asdict(dataset.spec),
        "data": {"source": source, "name": dataset.name, "fingerprint": dataset.fingerprint, "split": dataset.counts()},
        "precision": precision,
        "versions": {"ptarmigan": __version__, "torch": torch.__version__, "python": platform.python_version()},
        "machine": {"system": platform.platform(), "threads": torch.get_num_threads()},
    }
    try:
        run.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"out: cannot make {run}: {error.strerror}; name another folder with --out") from None
    split = {"hashes": torch.from_numpy(dataset.hashes), "part": torch.from_numpy(dataset.part)}
    save_tensors(run / "split.safetensors", split, {})
    write_atomic(run / "config.json", (json.dumps(record, indent=2) + "\n").encode())


def plan(state: TrainState, train: Train) -> None:
    """Fix or extend the end of training, in images seen, as the budget asks.

    A time budget's end is fixed once SETTLED of it is spent, at the speed seen until then, so that schedules and
    resumes agree; the clock counts steps alone.  A finished run gets a new end after its last, and its learning
    rate starts again; an unfinished one has its last end moved.
    """
    controllers, seen = state.controllers, state.images_seen
    ends: list[int] = controllers.setdefault("ends", [])
    clock: float = controllers.setdefault("clock", 0.0)
    budget = [train.time, train.images]
    changed = controllers.get("budget") not in (None, budget)
    if ends and not changed:
        return
    seconds, images = parse_time(train.time), parse_images(train.images)
    if images is None:
        assert seconds is not None
        if changed and clock >= seconds:
            raise UserError(f"time {train.time}: {clock:.0f}s of training are done already; give a longer budget")
        controllers["budget"] = budget
        if not seen or clock < SETTLED * seconds:
            ends.clear()
            return
        images = max(seen, round(seen + seen / clock * (seconds - clock)))
    elif changed and images <= seen:
        raise UserError(f"images {train.images}: {seen:,} have been seen already; give a larger budget")
    controllers["budget"] = budget
    end = seen + math.ceil((images - seen) / train.batch) * train.batch
    if ends and seen < ends[-1]:
        ends.pop()
    ends.append(end)
